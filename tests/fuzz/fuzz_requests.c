/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes both sides of transmission: request.h, error.h, reply.h.
 *
 * The first byte of the input chooses the side.  Even: 12 bytes of terms and
 * then what a client sends, requests and payloads, with the kind of headers
 * that the terms say.  Odd: what a server sends, replies and chunks.
 *
 * Beyond not crashing: no request passes that could touch what it must not,
 * no error is sent that is not defined or not allowed there, and what a
 * parser accepts, the builders turn into the same bytes again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/error.h"
#include "proto/nbd.h"
#include "proto/reply.h"
#include "proto/request.h"
#include "proto/wire.h"
#include "tests/fuzz/input.h"

#define TERMS_BYTES 12

/* Any terms that a server could have agreed to. */
static bool
take_terms(struct input *input, struct nbd_terms *terms)
{
	uint8_t *wire = input_take(input, TERMS_BYTES);

	if (!wire)
		return false;
	terms->export_bytes = nbd_get_be64(wire);
	terms->transmission_flags = nbd_get_be16(wire + 8);
	terms->transmission_flags |= NBD_FLAG_HAS_FLAGS;
	terms->block_bytes_min = UINT32_C(1) << wire[10] % 17;
	terms->extended_headers = wire[11] & 4;
	terms->structured_replies = terms->extended_headers || wire[11] & 1;
	terms->contexts = terms->structured_replies ?
		(wire[11] & 2 ? 1 : 0) | (wire[11] & 8 ? 6 : 0) : 0;
	terms->former_bytes = wire[11] & 16 ? 2 * terms->export_bytes : 0;
	free(wire);
	return true;
}

static bool
writes(const struct nbd_request *request)
{
	return request->type == NBD_CMD_WRITE ||
		request->type == NBD_CMD_TRIM ||
		request->type == NBD_CMD_WRITE_ZEROES ||
		request->type == NBD_CMD_RESIZE;
}

/* What the rest of a server relies on once a request has passed. */
static void
assert_harmless(const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	uint16_t offered = terms->transmission_flags;
	uint64_t end;

	if (request->type == NBD_CMD_DISC)
		return;
	assert(request->type <= NBD_CMD_RESIZE);
	assert(!(writes(request) && offered & NBD_FLAG_READ_ONLY));
	assert(nbd_request_payload_bytes(request) <= NBD_PAYLOAD_BYTES_MAX);
	if (request->type == NBD_CMD_RESIZE) {
		assert(offered & NBD_FLAG_SEND_RESIZE && !request->length);
		return;
	}
	if (request->type != NBD_CMD_WRITE || !request->extended)
		assert(!(request->flags & NBD_CMD_FLAG_PAYLOAD_LEN));
	assert(!__builtin_add_overflow(request->offset, request->length,
		&end));
	assert(end <= terms->export_bytes);
	assert(request->offset % terms->block_bytes_min == 0);
	assert(request->length % terms->block_bytes_min == 0);
	assert(request->length <= NBD_PAYLOAD_BYTES_MAX ||
		(request->type != NBD_CMD_READ &&
		 request->type != NBD_CMD_WRITE));
	assert(!(request->flags & NBD_CMD_FLAG_DF) ||
		terms->structured_replies);
	assert(!(request->flags & NBD_CMD_FLAG_FAST_ZERO) ||
		offered & NBD_FLAG_SEND_FAST_ZERO);
	assert(request->type != NBD_CMD_BLOCK_STATUS ||
		(terms->contexts && request->length > 0));
}

/* No error is sent where the specification reserves it for others. */
static void
assert_allowed(uint32_t error, const struct nbd_request *request,
	const struct nbd_terms *terms)
{
	assert(error == NBD_EPERM || error == NBD_EINVAL ||
		error == NBD_ENOSPC || error == NBD_EOVERFLOW);
	if (error == NBD_EPERM)
		assert(writes(request) &&
			terms->transmission_flags & NBD_FLAG_READ_ONLY);
	if (error == NBD_ENOSPC)
		assert(terms->former_bytes || (writes(request) &&
			request->type != NBD_CMD_TRIM));
	if (error == NBD_EOVERFLOW)
		assert(request->type == NBD_CMD_READ &&
			terms->structured_replies);
}

static void
try_errno(const struct nbd_request *request)
{
	uint32_t error;
	int number;

	for (number = 1; number < 140; number++) {
		error = nbd_error_from_errno(-number, request);
		assert(error != NBD_SUCCESS && error != NBD_ENOMEM);
		assert(strcmp(nbd_error_name(error), "unknown") != 0);
		assert(nbd_error_to_errno(error) < 0);
		if (error == NBD_ENOTSUP)
			assert(request->flags & NBD_CMD_FLAG_FAST_ZERO);
	}
}

/* A block status that chooses its contexts by its payload. */
static void
try_choice(struct nbd_request *request, const struct nbd_terms *terms,
	const uint8_t *start)
{
	uint8_t again[NBD_STATUS_CHOICE_BYTES_MAX];
	uint64_t bytes = request->length, contexts;
	uint8_t *payload = malloc(bytes);

	assert(payload && bytes <= NBD_STATUS_CHOICE_BYTES_MAX);
	memcpy(payload, start, bytes);
	if (nbd_request_choose(request, terms, payload, &contexts) ==
	    NBD_SUCCESS) {
		assert_harmless(request, terms);
		assert(contexts && !(contexts & ~terms->contexts));
		assert(nbd_request_put_choice(again, request->length,
			contexts) == bytes);
		assert(memcmp(again, payload, 8) == 0);
	}
	free(payload);
}

static void
judge(struct nbd_request *request, const struct nbd_terms *terms,
	const struct input *rest)
{
	uint32_t error = nbd_request_check(request, terms);

	assert(!error == !nbd_request_refusal(request, terms));
	if (error)
		assert_allowed(error, request, terms);
	else if (!nbd_request_has_choice(request))
		assert_harmless(request, terms);
	else if (request->length <= rest->bytes)
		try_choice(request, terms, rest->start);
}

/* False if a server would close the connection, or wait for more. */
static bool
try_request(struct input *input, const struct nbd_terms *terms)
{
	size_t bytes = nbd_request_bytes(terms->extended_headers);
	uint8_t *wire = input_take(input, bytes);
	uint8_t again[NBD_REQUEST_BYTES_MAX];
	struct nbd_request request;
	uint64_t payload_bytes;

	if (!wire)
		return false;
	if (nbd_request_parse(wire, terms->extended_headers, &request)) {
		free(wire);
		return false;
	}
	assert(nbd_request_put(again, &request) == bytes);
	assert(memcmp(wire, again, bytes) == 0);
	free(wire);
	payload_bytes = nbd_request_payload_bytes(&request);
	judge(&request, terms, input);
	try_errno(&request);
	if (payload_bytes > input->bytes)
		return false;
	input->start += payload_bytes;
	input->bytes -= payload_bytes;
	return true;
}

/* The request that a chunk like this one answers. */
static struct nbd_request
answered(const struct nbd_reply *reply)
{
	return (struct nbd_request){
		.cookie = reply->cookie, .offset = reply->offset,
		.extended = reply->extended,
	};
}

static void
try_data(const struct nbd_reply *reply, const uint8_t *payload)
{
	const struct nbd_request request = answered(reply);
	uint8_t again[NBD_REPLY_DATA_BYTES_MAX];
	uint64_t offset = nbd_reply_parse_data(payload);
	size_t header_bytes = nbd_reply_chunk_bytes(&request);

	assert(nbd_reply_put_data(again, &request, reply->flags, offset,
		reply->payload_bytes - 8) == header_bytes + 8);
	assert(memcmp(again + header_bytes, payload, 8) == 0);
}

static void
try_hole(const struct nbd_reply *reply, const uint8_t *payload)
{
	const struct nbd_request request = answered(reply);
	uint8_t again[NBD_REPLY_HOLE_BYTES_MAX];
	size_t header_bytes = nbd_reply_chunk_bytes(&request);
	struct nbd_reply_hole hole;

	if (nbd_reply_parse_hole(payload, &hole))
		return;
	assert(nbd_reply_put_hole(again, &request, reply->flags,
		hole.offset, hole.bytes) == header_bytes + 12);
	assert(memcmp(again + header_bytes, payload, 12) == 0);
}

static void
try_status(const struct nbd_reply *reply, const uint8_t *payload)
{
	const struct nbd_request request = answered(reply);
	uint8_t again[NBD_REPLY_STATUS_BYTES_MAX];
	uint8_t extent_again[NBD_REPLY_EXTENT_BYTES_MAX];
	size_t header_bytes = nbd_reply_chunk_bytes(&request);
	size_t extent_bytes = nbd_reply_extent_bytes(&request);
	size_t fixed_bytes = nbd_reply_status_bytes(&request) - header_bytes;
	struct nbd_reply_status status;
	struct nbd_extent extent;
	uint32_t index;

	if (nbd_reply_parse_status(reply, payload, &status))
		return;
	assert(nbd_reply_put_status(again, &request, reply->flags,
		status.context_id, status.extent_count) ==
		header_bytes + fixed_bytes);
	assert(memcmp(again + header_bytes, payload, fixed_bytes) == 0);
	assert(fixed_bytes + status.extent_count * extent_bytes ==
		reply->payload_bytes);
	for (index = 0; index < status.extent_count; index++) {
		extent = nbd_reply_extent(&status, index);
		assert(nbd_reply_put_extent(extent_again, &request,
			&extent) == extent_bytes);
		assert(memcmp(extent_again, payload + fixed_bytes +
			extent_bytes * index, extent_bytes) == 0);
	}
}

static void
try_error(const struct nbd_reply *reply, const uint8_t *payload)
{
	static uint8_t again[NBD_REPLY_ERROR_OFFSET_BYTES_MAX];
	static char message[NBD_NAME_BYTES_MAX + 1];
	const struct nbd_request request = answered(reply);
	size_t header_bytes = nbd_reply_chunk_bytes(&request);
	struct nbd_reply_error error;
	size_t bytes;

	if (nbd_reply_parse_error(reply, payload, &error))
		return;
	assert(nbd_error_to_errno(error.error) < 0);
	memcpy(message, error.message.start, error.message.bytes);
	message[error.message.bytes] = '\0';
	if (error.has_offset)
		bytes = nbd_reply_put_error_offset(again, &request,
			reply->flags, error.error, message, error.offset);
	else
		bytes = nbd_reply_put_error(again, &request, reply->flags,
			error.error, message);
	bytes -= header_bytes;
	assert(bytes <= reply->payload_bytes);
	assert(memcmp(again + header_bytes, payload, bytes) == 0);
}

static void
try_payload(const struct nbd_reply *reply, const uint8_t *payload)
{
	switch (reply->type) {
	case NBD_REPLY_TYPE_NONE:
		break;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		try_data(reply, payload);
		break;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		try_hole(reply, payload);
		break;
	case NBD_REPLY_TYPE_BLOCK_STATUS:
	case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
		try_status(reply, payload);
		break;
	default:
		try_error(reply, payload);
		break;
	}
}

/* Reads the header of the next reply, as a client does. */
static bool
take_reply(struct input *input, struct nbd_reply *reply)
{
	uint8_t *wire;
	int bytes, error;

	if (input->bytes < 4)
		return false;
	bytes = nbd_reply_header_bytes(input->start);
	if (bytes < 0)
		return false;
	wire = input_take(input, (size_t)bytes);
	if (!wire)
		return false;
	error = nbd_reply_parse(wire, reply);
	free(wire);
	return error == 0;
}

/* False if a client would hang up, or wait for more. */
static bool
try_reply(struct input *input)
{
	struct nbd_reply reply;
	uint8_t *payload;

	if (!take_reply(input, &reply))
		return false;
	payload = input_take(input, reply.payload_bytes);
	if (!payload)
		return false;
	try_payload(&reply, payload);
	free(payload);
	return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *start, size_t bytes)
{
	struct input input = { start, bytes };
	struct nbd_terms terms;
	uint8_t *side;

	side = input_take(&input, 1);
	if (!side)
		return 0;
	if (*side % 2 == 0) {
		if (take_terms(&input, &terms))
			while (try_request(&input, &terms))
				continue;
	} else {
		while (try_reply(&input))
			continue;
	}
	free(side);
	return 0;
}
