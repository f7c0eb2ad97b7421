/* SPDX-License-Identifier: MIT */
/*
 * A bare server: one raw file, one loop, simple replies, no limits, no log.
 *
 * The floor of the measurements: whatever the real server costs above this is
 * what exports, handshake policy and the qcow2 engine cost.  Not for users.
 *
 *	bare SOCKET RAWFILE
 *
 * Per request on the hot path: no allocation once the pools are warm, one
 * preadv2 or one operation of the ring, and a share of one receive and one
 * send, which each serve all requests of a turn.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "proto/handshake.h"
#include "proto/option.h"
#include "proto/option_reply.h"
#include "proto/reply.h"
#include "proto/request.h"
#include "runtime/buf.h"
#include "runtime/file.h"
#include "runtime/listener.h"
#include "runtime/monitor.h"
#include "runtime/sock.h"

#define FLAGS (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | \
	NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | \
	NBD_FLAG_CAN_MULTI_CONN)
#define HANDSHAKE_FLAGS (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
#define SEND_IOVECS_MAX 256

static struct file *export;
static uint64_t export_bytes;

struct connection {
	struct co_start start;
	struct op recv;
	struct sock sock;
	struct task flush;		/* at the end of a turn */
	struct group requests;
	struct request *free_list;
	struct request *replies;	/* ready, oldest first */
	struct request **replies_end;
	struct request *sending;
	struct co_start send_start;
	bool flush_queued;
	bool send_running;
	unsigned char rest[NBD_REQUEST_BYTES];
	size_t rest_bytes;
};

struct request {
	struct request *next;
	struct connection *conn;
	struct co_start start;
	struct nbd_request nbd;
	void *data;
	uint8_t reply[NBD_REPLY_SIMPLE_BYTES];
	bool sends_data;
};

/* ---- replies ---- */

static void
request_free(struct request *request)
{
	struct connection *conn = request->conn;

	buf_put(request->data, request->nbd.length);
	request->next = conn->free_list;
	conn->free_list = request;
	group_leave(&conn->requests);
}

/* Sends all replies that are ready, then those that became so meanwhile. */
co_fn static void
send_replies(void *arg)
{
	struct connection *conn = arg;

	while (conn->replies) {
		struct request *first = conn->replies, *request;
		struct iovec iov[SEND_IOVECS_MAX];
		unsigned count = 0;

		for (request = first; request && count + 2 <= SEND_IOVECS_MAX;
		    request = request->next) {
			iov[count++] = (struct iovec){
				request->reply, sizeof(request->reply),
			};
			if (request->sends_data)
				iov[count++] = (struct iovec){
					request->data, request->nbd.length,
				};
		}
		conn->replies = request;
		if (!request)
			conn->replies_end = &conn->replies;
		/* A failed send is noticed by the receiver. */
		sock_send(&conn->sock, iov, count);
		while (first != request) {
			struct request *next = first->next;

			request_free(first);
			first = next;
		}
	}
	conn->send_running = false;
	group_leave(&conn->requests);
}

static void
flush(struct task *task)
{
	struct connection *conn = container_of(task, struct connection, flush);

	conn->flush_queued = false;
	if (conn->send_running)
		return;
	conn->send_running = true;
	group_enter(&conn->requests);
	co_start(&conn->send_start, send_replies, conn);
}

static void
reply(struct request *request, int err)
{
	struct connection *conn = request->conn;

	request->sends_data = request->nbd.type == NBD_CMD_READ && !err;
	nbd_reply_put_simple(request->reply, request->nbd.cookie,
	    err ? NBD_EIO : NBD_SUCCESS);
	request->next = NULL;
	*conn->replies_end = request;
	conn->replies_end = &request->next;
	if (conn->flush_queued)
		return;
	conn->flush_queued = true;
	loop_at_turn_end(conn->sock.loop, &conn->flush);
}

/* ---- requests ---- */

co_fn static void
serve_request(void *arg)
{
	struct request *request = arg;
	const struct nbd_request *nbd = &request->nbd;
	unsigned flags = nbd->flags & NBD_CMD_FLAG_FUA ? FILE_DSYNC : 0;
	int err = 0;

	switch (nbd->type) {
	case NBD_CMD_READ:
		err = file_pread(export, request->data, nbd->length,
		    nbd->offset);
		break;
	case NBD_CMD_WRITE:
		err = file_pwrite(export, request->data, nbd->length,
		    nbd->offset, flags);
		break;
	case NBD_CMD_FLUSH:
		err = file_fdatasync(export);
		break;
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		err = file_fallocate(export, FILE_PUNCH, nbd->offset,
		    nbd->length);
		if (!err && flags)
			err = file_fdatasync(export);
		break;
	}
	reply(request, err);
}

static struct request *
request_get(struct connection *conn)
{
	struct request *request = conn->free_list;

	if (request)
		conn->free_list = request->next;
	else
		request = malloc(sizeof(*request));
	if (!request)
		err(1, "malloc");
	request->conn = conn;
	request->data = NULL;
	group_enter(&conn->requests);
	return request;
}

/*
 * Starts the requests whose bytes are in data; how many bytes were used, or
 * less than 0 at the end of the session.  May suspend only for a payload that
 * goes on beyond data, and then has used all of it.
 */
co_fn static int64_t
take_requests(struct connection *conn, struct op *recv, const uint8_t *data,
    size_t bytes)
{
	size_t used = 0;

	while (bytes - used >= NBD_REQUEST_BYTES) {
		struct request *request = request_get(conn);
		struct nbd_request *nbd = &request->nbd;
		size_t payload, here;

		if (nbd_request_parse(data + used, false, nbd) ||
		    nbd->type == NBD_CMD_DISC ||
		    nbd->length > NBD_PAYLOAD_BYTES_MAX) {
			nbd->length = 0;
			request_free(request);
			return -1;
		}
		used += NBD_REQUEST_BYTES;
		if (nbd->type <= NBD_CMD_WRITE &&
		    !(request->data = buf_get(nbd->length)))
			err(1, "buf_get");
		payload = nbd_request_payload_bytes(nbd);
		here = payload < bytes - used ? payload : bytes - used;
		if (here)
			memcpy(request->data, data + used, here);
		used += here;
		if (here < payload) {
			loop_recv_put(recv);
			if (sock_recv_exact(&conn->sock,
			    (char *)request->data + here, payload - here)) {
				request_free(request);
				return -1;
			}
		}
		co_start(&request->start, serve_request, request);
	}
	return (int64_t)used;
}

static void
connection_free(struct connection *conn)
{
	while (conn->free_list) {
		struct request *request = conn->free_list;

		conn->free_list = request->next;
		free(request);
	}
	sock_close(&conn->sock);
	free(conn);
}

/* Runs once for each receive; between two an idle connection has no stack. */
co_fn static void
serve_received(void *arg)
{
	struct connection *conn = arg;
	struct op *recv = &conn->recv;
	uint8_t *data = recv->pooled;
	size_t bytes = recv->result > 0 ? (size_t)recv->result : 0;
	int64_t used = bytes ? 0 : -1;

	if (bytes) {
		data -= conn->rest_bytes;
		bytes += conn->rest_bytes;
		memcpy(data, conn->rest, conn->rest_bytes);
		conn->rest_bytes = 0;
	}
	if (used == 0)
		used = take_requests(conn, recv, data, bytes);
	if (used >= 0 && (size_t)used < bytes) {
		conn->rest_bytes = bytes - (size_t)used;
		memcpy(conn->rest, data + used, conn->rest_bytes);
	}
	loop_recv_put(recv);
	if (used >= 0) {
		loop_submit(recv);
		return;
	}
	group_wait(&conn->requests);
	connection_free(conn);
}

static void
received(struct task *task)
{
	struct connection *conn =
	    container_of(task, struct connection, recv.task);

	co_start(&conn->start, serve_received, conn);
}

/* ---- the handshake: one export, whatever it is called ---- */

co_fn static int
send_bytes(struct connection *conn, void *data, size_t bytes)
{
	struct iovec iov = {data, bytes};

	return sock_send(&conn->sock, &iov, 1);
}

co_fn static int
send_go(struct connection *conn, uint32_t type)
{
	uint8_t wire[2 * NBD_OPTION_REPLY_HEADER_BYTES + 12];
	size_t bytes;

	bytes = nbd_option_reply_put_info_export(wire, type, export_bytes,
	    FLAGS);
	bytes += nbd_option_reply_put_ack(wire + bytes, type);
	return send_bytes(conn, wire, bytes);
}

/* 0: stay in the handshake; 1: transmission begins. */
co_fn static int
serve_option(struct connection *conn, bool no_zeroes)
{
	uint8_t wire[NBD_EXPORT_BYTES_MAX];
	struct nbd_option option;
	char data[NBD_NAME_BYTES_MAX];
	size_t bytes;
	int err;

	err = sock_recv_exact(&conn->sock, wire, NBD_OPTION_HEADER_BYTES);
	if (err)
		return err;
	if (nbd_option_parse(wire, &option) ||
	    option.data_bytes > sizeof(data))
		return -EBADMSG;
	err = sock_recv_exact(&conn->sock, data, option.data_bytes);
	if (err)
		return err;
	switch (option.type) {
	case NBD_OPT_EXPORT_NAME:
		bytes = nbd_handshake_put_export(wire, export_bytes, FLAGS,
		    no_zeroes);
		err = send_bytes(conn, wire, bytes);
		return err ? err : 1;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		err = send_go(conn, option.type);
		return err ? err : option.type == NBD_OPT_GO;
	default:
		bytes = nbd_option_reply_put_error(wire, option.type,
		    NBD_REP_ERR_UNSUP, NULL);
		return send_bytes(conn, wire, bytes);
	}
}

co_fn static int
shake_hands(struct connection *conn)
{
	uint8_t wire[NBD_GREETING_BYTES];
	uint32_t flags;
	int err;

	err = send_bytes(conn, wire,
	    nbd_handshake_put_greeting(wire, HANDSHAKE_FLAGS));
	if (!err)
		err = sock_recv_exact(&conn->sock, wire,
		    NBD_CLIENT_FLAGS_BYTES);
	if (!err)
		err = nbd_handshake_parse_client_flags(wire, HANDSHAKE_FLAGS,
		    &flags);
	while (!err)
		err = serve_option(conn, flags & NBD_FLAG_NO_ZEROES);
	return err == 1 ? 0 : err;
}

co_fn static void
serve_connection(void *arg)
{
	struct connection *conn = arg;

	if (shake_hands(conn)) {
		connection_free(conn);
		return;
	}
	conn->recv = (struct op){
		.kind = OP_RECV_POOLED, .fd = conn->sock.fd,
		.task.run = received,
	};
	loop_submit(&conn->recv);
}

co_fn static void
accept_all(void *arg)
{
	struct listener *listener = arg;

	for (;;) {
		int fd = listener_accept(listener);
		struct connection *conn;

		if (fd == -EAGAIN)
			continue;
		if (fd < 0)
			errx(1, "accept: %s", strerror(-fd));
		conn = calloc(1, sizeof(*conn));
		if (!conn)
			err(1, "calloc");
		sock_open(&conn->sock, fd);
		conn->flush.run = flush;
		conn->replies_end = &conn->replies;
		co_start(&conn->start, serve_connection, conn);
	}
}

int
main(int argc, char **argv)
{
	const struct listener_access access = { 0600, (uid_t)-1, (gid_t)-1 };
	struct listener *listener = NULL;
	struct error error;
	struct co_start start;
	struct loop *loop;
	int result;

	if (argc != 3)
		errx(64, "usage: bare SOCKET RAWFILE");
	if (getenv("BARE_THREADS"))
		loop_engine_select(LOOP_THREADS);
	result = loop_create(1, &loop);
	if (result)
		errx(1, "loop: %s", strerror(-result));
	if (listener_open_unix(&listener, argv[1], &access, 0, &error))
		errx(1, "%s", error.message);
	result = file_open(AT_FDCWD, argv[2], FILE_WRITE, 0, &export);
	if (result)
		errx(1, "%s: %s", argv[2], strerror(-result));
	export_bytes = (uint64_t)file_size(export);
	co_start(&start, accept_all, listener);
	loop_run(loop);
	return 0;
}
