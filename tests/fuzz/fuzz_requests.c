/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes both sides of transmission: request.h, error.h, reply.h.
 *
 * The first byte of the input chooses the side.  Even: 12 bytes of terms and
 * then what a client sends, requests and payloads.  Odd: what a server sends,
 * replies and chunks.
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
	terms->structured_replies = wire[11] & 1;
	terms->meta_context = terms->structured_replies && wire[11] & 2;
	free(wire);
	return true;
}

static bool
writes(const struct nbd_request *request)
{
	return request->type == NBD_CMD_WRITE ||
		request->type == NBD_CMD_TRIM ||
		request->type == NBD_CMD_WRITE_ZEROES;
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
	assert(request->type <= NBD_CMD_BLOCK_STATUS);
	assert(!__builtin_add_overflow(request->offset, request->length,
		&end));
	assert(end <= terms->export_bytes);
	assert(request->offset % terms->block_bytes_min == 0);
	assert(request->length % terms->block_bytes_min == 0);
	assert(!(writes(request) && offered & NBD_FLAG_READ_ONLY));
	assert(request->length <= NBD_PAYLOAD_BYTES_MAX ||
		(request->type != NBD_CMD_READ &&
		 request->type != NBD_CMD_WRITE));
	assert(!(request->flags & NBD_CMD_FLAG_DF) ||
		terms->structured_replies);
	assert(!(request->flags & NBD_CMD_FLAG_FAST_ZERO) ||
		offered & NBD_FLAG_SEND_FAST_ZERO);
	assert(request->type != NBD_CMD_BLOCK_STATUS ||
		(terms->meta_context && request->length > 0));
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
		assert(writes(request) && request->type != NBD_CMD_TRIM);
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

/* False if a server would close the connection, or wait for more. */
static bool
try_request(struct input *input, const struct nbd_terms *terms)
{
	uint8_t *wire = input_take(input, NBD_REQUEST_BYTES);
	uint8_t again[NBD_REQUEST_BYTES];
	struct nbd_request request;
	uint64_t payload_bytes;
	uint32_t error;

	if (!wire)
		return false;
	if (nbd_request_parse(wire, &request)) {
		free(wire);
		return false;
	}
	assert(nbd_request_put(again, &request) == NBD_REQUEST_BYTES);
	assert(memcmp(wire, again, NBD_REQUEST_BYTES) == 0);
	free(wire);
	error = nbd_request_check(&request, terms);
	if (error)
		assert_allowed(error, &request, terms);
	else
		assert_harmless(&request, terms);
	try_errno(&request);
	payload_bytes = nbd_request_payload_bytes(&request);
	if (payload_bytes > input->bytes)
		return false;
	input->start += payload_bytes;
	input->bytes -= payload_bytes;
	return true;
}

static void
try_data(const struct nbd_reply *reply, const uint8_t *payload)
{
	uint8_t again[NBD_REPLY_DATA_BYTES];
	uint64_t offset = nbd_reply_parse_data(payload);

	assert(nbd_reply_put_data(again, reply->cookie, reply->flags, offset,
		reply->payload_bytes - 8) == NBD_REPLY_DATA_BYTES);
	assert(memcmp(again + NBD_REPLY_CHUNK_BYTES, payload, 8) == 0);
}

static void
try_hole(const struct nbd_reply *reply, const uint8_t *payload)
{
	uint8_t again[NBD_REPLY_HOLE_BYTES];
	struct nbd_reply_hole hole;

	if (nbd_reply_parse_hole(payload, &hole))
		return;
	assert(nbd_reply_put_hole(again, reply->cookie, reply->flags,
		hole.offset, hole.bytes) == NBD_REPLY_HOLE_BYTES);
	assert(memcmp(again + NBD_REPLY_CHUNK_BYTES, payload, 12) == 0);
}

static void
try_status(const struct nbd_reply *reply, const uint8_t *payload)
{
	uint8_t again[NBD_REPLY_STATUS_BYTES];
	uint8_t extent_again[NBD_REPLY_EXTENT_BYTES];
	struct nbd_reply_status status;
	struct nbd_extent extent;
	uint32_t index;

	if (nbd_reply_parse_status(reply, payload, &status))
		return;
	assert(nbd_reply_put_status(again, reply->cookie, reply->flags,
		status.context_id, status.extent_count) ==
		NBD_REPLY_STATUS_BYTES);
	assert(memcmp(again + NBD_REPLY_CHUNK_BYTES, payload, 4) == 0);
	assert(nbd_get_be32(again + 16) == reply->payload_bytes);
	for (index = 0; index < status.extent_count; index++) {
		extent = nbd_reply_extent(&status, index);
		nbd_reply_put_extent(extent_again, &extent);
		assert(memcmp(extent_again, payload + 4 + 8 * index, 8) == 0);
	}
}

static void
try_error(const struct nbd_reply *reply, const uint8_t *payload)
{
	static uint8_t again[NBD_REPLY_ERROR_OFFSET_BYTES_MAX];
	static char message[NBD_NAME_BYTES_MAX + 1];
	struct nbd_reply_error error;
	size_t bytes;

	if (nbd_reply_parse_error(reply, payload, &error))
		return;
	assert(nbd_error_to_errno(error.error) < 0);
	memcpy(message, error.message.start, error.message.bytes);
	message[error.message.bytes] = '\0';
	if (error.has_offset)
		bytes = nbd_reply_put_error_offset(again, reply->cookie,
			reply->flags, error.error, message, error.offset);
	else
		bytes = nbd_reply_put_error(again, reply->cookie,
			reply->flags, error.error, message);
	bytes -= NBD_REPLY_CHUNK_BYTES;
	assert(bytes <= reply->payload_bytes);
	assert(memcmp(again + NBD_REPLY_CHUNK_BYTES, payload, bytes) == 0);
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
