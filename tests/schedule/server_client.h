/* SPDX-License-Identifier: MIT */
/*
 * A client of a site: it speaks NBD, byte by byte, on a simulated socket.
 *
 * What it asks and what it is answered goes to the crew's record and oracle,
 * numbered at the network: a request when its header has reached the server, a
 * reply when its (last) header has reached the client, read or not; that is
 * the latest and the earliest moment that count.  Inside of TLS, where the
 * network shows nothing, it is when the one is sent and the other is read.
 * Every reply is held against the protocol, and every read and block status
 * against the oracle; what is wrong becomes the crew's failure.  All of a
 * client's coroutines live on the clients' loop.
 */
#ifndef TESTS_SCHEDULE_SERVER_CLIENT_H
#define TESTS_SCHEDULE_SERVER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/reply.h"
#include "proto/request.h"
#include "runtime/sim.h"
#include "runtime/sock.h"
#include "tests/schedule/server_site.h"

struct client_options {
	unsigned number;	/* what the record calls it */
	bool export_name;	/* instead of GO */
	bool zeroes;		/* wants the padding of EXPORT_NAME */
	bool structured;	/* replies, and then base:allocation */
	bool extended;		/* headers; structured is true, too */
	bool curious;		/* tries other options first */
	bool fickle;		/* and chooses no export after all */
	bool tls;		/* the site must have it */
	bool vanishes;		/* in the middle of the handshake of TLS */
	bool slow;		/* takes replies late and in small pieces */
	bool alone;		/* the export's only client, so that its end
				 * of the stream is as good as a flush */
};

/* The caller's memory until it is done or its client has left. */
struct client_request {
	struct nbd_request wire;	/* cookie: client_queue() sets it */
	uint64_t value;			/* what a write writes */
	uint32_t expected;		/* error; the oracle is not told then */

	/* Results. */
	bool received;		/* its header has reached the server */
	bool replied;		/* its last header has reached the client */
	bool done;		/* and the client has read all of it */
	uint32_t error;

	/* Private. */
	struct client_request *next;
	uint8_t *data;
	size_t data_bytes;	/* that came */
	unsigned chunks;	/* with content */
	size_t record_index;
	size_t oracle_index;
};

/* A stream of headers and payloads that the tap follows. */
struct client_stream {
	uint8_t header[NBD_REPLY_HEADER_BYTES_MAX];
	size_t have;
	uint64_t skip;		/* bytes of payload before the next header */
};

struct client_tls;

struct client {
	struct client_options options;
	struct site *site;
	struct sock sock;
	uint16_t flags;			/* transmission flags */
	bool ended;			/* the server has said its last */
	bool ended_well;		/* after a whole reply, if any */
	bool alerted;			/* by an alert of TLS */
	bool leaves;			/* and was asked to, or cut off */

	/* Private. */
	struct client_request *in_flight;	/* oldest first */
	unsigned in_flight_count;
	struct client_tls *tls;		/* since STARTTLS */
	size_t out_bytes;
	size_t out_room;
	uint8_t *out;
	struct co_start receiver_start;
	struct co *waiter;
	struct sim_tap tap;
	struct client_stream requests;
	struct client_stream replies;
};

/*
 * Connects and shakes hands, to the first request.  -errno: the server is
 * gone, or going, or -ECONNABORTED: the client was fickle, or vanished; then
 * there is nothing to leave.
 */
co_fn int client_connect(struct client *client, struct site *site,
    const struct client_options *options);

/* Puts a request behind those that wait for client_push(). */
void client_queue(struct client *client, struct client_request *request);

/*
 * Sends all that is queued but for the last hold_back bytes, which the next
 * push sends.  Reaching the server takes its time: nothing is known then.
 */
co_fn void client_push(struct client *client, size_t hold_back);

/* Until the request is done; false: the connection has ended before. */
co_fn bool client_wait(struct client *client, struct client_request *request);

/* Until at most count are in flight; false: the connection has ended. */
co_fn bool client_wait_until(struct client *client, unsigned count);

/* Queues, pushes and waits for one request that must work. */
co_fn void client_do(struct client *client, uint16_t type, uint64_t offset,
    uint64_t length, uint64_t value, uint16_t flags);

enum client_end {
	CLIENT_DISC,		/* everything in flight is to be answered */
	CLIENT_HALF_CLOSE,	/* the same: it only sends no more */
	CLIENT_ABRUPT,		/* nothing is known of what is in flight */
	CLIENT_GARBLED,		/* the same: TLS fails, and says so */
};

/* Until the connection has ended; the client may connect again then. */
co_fn void client_leave(struct client *client, enum client_end end);

#endif
