/* SPDX-License-Identifier: MIT */
/*
 * Simulated stream sockets.
 *
 * Each has a buffer of what arrived and was not received yet.  A sender moves
 * its bytes there piece by piece, a receiver takes them from there; each move
 * is an event with a time of its own, and at most one of each direction is on
 * its way on a socket.  kick_receiver() and kick_sender() start the next one if
 * there is something to do, and are called whenever that may have changed.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "runtime/iov.h"
#include "runtime/sim_internal.h"

/* No descriptor of this process, so that a stray system call just fails. */
#define FD_BASE (1 << 24)

/* A buffer's size: this, times two to the power of less than BUFFER_POWERS. */
#define BUFFER_BYTES 256
#define BUFFER_POWERS 10

struct sim_socket {
	struct sim *sim;
	int fd;
	struct sim_socket *peer;	/* NULL once it is closed */
	bool send_ended;		/* by this side */
	bool recv_ended;		/* by this side */
	bool peer_ended;		/* no more bytes will arrive */
	bool was_reset;			/* the peer left without reading all */
	uint8_t *buffer;		/* what arrived: a ring */
	size_t buffer_bytes;
	size_t first;
	size_t used;
	struct op_list receivers;	/* and accepts, and polls */
	struct op_list senders;
	struct sim_event receive;
	struct sim_event send;
	struct sim_tap *tap;		/* or NULL */
	bool arrivals_held;		/* by a test */

	/* Of a listener alone. */
	bool is_listener;
	struct sim_socket *backlog_first;
	struct sim_socket *backlog_next;
};

static struct sim_socket *
socket_of(const struct sim *sim, int fd)
{
	unsigned index = (unsigned)(fd - FD_BASE);

	assert(fd >= FD_BASE && index < sim->sockets_count);
	assert(sim->sockets[index]);
	return sim->sockets[index];
}

/* ---- completing ---- */

static const char *
op_name(enum op_kind kind)
{
	switch (kind) {
	case OP_ACCEPT:
		return "accept";
	case OP_RECV:
		return "recv";
	case OP_RECV_POOLED:
		return "recv pooled";
	case OP_SEND:
		return "send";
	case OP_POLL_IN:
		return "poll";
	default:
		return "?";
	}
}

static void
complete(struct sim_socket *socket, struct op *op, int64_t result)
{
	struct sim_loop *loop = sim_loop_of(op->loop);

	sim_log(socket->sim, &(struct sim_log_entry){
		.kind = SIM_LOG_SOCKET + op->kind, .name = op_name(op->kind),
		.loop_index = loop->index,
		.object = (unsigned)(socket->fd - FD_BASE),
		.length = iov_bytes(op->iov, op->iov_count), .result = result,
	});
	op->result = result;
	task_list_append(&loop->completed, &op->task);
}

/* ---- what can go on ---- */

static bool
is_readable(const struct sim_socket *socket)
{
	return socket->backlog_first || socket->used > 0 ||
	    socket->peer_ended || socket->recv_ended || socket->was_reset;
}

static void
kick_receiver(struct sim_socket *socket)
{
	const struct op *op = socket->receivers.first;

	if (!op || socket->receive.heap_index != 0 || !is_readable(socket))
		return;
	if (op->kind == OP_RECV_POOLED && socket->used > 0 &&
	    sim_loop_of(op->loop)->pooled_free == 0)
		return;
	sim_event_start(socket->sim, &socket->receive,
	    sim_operation_ns(socket->sim));
}

static bool
is_writable(const struct sim_socket *socket)
{
	const struct sim_socket *peer = socket->peer;

	if (socket->send_ended || socket->was_reset || !peer ||
	    peer->recv_ended)
		return true;
	return peer->used < peer->buffer_bytes && !peer->arrivals_held;
}

static void
kick_sender(struct sim_socket *socket)
{
	if (!socket->senders.first || socket->send.heap_index != 0 ||
	    !is_writable(socket))
		return;
	sim_event_start(socket->sim, &socket->send,
	    sim_operation_ns(socket->sim));
}

/* All or a piece of what could be moved. */
static size_t
draw_piece(struct sim *sim, size_t bytes)
{
	if (random_one_in(&sim->random, 2))
		return bytes;
	return 1 + random_below(&sim->random, bytes);
}

/* ---- receiving ---- */

static size_t
take_bytes(struct sim_socket *socket, uint8_t *target, size_t bytes)
{
	if (bytes > socket->used)
		bytes = socket->used;
	for (size_t i = 0; i < bytes; i++)
		target[i] = socket->buffer[(socket->first + i) %
		    socket->buffer_bytes];
	socket->first = (socket->first + bytes) % socket->buffer_bytes;
	socket->used -= bytes;
	if (socket->peer)
		kick_sender(socket->peer);
	return bytes;
}

/* True if op is done; op->result is how much it has got. */
static bool
receive_bytes(struct sim_socket *socket, struct op *op)
{
	size_t wanted = op->iov->iov_len - (size_t)op->result;
	size_t piece = wanted < socket->used ? wanted : socket->used;

	if (piece == 0)
		return true;
	piece = draw_piece(socket->sim, piece);
	op->result += (int64_t)take_bytes(socket,
	    (uint8_t *)op->iov->iov_base + op->result, piece);
	return !(op->flags & OP_WAIT_ALL) || piece == wanted;
}

/* No longer than what has come, so that reading on is seen. */
static void
receive_pooled(struct sim_socket *socket, struct op *op)
{
	size_t piece = socket->used < LOOP_RECV_BYTES ? socket->used :
	    LOOP_RECV_BYTES;
	uint8_t *buffer;

	op->pooled = NULL;
	if (piece == 0)
		return;
	assert(sim_loop_of(op->loop)->pooled_free > 0);
	sim_loop_of(op->loop)->pooled_free--;
	piece = draw_piece(socket->sim, piece);
	buffer = sim_calloc(1, LOOP_RECV_HEADROOM_BYTES + piece);
	op->pooled = buffer + LOOP_RECV_HEADROOM_BYTES;
	op->result = (int64_t)take_bytes(socket, op->pooled, piece);
}

static void
accept_one(struct sim_socket *socket, struct op *op)
{
	struct sim_socket *accepted = socket->backlog_first;

	if (!accepted) {
		op->result = -EINVAL;	/* it was shut down */
		return;
	}
	socket->backlog_first = accepted->backlog_next;
	op->result = accepted->fd;
}

/* True if op is done, with op->result. */
static bool
receive_once(struct sim_socket *socket, struct op *op)
{
	if (socket->was_reset && op->kind != OP_POLL_IN) {
		op->result = -ECONNRESET;
		return true;
	}
	switch (op->kind) {
	case OP_ACCEPT:
		accept_one(socket, op);
		return true;
	case OP_RECV:
		return receive_bytes(socket, op);
	case OP_RECV_POOLED:
		receive_pooled(socket, op);
		return true;
	default:
		return true;
	}
}

static void
fire_receive(struct sim_event *event)
{
	struct sim_socket *socket =
	    container_of(event, struct sim_socket, receive);
	struct op *op = socket->receivers.first;

	if (!op || !is_readable(socket))
		return;
	/* Another socket may have taken the last buffer meanwhile. */
	if (op->kind == OP_RECV_POOLED && socket->used > 0 &&
	    sim_loop_of(op->loop)->pooled_free == 0)
		return;
	if (receive_once(socket, op)) {
		op_list_take(&socket->receivers);
		complete(socket, op, op->result);
	}
	kick_receiver(socket);
}

void
sim_socket_recv_put(struct sim_loop *loop, struct op *op)
{
	struct sim *sim = loop->sim;

	free((uint8_t *)op->pooled - LOOP_RECV_HEADROOM_BYTES);
	loop->pooled_free++;
	for (unsigned i = 0; i < sim->sockets_count; i++) {
		if (sim->sockets[i])
			kick_receiver(sim->sockets[i]);
	}
}

/* ---- sending ---- */

static void
put_bytes(struct sim_socket *target, const uint8_t *bytes, size_t count)
{
	struct sim_tap *tap = target->tap;
	struct sim_tap *peer_tap = target->peer->tap;

	for (size_t i = 0; i < count; i++)
		target->buffer[(target->first + target->used++) %
		    target->buffer_bytes] = bytes[i];
	if (tap)
		tap->hear(tap, true, bytes, count);
	if (peer_tap)
		peer_tap->hear(peer_tap, false, bytes, count);
}

/* Appends the bytes of op from its byte op->result on. */
static void
push_bytes(struct sim_socket *target, const struct op *op, size_t bytes)
{
	size_t skip = (size_t)op->result;
	const struct iovec *iov = op->iov;

	while (bytes > 0) {
		size_t count;

		while (skip >= iov->iov_len)
			skip -= iov++->iov_len;
		count = iov->iov_len - skip < bytes ?
		    iov->iov_len - skip : bytes;
		put_bytes(target, (uint8_t *)iov->iov_base + skip, count);
		skip += count;
		bytes -= count;
	}
}

/* True if op is done, with op->result; what was sent before stays told. */
static bool
send_once(struct sim_socket *socket, struct op *op)
{
	struct sim_socket *peer = socket->peer;
	size_t left = iov_bytes(op->iov, op->iov_count) - (size_t)op->result;
	size_t room, piece;

	if (socket->was_reset || socket->send_ended || !peer ||
	    peer->recv_ended) {
		if (op->result == 0)
			op->result = socket->was_reset ? -ECONNRESET : -EPIPE;
		return true;
	}
	if (left == 0)
		return true;
	room = peer->buffer_bytes - peer->used;
	if (room == 0 || peer->arrivals_held)
		return false;
	piece = draw_piece(socket->sim, left < room ? left : room);
	push_bytes(peer, op, piece);
	op->result += (int64_t)piece;
	kick_receiver(peer);
	return piece == left;
}

static void
fire_send(struct sim_event *event)
{
	struct sim_socket *socket =
	    container_of(event, struct sim_socket, send);
	struct op *op = socket->senders.first;

	if (!op)
		return;
	if (send_once(socket, op)) {
		op_list_take(&socket->senders);
		complete(socket, op, op->result);
	}
	kick_sender(socket);
}

/* ---- submitting and cancelling ---- */

void
sim_socket_submit(struct sim_loop *loop, struct op *op)
{
	struct sim_socket *socket = socket_of(loop->sim, op->fd);

	assert(op->kind >= OP_ACCEPT);	/* files are not descriptors here */
	assert(op->kind != OP_POLL_OUT);	/* its files are not spliced */
	assert((op->kind == OP_ACCEPT) == socket->is_listener ||
	    op->kind == OP_POLL_IN);
	op->result = 0;
	op->pooled = NULL;
	if (op->kind == OP_SEND) {
		op_list_append(&socket->senders, op);
		kick_sender(socket);
	} else {
		op_list_append(&socket->receivers, op);
		kick_receiver(socket);
	}
}

void
sim_socket_cancel(struct sim_loop *loop, struct op *op)
{
	struct sim_socket *socket = socket_of(loop->sim, op->fd);
	struct op_list *list = op->kind == OP_SEND ? &socket->senders :
	    &socket->receivers;

	if (op_list_remove(list, op))
		complete(socket, op, op->result > 0 ? op->result : -ECANCELED);
	kick_receiver(socket);
	kick_sender(socket);
}

/* ---- making, ending ---- */

static struct sim_socket *
socket_new(struct sim *sim)
{
	struct sim_socket *socket = sim_calloc(1, sizeof(*socket));

	sim->sockets = sim_realloc(sim->sockets,
	    (sim->sockets_count + 1) * sizeof(struct sim_socket *));
	sim->sockets[sim->sockets_count] = socket;
	socket->sim = sim;
	socket->fd = FD_BASE + (int)sim->sockets_count++;
	socket->receive.fire = fire_receive;
	socket->send.fire = fire_send;
	return socket;
}

static struct sim_socket *
stream_new(struct sim *sim)
{
	struct sim_socket *socket = socket_new(sim);

	socket->buffer_bytes = (size_t)BUFFER_BYTES <<
	    random_below(&sim->random, BUFFER_POWERS);
	socket->buffer = sim_calloc(1, socket->buffer_bytes);
	return socket;
}

static void
connect_pair(struct sim *sim, struct sim_socket *pair[2])
{
	pair[0] = stream_new(sim);
	pair[1] = stream_new(sim);
	pair[0]->peer = pair[1];
	pair[1]->peer = pair[0];
}

void
sim_socketpair(struct sim *sim, int fds[2])
{
	struct sim_socket *pair[2];

	connect_pair(sim, pair);
	fds[0] = pair[0]->fd;
	fds[1] = pair[1]->fd;
}

int
sim_listen(struct sim *sim)
{
	struct sim_socket *socket = socket_new(sim);

	socket->is_listener = true;
	return socket->fd;
}

int
sim_connect(struct sim *sim, int listener)
{
	unsigned index = (unsigned)(listener - FD_BASE);
	struct sim_socket *pair[2];
	struct sim_socket **link;

	assert(listener >= FD_BASE && index < sim->sockets_count);
	if (!sim->sockets[index] || sim->sockets[index]->recv_ended)
		return -ECONNREFUSED;
	assert(sim->sockets[index]->is_listener);
	connect_pair(sim, pair);
	link = &sim->sockets[index]->backlog_first;
	while (*link)
		link = &(*link)->backlog_next;
	*link = pair[1];
	kick_receiver(sim->sockets[index]);
	return pair[0]->fd;
}

static void
kick_all(struct sim_socket *socket)
{
	kick_receiver(socket);
	kick_sender(socket);
}

void
sim_set_tap(struct sim *sim, int fd, struct sim_tap *tap)
{
	socket_of(sim, fd)->tap = tap;
}

/* What is held counts as pending: see SIM_HELD. */
void
sim_hold_arrivals(struct sim *sim, int fd, bool held)
{
	struct sim_socket *socket = socket_of(sim, fd);

	if (socket->arrivals_held == held)
		return;
	socket->arrivals_held = held;
	sim->held_count += held ? 1 : -1u;
	if (socket->peer)
		kick_sender(socket->peer);
}

void
sim_shutdown_send(struct sim *sim, int fd)
{
	struct sim_socket *socket = socket_of(sim, fd);

	socket->send_ended = true;
	kick_sender(socket);
	if (!socket->peer)
		return;
	socket->peer->peer_ended = true;
	kick_all(socket->peer);
}

void
sim_shutdown(struct sim *sim, int fd)
{
	struct sim_socket *socket = socket_of(sim, fd);

	socket->recv_ended = true;
	sim_shutdown_send(sim, fd);
	kick_receiver(socket);
}

static void
socket_free(struct sim_socket *socket)
{
	sim_event_stop(socket->sim, &socket->receive);
	sim_event_stop(socket->sim, &socket->send);
	socket->sim->held_count -= socket->arrivals_held;
	socket->sim->sockets[socket->fd - FD_BASE] = NULL;
	free(socket->buffer);
	free(socket);
}

/* Bytes that nobody will read any more cost the peer its connection. */
void
sim_close(struct sim *sim, int fd)
{
	struct sim_socket *socket = socket_of(sim, fd);
	struct sim_socket *peer = socket->peer;

	assert(!socket->receivers.first && !socket->senders.first);
	while (socket->backlog_first) {
		struct sim_socket *unaccepted = socket->backlog_first;

		socket->backlog_first = unaccepted->backlog_next;
		sim_close(sim, unaccepted->fd);
	}
	if (peer) {
		peer->peer = NULL;
		peer->peer_ended = true;
		peer->was_reset = socket->used > 0;
		kick_all(peer);
	}
	socket_free(socket);
}

void
sim_sockets_free(struct sim *sim)
{
	for (unsigned i = 0; i < sim->sockets_count; i++) {
		if (sim->sockets[i])
			socket_free(sim->sockets[i]);
	}
	free(sim->sockets);
}
