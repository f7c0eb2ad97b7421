/* SPDX-License-Identifier: MIT */
#include "server/status.h"

#include <assert.h>
#include "runtime/loop.h"
#include "server/connection.h"
#include "server/context.h"
#include "server/export.h"
#include "server/request.h"
#include "server/server.h"

/* A context that is asked for one extent only. */
#define ONE_BYTES (NBD_REPLY_STATUS_BYTES_MAX + NBD_REPLY_EXTENT_BYTES_MAX)

/* The list of extents that is being made: neighbours alike are merged. */
struct list {
	const struct nbd_request *wire;
	uint8_t *put;
	unsigned count;		/* written */
	unsigned max;
	struct nbd_extent last;	/* not written yet, if its length is not 0 */
};

size_t
status_bytes(const struct nbd_request *wire)
{
	return wire->flags & NBD_CMD_FLAG_REQ_ONE ?
	    NBD_CONTEXTS_MAX * ONE_BYTES : STATUS_BYTES;
}

static void
list_write_last(struct list *list)
{
	list->put += nbd_reply_put_extent(list->put, list->wire, &list->last);
	list->count++;
}

/* False once the list is full. */
static bool
list_add(struct list *list, const struct nbd_extent *extent)
{
	if (list->last.length > 0 && list->last.state == extent->state) {
		list->last.length += extent->length;
		return true;
	}
	if (list->last.length > 0)
		list_write_last(list);
	list->last = *extent;
	return list->count < list->max;
}

/* Walks the range until it is covered, or the answer is to end. */
static co_fn int
collect(struct request *request, const struct context *context,
    struct list *list)
{
	struct connection *connection = request->connection;
	struct loop *loop = connection->server_loop->loop;
	uint64_t begun_ns = loop_now_ns(loop);
	uint64_t guest = request->wire.offset;
	uint64_t left = request->wire.length;

	/* Once in any case: the process may stand still for so long. */
	do {
		struct nbd_extent extents[CONTEXT_EXTENTS_MAX];
		unsigned count;
		int err = context_describe(context, connection->export, guest,
		    left, extents, &count);

		if (err && list->last.length > 0)
			break;
		if (err)
			return err;
		for (unsigned i = 0; i < count; i++) {
			assert(extents[i].length > 0 &&
			    extents[i].length <= left);
			if (!list_add(list, &extents[i]))
				return 0;
			guest += extents[i].length;
			left -= extents[i].length;
		}
		if (left > 0)
			co_yield();
	} while (left > 0 && loop_now_ns(loop) - begun_ns <
	    STATUS_MS_MAX * UINT64_C(1000000));
	list_write_last(list);
	return 0;
}

/* The chunk of one context, at put; *endp is where it ends. */
static co_fn int
put_chunk(struct request *request, unsigned index, uint8_t *put, size_t room,
    uint8_t **endp)
{
	const struct nbd_request *wire = &request->wire;
	size_t head_bytes = nbd_reply_status_bytes(wire);
	bool is_last = request->contexts >> index == 1;
	struct list list = {
		.wire = wire, .put = put + head_bytes,
		.max = wire->flags & NBD_CMD_FLAG_REQ_ONE ? 1 :
		    (unsigned)((room - head_bytes) /
		    nbd_reply_extent_bytes(wire)),
	};
	int err = collect(request,
	    &request->connection->export->contexts[index], &list);

	if (err)
		return err;
	nbd_reply_put_status(put, wire, is_last ? NBD_REPLY_FLAG_DONE : 0,
	    index + 1, list.count);
	*endp = list.put;
	return 0;
}

int
status_run(struct request *request)
{
	size_t bytes = status_bytes(&request->wire);
	size_t share = bytes /
	    (unsigned)__builtin_popcountll(request->contexts);
	uint8_t *put;
	int err = request_get_data(request, bytes);

	if (err)
		return err;
	put = request->data;
	for (unsigned index = 0; request->contexts >> index > 0; index++) {
		if (!(request->contexts >> index & 1))
			continue;
		err = put_chunk(request, index, put, share, &put);
		if (err)
			return err;
	}
	request_add_iov(request, request->data,
	    (size_t)(put - (uint8_t *)request->data));
	return 0;
}
