/* SPDX-License-Identifier: MIT */
/*
 * A request: from the parsed header to a reply that is ready to be sent.
 *
 * Its memory comes from a list of its loop's and holds all that it needs but
 * the payload: the start of its coroutine, the reply's headers, the iovecs.
 *
 * A long read is answered part by part, and other replies go in between.  Each
 * part but the last is carried by a request of its own, which has an owner.
 */
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "proto/reply.h"
#include "proto/request.h"
#include "runtime/co.h"

struct connection;
struct server_loop;

/* Runs of zeros that one reply leaves out; more are sent as data. */
#define REQUEST_HOLES_MAX 14
#define REQUEST_IOV_MAX (REQUEST_HOLES_MAX + 2)

/* The longest text of an error. */
#define REQUEST_TEXT_BYTES 384

/* The longest head: an error chunk with such a text, and an offset. */
#define REQUEST_HEAD_BYTES (NBD_REPLY_HEADER_BYTES_MAX + \
    NBD_REPLY_ERROR_FIXED_BYTES + REQUEST_TEXT_BYTES + 8)

/* Requests that a loop keeps for reuse. */
#define REQUESTS_FREE_MAX 256

struct request {
	struct request *next;	/* free, reply ready, or being sent */
	struct connection *connection;
	struct co_start start;
	struct nbd_request wire;
	uint64_t contexts;	/* of a BLOCK_STATUS; see struct nbd_terms */

	/* Of a read: what this reply is about. */
	uint64_t part_offset;
	uint32_t part_bytes;
	uint16_t part_flags;	/* NBD_REPLY_FLAG_DONE with the last one */
	struct request *owner;	/* whose part it carries, or NULL */
	unsigned parts_out;	/* of the owner: carried, and not sent yet */
	struct co *parts_waiter;

	/* What is known of an error. */
	const char *why;	/* or NULL */
	bool failed_at_known;
	uint64_t failed_at;

	void *data;		/* from buf_get(data_bytes), or NULL */
	size_t data_bytes;
	uint64_t memory;	/* its part of memory_in_flight */
	unsigned iov_count;	/* the reply, once it is ready */
	struct iovec iov[REQUEST_IOV_MAX];
	uint64_t spliced_bytes;	/* of the reply, behind iov, in the pipe */
	uint8_t head[REQUEST_HEAD_BYTES];
};

/* NULL if there is no memory. */
struct request *request_get(struct server_loop *server_loop);

/* Frees its data and keeps it for reuse; own loop only. */
void request_put(struct server_loop *server_loop, struct request *request);

/* Frees what the calling loop keeps. */
void request_drain(struct server_loop *server_loop);

/* Bytes of buffer that carrying it out will take at once. */
uint64_t request_memory(const struct nbd_request *wire,
    const struct nbd_terms *terms);

/*
 * The coroutine of a request that nbd_request_check() passed; of a write, the
 * payload is in data.  Its last act is connection_reply().
 */
co_fn void request_run(void *request);

/*
 * Makes an error its reply, without a coroutine: connection_reply() is next.
 * Chunks tell a person request->why, or what else is known.
 */
void request_fail(struct request *request, uint32_t error);

/* A part has left, or never will: its owner may go on. */
void request_part_sent(struct request *owner);

/* ---- among the files that carry requests out ---- */

/* A buffer for its payload, which request_put() frees.  -ENOMEM. */
int request_get_data(struct request *request, size_t bytes);

/* The payload is done with before its reply has left. */
void request_release_data(struct request *request);

/* Adds to the reply. */
void request_add_iov(struct request *request, void *data, size_t bytes);

#endif
