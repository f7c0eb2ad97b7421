/* SPDX-License-Identifier: MIT */
/*
 * Reads answered from the page cache without a copy; see splice.c.
 */
#ifndef SERVER_SPLICE_H
#define SERVER_SPLICE_H

#include <stdbool.h>
#include "runtime/co.h"

struct connection;
struct request;
struct task;

/* Shorter reads cost less by copying. */
#define SPLICE_READ_BYTES_MIN (16u << 10)

/* So much in the pipe leaves at once: the client has it while more is found. */
#define SPLICE_EARLY_BYTES (64u << 10)

/* Longer replies are not copied into a pipe for the sake of their order. */
#define SPLICE_REPLY_BYTES_MAX 256

/*
 * Answers the part of a read if all of it is cached data: 1, and the reply is
 * in the connection's pipe, so that connection_reply() has to follow without a
 * suspension.  0: it is to be read.  -errno.
 */
co_fn int splice_read(struct request *request);

/*
 * Puts a short reply behind the one in the pipe that it follows, which saves a
 * send.  False: it did not, and the reply is as it was.
 */
bool splice_small_reply(struct request *request);

/* Sends what the send under way has in the pipe; ends in connection_sent(). */
void splice_send(struct connection *connection);

/* The same, when the connection's operation for sending has ended. */
void splice_send_on(struct task *task);

/* Gives up the pipe if nothing is to be taken from it. */
void splice_settle(struct connection *connection);

#endif
