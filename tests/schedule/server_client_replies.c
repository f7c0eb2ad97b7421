/* SPDX-License-Identifier: MIT */
/* What a client hears on the network, and what it makes of replies. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/schedule/server_client_internal.h"

#define SLOW_PIECE_BYTES 500
#define SLOW_PAUSE_NS 20000000

/* ---- at the network ---- */

static enum record_kind
record_kind_of(const struct nbd_request *wire)
{
	switch (wire->type) {
	case NBD_CMD_WRITE:
		return RECORD_REQUEST_WRITE;
	case NBD_CMD_WRITE_ZEROES:
		return RECORD_REQUEST_ZERO;
	case NBD_CMD_TRIM:
		return RECORD_REQUEST_TRIM;
	case NBD_CMD_FLUSH:
		return RECORD_REQUEST_FLUSH;
	default:
		return RECORD_REQUEST_READ;
	}
}

/* The header of a request has arrived there. */
static void
note_request(struct client *client, const struct nbd_request *wire)
{
	struct crew *crew = client->site->crew;
	struct client_request *request = client_find(client, wire->cookie);
	struct record entry = {
		.kind = record_kind_of(wire),
		.source = client->options.number,
		.flags = wire->flags & NBD_CMD_FLAG_FUA ? RECORD_FUA : 0,
		.offset = wire->offset, .length = wire->length,
	};

	request->received = true;
	if (request->expected)
		return;
	if (wire->type == NBD_CMD_WRITE)
		entry.value = request->value;
	request->record_index = record_begin(crew->log, &entry);
	request->oracle_index = oracle_begin(crew->oracle,
	    record_log_at(crew->log, request->record_index));
}

/* The (last) header of a reply has arrived here. */
static void
note_reply(struct client *client, struct client_request *request, bool failed)
{
	struct crew *crew = client->site->crew;

	request->replied = true;
	if (request->expected)
		return;
	record_end(crew->log, request->record_index, failed ? -EIO : 0);
	oracle_end(crew->oracle, request->oracle_index,
	    record_log_at(crew->log, request->record_index)->completed,
	    failed ? -EIO : 0);
}

static uint64_t
payload_bytes_of(const struct nbd_reply *reply,
    const struct client_request *request)
{
	if (reply->structured)
		return reply->payload_bytes;
	return request->wire.type == NBD_CMD_READ && !reply->error ?
	    request->wire.length : 0;
}

/* How many bytes of header there are to be, as far as one can tell by now. */
static size_t
header_bytes(struct client *client, const struct client_stream *stream)
{
	int bytes;

	if (stream == &client->requests)
		return nbd_request_bytes(client->options.extended);
	if (stream->have < 4)
		return 4;
	bytes = nbd_reply_header_bytes(stream->header);
	return bytes > 0 ? (size_t)bytes : 4;
}

static void
hear_request(struct client *client)
{
	struct nbd_request wire;

	if (nbd_request_parse(client->requests.header,
	    client->options.extended, &wire) ||
	    wire.type == NBD_CMD_DISC)
		return;
	client->requests.skip = nbd_request_payload_bytes(&wire);
	note_request(client, &wire);
}

static void
hear_reply(struct client *client)
{
	struct client_request *request;
	struct nbd_reply reply;

	if (nbd_reply_parse(client->replies.header, &reply)) {
		client_fail(client, "no reply where one was expected", 0);
		return;
	}
	request = client_find(client, reply.cookie);
	if (!request || !request->received || request->replied) {
		client_fail(client, "a reply to no request", reply.cookie);
		return;
	}
	client->replies.skip = payload_bytes_of(&reply, request);
	if (!reply.structured || reply.flags & NBD_REPLY_FLAG_DONE)
		note_reply(client, request, nbd_reply_is_error(&reply));
}

static void
hear(struct sim_tap *tap, bool arriving, const uint8_t *bytes, size_t count)
{
	struct client *client = container_of(tap, struct client, tap);
	struct client_stream *stream = arriving ? &client->replies :
	    &client->requests;

	for (size_t i = 0; i < count; i++) {
		if (stream->skip > 0) {
			stream->skip--;
			continue;
		}
		stream->header[stream->have++] = bytes[i];
		if (stream->have < header_bytes(client, stream))
			continue;
		stream->have = 0;
		if (arriving)
			hear_reply(client);
		else
			hear_request(client);
	}
}

void
client_tap(struct client *client)
{
	client->tap.hear = hear;
	if (!client->tls)
		sim_set_tap(client->site->crew->sim, client->sock.fd,
		    &client->tap);
}

/* ---- receiving ---- */

int
client_receive(struct client *client, void *data, size_t length)
{
	struct sim *sim = client->site->crew->sim;
	size_t done = 0;

	while (done < length) {
		size_t piece = length - done;
		int err;

		if (client->options.slow) {
			if (piece > SLOW_PIECE_BYTES)
				piece = 1 + sim_below(sim, SLOW_PIECE_BYTES);
			if (sim_below(sim, 4) == 0)
				loop_sleep(sim_below(sim, SLOW_PAUSE_NS));
		}
		err = client_receive_exact(client, (char *)data + done,
		    piece);
		if (err)
			return done > 0 && err == -ENODATA ? -ECONNRESET : err;
		done += piece;
	}
	return 0;
}

/* ---- judging ---- */

static bool
error_is_fair(const struct client *client,
    const struct client_request *request)
{
	if (request->error == NBD_ESHUTDOWN && client->site->stopping)
		return true;
	if (request->expected)
		return request->error == request->expected;
	if (request->error == NBD_EIO && client->site->crew->options.troubled)
		return true;
	return request->error == NBD_ENOTSUP &&
	    request->wire.flags & NBD_CMD_FLAG_FAST_ZERO;
}

static void
judge(struct client *client, const struct client_request *request)
{
	struct crew *crew = client->site->crew;
	const struct record *entry;

	if (request->error || request->expected) {
		if (!error_is_fair(client, request))
			client_fail(client, "an error", request->error);
		return;
	}
	if (request->wire.type != NBD_CMD_READ)
		return;
	if (request->data_bytes != request->wire.length)
		client_fail(client, "a read of another length",
		    request->data_bytes);
	if (request->wire.flags & NBD_CMD_FLAG_DF && request->chunks > 1)
		client_fail(client, "a fragmented reply", request->chunks);
	entry = record_log_at(crew->log, request->record_index);
	crew_judge(crew, entry->submitted, entry->completed,
	    request->wire.offset, request->data, request->wire.length);
}

static void
wake_waiter(struct client *client)
{
	struct co *waiter = client->waiter;

	client->waiter = NULL;
	if (waiter)
		co_wake(waiter);
}

void
client_finish(struct client *client, struct client_request *request)
{
	struct client_request **link = &client->in_flight;

	judge(client, request);
	while (*link != request)
		link = &(*link)->next;
	*link = request->next;
	client->in_flight_count--;
	free(request->data);
	request->data = NULL;
	request->done = true;
	wake_waiter(client);
}

/* ---- replies ---- */

co_fn static int
receive_data(struct client *client, struct client_request *request,
    uint64_t offset, uint64_t length)
{
	if (request->wire.type != NBD_CMD_READ ||
	    !nbd_request_covers(&request->wire, offset, length))
		return -EPROTO;
	request->chunks++;
	request->data_bytes += length;
	return client_receive(client, request->data +
	    (offset - request->wire.offset), length);
}

co_fn static int
receive_data_chunk(struct client *client, struct client_request *request,
    const struct nbd_reply *reply)
{
	uint8_t head[8];
	int err = client_receive(client, head, sizeof(head));

	return err ? err : receive_data(client, request,
	    nbd_reply_parse_data(head), reply->payload_bytes - sizeof(head));
}

static int
take_hole(struct client_request *request, const uint8_t *payload)
{
	struct nbd_reply_hole hole;

	if (nbd_reply_parse_hole(payload, &hole) ||
	    request->wire.type != NBD_CMD_READ ||
	    !nbd_request_covers(&request->wire, hole.offset, hole.bytes))
		return -EPROTO;
	request->chunks++;
	request->data_bytes += hole.bytes;
	memset(request->data + (hole.offset - request->wire.offset), 0,
	    hole.bytes);
	return 0;
}

/* What is said to be zeros must be what a read may find. */
static int
judge_zeros(struct client *client, const struct client_request *request,
    uint64_t offset, uint64_t length)
{
	struct crew *crew = client->site->crew;
	const struct record *entry =
	    record_log_at(crew->log, request->record_index);
	void *zeros = calloc(1, length);

	if (!zeros)
		return -ENOMEM;
	crew_judge(crew, entry->submitted, entry->completed, offset, zeros,
	    length);
	free(zeros);
	return 0;
}

static int
take_status(struct client *client, struct client_request *request,
    const struct nbd_reply *reply, const uint8_t *payload)
{
	struct nbd_reply_status status;
	uint64_t offset = request->wire.offset;
	int err = nbd_reply_parse_status(reply, payload, &status);

	if (err || request->wire.type != NBD_CMD_BLOCK_STATUS ||
	    (request->wire.flags & NBD_CMD_FLAG_REQ_ONE &&
	    status.extent_count > 1))
		return -EPROTO;
	request->chunks++;
	for (uint32_t i = 0; !err && i < status.extent_count; i++) {
		struct nbd_extent extent = nbd_reply_extent(&status, i);

		if (!nbd_request_covers(&request->wire, offset,
		    extent.length))
			return -EPROTO;
		if (extent.state & NBD_STATE_ZERO)
			err = judge_zeros(client, request, offset,
			    extent.length);
		offset += extent.length;
	}
	return err;
}

static int
take_payload(struct client *client, struct client_request *request,
    const struct nbd_reply *reply, const uint8_t *payload)
{
	struct nbd_reply_error error;
	int err;

	switch (reply->type) {
	case NBD_REPLY_TYPE_NONE:
		return 0;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		return take_hole(request, payload);
	case NBD_REPLY_TYPE_BLOCK_STATUS:
	case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
		return take_status(client, request, reply, payload);
	}
	if (!nbd_reply_is_error(reply))
		return -EPROTO;
	err = nbd_reply_parse_error(reply, payload, &error);
	if (!err)
		request->error = error.error;
	return err;
}

co_fn static int
receive_chunk(struct client *client, struct client_request *request,
    const struct nbd_reply *reply)
{
	uint8_t *payload;
	int err;

	if (!client->options.structured)
		return -EPROTO;
	if (reply->type == NBD_REPLY_TYPE_OFFSET_DATA)
		return receive_data_chunk(client, request, reply);
	payload = malloc(reply->payload_bytes + 1);
	if (!payload)
		return -ENOMEM;
	err = client_receive(client, payload, reply->payload_bytes);
	if (!err)
		err = take_payload(client, request, reply, payload);
	free(payload);
	return err;
}

co_fn static int
receive_simple(struct client *client, struct client_request *request,
    const struct nbd_reply *reply)
{
	const struct nbd_request *wire = &request->wire;

	if (client->options.structured && (wire->type == NBD_CMD_READ ||
	    wire->type == NBD_CMD_BLOCK_STATUS))
		return -EPROTO;
	request->error = reply->error;
	if (wire->type != NBD_CMD_READ || reply->error)
		return 0;
	return receive_data(client, request, wire->offset, wire->length);
}

co_fn static int
receive_reply(struct client *client)
{
	uint8_t header[NBD_REPLY_HEADER_BYTES_MAX];
	struct client_request *request;
	struct nbd_reply reply;
	int err = client_receive(client, header, 4);
	int bytes;

	if (err)
		return err;
	bytes = nbd_reply_header_bytes(header);
	if (bytes < 0)
		return -EPROTO;
	err = client_receive(client, header + 4, (size_t)bytes - 4);
	if (err)
		return err;
	if (nbd_reply_parse(header, &reply) ||
	    reply.extended != client->options.extended)
		return -EPROTO;
	request = client_find(client, reply.cookie);
	if (!request || (reply.extended &&
	    reply.offset != request->wire.offset))
		return -EPROTO;
	err = reply.structured ? receive_chunk(client, request, &reply) :
	    receive_simple(client, request, &reply);
	if (!err && (!reply.structured || reply.flags & NBD_REPLY_FLAG_DONE))
		client_finish(client, request);
	return err;
}

void
client_receive_all(void *arg)
{
	struct client *client = arg;
	int err;

	do
		err = receive_reply(client);
	while (!err);
	if (err == -EPROTO)
		client_fail(client, "a reply against the protocol", 0);
	else if (!client->leaves && !client->site->stopping)
		client_fail(client, "the server hung up", (uint64_t)-err);
	sock_shutdown(&client->sock);
	client->ended_well = err == -ENODATA;
	client->ended = true;
	wake_waiter(client);
}
