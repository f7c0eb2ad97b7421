/* SPDX-License-Identifier: MIT */
/*
 * The receiver: bytes of a client in, requests out.
 *
 * One pooled receive yields up to 64 KiB, so up to 2,340 requests without
 * payload are parsed for one system call, in place.  Copied are: a header that
 * was cut in two (32 bytes at most), the part of a write's payload that came
 * with its header, and, where the receiver has to wait with unparsed bytes
 * left, those.  The rest of a payload is received straight into the request's
 * buffer.  The pooled buffer is given back before any suspension: it belongs
 * to all connections of the loop.
 */
#include "server/receive.h"

#include <errno.h>
#include "runtime/buf.h"
#include "runtime/log.h"
#include "server/connection.h"
#include "server/connection_output.h"
#include "server/connection_room.h"
#include "server/input.h"
#include "server/request.h"
#include "server/server.h"

/* What a payload that nobody wants is read into, piece by piece. */
#define DROP_BYTES (64u << 10)

/*
 * The next header, or NULL if it is not complete; what there is of it is kept
 * for the bytes to come.
 */
static const uint8_t *
next_header(struct input *input)
{
	struct connection *connection = input->connection;
	const uint8_t *header = input->next;
	size_t bytes = nbd_request_bytes(connection->terms.extended_headers);

	if (connection->partial_bytes == 0 && input->left >= bytes) {
		input_skip(input, bytes);
		return header;
	}
	connection->partial_bytes += (uint8_t)input_take(input,
	    connection->partial + connection->partial_bytes,
	    bytes - connection->partial_bytes);
	if (connection->partial_bytes < bytes)
		return NULL;
	connection->partial_bytes = 0;
	return connection->partial;
}

/* The next bytes, wherever they are. */
static co_fn int
receive_bytes(struct input *input, void *target, size_t bytes)
{
	size_t taken = input_take(input, target, bytes);

	if (taken == bytes)
		return 0;
	return input_receive(input, (char *)target + taken, bytes - taken);
}

/* The data of a write. */
static co_fn int
receive_payload(struct input *input, struct request *request)
{
	int err = request_get_data(request, request->wire.length);

	return err ? err : receive_bytes(input, request->data,
	    request->wire.length);
}

/* The contexts of a block status; *errorp, if they make no sense. */
static co_fn int
receive_choice(struct input *input, struct request *request, uint32_t *errorp)
{
	uint8_t payload[NBD_STATUS_CHOICE_BYTES_MAX];
	int err = receive_bytes(input, payload, request->wire.length);

	if (err)
		return err;
	*errorp = nbd_request_choose(&request->wire,
	    &input->connection->terms, payload, &request->contexts);
	if (*errorp)
		request->why = "its payload has no good length, or contexts "
		    "twice or that were not selected";
	return 0;
}

/* Of a write that is refused: its payload must not be taken for requests. */
static co_fn int
drop_payload(struct input *input, size_t length)
{
	void *waste;
	int err = 0;

	length -= input_skip(input, length);
	if (length == 0)
		return 0;
	waste = buf_get(DROP_BYTES);
	if (!waste)
		return -ENOMEM;
	while (!err && length > 0) {
		size_t bytes = length < DROP_BYTES ? length : DROP_BYTES;

		err = input_receive(input, waste, bytes);
		length -= bytes;
	}
	buf_put(waste, DROP_BYTES);
	return err;
}

/*
 * The request is in flight from here to the end of its reply's send.  Its
 * memory is counted already.
 */
static struct request *
admit(struct connection *connection, const struct nbd_request *wire,
    uint64_t memory)
{
	struct request *request = request_get(connection->server_loop);

	if (!request) {
		connection_room_put(connection, memory);
		return NULL;
	}
	request->connection = connection;
	request->wire = *wire;
	request->contexts = connection->terms.contexts;
	request->memory = memory;
	connection->requests_in_flight++;
	connection->requests_count++;
	return request;
}

static void
dismiss(struct request *request)
{
	struct connection *connection = request->connection;

	connection->requests_in_flight--;
	connection_room_put(connection, request->memory);
	request_put(connection->server_loop, request);
}

static uint32_t
judge(const struct connection *connection, const struct nbd_request *wire)
{
	if (connection->server_loop->stopping)
		return NBD_ESHUTDOWN;
	return nbd_request_check(wire, &connection->terms);
}

/* What follows the header; *errorp, if that is no good. */
static co_fn int
take_payload(struct input *input, struct request *request, uint64_t payload,
    uint32_t *errorp)
{
	int err;

	input->connection->payload_awaited = true;
	if (*errorp)
		err = drop_payload(input, payload);
	else if (nbd_request_has_choice(&request->wire))
		err = receive_choice(input, request, errorp);
	else
		err = receive_payload(input, request);
	input->connection->payload_awaited = false;
	return err;
}

static void
refuse(struct request *request, uint32_t error)
{
	const struct nbd_request *wire = &request->wire;

	log_debug("request refused peer=\"%s\" command=%s offset=%llu "
	    "length=%llu error=%u", request->connection->peer.name,
	    nbd_request_name(wire->type), (unsigned long long)wire->offset,
	    (unsigned long long)wire->length, error);
	request_fail(request, error);
	connection_reply(request);
}

static co_fn int
begin_request(struct input *input, const struct nbd_request *wire)
{
	struct connection *connection = input->connection;
	uint32_t error = judge(connection, wire);
	uint64_t memory = error ? 0 : request_memory(wire,
	    &connection->terms);
	uint64_t payload = nbd_request_payload_bytes(wire);
	struct request *request;
	int err = 0;

	if (!connection_room_take(connection, memory)) {
		err = input_detach(input);
		if (!err)
			err = connection_room_wait(connection, memory);
		if (err)
			return err;
	}
	request = admit(connection, wire, memory);
	if (!request)
		return -ENOMEM;
	if (payload > 0)
		err = take_payload(input, request, payload, &error);
	if (err) {
		dismiss(request);
		return err;
	}
	if (error)
		refuse(request, error);
	else
		co_start(&request->start, request_run, request);
	return 0;
}

/* The same of the bytes at hand. */
static co_fn int
parse_some(struct input *input)
{
	const uint8_t *header;

	while ((header = next_header(input))) {
		struct nbd_request wire;
		int err = nbd_request_parse(header,
		    input->connection->terms.extended_headers, &wire);

		if (err)
			return err;
		if (wire.type == NBD_CMD_DISC)
			return -ESHUTDOWN;
		if (nbd_request_payload_bytes(&wire) > NBD_PAYLOAD_BYTES_MAX)
			return -EMSGSIZE;
		err = begin_request(input, &wire);
		if (err)
			return err;
	}
	return 0;
}

/*
 * -ESHUTDOWN after DISC, or why the input cannot be followed any further;
 * 0 when all of it is parsed.
 */
static co_fn int
parse(struct input *input)
{
	int result;

	do {
		int err = parse_some(input);

		if (err)
			return err;
		result = input_more(input);
	} while (result > 0);
	return result;
}

static const char *
explain(int err)
{
	switch (-err) {
	case ESHUTDOWN:
		return "client disconnected";
	case EBADMSG:
		return "no request where one was expected";
	case EMSGSIZE:
		return "payload over the limit";
	case ENOMEM:
		return "out of memory";
	case ETIMEDOUT:
		return "client fell silent";
	case ENODATA:
		return "client closed";
	default:
		return "client gone in the middle of a request";
	}
}

static void arm(struct connection *connection);

static co_fn void
receiver_run(void *arg)
{
	struct connection *connection = arg;
	struct input input;
	int err = input_begin(&input, connection);

	if (!err)
		err = parse(&input);
	input_end(&input);
	connection_flush_channel(connection);
	if (!err) {
		arm(connection);
		return;
	}
	connection_note(connection, explain(err));
	connection->input_over = true;
	connection_settle(connection);
}

static void
received(struct task *task)
{
	struct op *op = container_of(task, struct op, task);
	struct connection *connection = container_of(op, struct connection,
	    receive);

	if (op->result > 0) {
		co_start(&connection->start, receiver_run, connection);
		return;
	}
	if (op->result == -ETIMEDOUT)
		connection_note(connection, "client fell silent");
	else if (op->result < 0 || connection->partial_bytes > 0 ||
	    connection->tls)
		connection_note(connection, "client gone");
	else
		connection_note(connection, "client closed");
	connection->input_over = true;
	connection_settle(connection);
}

/* Waits for requests without a coroutine. */
static void
arm(struct connection *connection)
{
	connection->receive = (struct op){
		.task.run = received,
		.kind = OP_RECV_POOLED,
		.fd = connection->sock.fd,
	};
	loop_submit(&connection->receive);
}

/* TLS may have brought more than was asked for. */
void
receive_start(struct connection *connection)
{
	if (!connection->tls) {
		arm(connection);
		return;
	}
	co_start(&connection->start, receiver_run, connection);
}
