/* SPDX-License-Identifier: MIT */
/*
 * Replies that the page cache holds: into the connection's pipe, and out of it
 * to the socket.
 *
 * All replies of a connection stand in one list and leave in its order.  The
 * bytes in the pipe are those of the replies in the list that have
 * spliced_bytes, in the same order, because a reply is put into the pipe and
 * into the list without a suspension in between.
 */
#include <errno.h>
#include "qcow2/image.h"
#include "runtime/iov.h"
#include "server/connection.h"
#include "server/connection_output.h"
#include "server/export.h"
#include "server/read.h"
#include "server/request.h"
#include "server/splice.h"

/* A request that waits for room in the pipe; on its own stack. */
struct pipe_waiter {
	struct pipe_waiter *next;
	struct co *co;
};

/* ---- into the pipe ---- */

/* The pipe, if it is there or can be had and is big enough in itself. */
static struct splice_pipe *
get_pipe(struct connection *connection, unsigned pieces)
{
	if (connection->broken)
		return NULL;
	if (!connection->pipe)
		connection->pipe = splice_pipe_get();
	if (!connection->pipe || pieces > connection->pipe->pieces_max)
		return NULL;
	return connection->pipe;
}

/* Until the pipe is empty. */
static co_fn void
wait_for_pipe(struct connection *connection)
{
	struct pipe_waiter waiter = {.co = co_self()};
	struct pipe_waiter **link = &connection->pipe_waiters;

	while (*link)
		link = &(*link)->next;
	*link = &waiter;
	co_suspend();
}

static unsigned
count_pieces(const struct image_plan *plan)
{
	unsigned pieces = 0;

	for (unsigned i = 0; i < plan->count; i++)
		pieces += splice_pipe_pieces(plan->ranges[i].offset,
		    plan->ranges[i].length);
	return pieces;
}

static bool
all_cached(const struct image_plan *plan)
{
	for (unsigned i = 0; i < plan->count; i++)
		if (!file_is_cached(plan->ranges[i].file,
		    plan->ranges[i].offset, plan->ranges[i].length))
			return false;
	return true;
}

/*
 * Plans until the pipe has room for what was planned: *pipep is then that
 * pipe, and the plan is to be ended.  1; 0 if that will not come; -errno.
 */
static co_fn int
plan_with_room(struct request *request, struct image_plan *plan,
    struct splice_pipe **pipep)
{
	struct connection *connection = request->connection;

	for (;;) {
		int result = image_plan(connection->export->image,
		    request->part_offset, request->part_bytes, plan);
		unsigned pieces;

		if (result != 1)
			return result;
		pieces = count_pieces(plan);
		*pipep = get_pipe(connection, pieces);
		if (*pipep && (*pipep)->pieces + pieces <=
		    (*pipep)->pieces_max)
			return 1;
		image_plan_end(plan);
		if (!*pipep) {
			splice_settle(connection);
			return 0;
		}
		wait_for_pipe(connection);
	}
}

/*
 * The head goes into the pipe, too.  Where a long read leaves no room for it
 * there it goes out in front, as other replies do.
 */
static int
fill(struct request *request, const struct image_plan *plan,
    struct splice_pipe *pipe)
{
	uint64_t before = pipe->bytes;
	int err;

	if (pipe->pieces + count_pieces(plan) < pipe->pieces_max &&
	    !splice_pipe_write(pipe, request->iov, request->iov_count))
		request->iov_count = 0;
	err = splice_pipe_fill(pipe, plan->ranges, plan->count);
	request->spliced_bytes = pipe->bytes - before;
	return err;
}

int
splice_read(struct request *request)
{
	struct connection *connection = request->connection;
	struct image_plan plan;
	struct splice_pipe *pipe;
	int result = plan_with_room(request, &plan, &pipe);

	if (result != 1)
		return result;
	if (!all_cached(&plan)) {
		image_plan_end(&plan);
		splice_settle(connection);
		return 0;
	}
	read_add_data_head(request);
	result = fill(request, &plan, pipe);
	image_plan_end(&plan);
	if (result == 0)
		return 1;
	/* The head promised bytes that will not come. */
	connection_break(connection, "the image was cut short while read");
	return result;
}

bool
splice_small_reply(struct request *request)
{
	struct connection *connection = request->connection;
	size_t bytes = iov_bytes(request->iov, request->iov_count);

	if (bytes > SPLICE_REPLY_BYTES_MAX || connection->broken ||
	    splice_pipe_write(connection->pipe, request->iov,
	    request->iov_count))
		return false;
	request->iov_count = 0;
	request->spliced_bytes = bytes;
	return true;
}

/* ---- out of the pipe ---- */

void
splice_send_on(struct task *task)
{
	struct op *op = container_of(task, struct op, task);
	struct connection *connection = container_of(op, struct connection,
	    send);

	if (op->result < 0)
		connection_break(connection, "client does not take replies");
	splice_send(connection);
}

void
splice_send(struct connection *connection)
{
	while (connection->spliced_left > 0 && !connection->broken) {
		int64_t moved = splice_pipe_send(connection->pipe,
		    connection->sock.fd, connection->spliced_left);

		if (moved == -EAGAIN) {
			connection->send = (struct op){
				.task.run = splice_send_on, .kind = OP_POLL_OUT,
				.fd = connection->sock.fd,
			};
			loop_submit(&connection->send);
			return;
		}
		if (moved < 0) {
			connection_break(connection,
			    "client does not take replies");
			break;
		}
		connection->spliced_left -= (uint64_t)moved;
		connection->sends++;
	}
	connection->spliced_left = 0;
	connection_sent(connection);
}

/*
 * A pipe that is empty is another connection's, and so is one of a connection
 * that is broken, where nothing will be taken from it any more.
 */
void
splice_settle(struct connection *connection)
{
	struct splice_pipe *pipe = connection->pipe;
	struct pipe_waiter *waiters = connection->pipe_waiters;

	if (!pipe || (pipe->bytes > 0 && !connection->broken))
		return;
	connection->pipe = NULL;
	splice_pipe_put(pipe);
	connection->pipe_waiters = NULL;
	while (waiters) {
		struct pipe_waiter *waiter = waiters;

		waiters = waiter->next;
		co_wake(waiter->co);
	}
}
