/* SPDX-License-Identifier: MIT */
/*
 * A request: from the parsed header to a reply that is ready to be sent.
 *
 * Its memory comes from a list of its loop's and holds all that it needs but
 * the payload: the start of its coroutine, the reply's headers, the iovecs.
 */
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

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

/* The longest head: an error chunk with one of our messages. */
#define REQUEST_HEAD_BYTES 128

/* Extents in one reply to BLOCK_STATUS; clients ask again for the rest. */
#define REQUEST_EXTENTS_MAX 8192u

/* Requests that a loop keeps for reuse. */
#define REQUESTS_FREE_MAX 256

struct request {
	struct request *next;	/* free, reply ready, or being sent */
	struct connection *connection;
	struct co_start start;
	struct nbd_request wire;
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

/* Bytes of buffer that carrying it out will take. */
uint64_t request_memory(const struct nbd_request *wire);

/*
 * The coroutine of a request that nbd_request_check() passed; of a write, the
 * payload is in data.  Its last act is connection_reply().
 */
co_fn void request_run(void *request);

/* Begins the reply to a read: what stands in front of all of its data. */
void request_add_data_head(struct request *request);

/* Makes an error its reply, without a coroutine: connection_reply() is next. */
void request_fail(struct request *request, uint32_t error);

#endif
