/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the server step by step begin with: an image, a server and
 * clients who ask one thing after another.  Whatever goes wrong here ends the
 * test as failed.
 */
#ifndef TESTS_SCHEDULE_SERVER_PLAY_H
#define TESTS_SCHEDULE_SERVER_PLAY_H

#include "tests/schedule/server_client.h"

#define CLUSTER 65536u
#define DISK_BYTES (128u << 20)

/* Long enough for whatever is under way and is not held. */
#define PAUSE_NS 3000000000ull

/* Later than whatever a test does first; when the server stops meanwhile. */
#define STOP_NS 60000000000ull

/* How often a test runs, and one that moves many bytes. */
#define SEEDS 8
#define SEEDS_FEW 2

/* From an empty image to its clean end; stop_after_ns as in struct site. */
void play_site(uint64_t seed, void (*visit)(struct site *site),
    uint64_t stop_after_ns);

/* Connects a client who takes structured replies. */
co_fn void play_join(struct client *client, struct site *site,
    unsigned number);

struct client_request play_request(uint16_t type, uint64_t offset,
    uint64_t length, uint64_t value);

/* Sends the request, and waits for its reply. */
co_fn void play_ask(struct client *client, struct client_request *request);
co_fn void play_finish(struct client *client,
    struct client_request *request);

co_fn void play_on(void);

/* The connection that came last on the one loop that has any. */
const struct connection *play_connection(const struct site *site);

#endif
