/* SPDX-License-Identifier: MIT */
#include "server/server.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/listener.h"
#include "runtime/log.h"
#include "server/connection.h"
#include "server/connection_watch.h"
#include "server/request.h"

#define MS_NS UINT64_C(1000000)

/* At most one line in this time about clients that found no room. */
#define REFUSED_LOG_NS (10000 * MS_NS)

/* ---- loops ---- */

static struct server_loop *
loop_of_timer(struct task *task, size_t offset)
{
	struct timer *timer = container_of(task, struct timer, task);

	return (struct server_loop *)(void *)((char *)timer - offset);
}

static void
watch_due(struct task *task)
{
	struct server_loop *server_loop = loop_of_timer(task,
	    offsetof(struct server_loop, watch));

	connection_watch_all(server_loop);
	if (server_loop->connections)
		timer_start(server_loop->loop, &server_loop->watch,
		    loop_now_ns(server_loop->loop) +
		    CONNECTION_WATCH_MS * MS_NS);
}

static void
grace_due(struct task *task)
{
	struct server_loop *server_loop = loop_of_timer(task,
	    offsetof(struct server_loop, grace));

	server_loop->closing = true;
	connection_close_idle(server_loop);
}

static void
drain_due(struct task *task)
{
	struct server_loop *server_loop = loop_of_timer(task,
	    offsetof(struct server_loop, drain));

	connection_shutdown_all(server_loop);
}

/* On loop 0. */
static void
drained(struct task *task)
{
	struct server *server = container_of(task, struct server_loop,
	    drained)->server;

	if (--server->loops_draining == 0)
		co_wake(server->drain_waiter);
}

static void
check_drained(struct server_loop *server_loop)
{
	if (!server_loop->stopping || server_loop->connections)
		return;
	timer_stop(server_loop->loop, &server_loop->grace);
	timer_stop(server_loop->loop, &server_loop->drain);
	timer_stop(server_loop->loop, &server_loop->watch);
	loop_post(server_loop->server->loops[0].loop, &server_loop->drained);
}

/* Nothing arrives after this: loop 0 had stopped accepting when it posted. */
static void
stop(struct task *task)
{
	struct server_loop *server_loop = container_of(task,
	    struct server_loop, stop);
	uint64_t now_ns = loop_now_ns(server_loop->loop);

	server_loop->stopping = true;
	connection_stop_all(server_loop);
	timer_start(server_loop->loop, &server_loop->grace,
	    now_ns + SERVER_GRACE_MS * MS_NS);
	timer_start(server_loop->loop, &server_loop->drain,
	    now_ns + SERVER_DRAIN_MS * MS_NS);
	check_drained(server_loop);
}

void
server_free_place(struct server *server)
{
	atomic_fetch_sub(&server->connections_count, 1);
}

void
server_loop_left(struct server_loop *server_loop)
{
	struct server *server = server_loop->server;

	atomic_fetch_sub(&server_loop->connections_count, 1);
	if (server->one_waiter)
		co_wake(server->one_waiter);
	check_drained(server_loop);
}

/* ---- threads ---- */

static void
drain_requests(void *arg)
{
	request_drain(arg);
}

static int
start_loop_thread(struct server_loop *server_loop, unsigned index)
{
	int err = loop_thread_start(&server_loop->thread, index,
	    server_loop->server->loops_count, drain_requests, server_loop);

	if (!err)
		server_loop->loop = server_loop->thread.loop;
	return err;
}

static void
end_loop_threads(struct server *server, unsigned count)
{
	for (unsigned i = 1; i < count; i++)
		loop_thread_end(&server->loops[i].thread);
}

/* Everything but the loops themselves. */
static int
init(struct server *server, unsigned loops_count,
    const struct server_limits *limits)
{
	assert(loops_count > 0 && loops_count <= SERVER_LOOPS_MAX);
	*server = (struct server){
		.loops_count = loops_count,
		.limits = *limits,
	};
	server->loops = calloc(loops_count, sizeof(*server->loops));
	if (!server->loops)
		return -ENOMEM;
	budget_init(&server->budget, limits->memory_bytes);
	for (unsigned i = 0; i < loops_count; i++) {
		struct server_loop *server_loop = &server->loops[i];

		server_loop->server = server;
		server_loop->watch.task.run = watch_due;
		server_loop->grace.task.run = grace_due;
		server_loop->drain.task.run = drain_due;
		server_loop->stop.run = stop;
		server_loop->drained.run = drained;
	}
	return 0;
}

int
server_init(struct server *server, unsigned loops_count,
    const struct server_limits *limits)
{
	int err = init(server, loops_count, limits);

	if (err)
		return err;
	server->owns_loops = true;
	err = loop_create(loops_count, &server->loops[0].loop);
	if (err)
		goto free_loops;
	for (unsigned i = 1; i < loops_count; i++) {
		err = start_loop_thread(&server->loops[i], i);
		if (err) {
			end_loop_threads(server, i);
			goto free_first;
		}
	}
	return 0;
free_first:
	loop_free(server->loops[0].loop);
free_loops:
	budget_destroy(&server->budget);
	free(server->loops);
	server->loops = NULL;
	return err;
}

int
server_init_on(struct server *server, struct loop *const *loops,
    unsigned loops_count, const struct server_limits *limits)
{
	int err = init(server, loops_count, limits);

	if (err)
		return err;
	for (unsigned i = 0; i < loops_count; i++)
		server->loops[i].loop = loops[i];
	return 0;
}

void
server_destroy(struct server *server)
{
	if (server->owns_loops) {
		end_loop_threads(server, server->loops_count);
		request_drain(&server->loops[0]);
		loop_free(server->loops[0].loop);
	} else {
		for (unsigned i = 0; i < server->loops_count; i++)
			request_drain(&server->loops[i]);
	}
	budget_destroy(&server->budget);
	free(server->loops);
	server->loops = NULL;
}

/* ---- clients ---- */

static void
log_refused(struct server *server)
{
	uint64_t now_ns = loop_now_ns(server->loops[0].loop);

	atomic_fetch_add(&server->connections_refused, 1);
	if (server->refused_logged_ns != 0 &&
	    now_ns - server->refused_logged_ns < REFUSED_LOG_NS)
		return;
	server->refused_logged_ns = now_ns;
	log_warning("a client was turned away: all %u connections are taken "
	    "(--max-connections) refused=%lu", server->limits.connections_max,
	    atomic_load(&server->connections_refused));
}

static struct server_loop *
least_busy_loop(struct server *server)
{
	struct server_loop *least = &server->loops[0];
	unsigned least_count = atomic_load(&least->connections_count);

	for (unsigned i = 1; i < server->loops_count; i++) {
		struct server_loop *server_loop = &server->loops[i];
		unsigned count = atomic_load(&server_loop->connections_count);

		if (count < least_count) {
			least = server_loop;
			least_count = count;
		}
	}
	return least;
}

/*
 * Only loop 0 lets in, so the counts can only shrink behind its back.  False:
 * fd is closed.
 */
static bool
let_in(struct server *server, int fd)
{
	struct loop *loop = server->loops[0].loop;
	struct server_loop *server_loop;

	if (atomic_load(&server->connections_count) >=
	    server->limits.connections_max) {
		loop_close_fd(loop, fd);
		log_refused(server);
		return false;
	}
	server_loop = least_busy_loop(server);
	atomic_fetch_add(&server->connections_count, 1);
	atomic_fetch_add(&server_loop->connections_count, 1);
	if (!connection_start(server_loop, fd))
		return true;
	server_free_place(server);
	atomic_fetch_sub(&server_loop->connections_count, 1);
	loop_close_fd(loop, fd);
	log_error("out of memory for a client");
	return false;
}

void
server_serve_one(struct server *server, int fd)
{
	server->one_waiter = co_self();
	if (let_in(server, fd))
		co_suspend();
	server->one_waiter = NULL;
}

struct acceptor {
	struct co_start start;
	struct server *server;
	struct listener *listener;
};

static co_fn void
acceptor_run(void *arg)
{
	struct acceptor *acceptor = arg;
	struct server *server = acceptor->server;
	struct listener *listener = acceptor->listener;

	free(acceptor);
	for (;;) {
		int fd = listener_accept(listener);

		if (fd >= 0) {
			let_in(server, fd);
		} else if (fd != -EAGAIN) {
			if (fd != -ECANCELED)
				log_error("no more clients are accepted "
				    "on=\"%s\" error=%s", listener->name,
				    strerror(-fd));
			break;
		}
	}
	group_leave(&server->acceptors);
}

int
server_accept(struct server *server, struct listener *listeners)
{
	for (struct listener *listener = listeners; listener;
	    listener = listener->next) {
		struct acceptor *acceptor = calloc(1, sizeof(*acceptor));

		if (!acceptor)
			return -ENOMEM;
		acceptor->server = server;
		acceptor->listener = listener;
		group_enter(&server->acceptors);
		co_start(&acceptor->start, acceptor_run, acceptor);
	}
	return 0;
}

void
server_accept_end(struct server *server, struct listener *listeners)
{
	for (struct listener *listener = listeners; listener;
	    listener = listener->next)
		listener_stop(listener);
	group_wait(&server->acceptors);
}

void
server_drain(struct server *server)
{
	assert(server->acceptors.running == 0);
	server->drain_waiter = co_self();
	server->loops_draining = server->loops_count;
	for (unsigned i = 0; i < server->loops_count; i++)
		loop_post(server->loops[i].loop, &server->loops[i].stop);
	co_suspend();
}
