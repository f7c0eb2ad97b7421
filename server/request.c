/* SPDX-License-Identifier: MIT */
/*
 * Carrying out requests.
 *
 * Cost of a 4 KiB read, as the server sees it: no allocation (the request and
 * its buffer come from pools of the loop), no lock, no system call of its own
 * (the image's read, the replies' send and the next receive go to the kernel
 * once a turn, with those of all other requests of the turn), no copy of the
 * payload (it is sent from where it was read to).  A write is the same, but
 * that the part of its payload that came in one piece with its header is
 * copied once.
 */
#include "server/request.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "proto/error.h"
#include "qcow2/image.h"
#include "runtime/buf.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/server.h"
#include "server/splice.h"

/* What stands between two runs of data: the hole, and the next run's header. */
#define BETWEEN_BYTES (NBD_REPLY_HOLE_BYTES + NBD_REPLY_DATA_BYTES)

/* Extents asked of the image at once, and how often for one reply. */
#define STATUS_BATCH 64
#define STATUS_CALLS_MAX 1024

/* ---- memory ---- */

struct request *
request_get(struct server_loop *server_loop)
{
	struct request *request = server_loop->requests_free;

	if (request) {
		server_loop->requests_free = request->next;
		server_loop->requests_free_count--;
	} else {
		request = malloc(sizeof(*request));
		if (!request)
			return NULL;
	}
	request->data = NULL;
	request->data_bytes = 0;
	request->memory = 0;
	request->iov_count = 0;
	request->spliced_bytes = 0;
	return request;
}

void
request_put(struct server_loop *server_loop, struct request *request)
{
	buf_put(request->data, request->data_bytes);
	if (server_loop->requests_free_count >= REQUESTS_FREE_MAX) {
		free(request);
		return;
	}
	request->next = server_loop->requests_free;
	server_loop->requests_free = request;
	server_loop->requests_free_count++;
}

void
request_drain(struct server_loop *server_loop)
{
	while (server_loop->requests_free) {
		struct request *request = server_loop->requests_free;

		server_loop->requests_free = request->next;
		free(request);
	}
	server_loop->requests_free_count = 0;
}

uint64_t
request_memory(const struct nbd_request *wire)
{
	switch (wire->type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
		return wire->length;
	case NBD_CMD_BLOCK_STATUS:
		return REQUEST_EXTENTS_MAX * NBD_REPLY_EXTENT_BYTES;
	default:
		return 0;
	}
}

/* The payload is done with before its reply has left. */
static void
release_data(struct request *request)
{
	buf_put(request->data, request->data_bytes);
	request->data = NULL;
	connection_memory_put(request->connection, request->memory);
	request->memory = 0;
}

static int
get_data(struct request *request, size_t bytes)
{
	assert(!request->data);
	request->data = buf_get(bytes);
	request->data_bytes = bytes;
	return request->data ? 0 : -ENOMEM;
}

/* ---- replies ---- */

static void
add_iov(struct request *request, void *data, size_t bytes)
{
	assert(request->iov_count < REQUEST_IOV_MAX);
	request->iov[request->iov_count++] =
	    (struct iovec){.iov_base = data, .iov_len = bytes};
}

static void
reply_simple(struct request *request, uint32_t error)
{
	add_iov(request, request->head, nbd_reply_put_simple(request->head,
	    request->wire.cookie, error));
}

static const char *
error_message(uint32_t error)
{
	switch (error) {
	case NBD_EPERM:
		return "the export is read-only";
	case NBD_EIO:
		return "the server's storage failed; its log says where";
	case NBD_EINVAL:
		return "the request is not valid for this export";
	case NBD_ENOSPC:
		return "no space left, or past the end of the export";
	case NBD_EOVERFLOW:
		return "the request is too long";
	case NBD_ENOTSUP:
		return "zeroing this range would not be fast";
	case NBD_ESHUTDOWN:
		return "the server is shutting down";
	default:
		return NULL;
	}
}

void
request_fail(struct request *request, uint32_t error)
{
	size_t bytes;

	assert(error != NBD_SUCCESS);
	request->iov_count = 0;
	request->spliced_bytes = 0;
	if (!request->connection->terms.structured_replies) {
		reply_simple(request, error);
		return;
	}
	bytes = nbd_reply_put_error(request->head, request->wire.cookie,
	    NBD_REPLY_FLAG_DONE, error, error_message(error));
	assert(bytes <= REQUEST_HEAD_BYTES);
	add_iov(request, request->head, bytes);
}

/* Of one chunk of data, or of the data behind a simple reply. */
void
request_add_data_head(struct request *request)
{
	const struct nbd_request *wire = &request->wire;

	if (request->connection->terms.structured_replies)
		add_iov(request, request->head, nbd_reply_put_data(
		    request->head, wire->cookie, NBD_REPLY_FLAG_DONE,
		    wire->offset, (uint32_t)wire->length));
	else
		reply_simple(request, NBD_SUCCESS);
}

static void
reply_whole(struct request *request)
{
	request_add_data_head(request);
	add_iov(request, request->data, request->wire.length);
}

static void
reply_all_hole(struct request *request)
{
	const struct nbd_request *wire = &request->wire;

	release_data(request);
	add_iov(request, request->head, nbd_reply_put_hole(request->head,
	    wire->cookie, NBD_REPLY_FLAG_DONE, wire->offset,
	    (uint32_t)wire->length));
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
	uint8_t *data = request->data;
	uint32_t first = holes->list[0].offset;

	if (first > 0) {
		add_iov(request, request->head, nbd_reply_put_data(
		    request->head, wire->cookie, 0, wire->offset, first));
		add_iov(request, data, first);
	}
	for (unsigned i = 0; i < holes->count; i++) {
		const struct image_hole *hole = &holes->list[i];
		uint32_t begin = hole->offset + hole->length;
		uint32_t end = i + 1 < holes->count ?
		    holes->list[i + 1].offset : (uint32_t)wire->length;
		uint8_t *put = data + begin - BETWEEN_BYTES;

		assert(hole->length >= BETWEEN_BYTES && begin <= wire->length);
		nbd_reply_put_hole(put, wire->cookie,
		    begin == wire->length ? NBD_REPLY_FLAG_DONE : 0,
		    wire->offset + hole->offset, hole->length);
		if (begin == wire->length) {
			add_iov(request, put, NBD_REPLY_HOLE_BYTES);
			return;
		}
		nbd_reply_put_data(put + NBD_REPLY_HOLE_BYTES, wire->cookie,
		    end == wire->length ? NBD_REPLY_FLAG_DONE : 0,
		    wire->offset + begin, end - begin);
		add_iov(request, put, BETWEEN_BYTES + (end - begin));
	}
}

/* Fills in holes that are too short to hold the headers they would cost. */
static void
fill_short_holes(uint8_t *data, struct image_holes *holes)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < holes->count; i++) {
		const struct image_hole hole = holes->list[i];

		if (hole.length < BETWEEN_BYTES)
			memset(data + hole.offset, 0, hole.length);
		else
			holes->list[kept++] = hole;
	}
	holes->count = kept;
}

/* ---- the commands ---- */

static co_fn int
copy_read(struct request *request)
{
	const struct nbd_request *wire = &request->wire;
	struct connection *connection = request->connection;
	struct image_hole list[REQUEST_HOLES_MAX];
	struct image_holes holes = {.max = REQUEST_HOLES_MAX, .list = list};
	bool sparse = connection->terms.structured_replies &&
	    !(wire->flags & NBD_CMD_FLAG_DF);
	int err;

	err = get_data(request, wire->length);
	if (err)
		return err;
	err = image_read(connection->export->image, wire->offset,
	    request->data, wire->length, sparse ? &holes : NULL);
	if (err)
		return err;
	connection->bytes_read += wire->length;
	fill_short_holes(request->data, &holes);
	if (holes.count == 0)
		reply_whole(request);
	else if (list[0].length == wire->length)
		reply_all_hole(request);
	else
		reply_sparse(request, &holes);
	return 0;
}

static co_fn int
serve_read(struct request *request)
{
	const struct nbd_request *wire = &request->wire;
	struct connection *connection = request->connection;
	int result = 0;

	if (wire->length == 0) {
		if (connection->terms.structured_replies)
			add_iov(request, request->head, nbd_reply_put_none(
			    request->head, wire->cookie));
		return 0;
	}
	if (wire->length >= SPLICE_READ_BYTES_MIN &&
	    !channel_encrypts(connection))
		result = splice_read(request);
	if (result == 0)
		return copy_read(request);
	if (result < 0)
		return result;
	connection->bytes_read += wire->length;
	release_data(request);
	return 0;
}

/* Only FUA, NO_HOLE and FAST_ZERO mean something to an image. */
static unsigned
image_flags(const struct nbd_request *wire)
{
	unsigned flags = 0;

	if (wire->flags & NBD_CMD_FLAG_FUA)
		flags |= IMAGE_FUA;
	if (wire->flags & NBD_CMD_FLAG_NO_HOLE)
		flags |= IMAGE_NO_HOLE;
	if (wire->flags & NBD_CMD_FLAG_FAST_ZERO)
		flags |= IMAGE_FAST;
	return flags;
}

static co_fn int
serve_write(struct request *request)
{
	const struct nbd_request *wire = &request->wire;
	struct connection *connection = request->connection;
	int err;

	if (wire->length == 0)
		return 0;
	err = image_write(connection->export->image, wire->offset,
	    request->data, wire->length, image_flags(wire));
	release_data(request);
	if (!err)
		connection->bytes_written += wire->length;
	return err;
}

/* The states of an extent, as base:allocation defines them. */
static uint32_t
extent_state(const struct image_extent *extent)
{
	if (!extent->zero)
		return 0;
	return NBD_STATE_ZERO | (extent->allocated ? 0 : NBD_STATE_HOLE);
}

/* The list of extents that is being made: neighbours alike are merged. */
struct status {
	uint8_t *put;
	unsigned count;		/* written */
	unsigned max;
	struct nbd_extent last;	/* not written yet, if its length is not 0 */
};

/* False once the list is full. */
static bool
status_add(struct status *status, const struct image_extent *extent)
{
	uint32_t state = extent_state(extent);

	if (status->last.length > 0 && status->last.state == state) {
		status->last.length += (uint32_t)extent->length;
		return true;
	}
	if (status->last.length > 0) {
		status->put += nbd_reply_put_extent(status->put,
		    &status->last);
		status->count++;
	}
	status->last = (struct nbd_extent){
		.length = (uint32_t)extent->length, .state = state,
	};
	return status->count < status->max;
}

/* Walks the range until it is covered, the list full or enough work done. */
static co_fn int
status_collect(struct image *image, const struct nbd_request *wire,
    struct status *status)
{
	struct image_extent extents[STATUS_BATCH];
	uint64_t guest = wire->offset;
	uint64_t left = wire->length;

	for (unsigned call = 0; call < STATUS_CALLS_MAX && left > 0; call++) {
		unsigned count;
		int err = image_status(image, guest, left, extents,
		    STATUS_BATCH, &count);

		if (err)
			return err;
		assert(count > 0);
		for (unsigned i = 0; i < count; i++) {
			assert(extents[i].length > 0 &&
			    extents[i].length <= left);
			if (!status_add(status, &extents[i]))
				return 0;
			guest += extents[i].length;
			left -= extents[i].length;
		}
	}
	status->put += nbd_reply_put_extent(status->put, &status->last);
	status->count++;
	return 0;
}

static co_fn int
serve_status(struct request *request)
{
	const struct nbd_request *wire = &request->wire;
	struct connection *connection = request->connection;
	struct status status = {0};
	int err = get_data(request, request->memory);

	if (err)
		return err;
	status.put = request->data;
	status.max = wire->flags & NBD_CMD_FLAG_REQ_ONE ?
	    1 : REQUEST_EXTENTS_MAX;
	err = status_collect(connection->export->image, wire, &status);
	if (err)
		return err;
	add_iov(request, request->head, nbd_reply_put_status(request->head,
	    wire->cookie, NBD_REPLY_FLAG_DONE, CONNECTION_CONTEXT_ID,
	    status.count));
	add_iov(request, request->data,
	    (size_t)status.count * NBD_REPLY_EXTENT_BYTES);
	return 0;
}

static co_fn int
carry_out(struct request *request)
{
	const struct nbd_request *wire = &request->wire;
	struct image *image = request->connection->export->image;

	switch (wire->type) {
	case NBD_CMD_READ:
		return serve_read(request);
	case NBD_CMD_WRITE:
		return serve_write(request);
	case NBD_CMD_FLUSH:
		return image_flush(image);
	case NBD_CMD_BLOCK_STATUS:
		return serve_status(request);
	}
	if (wire->length == 0)
		return 0;
	switch (wire->type) {
	case NBD_CMD_TRIM:
		return image_discard(image, wire->offset, wire->length,
		    image_flags(wire));
	case NBD_CMD_WRITE_ZEROES:
		return image_zero(image, wire->offset, wire->length,
		    image_flags(wire));
	case NBD_CMD_CACHE:
		return image_prefetch(image, wire->offset, wire->length);
	}
	assert(!"a command that nbd_request_check() lets pass");
	return -EINVAL;
}

void
request_run(void *arg)
{
	struct request *request = arg;
	int err = carry_out(request);

	if (err)
		request_fail(request, nbd_error_from_errno(err,
		    &request->wire));
	else if (request->iov_count == 0 && request->spliced_bytes == 0)
		reply_simple(request, NBD_SUCCESS);
	connection_reply(request);
}
