/* SPDX-License-Identifier: MIT */
/* The life of a connection, and how all of them end when the server stops. */
#include "server/connection.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "runtime/log.h"
#include "server/channel.h"
#include "server/connection_room.h"
#include "server/connection_watch.h"
#include "server/export.h"
#include "server/handshake.h"
#include "server/receive.h"
#include "server/server.h"
#include "server/tls_session.h"

void
connection_note(struct connection *connection, const char *why)
{
	if (!connection->why_ended)
		connection->why_ended = why;
}

/* ---- the beginning ---- */

static co_fn void
begin_run(void *arg)
{
	struct connection *connection = arg;
	int err = handshake_run(connection);

	if (!err) {
		sock_set_deadline(&connection->sock, SOCK_RECV | SOCK_SEND, 0);
		receive_start(connection);
		return;
	}
	connection->input_over = true;
	connection_settle(connection);
}

static void
link_connection(struct connection *connection)
{
	struct server_loop *server_loop = connection->server_loop;

	connection->next = server_loop->connections;
	if (connection->next)
		connection->next->previous = connection;
	server_loop->connections = connection;
}

/* First thing on its own loop. */
static void
arrive(struct task *task)
{
	struct connection *connection = container_of(task, struct connection,
	    arrival);
	struct server_loop *server_loop = connection->server_loop;
	const struct server_limits *limits = &server_loop->server->limits;

	sock_open(&connection->sock, connection->arrival_fd);
	if (limits->dead_peer_s != SOCK_DEAD_PEER_S)
		sock_set_dead_peer(&connection->sock, limits->dead_peer_s);
	sock_describe(&connection->sock, &connection->peer);
	connection->started_ns = loop_now_ns(server_loop->loop);
	sock_set_deadline(&connection->sock, SOCK_RECV | SOCK_SEND,
	    connection->started_ns + limits->handshake_s *
	    UINT64_C(1000000000));
	link_connection(connection);
	if (!server_loop->watch.running)
		timer_start(server_loop->loop, &server_loop->watch,
		    connection->started_ns +
		    CONNECTION_WATCH_MS * UINT64_C(1000000));
	log_debug("client came peer=\"%s\"", connection->peer.name);
	co_start(&connection->start, begin_run, connection);
}

int
connection_start(struct server_loop *server_loop, int fd)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		return -ENOMEM;
	connection->server_loop = server_loop;
	connection->arrival_fd = fd;
	connection->arrival.run = arrive;
	loop_post(server_loop->loop, &connection->arrival);
	return 0;
}

/* ---- the end ---- */

/*
 * Whoever can connect can do so thousands of times a second: those that never
 * get to an export are told of one by one only as long as they are few.
 */
static bool
may_log_stranger(struct server_loop *server_loop)
{
	uint64_t now_ns = loop_now_ns(server_loop->loop);

	if (now_ns - server_loop->strangers_since_ns >=
	    CONNECTION_STRANGERS_MS * UINT64_C(1000000)) {
		if (server_loop->strangers_count > CONNECTION_STRANGERS_MAX)
			log_info("more clients left before choosing an export "
			    "count=%u", server_loop->strangers_count -
			    CONNECTION_STRANGERS_MAX);
		server_loop->strangers_since_ns = now_ns;
		server_loop->strangers_count = 0;
	}
	return server_loop->strangers_count++ < CONNECTION_STRANGERS_MAX;
}

static void
log_end(const struct connection *connection)
{
	uint64_t lasted_ms = (loop_now_ns(connection->server_loop->loop) -
	    connection->started_ns) / 1000000;
	char name[256];

	if (!connection->export) {
		if (!may_log_stranger(connection->server_loop))
			return;
		log_info("client left before choosing an export peer=\"%s\" "
		    "seconds=%" PRIu64 ".%03u why=\"%s\"",
		    connection->peer.name, lasted_ms / 1000,
		    (unsigned)(lasted_ms % 1000), connection->why_ended);
		return;
	}
	log_quote(name, sizeof(name), connection->export->name,
	    (int)strlen(connection->export->name));
	log_info("client left peer=\"%s\" export=\"%s\" requests=%" PRIu64
	    " read=%" PRIu64 " written=%" PRIu64 " seconds=%" PRIu64
	    ".%03u why=\"%s\"", connection->peer.name, name,
	    connection->requests_count, connection->bytes_read,
	    connection->bytes_written, lasted_ms / 1000,
	    (unsigned)(lasted_ms % 1000), connection->why_ended);
}

static void
unlink_connection(struct connection *connection)
{
	struct server_loop *server_loop = connection->server_loop;

	if (connection->previous)
		connection->previous->next = connection->next;
	else
		server_loop->connections = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
}

/*
 * The socket closes after that: a client that waits for the end of the stream
 * knows then that what it wrote is stable, and that there is a place for it.
 */
static co_fn void
end_run(void *arg)
{
	struct connection *connection = arg;
	struct server_loop *server_loop = connection->server_loop;

	assert(connection->requests_in_flight == 0);
	assert(connection->memory_in_flight == 0);
	assert(connection->budget_bytes == 0);
	if (connection->export)
		export_leave(connection->export);
	server_free_place(server_loop->server);
	channel_close(connection);
	log_end(connection);
	unlink_connection(connection);
	tls_session_free(connection->tls);
	free(connection);
	server_loop_left(server_loop);
}

void
connection_settle(struct connection *connection)
{
	if (!connection->input_over || connection->requests_in_flight > 0 ||
	    connection->flush_queued || connection->ending ||
	    channel_is_sending(connection))
		return;
	connection->ending = true;
	co_start(&connection->start, end_run, connection);
}

void
connection_break(struct connection *connection, const char *why)
{
	connection_note(connection, why);
	connection->broken = true;
	sock_shutdown(&connection->sock);
	connection_room_wake(connection);
}

/* ---- the server stops ---- */

/* Nothing is under way that the server itself could bring to an end. */
static bool
is_idle(const struct connection *connection)
{
	return connection->requests_in_flight ==
	    (connection->payload_awaited ? 1 : 0);
}

void
connection_close_if_idle(struct connection *connection)
{
	if (!is_idle(connection))
		return;
	connection_note(connection, "server is shutting down");
	sock_shutdown(&connection->sock);
}

static bool
in_transmission(const struct connection *connection)
{
	return connection->export != NULL;
}

void
connection_stop_all(struct server_loop *server_loop)
{
	uint64_t deadline_ns = loop_now_ns(server_loop->loop) +
	    SERVER_GRACE_MS * UINT64_C(1000000);

	for (struct connection *connection = server_loop->connections;
	    connection; connection = connection->next) {
		if (in_transmission(connection))
			continue;
		connection_note(connection, "server is shutting down");
		sock_set_deadline(&connection->sock, SOCK_RECV | SOCK_SEND,
		    deadline_ns);
	}
}

void
connection_close_idle(struct server_loop *server_loop)
{
	for (struct connection *connection = server_loop->connections;
	    connection; connection = connection->next)
		connection_close_if_idle(connection);
}

void
connection_shutdown_all(struct server_loop *server_loop)
{
	for (struct connection *connection = server_loop->connections;
	    connection; connection = connection->next)
		connection_break(connection,
		    "server is shutting down and would not wait any longer");
}
