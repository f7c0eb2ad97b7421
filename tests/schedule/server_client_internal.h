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

/* ---- what goes through TLS where there is TLS ---- */

co_fn int client_send(struct client *client, const void *bytes, size_t count);

/* As sock_recv_exact(); -ECONNABORTED: it was ended by an alert. */
co_fn int client_receive_exact(struct client *client, void *data,
    size_t length);

/* After STARTTLS.  -ECONNABORTED also if the client is to vanish meanwhile. */
co_fn int client_start_tls(struct client *client);

/* Says that nothing will follow. */
co_fn int client_end_tls(struct client *client);

/* Sends a last record: cut anywhere, or else with a byte that is wrong. */
co_fn void client_spoil_tls(struct client *client, bool cut);

/* Fine without any. */
void client_free_tls(struct client *client);

#endif
