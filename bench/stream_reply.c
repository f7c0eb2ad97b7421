/* SPDX-License-Identifier: MIT */
/*
 * Replies, simple and structured, taken out of the bytes of a connection.
 *
 * Payload is skipped, or copied to its request's own buffer where it is
 * verified.  Everything else of a reply must lie in the buffer as a whole to
 * be looked at, so what is cut off at the end waits for more.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "bench/stream_internal.h"

static void
finish(struct stream *stream, struct slot *slot)
{
	workload_done(stream->shared->workload, &slot->request,
		stream->received_ns - slot->sent_ns, slot->error, slot->data);
	slot->wire.cookie = 0;
	stream->free_slots[stream->free_count++] =
		(uint16_t)(slot - stream->slots);
}

static void
expect_payload(struct stream *stream, struct slot *slot, size_t bytes,
	uint64_t offset, bool last)
{
	stream->receiving = slot;
	stream->payload_bytes = bytes;
	stream->payload_to = slot->data ?
		slot->data + (offset - slot->wire.offset) : NULL;
	stream->payload_last = last;
}

/* The end of a structured reply: its content must have been complete. */
static int
finish_structured(struct stream *stream, struct slot *slot)
{
	if (slot->wire.type == NBD_CMD_READ && !slot->error &&
	    slot->received_bytes != slot->wire.length)
		return -EBADMSG;
	finish(stream, slot);
	return 0;
}

/* Counts content, which must be a read's, and inside of what it asked for. */
static int
take_content(struct slot *slot, uint64_t offset, uint32_t bytes)
{
	if (slot->wire.type != NBD_CMD_READ ||
	    !nbd_request_covers(&slot->wire, offset, bytes) ||
	    bytes > slot->wire.length - slot->received_bytes)
		return -EBADMSG;
	slot->received_bytes += bytes;
	return 0;
}

static int
take_data(struct stream *stream, struct slot *slot,
	const struct nbd_reply *reply, const uint8_t *payload)
{
	uint64_t offset = nbd_reply_parse_data(payload);
	uint32_t bytes = reply->payload_bytes - 8;
	int result;

	result = take_content(slot, offset, bytes);
	if (result)
		return result;
	expect_payload(stream, slot, bytes, offset,
		reply->flags & NBD_REPLY_FLAG_DONE);
	return 0;
}

static int
take_hole(struct slot *slot, const uint8_t *payload)
{
	struct nbd_reply_hole hole;
	int result;

	result = nbd_reply_parse_hole(payload, &hole);
	if (!result)
		result = take_content(slot, hole.offset, hole.bytes);
	if (!result && slot->data)
		memset(slot->data + (hole.offset - slot->wire.offset), 0,
			hole.bytes);
	return result;
}

static int
take_error(struct slot *slot, const struct nbd_reply *reply,
	const uint8_t *payload)
{
	struct nbd_reply_error error;
	int result;

	result = nbd_reply_parse_error(reply, payload, &error);
	if (!result)
		slot->error = error.error;
	return result;
}

/*
 * Takes a chunk from wire, all of it but a read's data.  Returns the bytes
 * used, 0 if more are needed, or -errno.
 */
static int
take_chunk(struct stream *stream, struct slot *slot,
	const struct nbd_reply *reply, const uint8_t *wire, size_t bytes)
{
	const uint8_t *payload = wire + NBD_REPLY_CHUNK_BYTES;
	size_t needed = NBD_REPLY_CHUNK_BYTES + reply->payload_bytes;
	int result = 0;

	if (reply->type == NBD_REPLY_TYPE_OFFSET_DATA)
		needed = NBD_REPLY_CHUNK_BYTES + NBD_REPLY_DATA_FIXED_BYTES;
	if (needed > CARRY_BYTES_MAX || !stream->structured)
		return -EBADMSG;
	if (bytes < needed)
		return 0;
	if (reply->type == NBD_REPLY_TYPE_OFFSET_DATA)
		result = take_data(stream, slot, reply, payload);
	else if (reply->type == NBD_REPLY_TYPE_OFFSET_HOLE)
		result = take_hole(slot, payload);
	else if (reply->type & NBD_REPLY_TYPE_FLAG_ERROR)
		result = take_error(slot, reply, payload);
	else if (reply->type != NBD_REPLY_TYPE_NONE)
		result = -EBADMSG;
	if (!result && !stream->payload_bytes &&
	    reply->flags & NBD_REPLY_FLAG_DONE)
		result = finish_structured(stream, slot);
	return result ? result : (int)needed;
}

static int
take_simple(struct stream *stream, struct slot *slot,
	const struct nbd_reply *reply)
{
	bool read = slot->wire.type == NBD_CMD_READ;

	if (read && stream->structured)
		return -EBADMSG;
	slot->error = reply->error;
	if (read && !reply->error)
		expect_payload(stream, slot, slot->wire.length,
			slot->wire.offset, true);
	else
		finish(stream, slot);
	return NBD_REPLY_SIMPLE_BYTES;
}

/* Takes the next reply or chunk; returns as take_chunk() does. */
static int
take_reply(struct stream *stream, const uint8_t *wire, size_t bytes)
{
	struct nbd_reply reply;
	struct slot *slot;
	uint32_t number;
	int result;

	if (bytes < 4)
		return 0;
	result = nbd_reply_header_bytes(wire);
	if (result < 0)
		return result;
	if (bytes < (size_t)result)
		return 0;
	result = nbd_reply_parse(wire, &reply);
	if (result)
		return result;
	if (reply.extended)
		return -EBADMSG;	/* nobody asked for these */
	number = reply.cookie & COOKIE_SLOT_MASK;
	if (reply.cookie == 0 || number >= stream->depth)
		return -EBADMSG;
	slot = &stream->slots[number];
	if (slot->wire.cookie != reply.cookie)
		return -EBADMSG;
	if (reply.structured)
		return take_chunk(stream, slot, &reply, wire, bytes);
	return take_simple(stream, slot, &reply);
}

/* Takes as much of the payload as has come; returns the bytes. */
static int
take_payload(struct stream *stream, const uint8_t *in, size_t bytes)
{
	struct slot *slot = stream->receiving;
	int result;

	if (bytes > stream->payload_bytes)
		bytes = stream->payload_bytes;
	if (stream->payload_to) {
		memcpy(stream->payload_to, in, bytes);
		stream->payload_to += bytes;
	}
	stream->payload_bytes -= bytes;
	if (stream->payload_bytes == 0 && stream->payload_last) {
		if (!stream->structured) {
			finish(stream, slot);
		} else {
			result = finish_structured(stream, slot);
			if (result)
				return result;
		}
	}
	return (int)bytes;
}

int
stream_walk(struct stream *stream, const uint8_t *in, size_t bytes)
{
	int used;

	while (bytes > 0) {
		if (stream->payload_bytes > 0)
			used = take_payload(stream, in, bytes);
		else
			used = take_reply(stream, in, bytes);
		if (used < 0)
			return used;
		if (used == 0)
			break;
		in += used;
		bytes -= (size_t)used;
	}
	assert(bytes < CARRY_BYTES_MAX);
	memcpy(stream->carry, in, bytes);
	stream->carry_bytes = bytes;
	return 0;
}
