/* SPDX-License-Identifier: MIT */
/*
 * What stream.c and stream_reply.c share: one connection's state.
 */
#ifndef BENCH_STREAM_INTERNAL_H
#define BENCH_STREAM_INTERNAL_H

#include <sys/uio.h>
#include "bench/stream.h"
#include "proto/reply.h"
#include "proto/request.h"

/* The longest piece that must be whole to be parsed: an error chunk. */
#define CARRY_BYTES_MAX		NBD_REPLY_ERROR_OFFSET_BYTES_MAX

/* The slot's number is in the low bits of a cookie, a count above them. */
#define COOKIE_SLOT_BITS	16
#define COOKIE_SLOT_MASK	((1u << COOKIE_SLOT_BITS) - 1)

/* A request in flight. */
struct slot {
	struct workload_request request;
	struct nbd_request wire;	/* cookie 0: the slot is free */
	uint64_t sent_ns;
	uint32_t received_bytes;	/* of a structured reply's content */
	uint32_t error;
	uint8_t *data;			/* NULL unless verified */
};

struct stream {
	const struct stream_shared *shared;
	int fd;
	bool structured;
	bool discards;			/* the socket knows MSG_TRUNC */
	bool broken;
	unsigned depth;
	struct slot *slots;
	uint8_t *slot_data;		/* of all slots, or NULL */
	uint64_t cookies;		/* how many were given out */

	/* A stack: the slot used last is the one in the cache. */
	unsigned free_count;
	uint16_t free_slots[STREAM_DEPTH_MAX];

	/* The batch on its way out. */
	uint8_t headers[STREAM_DEPTH_MAX * NBD_REQUEST_BYTES];
	struct iovec parts[2 * STREAM_DEPTH_MAX];
	unsigned part_next, part_count;

	/* The reply whose payload is coming in. */
	struct slot *receiving;
	size_t payload_bytes;		/* still to come */
	uint8_t *payload_to;		/* NULL: nowhere */
	bool payload_last;		/* the request is done after it */
	uint64_t received_ns;

	size_t carry_bytes;
	uint8_t carry[CARRY_BYTES_MAX];
};

/*
 * Walks over bytes that have come, and carries what is cut off at their end.
 * 0, or -EBADMSG if the server broke the protocol.
 */
int stream_walk(struct stream *stream, const uint8_t *in, size_t bytes);

#endif
