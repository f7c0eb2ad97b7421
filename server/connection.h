/* SPDX-License-Identifier: MIT */
/*
 * A connection: one client, from the greeting to the last reply.
 *
 * It has at most one coroutine of its own at a time: the handshake, then (only
 * while there are bytes to look at) the receiver, at last the one that ends
 * it.  An idle connection has none, and no buffer: one pooled receive is
 * armed.  Each request is a coroutine besides.  Everything lives on one loop.
 *
 * The connection is gone when its input is over, no request is in flight and
 * no coroutine of its own runs.  connection_settle() watches for that, and may
 * free it: nothing of the connection is touched after it.
 */
#ifndef SERVER_CONNECTION_H
#define SERVER_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/request.h"
#include "runtime/co.h"
#include "runtime/loop.h"
#include "runtime/sock.h"
#include "server/budget.h"

struct export;
struct request;
struct server_loop;
struct pipe_waiter;
struct splice_pipe;
struct tls_session;

/* What one gathered send holds at most; a single reply may be longer. */
#define CONNECTION_SEND_IOV_MAX 128
#define CONNECTION_SEND_BYTES_MAX (4u << 20)

/* Lines in the log about clients that chose no export, for each loop. */
#define CONNECTION_STRANGERS_MAX 10
#define CONNECTION_STRANGERS_MS 10000

struct request_list {
	struct request *first;
	struct request *last;
};

struct connection {
	struct connection *next;	/* of its loop's list */
	struct connection *previous;
	struct server_loop *server_loop;
	struct sock sock;
	struct tls_session *tls;	/* since STARTTLS, or NULL */
	struct export *export;		/* NULL during the handshake */
	struct nbd_terms terms;		/* of the handshake, or a RESIZE */
	struct co_start start;		/* of its own coroutine */
	struct task arrival;		/* on the way to its loop */
	int arrival_fd;

	/* Input. */
	struct op receive;		/* the pooled receive */
	struct co *room_waiter;		/* the receiver, short of room */
	struct budget_waiter budget_waiter;	/* its place in the queue */
	uint8_t partial[NBD_REQUEST_BYTES_MAX];	/* a header cut in two */
	uint8_t partial_bytes;
	bool payload_awaited;		/* by one of the requests in flight */
	bool input_over;
	bool broken;			/* nothing can be sent any more */
	bool ending;

	/* Output. */
	bool flush_queued;
	struct task flush;
	struct op send;
	struct request_list replies;	/* ready to be sent */
	struct request_list sending;	/* in the send under way */
	struct iovec *unsent_iov;	/* TLS: of the send under way, in the */
	unsigned unsent_iov_count;	/* clear, what is not encrypted yet */
	struct iovec tls_iov;		/* and the piece that is */
	struct splice_pipe *pipe;	/* while replies are in it */
	uint64_t spliced_left;		/* bytes of the send in the pipe */
	struct pipe_waiter *pipe_waiters;	/* see splice.c */
	uint64_t sends;			/* how many were started */
	uint64_t watched_sends;		/* the same at the last look */
	unsigned watched_looks;		/* looks since it last changed */
	uint64_t hoard_progress;	/* of bytes, at the last look */
	unsigned hoard_looks;		/* looks since it last changed */

	unsigned requests_in_flight;	/* parsed, reply not sent yet */
	uint64_t memory_in_flight;	/* bytes of their buffers */
	uint64_t budget_bytes;		/* what of it the server's budget has */

	/* For the log. */
	struct sock_peer peer;
	uint64_t started_ns;
	uint64_t requests_count;
	uint64_t bytes_read;
	uint64_t bytes_written;
	const char *why_ended;		/* the first reason stands */

	struct iovec send_iov[CONNECTION_SEND_IOV_MAX];
};

/*
 * Hands a new client's descriptor to a loop, whose count it is in already.
 * Callable from any thread.  -ENOMEM: the caller still owns fd.
 */
int connection_start(struct server_loop *server_loop, int fd);

/* For every connection of the calling loop: */
void connection_stop_all(struct server_loop *server_loop);	/* begin */
void connection_close_idle(struct server_loop *server_loop);	/* grace over */
void connection_shutdown_all(struct server_loop *server_loop);	/* time over */

/* ---- among the files that serve a client ---- */

/* Remembers why it ends, unless there is a reason already. */
void connection_note(struct connection *connection, const char *why);

/* Nothing can be sent any more: input ends, replies are dropped. */
void connection_break(struct connection *connection, const char *why);

/* Once the server closes: ends it if no request is in flight. */
void connection_close_if_idle(struct connection *connection);

/* See above. */
void connection_settle(struct connection *connection);

#endif
