/* SPDX-License-Identifier: MIT */
/*
 * A long reply is encrypted in pieces of TLS_OUT_BYTES, each of which leaves in
 * a turn of its own: meanwhile the client decrypts the piece before, and other
 * clients of the loop get theirs.
 */
#include "server/channel.h"

#include <errno.h>
#include <string.h>
#include "runtime/loop_internal.h"
#include "runtime/log.h"
#include "runtime/worker.h"
#include "server/connection.h"
#include "server/connection_output.h"
#include "server/server.h"
#include "server/tls_session.h"

/* After "nothing will follow" the client has so long to say the same. */
#define FAREWELL_MS 500

/* ---- receiving ---- */

static void
put_pooled(struct connection *connection)
{
	if (connection->receive.pooled)
		loop_recv_put(&connection->receive);
}

int
channel_detach(struct connection *connection)
{
	int err = 0;

	if (connection->tls)
		err = tls_session_keep(connection->tls);
	put_pooled(connection);
	return err;
}

/* More for TLS; all that came before has been taken. */
static co_fn int
fetch(struct connection *connection)
{
	int64_t count;

	put_pooled(connection);
	count = sock_recv_pooled(&connection->sock, &connection->receive);
	if (count < 0)
		return (int)count;
	if (count == 0)
		return -ENODATA;
	tls_session_feed(connection->tls, connection->receive.pooled,
	    (size_t)count);
	return 0;
}

int
channel_read(struct connection *connection, void *data, size_t size,
    size_t *bytesp)
{
	int err = tls_session_read(connection->tls, data, size, bytesp);

	if (err == -EPROTO)
		connection_note(connection, connection->tls->why);
	return err;
}

static co_fn int
tls_recv_exact(struct connection *connection, void *data, size_t bytes)
{
	size_t received = 0;

	while (received < bytes) {
		size_t got = 0;
		int err = channel_read(connection, (uint8_t *)data + received,
		    bytes - received, &got);

		received += got;
		if (err == -EAGAIN)
			err = fetch(connection);
		if (err == -ENODATA && received > 0)
			err = -ECONNRESET;
		if (err)
			return err;
	}
	return 0;
}

int
channel_recv_exact(struct connection *connection, void *data, size_t bytes)
{
	if (connection->tls)
		return tls_recv_exact(connection, data, bytes);
	return sock_recv_exact(&connection->sock, data, bytes);
}

/* ---- sending, in a coroutine ---- */

bool
channel_encrypts(const struct connection *connection)
{
	return connection->tls && !connection->tls->kernel_sends;
}

static co_fn int
send_output(struct connection *connection)
{
	struct iovec iov;
	int err;

	if (!tls_session_output(connection->tls, &iov))
		return 0;
	err = sock_send(&connection->sock, &iov, 1);
	tls_session_sent(connection->tls);
	return err;
}

int
channel_send(struct connection *connection, void *data, size_t bytes)
{
	struct iovec iov = {.iov_base = data, .iov_len = bytes};
	struct iovec *next = &iov;
	unsigned count = 1;
	int err = 0;

	if (!channel_encrypts(connection))
		return sock_send(&connection->sock, &iov, 1);
	while (count > 0 && !err) {
		err = tls_session_write(connection->tls, &next, &count);
		if (!err)
			err = send_output(connection);
	}
	return err;
}

/* ---- sending replies, at the end of a turn ---- */

bool
channel_has_output(const struct connection *connection)
{
	return connection->tls && connection->tls->out_bytes > 0;
}

bool
channel_is_sending(const struct connection *connection)
{
	return connection->tls && connection->tls->sending_bytes > 0;
}

static void piece_sent(struct task *task);

static void
send_piece(struct connection *connection)
{
	struct tls_session *tls = connection->tls;

	/* Of a session that has failed only the alert is left to be sent. */
	if (tls->failed)
		connection->unsent_iov_count = 0;
	else if (!connection->broken && tls_session_write(tls,
	    &connection->unsent_iov, &connection->unsent_iov_count))
		connection_break(connection, tls->why);
	if (connection->broken ||
	    !tls_session_output(tls, &connection->tls_iov)) {
		connection_sent(connection);
		return;
	}
	connection->send = (struct op){
		.task.run = piece_sent,
		.kind = OP_SEND,
		.fd = connection->sock.fd,
		.iov = &connection->tls_iov,
		.iov_count = 1,
	};
	loop_submit(&connection->send);
}

static void
piece_sent(struct task *task)
{
	struct op *op = container_of(task, struct op, task);
	struct connection *connection = container_of(op, struct connection,
	    send);

	tls_session_sent(connection->tls);
	connection->sends++;
	if (op->result < 0)
		connection_break(connection, "client does not take replies");
	if (connection->unsent_iov_count > 0 && !connection->broken)
		send_piece(connection);
	else
		connection_sent(connection);
}

void
channel_send_replies(struct connection *connection, unsigned iov_count)
{
	connection->unsent_iov = connection->send_iov;
	connection->unsent_iov_count = iov_count;
	send_piece(connection);
}

/* ---- the beginning and the end of TLS ---- */

struct shake {
	struct tls_session *session;
	int result;
};

static void
shake(void *arg)
{
	struct shake *step = arg;

	step->result = tls_session_shake(step->session);
}

static const char *
explain(const struct connection *connection, int err)
{
	switch (-err) {
	case ETIMEDOUT:
		return "handshake took too long";
	case EPROTO:
		return connection->tls->why;
	case ENOMEM:
		return "out of memory";
	default:
		return "client gone during the handshake";
	}
}

static co_fn int
shake_hands(struct connection *connection)
{
	struct shake step = {.session = connection->tls};
	int err;

	for (;;) {
		err = channel_detach(connection);
		if (err)
			return err;
		worker_run_humbly(shake, &step);
		err = send_output(connection);
		if (step.result != -EAGAIN)
			return step.result ? step.result : err;
		if (!err)
			err = fetch(connection);
		if (err)
			return err;
	}
}

int
channel_start_tls(struct connection *connection)
{
	struct loop *loop = connection->server_loop->loop;
	char description[256];
	int err = tls_session_new(connection->server_loop->server->tls,
	    !connection->peer.is_unix && !loop_is_simulated(loop),
	    &connection->tls);

	if (!err)
		err = shake_hands(connection);
	if (err) {
		connection_note(connection, explain(connection, err));
		return err;
	}
	err = tls_session_hand_over(connection->tls, connection->sock.fd);
	if (!err)
		connection->sock.send_flags = OP_BY_PIECES;
	log_debug("TLS is on peer=\"%s\" tls=%s encrypted-by=\"%s%s\"",
	    connection->peer.name, tls_session_describe(connection->tls,
	    description, sizeof(description)),
	    err ? "qnbd; the kernel: " : "the kernel",
	    err ? strerror(-err) : "");
	return 0;
}

/*
 * Reads on until the client is gone, too: a socket that is closed before it is
 * read empty takes back what it has sent.
 */
static co_fn void
say_farewell(struct connection *connection)
{
	struct sock *sock = &connection->sock;
	uint64_t deadline_ns = loop_now_ns(sock->loop) +
	    FAREWELL_MS * UINT64_C(1000000);
	int64_t count;

	sock_set_deadline(sock, SOCK_RECV | SOCK_SEND, deadline_ns);
	if (connection->tls->kernel_sends && !connection->tls->failed)
		tls_kernel_end(sock->fd);
	else
		tls_session_end(connection->tls);
	if (send_output(connection))
		return;
	do {
		count = sock_recv_pooled(sock, &connection->receive);
		if (count > 0)
			loop_recv_put(&connection->receive);
	} while (count > 0 && loop_now_ns(sock->loop) < deadline_ns);
}

void
channel_close(struct connection *connection)
{
	if (connection->tls && !connection->broken)
		say_farewell(connection);
	sock_close(&connection->sock);
}
