/* SPDX-License-Identifier: MIT */
#include "proto/reply.h"

#include <errno.h>

/* The longest payload is a whole read in one chunk, and its offset. */
#define CHUNK_PAYLOAD_BYTES_MAX (NBD_PAYLOAD_BYTES_MAX + 8)

size_t
nbd_reply_put_hole(uint8_t *wire,
	const struct nbd_request *request, uint16_t flags, uint64_t offset,
	uint32_t hole_bytes)
{
	size_t bytes;

	assert(hole_bytes > 0);
	bytes = nbd_reply_put_chunk(wire, request, flags,
		NBD_REPLY_TYPE_OFFSET_HOLE, NBD_REPLY_HOLE_FIXED_BYTES);
	nbd_put_be64(wire + bytes, offset);
	nbd_put_be32(wire + bytes + 8, hole_bytes);
	return bytes + NBD_REPLY_HOLE_FIXED_BYTES;
}

size_t
nbd_reply_put_status(uint8_t *wire,
	const struct nbd_request *request, uint16_t flags,
	uint32_t context_id, uint32_t extent_count)
{
	size_t header_bytes = nbd_reply_chunk_bytes(request);
	size_t bytes = nbd_reply_status_bytes(request);

	assert(extent_count > 0 && extent_count <= NBD_EXTENTS_MAX);
	nbd_reply_put_chunk(wire, request, flags, request->extended ?
		NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS,
		(uint32_t)(bytes - header_bytes +
		extent_count * nbd_reply_extent_bytes(request)));
	nbd_put_be32(wire + header_bytes, context_id);
	if (request->extended)
		nbd_put_be32(wire + header_bytes + 4, extent_count);
	return bytes;
}

size_t
nbd_reply_put_extent(uint8_t *wire, const struct nbd_request *request,
	const struct nbd_extent *extent)
{
	assert(extent->length > 0);
	if (request->extended) {
		nbd_put_be64(wire, extent->length);
		nbd_put_be64(wire + 8, extent->state);
	} else {
		assert(extent->length <= UINT32_MAX &&
			extent->state <= UINT32_MAX);
		nbd_put_be32(wire, (uint32_t)extent->length);
		nbd_put_be32(wire + 4, (uint32_t)extent->state);
	}
	return nbd_reply_extent_bytes(request);
}

/* The part that all error chunks share.  Returns where it ends. */
static uint8_t *
put_error_payload(uint8_t *payload, uint32_t error, const char *message)
{
	struct nbd_text text = nbd_text_cut(nbd_text_of(message));

	assert(error != NBD_SUCCESS);
	nbd_put_be32(payload, error);
	nbd_put_be16(payload + 4, (uint16_t)text.bytes);
	return payload + NBD_REPLY_ERROR_FIXED_BYTES +
		nbd_text_put(payload + NBD_REPLY_ERROR_FIXED_BYTES, text);
}

/* Writes the header of a chunk whose payload is complete. */
static size_t
put_error_header(uint8_t *wire, const struct nbd_request *request,
	uint16_t flags, uint16_t type, const uint8_t *end)
{
	size_t bytes = (size_t)(end - wire);

	nbd_reply_put_chunk(wire, request, flags, type,
		(uint32_t)(bytes - nbd_reply_chunk_bytes(request)));
	return bytes;
}

size_t
nbd_reply_put_error(uint8_t *wire, const struct nbd_request *request,
	uint16_t flags, uint32_t error, const char *message)
{
	uint8_t *end;

	end = put_error_payload(wire + nbd_reply_chunk_bytes(request), error,
		message);
	return put_error_header(wire, request, flags, NBD_REPLY_TYPE_ERROR,
		end);
}

size_t
nbd_reply_put_error_offset(uint8_t *wire, const struct nbd_request *request,
	uint16_t flags, uint32_t error, const char *message, uint64_t offset)
{
	uint8_t *end;

	end = put_error_payload(wire + nbd_reply_chunk_bytes(request), error,
		message);
	nbd_put_be64(end, offset);
	return put_error_header(wire, request, flags,
		NBD_REPLY_TYPE_ERROR_OFFSET, end + 8);
}

int
nbd_reply_header_bytes(const uint8_t wire[static 4])
{
	switch (nbd_get_be32(wire)) {
	case NBD_SIMPLE_REPLY_MAGIC:
		return NBD_REPLY_SIMPLE_BYTES;
	case NBD_STRUCTURED_REPLY_MAGIC:
		return NBD_REPLY_CHUNK_BYTES;
	case NBD_EXTENDED_REPLY_MAGIC:
		return NBD_REPLY_EXTENDED_BYTES;
	default:
		return -EBADMSG;
	}
}

/* Whether a list of extents, one of them at least, fills so many bytes. */
static bool
extents_fit(uint64_t bytes, unsigned fixed_bytes, unsigned extent_bytes)
{
	return bytes >= fixed_bytes + extent_bytes &&
		(bytes - fixed_bytes) % extent_bytes == 0;
}

/* Whether a chunk of this type may have a payload this long. */
static bool
payload_bytes_fit(const struct nbd_reply *chunk, uint64_t bytes)
{
	switch (chunk->type) {
	case NBD_REPLY_TYPE_NONE:
		return bytes == 0;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		return bytes > NBD_REPLY_DATA_FIXED_BYTES;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		return bytes == NBD_REPLY_HOLE_FIXED_BYTES;
	case NBD_REPLY_TYPE_BLOCK_STATUS:
		return !chunk->extended &&
			extents_fit(bytes, NBD_REPLY_STATUS_FIXED_BYTES, 8);
	case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
		return chunk->extended && extents_fit(bytes,
			NBD_REPLY_STATUS_EXT_FIXED_BYTES, 16);
	case NBD_REPLY_TYPE_ERROR_OFFSET:
		return bytes >= NBD_REPLY_ERROR_FIXED_BYTES + 8;
	default:
		return chunk->type & NBD_REPLY_TYPE_FLAG_ERROR &&
			bytes >= NBD_REPLY_ERROR_FIXED_BYTES;
	}
}

static int
parse_chunk(const uint8_t *wire, bool extended, struct nbd_reply *reply)
{
	struct nbd_reply chunk = {
		.cookie = nbd_get_be64(wire + 8),
		.offset = extended ? nbd_get_be64(wire + 16) : 0,
		.flags = nbd_get_be16(wire + 4),
		.type = nbd_get_be16(wire + 6),
		.structured = true,
		.extended = extended,
	};
	uint64_t payload_bytes = extended ? nbd_get_be64(wire + 24) :
		nbd_get_be32(wire + 16);

	if (!payload_bytes_fit(&chunk, payload_bytes))
		return -EBADMSG;
	if (payload_bytes > CHUNK_PAYLOAD_BYTES_MAX)
		return -EMSGSIZE;
	if (chunk.type == NBD_REPLY_TYPE_NONE &&
	    !(chunk.flags & NBD_REPLY_FLAG_DONE))
		return -EBADMSG;
	chunk.payload_bytes = (uint32_t)payload_bytes;
	*reply = chunk;
	return 0;
}

int
nbd_reply_parse(const uint8_t *wire, struct nbd_reply *reply)
{
	switch (nbd_get_be32(wire)) {
	case NBD_SIMPLE_REPLY_MAGIC:
		*reply = (struct nbd_reply){
			.cookie = nbd_get_be64(wire + 8),
			.error = nbd_get_be32(wire + 4),
			.flags = NBD_REPLY_FLAG_DONE,
			.type = NBD_REPLY_TYPE_NONE,
		};
		return 0;
	case NBD_STRUCTURED_REPLY_MAGIC:
		return parse_chunk(wire, false, reply);
	case NBD_EXTENDED_REPLY_MAGIC:
		return parse_chunk(wire, true, reply);
	default:
		return -EBADMSG;
	}
}

int
nbd_reply_parse_hole(const uint8_t payload[static 12],
	struct nbd_reply_hole *hole)
{
	uint32_t bytes = nbd_get_be32(payload + 8);

	if (bytes == 0)
		return -EBADMSG;
	hole->offset = nbd_get_be64(payload);
	hole->bytes = bytes;
	return 0;
}

struct nbd_extent
nbd_reply_extent(const struct nbd_reply_status *status, uint32_t index)
{
	const uint8_t *wire;

	assert(index < status->extent_count);
	if (status->extended) {
		wire = status->extents + (size_t)index * 16;
		return (struct nbd_extent){
			.length = nbd_get_be64(wire),
			.state = nbd_get_be64(wire + 8),
		};
	}
	wire = status->extents + (size_t)index * 8;
	return (struct nbd_extent){
		.length = nbd_get_be32(wire),
		.state = nbd_get_be32(wire + 4),
	};
}

/* The list of extents and what stands in front of it. */
static int
parse_status_fields(const struct nbd_reply *reply, const uint8_t *payload,
	struct nbd_reply_status *status)
{
	status->context_id = nbd_get_be32(payload);
	status->extended = reply->extended;
	if (!reply->extended) {
		status->extents = payload + NBD_REPLY_STATUS_FIXED_BYTES;
		status->extent_count = (reply->payload_bytes -
			NBD_REPLY_STATUS_FIXED_BYTES) / 8;
		return 0;
	}
	status->extents = payload + NBD_REPLY_STATUS_EXT_FIXED_BYTES;
	status->extent_count = (reply->payload_bytes -
		NBD_REPLY_STATUS_EXT_FIXED_BYTES) / 16;
	return nbd_get_be32(payload + 4) == status->extent_count ?
		0 : -EBADMSG;
}

int
nbd_reply_parse_status(const struct nbd_reply *reply, const uint8_t *payload,
	struct nbd_reply_status *status)
{
	struct nbd_reply_status parsed;
	uint32_t index;

	assert(reply->type == (reply->extended ?
		NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS));
	if (parse_status_fields(reply, payload, &parsed))
		return -EBADMSG;
	for (index = 0; index < parsed.extent_count; index++) {
		if (nbd_reply_extent(&parsed, index).length == 0)
			return -EBADMSG;
	}
	*status = parsed;
	return 0;
}

int
nbd_reply_parse_error(const struct nbd_reply *reply, const uint8_t *payload,
	struct nbd_reply_error *error)
{
	bool has_offset = reply->type == NBD_REPLY_TYPE_ERROR_OFFSET;
	size_t fixed_bytes = has_offset ? 6 + 8 : 6;
	struct nbd_reply_error parsed = { .has_offset = has_offset };
	uint16_t message_bytes;

	assert(reply->type & NBD_REPLY_TYPE_FLAG_ERROR);
	parsed.error = nbd_get_be32(payload);
	message_bytes = nbd_get_be16(payload + 4);
	if (parsed.error == NBD_SUCCESS)
		return -EBADMSG;
	if (message_bytes > reply->payload_bytes - fixed_bytes)
		return -EBADMSG;
	if (nbd_text_parse(payload + 6, message_bytes, &parsed.message))
		return -EBADMSG;
	if (has_offset)
		parsed.offset = nbd_get_be64(payload + 6 + message_bytes);
	*error = parsed;
	return 0;
}
