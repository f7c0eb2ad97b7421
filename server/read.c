/* SPDX-License-Identifier: MIT */
#include "server/read.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "proto/reply.h"
#include "qcow2/image.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/connection_output.h"
#include "server/export.h"
#include "server/request.h"
#include "server/splice.h"

/* Which byte failed is looked for down to this. */
#define FAILED_BYTES 512

/* ---- the reply to one part ---- */

/* Of one chunk of data, or of the data behind a simple reply. */
void
read_add_data_head(struct request *request)
{
	const struct nbd_request *wire = &request->wire;

	if (request->connection->terms.structured_replies)
		request_add_iov(request, request->head, nbd_reply_put_data(
		    request->head, wire, request->part_flags,
		    request->part_offset, request->part_bytes));
	else
		request_add_iov(request, request->head, nbd_reply_put_simple(
		    request->head, wire->cookie, NBD_SUCCESS));
}

static void
reply_whole(struct request *request)
{
	read_add_data_head(request);
	request_add_iov(request, request->data, request->part_bytes);
}

static void
reply_all_hole(struct request *request)
{
	request_release_data(request);
	request_add_iov(request, request->head, nbd_reply_put_hole(
	    request->head, &request->wire, request->part_flags,
	    request->part_offset, request->part_bytes));
}

/* What stands between two runs of data: the hole, and the next run's header. */
static uint32_t
between_bytes(const struct nbd_request *wire)
{
	return (uint32_t)(2 * nbd_reply_chunk_bytes(wire) +
	    NBD_REPLY_HOLE_FIXED_BYTES + NBD_REPLY_DATA_FIXED_BYTES);
}

/*
 * Data and holes in turn.  The headers between two runs of data are put into
 * the end of the hole that parts them, whose bytes nobody needs; so they and
 * the run behind them are one piece.
 */
static void
reply_sparse(struct request *request, const struct image_holes *holes)
{
	const struct nbd_request *wire = &request->wire;
	uint64_t offset = request->part_offset;
	uint32_t length = request->part_bytes;
	uint8_t *data = request->data;
	uint32_t first = holes->list[0].offset;

	if (first > 0) {
		request_add_iov(request, request->head, nbd_reply_put_data(
		    request->head, wire, 0, offset, first));
		request_add_iov(request, data, first);
	}
	for (unsigned i = 0; i < holes->count; i++) {
		const struct image_hole *hole = &holes->list[i];
		uint32_t begin = hole->offset + hole->length;
		uint32_t end = i + 1 < holes->count ?
		    holes->list[i + 1].offset : length;
		uint8_t *put = data + begin - between_bytes(wire);
		size_t bytes;

		assert(hole->length >= between_bytes(wire) && begin <= length);
		bytes = nbd_reply_put_hole(put, wire,
		    begin == length ? request->part_flags : 0,
		    offset + hole->offset, hole->length);
		if (begin == length) {
			request_add_iov(request, put, bytes);
			return;
		}
		bytes += nbd_reply_put_data(put + bytes, wire,
		    end == length ? request->part_flags : 0,
		    offset + begin, end - begin);
		request_add_iov(request, put, bytes + (end - begin));
	}
}

/* Fills in holes that are too short to hold the headers they would cost. */
static void
fill_short_holes(const struct nbd_request *wire, uint8_t *data,
    struct image_holes *holes)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < holes->count; i++) {
		const struct image_hole hole = holes->list[i];

		if (hole.length < between_bytes(wire))
			memset(data + hole.offset, 0, hole.length);
		else
			holes->list[kept++] = hole;
	}
	holes->count = kept;
}

/* ---- reading one part ---- */

/* Halves the part until the piece that cannot be read is a small one. */
static co_fn void
find_failure(struct request *request)
{
	struct image *image = request->connection->export->image;
	uint64_t offset = request->part_offset;
	uint32_t length = request->part_bytes;

	if (!request->data && request_get_data(request, length))
		return;
	while (length > FAILED_BYTES) {
		uint32_t half = (length / 2 + FAILED_BYTES - 1) &
		    ~(FAILED_BYTES - 1u);

		if (image_read(image, offset, request->data, half, NULL)) {
			length = half;
			continue;
		}
		offset += half;
		length -= half;
	}
	/* It may have gone well this time. */
	request->failed_at_known = image_read(image, offset, request->data,
	    length, NULL) != 0;
	request->failed_at = offset;
}

static co_fn int
copy_part(struct request *request)
{
	struct connection *connection = request->connection;
	struct image_hole list[REQUEST_HOLES_MAX];
	struct image_holes holes = {.max = REQUEST_HOLES_MAX, .list = list};
	bool sparse = connection->terms.structured_replies &&
	    !(request->wire.flags & NBD_CMD_FLAG_DF);
	int err;

	err = request_get_data(request, request->part_bytes);
	if (err)
		return err;
	err = image_read(connection->export->image, request->part_offset,
	    request->data, request->part_bytes, sparse ? &holes : NULL);
	if (err)
		return err;
	fill_short_holes(&request->wire, request->data, &holes);
	if (holes.count == 0)
		reply_whole(request);
	else if (list[0].length == request->part_bytes)
		reply_all_hole(request);
	else
		reply_sparse(request, &holes);
	return 0;
}

/* No suspension between this and connection_reply(): see splice_read(). */
static co_fn int
read_part(struct request *request)
{
	int result = 0;

	if (request->part_bytes >= SPLICE_READ_BYTES_MIN &&
	    !channel_encrypts(request->connection))
		result = splice_read(request);
	if (result == 0)
		result = copy_part(request);
	else if (result == 1)
		request_release_data(request);
	if (result == -EIO && request->connection->terms.structured_replies)
		find_failure(request);
	if (result < 0)
		return result;
	request->connection->bytes_read += request->part_bytes;
	return 0;
}

/* ---- part by part ---- */

static bool
is_parted(const struct nbd_request *wire, const struct nbd_terms *terms)
{
	return wire->length > READ_PART_BYTES && terms->structured_replies &&
	    !(wire->flags & NBD_CMD_FLAG_DF);
}

uint64_t
read_memory(const struct nbd_request *wire, const struct nbd_terms *terms)
{
	uint64_t parts = READ_PARTS_MAX * (uint64_t)READ_PART_BYTES;

	return is_parted(wire, terms) && wire->length > parts ? parts :
	    wire->length;
}

void
request_part_sent(struct request *owner)
{
	struct co *waiter = owner->parts_waiter;

	owner->parts_out--;
	if (!waiter)
		return;
	owner->parts_waiter = NULL;
	co_wake(waiter);
}

/* Until one more may be made. */
static co_fn int
wait_for_parts(struct request *owner)
{
	while (owner->parts_out >= READ_PARTS_MAX - 1) {
		owner->parts_waiter = co_self();
		co_suspend();
	}
	return owner->connection->broken ? -EPIPE : 0;
}

/* Reads a part and sends it on its way, in a request of its own. */
static co_fn int
carry_part(struct request *owner, uint64_t offset, uint32_t bytes)
{
	struct connection *connection = owner->connection;
	struct request *part = request_get(connection->server_loop);
	int err;

	if (!part)
		return -ENOMEM;
	part->connection = connection;
	part->wire = owner->wire;
	part->part_offset = offset;
	part->part_bytes = bytes;
	part->part_flags = 0;
	err = read_part(part);
	if (err) {
		owner->failed_at_known = part->failed_at_known;
		owner->failed_at = part->failed_at;
		request_put(connection->server_loop, part);
		return err;
	}
	part->owner = owner;
	owner->parts_out++;
	connection_reply(part);
	return 0;
}

/* All but the last, which is then the request's own. */
static co_fn int
carry_parts(struct request *request)
{
	uint64_t offset = request->wire.offset;
	uint64_t end = offset + request->wire.length;

	while (end - offset > READ_PART_BYTES) {
		uint32_t bytes = READ_PART_BYTES -
		    (uint32_t)(offset % READ_PART_BYTES);
		int err = carry_part(request, offset, bytes);

		if (!err)
			err = wait_for_parts(request);
		if (err)
			return err;
		offset += bytes;
	}
	request->part_offset = offset;
	request->part_bytes = (uint32_t)(end - offset);
	return 0;
}

int
read_run(struct request *request)
{
	const struct nbd_request *wire = &request->wire;
	const struct nbd_terms *terms = &request->connection->terms;
	int err = 0;

	if (wire->length == 0) {
		if (terms->structured_replies)
			request_add_iov(request, request->head,
			    nbd_reply_put_none(request->head, wire));
		return 0;
	}
	request->part_offset = wire->offset;
	request->part_bytes = (uint32_t)wire->length;
	request->part_flags = NBD_REPLY_FLAG_DONE;
	request->parts_waiter = NULL;
	if (is_parted(wire, terms))
		err = carry_parts(request);
	return err ? err : read_part(request);
}
