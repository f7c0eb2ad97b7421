/* SPDX-License-Identifier: MIT */
/*
 * Room for the requests of a connection: how many, and how much memory.
 *
 * A request that finds no room waits, in the one coroutine that reads the
 * connection's socket, so its client is held up and nobody else.  Each is
 * counted from before its buffer is there until its reply has left; what all
 * connections have beyond their reserves comes from one budget (budget.h).
 */
#ifndef SERVER_CONNECTION_ROOM_H
#define SERVER_CONNECTION_ROOM_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/co.h"

struct connection;

/* Past these the receiver waits until a reply has left. */
#define CONNECTION_REQUESTS_MAX 64
#define CONNECTION_MEMORY_MAX (64u << 20)

/*
 * Makes room for a request of so much memory and counts it, or waits for that:
 * others' requests and sockets go on meanwhile.  -EPIPE: nobody is there to
 * answer any more.
 */
bool connection_room_take(struct connection *connection, uint64_t bytes);
co_fn int connection_room_wait(struct connection *connection, uint64_t bytes);

/* Gives back memory that a request no longer needs. */
void connection_room_put(struct connection *connection, uint64_t bytes);

/* Whoever waits is to look again: the connection is broken. */
void connection_room_wake(struct connection *connection);

#endif
