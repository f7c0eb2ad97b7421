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
#include "server/connection.h"
#include "server/connection_output.h"
#include "server/connection_room.h"
#include "server/export.h"
#include "server/read.h"
#include "server/request_explain.h"
#include "server/resize_request.h"
#include "server/server.h"
#include "server/status.h"

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
	request->owner = NULL;
	request->parts_out = 0;
	request->why = NULL;
	request->failed_at_known = false;
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
request_memory(const struct nbd_request *wire, const struct nbd_terms *terms)
{
	switch (wire->type) {
	case NBD_CMD_READ:
		return read_memory(wire, terms);
	case NBD_CMD_WRITE:
		return wire->length;
	case NBD_CMD_BLOCK_STATUS:
		return status_bytes(wire);
	default:
		return 0;
	}
}

void
request_release_data(struct request *request)
{
	buf_put(request->data, request->data_bytes);
	request->data = NULL;
	/* Of a long read it is for all parts, some of which are still here. */
	if (request->parts_out > 0)
		return;
	connection_room_put(request->connection, request->memory);
	request->memory = 0;
}

int
request_get_data(struct request *request, size_t bytes)
{
	assert(!request->data);
	request->data = buf_get(bytes);
	request->data_bytes = bytes;
	return request->data ? 0 : -ENOMEM;
}

void
request_add_iov(struct request *request, void *data, size_t bytes)
{
	assert(request->iov_count < REQUEST_IOV_MAX);
	request->iov[request->iov_count++] =
	    (struct iovec){.iov_base = data, .iov_len = bytes};
}

/* ---- replies ---- */

static void
reply_success(struct request *request)
{
	const struct nbd_request *wire = &request->wire;

	request_add_iov(request, request->head, wire->extended ?
	    nbd_reply_put_none(request->head, wire) :
	    nbd_reply_put_simple(request->head, wire->cookie, NBD_SUCCESS));
}

void
request_fail(struct request *request, uint32_t error)
{
	const struct nbd_request *wire = &request->wire;
	char text[REQUEST_TEXT_BYTES + 1];
	size_t bytes;

	assert(error != NBD_SUCCESS);
	request->iov_count = 0;
	request->spliced_bytes = 0;
	if (!request->connection->terms.structured_replies) {
		request_add_iov(request, request->head, nbd_reply_put_simple(
		    request->head, wire->cookie, error));
		return;
	}
	request_explain(request, error, text, sizeof(text));
	if (request->failed_at_known)
		bytes = nbd_reply_put_error_offset(request->head, wire,
		    NBD_REPLY_FLAG_DONE, error, text, request->failed_at);
	else
		bytes = nbd_reply_put_error(request->head, wire,
		    NBD_REPLY_FLAG_DONE, error, text);
	assert(bytes <= REQUEST_HEAD_BYTES);
	request_add_iov(request, request->head, bytes);
}

/* ---- the commands ---- */

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
	request_release_data(request);
	if (!err)
		connection->bytes_written += wire->length;
	return err;
}

static co_fn int
carry_out(struct request *request)
{
	const struct nbd_request *wire = &request->wire;
	struct image *image = request->connection->export->image;

	switch (wire->type) {
	case NBD_CMD_READ:
		return read_run(request);
	case NBD_CMD_WRITE:
		return serve_write(request);
	case NBD_CMD_FLUSH:
		return image_flush(image);
	case NBD_CMD_BLOCK_STATUS:
		return status_run(request);
	case NBD_CMD_RESIZE:
		return resize_run(request);
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

/*
 * The error of what failed with err.  The disk may have become shorter, by
 * another client, than this one knows: then the range says why.
 */
static uint32_t
error_of(struct request *request, int err)
{
	struct connection *connection = request->connection;
	struct nbd_terms terms = connection->terms;
	uint32_t error = NBD_SUCCESS;

	terms.export_bytes = atomic_load(&connection->export->size_bytes);
	if (err == -EINVAL)
		error = nbd_request_check(&request->wire, &terms);
	if (error)
		request->why = nbd_request_refusal(&request->wire, &terms);
	return error ? error : nbd_error_from_errno(err, &request->wire);
}

void
request_run(void *arg)
{
	struct request *request = arg;
	int err = carry_out(request);

	if (err)
		request_fail(request, error_of(request, err));
	else if (request->iov_count == 0 && request->spliced_bytes == 0)
		reply_success(request);
	connection_reply(request);
}
