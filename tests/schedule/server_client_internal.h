/* SPDX-License-Identifier: MIT */
/* What the files of a client share: its life, its handshake, its replies. */
#ifndef TESTS_SCHEDULE_SERVER_CLIENT_INTERNAL_H
#define TESTS_SCHEDULE_SERVER_CLIENT_INTERNAL_H

#include "tests/schedule/server_client.h"

/* Fails the crew, naming the client. */
void client_fail(struct client *client, const char *what, uint64_t value);

struct client_request *client_find(const struct client *client,
    uint64_t cookie);

/* The request is over, with whatever it has for an answer. */
void client_finish(struct client *client, struct client_request *request);

/* Greets, and chooses the export.  -errno: the server hung up or refused. */
co_fn int client_shake_hands(struct client *client);

/* Begins to listen to the network; there is nothing under way. */
void client_tap(struct client *client);

/* Takes replies until the server has said its last; wakes client->waiter. */
co_fn void client_receive_all(void *client);

/* A piece of data, all of it; slowly, if the client is slow.  -errno. */
co_fn int client_receive(struct client *client, void *data, size_t length);

#endif
