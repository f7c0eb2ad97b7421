/* SPDX-License-Identifier: MIT */
/*
 * The server: its loops, the clients it lets in, and how it stops.
 *
 * Loop 0 is the main thread's; it accepts, and hands each client to the loop
 * with the fewest.  A connection lives on one loop and takes no lock; what
 * loops share are the exports (read only) and two counters.
 *
 * Stopping: listeners close, requests under way end, later ones are answered
 * with ESHUTDOWN (options with ERR_SHUTDOWN).  After SERVER_GRACE_MS idle
 * connections are closed and busy ones when their last reply has left; after
 * SERVER_DRAIN_MS every socket is shut down.
 */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include "runtime/co.h"
#include "runtime/loop.h"
#include "runtime/loop_thread.h"
#include "runtime/monitor.h"
#include "runtime/sock.h"
#include "server/budget.h"
#include "server/export.h"

struct allow_list;
struct connection;
struct listener;
struct request;
struct tls;

#define SERVER_LOOPS_MAX 64
#define SERVER_CONNECTIONS_MAX 1024	/* unless told otherwise */

/*
 * The most that may be told: each may hold a coroutine while it waits for room
 * or for a payload, and as many must be left for requests.
 */
#define SERVER_CONNECTIONS_LIMIT (CO_ALIVE_MAX / 2)
#define SERVER_GRACE_MS 1000
#define SERVER_DRAIN_MS 10000

/* What clients may take, and how long; see SERVER_LIMITS_DEFAULT. */
struct server_limits {
	unsigned connections_max;
	unsigned export_connections_max;	/* of each export; 0: all */
	uint64_t memory_bytes;		/* for payloads, see budget.h */
	unsigned handshake_s;		/* from the first byte to GO */
	unsigned send_s;		/* for one send */
	unsigned dead_peer_s;		/* see sock_set_dead_peer() */
};

#define SERVER_LIMITS_DEFAULT { \
	.connections_max = SERVER_CONNECTIONS_MAX, \
	.memory_bytes = SERVER_MEMORY_BYTES, \
	.handshake_s = 10, \
	.send_s = 60, \
	.dead_peer_s = SOCK_DEAD_PEER_S, \
}
#define SERVER_MEMORY_BYTES (UINT64_C(1) << 30)
#define SERVER_SECONDS_MAX (24 * 60 * 60)

/* One loop's part; touched by its own thread only, but for the counter. */
struct server_loop {
	struct server *server;
	struct loop *loop;
	struct loop_thread thread;	/* of all but loop 0 */
	atomic_uint connections_count;	/* those on the way here, too */
	struct connection *connections;
	struct request *requests_free;
	unsigned requests_free_count;
	uint64_t strangers_since_ns;
	unsigned strangers_count;	/* that chose no export since then */
	bool stopping;
	bool closing;			/* the grace is over */
	struct timer watch;		/* looks for stuck sends */
	struct timer grace;
	struct timer drain;
	struct task stop;
	struct task drained;		/* posted to loop 0 */
};

struct server {
	struct export_table exports;
	struct tls *tls;	/* NULL: there is none */
	bool tls_is_optional;	/* for some exports */
	const struct allow_list *allow;	/* set with tls */
	bool owns_loops;	/* and their threads */
	unsigned loops_count;
	struct server_loop *loops;
	struct server_limits limits;
	struct budget budget;
	atomic_uint connections_count;
	atomic_ulong connections_refused;
	uint64_t refused_logged_ns;	/* loop 0 only */
	struct group acceptors;		/* loop 0 only */
	struct co *one_waiter;		/* see server_serve_one() */
	unsigned loops_draining;
	struct co *drain_waiter;
};

/*
 * Makes the calling thread's loop and loops_count - 1 threads with one each.
 * -errno if one cannot be made; then none is left.
 */
int server_init(struct server *server, unsigned loops_count,
    const struct server_limits *limits);

/*
 * The same on loops that are there already, which the caller runs and frees;
 * they may be a simulator's.  -ENOMEM.
 */
int server_init_on(struct server *server, struct loop *const *loops,
    unsigned loops_count, const struct server_limits *limits);

/* Starts to accept from every listener of the list; on loop 0.  -ENOMEM. */
int server_accept(struct server *server, struct listener *listeners);

/*
 * Serves the client on fd, a socket that it takes, and nobody else; returns
 * when that has left.  On loop 0.
 */
co_fn void server_serve_one(struct server *server, int fd);

/* Returns when none of the listeners is used any more; on loop 0. */
co_fn void server_accept_end(struct server *server,
    struct listener *listeners);

/* The rest of stopping: returns when no connection is left; on loop 0. */
co_fn void server_drain(struct server *server);

/* Ends the threads and frees the loops it has made; loop 0 runs no more. */
void server_destroy(struct server *server);

/* ---- for connection.c ---- */

/* One more may come, though one of those there is still on its way out. */
void server_free_place(struct server *server);

/* A connection of loop is gone; the caller has freed it. */
void server_loop_left(struct server_loop *server_loop);

#endif
