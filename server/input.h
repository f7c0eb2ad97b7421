/* SPDX-License-Identifier: MIT */
/*
 * Input: the bytes of a client that have arrived and are not parsed yet.
 *
 * Of a plain connection they stand in the pooled buffer that they arrived in.
 * Of one with TLS that holds what is encrypted, and here is one record after
 * the other in the clear.  A pooled buffer belongs to all connections of the
 * loop, so input_detach() comes before any suspension.
 */
#ifndef SERVER_INPUT_H
#define SERVER_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"

struct connection;

struct input {
	struct connection *connection;
	const uint8_t *next;
	size_t left;
	uint8_t *copy;		/* of them, if they had to leave the buffer */
	uint8_t *record;	/* TLS: room for one, from buf_get() */
};

/* Begins with what the connection's receive brought.  -ENOMEM. */
int input_begin(struct input *input, struct connection *connection);
void input_end(struct input *input);

/*
 * Once nothing is left: whether there is more that has arrived, 1 or 0.
 * -errno: nothing can follow.
 */
int input_more(struct input *input);

/* Takes at most bytes; how many. */
size_t input_take(struct input *input, void *target, size_t bytes);

/* Passes over at most bytes; how many. */
size_t input_skip(struct input *input, size_t bytes);

/* Before a suspension: what is left is kept.  -ENOMEM. */
int input_detach(struct input *input);

/* Receives bytes behind those that are left, of which there are none. */
co_fn int input_receive(struct input *input, void *target, size_t bytes);

#endif
