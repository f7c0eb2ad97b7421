/* SPDX-License-Identifier: MIT */
#include "proto/reply.h"

#include <errno.h>

/* The longest payload is a whole read in one chunk, and its offset. */
#define CHUNK_PAYLOAD_BYTES_MAX (NBD_PAYLOAD_BYTES_MAX + 8)

size_t
nbd_reply_put_hole(uint8_t wire[static NBD_REPLY_HOLE_BYTES],
	uint64_t cookie, uint16_t flags, uint64_t offset, uint32_t hole_bytes)
{
	assert(hole_bytes > 0);
	nbd_reply_put_chunk(wire, cookie, flags, NBD_REPLY_TYPE_OFFSET_HOLE,
		12);
	nbd_put_be64(wire + 20, offset);
	nbd_put_be32(wire + 28, hole_bytes);
	return NBD_REPLY_HOLE_BYTES;
}

size_t
nbd_reply_put_status(uint8_t wire[static NBD_REPLY_STATUS_BYTES],
	uint64_t cookie, uint16_t flags, uint32_t context_id,
	uint32_t extent_count)
{
	assert(extent_count > 0 && extent_count <= NBD_EXTENTS_MAX);
	nbd_reply_put_chunk(wire, cookie, flags, NBD_REPLY_TYPE_BLOCK_STATUS,
		4 + extent_count * NBD_REPLY_EXTENT_BYTES);
	nbd_put_be32(wire + 20, context_id);
	return NBD_REPLY_STATUS_BYTES;
}

size_t
nbd_reply_put_extent(uint8_t wire[static NBD_REPLY_EXTENT_BYTES],
	const struct nbd_extent *extent)
{
	assert(extent->length > 0);
	nbd_put_be32(wire, extent->length);
	nbd_put_be32(wire + 4, extent->state);
	return NBD_REPLY_EXTENT_BYTES;
}

/* The part that all error chunks share.  Returns where it ends. */
static uint8_t *
put_error_payload(uint8_t *payload, uint32_t error, const char *message)
{
	struct nbd_text text = nbd_text_cut(nbd_text_of(message));

	assert(error != NBD_SUCCESS);
	nbd_put_be32(payload, error);
	nbd_put_be16(payload + 4, (uint16_t)text.bytes);
	return payload + 6 + nbd_text_put(payload + 6, text);
}

/* Writes the header of a chunk whose payload is complete. */
static size_t
put_error_header(uint8_t *wire, uint64_t cookie, uint16_t flags,
	uint16_t type, const uint8_t *end)
{
	size_t bytes = (size_t)(end - wire);

	nbd_reply_put_chunk(wire, cookie, flags, type,
		(uint32_t)(bytes - NBD_REPLY_CHUNK_BYTES));
	return bytes;
}

size_t
nbd_reply_put_error(uint8_t *wire, uint64_t cookie, uint16_t flags,
	uint32_t error, const char *message)
{
	uint8_t *end;

	end = put_error_payload(wire + NBD_REPLY_CHUNK_BYTES, error, message);
	return put_error_header(wire, cookie, flags, NBD_REPLY_TYPE_ERROR,
		end);
}

size_t
nbd_reply_put_error_offset(uint8_t *wire, uint64_t cookie, uint16_t flags,
	uint32_t error, const char *message, uint64_t offset)
{
	uint8_t *end;

	end = put_error_payload(wire + NBD_REPLY_CHUNK_BYTES, error, message);
	nbd_put_be64(end, offset);
	return put_error_header(wire, cookie, flags,
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
	default:
		return -EBADMSG;
	}
}

/* Whether a chunk of this type may have a payload this long. */
static bool
payload_bytes_fit(const struct nbd_reply *reply)
{
	uint32_t bytes = reply->payload_bytes;

	switch (reply->type) {
	case NBD_REPLY_TYPE_NONE:
		return bytes == 0;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		return bytes > 8;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		return bytes == 12;
	case NBD_REPLY_TYPE_BLOCK_STATUS:
		return bytes >= 4 + NBD_REPLY_EXTENT_BYTES &&
			(bytes - 4) % NBD_REPLY_EXTENT_BYTES == 0;
	case NBD_REPLY_TYPE_ERROR_OFFSET:
		return bytes >= 6 + 8;
	default:
		return reply->type & NBD_REPLY_TYPE_FLAG_ERROR && bytes >= 6;
	}
}

static int
parse_chunk(const uint8_t *wire, struct nbd_reply *reply)
{
	struct nbd_reply chunk = {
		.cookie = nbd_get_be64(wire + 8),
		.payload_bytes = nbd_get_be32(wire + 16),
		.flags = nbd_get_be16(wire + 4),
		.type = nbd_get_be16(wire + 6),
		.structured = true,
	};

	if (!payload_bytes_fit(&chunk))
		return -EBADMSG;
	if (chunk.payload_bytes > CHUNK_PAYLOAD_BYTES_MAX)
		return -EMSGSIZE;
	if (chunk.type == NBD_REPLY_TYPE_NONE &&
	    !(chunk.flags & NBD_REPLY_FLAG_DONE))
		return -EBADMSG;
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
		return parse_chunk(wire, reply);
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
	wire = status->extents + (size_t)index * NBD_REPLY_EXTENT_BYTES;
	return (struct nbd_extent){
		.length = nbd_get_be32(wire),
		.state = nbd_get_be32(wire + 4),
	};
}

int
nbd_reply_parse_status(const struct nbd_reply *reply, const uint8_t *payload,
	struct nbd_reply_status *status)
{
	struct nbd_reply_status parsed;
	uint32_t index;

	assert(reply->type == NBD_REPLY_TYPE_BLOCK_STATUS);
	parsed.context_id = nbd_get_be32(payload);
	parsed.extent_count =
		(reply->payload_bytes - 4) / NBD_REPLY_EXTENT_BYTES;
	parsed.extents = payload + 4;
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
