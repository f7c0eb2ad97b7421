/* SPDX-License-Identifier: MIT */
/*
 * The life of a connection, and its output.
 *
 * Replies that became ready in one turn of the loop leave in one gathered
 * send: finished requests queue up, and one flush task, run at the turn's end,
 * takes as many as fit.  One send is under way at a time; what becomes ready
 * meanwhile goes with the next.  Cost: one send operation for all replies of a
 * turn; of long reads that the page cache holds (splice.c) two system calls
 * each and one for the header, whose data is not copied; no allocation; a timer
 * is not touched (a look at all connections every 5 s finds sends that are
 * stuck).
 */
#include "server/connection.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "runtime/log.h"
#include "runtime/splice_pipe.h"
#include "server/channel.h"
#include "server/export.h"
#include "server/request.h"
#include "server/server.h"
#include "server/splice.h"
#include "server/tls_session.h"

static void
list_append(struct request_list *list, struct request *request)
{
	request->next = NULL;
	if (list->first)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
}

static struct request *
list_take(struct request_list *list)
{
	struct request *request = list->first;

	if (request)
		list->first = request->next;
	return request;
}

void
connection_note(struct connection *connection, const char *why)
{
	if (!connection->why_ended)
		connection->why_ended = why;
}

/* ---- room for requests ---- */

static struct budget *
budget_of(const struct connection *connection)
{
	return &connection->server_loop->server->budget;
}

static void
wake_receiver(struct connection *connection)
{
	struct co *receiver = connection->room_waiter;

	if (!receiver)
		return;
	connection->room_waiter = NULL;
	co_wake(receiver);
}

static co_fn void
wait_for_wake(struct connection *connection)
{
	connection->room_waiter = co_self();
	co_suspend();
}

/* What a connection that holds so much has to have from the budget. */
static uint64_t
budget_share(uint64_t memory)
{
	return memory > BUDGET_RESERVE_BYTES ?
	    memory - BUDGET_RESERVE_BYTES : 0;
}

/* One request is let in whatever it needs, so that none waits for ever. */
static bool
is_within_limits(const struct connection *connection, uint64_t bytes)
{
	uint64_t memory = connection->memory_in_flight + bytes;

	if (connection->requests_in_flight == 0)
		return true;
	return connection->requests_in_flight < CONNECTION_REQUESTS_MAX &&
	    memory <= CONNECTION_MEMORY_MAX && budget_share(memory) <=
	    budget_of(connection)->limit_bytes / BUDGET_CLIENTS_MIN;
}

bool
connection_room_take(struct connection *connection, uint64_t bytes)
{
	uint64_t share = budget_share(connection->memory_in_flight + bytes);

	if (!is_within_limits(connection, bytes))
		return false;
	if (share > connection->budget_bytes) {
		if (!budget_take(budget_of(connection),
		    share - connection->budget_bytes))
			return false;
		connection->budget_bytes = share;
	}
	connection->memory_in_flight += bytes;
	return true;
}

/* The budget has given what was waited for. */
static void
budget_came(struct task *task)
{
	struct budget_waiter *waiter = container_of(task,
	    struct budget_waiter, task);
	struct connection *connection = container_of(waiter,
	    struct connection, budget_waiter);

	waiter->waiting = false;
	connection->budget_bytes += waiter->bytes;
	wake_receiver(connection);
}

/* Waits until the budget has given bytes, or there is nobody to answer. */
static co_fn void
wait_for_budget(struct connection *connection, uint64_t bytes)
{
	struct budget_waiter *waiter = &connection->budget_waiter;

	waiter->task.run = budget_came;
	budget_wait(budget_of(connection), waiter, bytes);
	while (waiter->waiting) {
		if (connection->broken &&
		    budget_cancel(budget_of(connection), waiter))
			return;
		wait_for_wake(connection);
	}
}

int
connection_room_wait(struct connection *connection, uint64_t bytes)
{
	uint64_t share;

	while (!is_within_limits(connection, bytes) && !connection->broken)
		wait_for_wake(connection);
	share = budget_share(connection->memory_in_flight + bytes);
	if (share > connection->budget_bytes && !connection->broken)
		wait_for_budget(connection, share - connection->budget_bytes);
	connection->memory_in_flight += bytes;
	if (!connection->broken)
		return 0;
	connection_memory_put(connection, bytes);
	return -EPIPE;
}

void
connection_memory_put(struct connection *connection, uint64_t bytes)
{
	uint64_t share;

	connection->memory_in_flight -= bytes;
	share = budget_share(connection->memory_in_flight);
	if (connection->budget_bytes > share) {
		budget_put(budget_of(connection),
		    connection->budget_bytes - share);
		connection->budget_bytes = share;
	}
	wake_receiver(connection);
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
	wake_receiver(connection);
}

/* ---- output ---- */

/* Nothing is under way that the server itself could bring to an end. */
static bool
is_idle(const struct connection *connection)
{
	return connection->requests_in_flight ==
	    (connection->payload_awaited ? 1 : 0);
}

/* The replies in list have left, or never will. */
static void
finish_all(struct connection *connection, struct request_list *list)
{
	struct request *request;

	while ((request = list_take(list))) {
		if (request->owner)
			request_part_sent(request->owner);
		else
			connection->requests_in_flight--;
		connection_memory_put(connection, request->memory);
		request_put(connection->server_loop, request);
	}
	wake_receiver(connection);
	if (connection->server_loop->closing && is_idle(connection)) {
		connection_note(connection, "server is shutting down");
		sock_shutdown(&connection->sock);
	}
}

static void
queue_flush(struct connection *connection)
{
	if (connection->flush_queued)
		return;
	connection->flush_queued = true;
	loop_at_turn_end(connection->server_loop->loop, &connection->flush);
}

void
connection_flush_channel(struct connection *connection)
{
	if (channel_has_output(connection))
		queue_flush(connection);
}

/*
 * Moves as many replies as one send may hold into it, if there are any.  How
 * many iovecs there are; what of it is in the pipe (spliced_left) follows them.
 */
static unsigned
gather(struct connection *connection)
{
	unsigned count = 0;
	size_t bytes = 0;
	struct request *request;

	while ((request = connection->replies.first)) {
		if (request->iov_count > 0 && (connection->spliced_left > 0 ||
		    count + request->iov_count > CONNECTION_SEND_IOV_MAX ||
		    bytes > CONNECTION_SEND_BYTES_MAX))
			break;
		for (unsigned i = 0; i < request->iov_count; i++) {
			connection->send_iov[count++] = request->iov[i];
			bytes += request->iov[i].iov_len;
		}
		connection->spliced_left += request->spliced_bytes;
		list_append(&connection->sending,
		    list_take(&connection->replies));
	}
	return count;
}

void
connection_sent(struct connection *connection)
{
	finish_all(connection, &connection->sending);
	splice_settle(connection);
	if (connection->replies.first || (!connection->broken &&
	    channel_has_output(connection)))
		queue_flush(connection);
	connection_settle(connection);
}

static void
flush_now(struct connection *connection)
{
	unsigned iov_count;

	if (connection->sending.first || channel_is_sending(connection))
		return;		/* its end comes back here */
	if (connection->broken) {
		finish_all(connection, &connection->replies);
		splice_settle(connection);
		connection_settle(connection);
		return;
	}
	iov_count = gather(connection);
	connection->sends++;
	if (channel_encrypts(connection)) {
		channel_send_replies(connection, iov_count);
		return;
	}
	if (iov_count == 0) {
		splice_send(connection);
		return;
	}
	connection->send = (struct op){
		.task.run = splice_send_on,
		.kind = OP_SEND,
		.fd = connection->sock.fd,
		.iov = connection->send_iov,
		.iov_count = iov_count,
		.flags = connection->sock.send_flags,
	};
	loop_submit(&connection->send);
}

static void
flush(struct task *task)
{
	struct connection *connection = container_of(task, struct connection,
	    flush);

	connection->flush_queued = false;
	/* They may all have left early. */
	if (connection->replies.first || channel_has_output(connection))
		flush_now(connection);
	else
		connection_settle(connection);
}

void
connection_reply(struct request *request)
{
	struct connection *connection = request->connection;
	struct request_list *replies = &connection->replies;

	if (replies->first && replies->last->spliced_bytes > 0 &&
	    request->spliced_bytes == 0)
		splice_small_reply(request);
	list_append(replies, request);
	if (connection->pipe &&
	    connection->pipe->bytes >= SPLICE_EARLY_BYTES &&
	    !connection->sending.first)
		flush_now(connection);
	else
		queue_flush(connection);
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
	connection->flush.run = flush;
	loop_post(server_loop->loop, &connection->arrival);
	return 0;
}

/* ---- all connections of a loop ---- */

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
	    connection; connection = connection->next) {
		if (!is_idle(connection))
			continue;
		connection_note(connection, "server is shutting down");
		sock_shutdown(&connection->sock);
	}
}

void
connection_shutdown_all(struct server_loop *server_loop)
{
	for (struct connection *connection = server_loop->connections;
	    connection; connection = connection->next)
		connection_break(connection,
		    "server is shutting down and would not wait any longer");
}

static unsigned
send_looks_max(const struct connection *connection)
{
	unsigned seconds = connection->server_loop->server->limits.send_s;

	return (seconds * 1000 + CONNECTION_WATCH_MS - 1) /
	    CONNECTION_WATCH_MS;
}

/* Whether the send under way is the one seen too many looks ago. */
static bool
send_is_stuck(struct connection *connection)
{
	if ((!connection->sending.first && !channel_is_sending(connection)) ||
	    connection->sends != connection->watched_sends) {
		connection->watched_sends = connection->sends;
		connection->watched_looks = 0;
		return false;
	}
	return ++connection->watched_looks >= send_looks_max(connection);
}

/*
 * Whether the client keeps memory that others wait for: it has a share of it,
 * its bytes are awaited or ours not taken, and none of either has moved.
 */
static bool
hoards_memory(struct connection *connection)
{
	uint64_t progress;

	if (connection->budget_bytes == 0 ||
	    !budget_is_short(budget_of(connection)) ||
	    !(connection->sending.first || connection->payload_awaited)) {
		connection->hoard_looks = 0;
		return false;
	}
	progress = connection->sends + connection->requests_count +
	    sock_progress_bytes(&connection->sock);
	if (progress != connection->hoard_progress)
		connection->hoard_looks = 0;
	connection->hoard_progress = progress;
	return connection->hoard_looks++ >= CONNECTION_HOARD_LOOKS_MAX;
}

static void
watch(struct connection *connection)
{
	if (connection->broken)
		return;
	if (send_is_stuck(connection))
		connection_break(connection, "client took no replies");
	else if (hoards_memory(connection))
		connection_break(connection,
		    "client stood still while others waited for its memory");
}

void
connection_watch_all(struct server_loop *server_loop)
{
	for (struct connection *connection = server_loop->connections;
	    connection; connection = connection->next)
		watch(connection);
}
