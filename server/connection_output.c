/* SPDX-License-Identifier: MIT */
/*
 * Replies on their way out.
 *
 * Those that became ready in one turn of the loop leave in one gathered
 * send: finished requests queue up, and one flush task, run at the turn's end,
 * takes as many as fit.  One send is under way at a time; what becomes ready
 * meanwhile goes with the next.  Cost: one send operation for all replies of a
 * turn; of long reads that the page cache holds (splice.c) two system calls
 * each and one for the header, whose data is not copied; no allocation; a timer
 * is not touched (connection_watch.c finds sends that are stuck).
 */
#include "server/connection_output.h"

#include "runtime/splice_pipe.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/connection_room.h"
#include "server/request.h"
#include "server/server.h"
#include "server/splice.h"

static void
list_append(struct request_list *list, struct request *request)
{
	request->next = NULL;
	if (list->first)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
}

static struct request *
list_take(struct request_list *list)
{
	struct request *request = list->first;

	if (request)
		list->first = request->next;
	return request;
}

/* The replies in list have left, or never will. */
static void
finish_all(struct connection *connection, struct request_list *list)
{
	struct request *request;

	while ((request = list_take(list))) {
		if (request->owner)
			request_part_sent(request->owner);
		else
			connection->requests_in_flight--;
		connection_room_put(connection, request->memory);
		request_put(connection->server_loop, request);
	}
	if (connection->server_loop->closing)
		connection_close_if_idle(connection);
}

/*
 * Moves as many replies as one send may hold into it, if there are any.  How
 * many iovecs there are; what of it is in the pipe (spliced_left) follows them.
 */
static unsigned
gather(struct connection *connection)
{
	unsigned count = 0;
	size_t bytes = 0;
	struct request *request;

	while ((request = connection->replies.first)) {
		if (request->iov_count > 0 && (connection->spliced_left > 0 ||
		    count + request->iov_count > CONNECTION_SEND_IOV_MAX ||
		    bytes > CONNECTION_SEND_BYTES_MAX))
			break;
		for (unsigned i = 0; i < request->iov_count; i++) {
			connection->send_iov[count++] = request->iov[i];
			bytes += request->iov[i].iov_len;
		}
		connection->spliced_left += request->spliced_bytes;
		list_append(&connection->sending,
		    list_take(&connection->replies));
	}
	return count;
}

static void
flush_now(struct connection *connection)
{
	unsigned iov_count;

	if (connection->sending.first || channel_is_sending(connection))
		return;		/* its end comes back here */
	if (connection->broken) {
		finish_all(connection, &connection->replies);
		splice_settle(connection);
		connection_settle(connection);
		return;
	}
	iov_count = gather(connection);
	connection->sends++;
	if (channel_encrypts(connection)) {
		channel_send_replies(connection, iov_count);
		return;
	}
	if (iov_count == 0) {
		splice_send(connection);
		return;
	}
	connection->send = (struct op){
		.task.run = splice_send_on,
		.kind = OP_SEND,
		.fd = connection->sock.fd,
		.iov = connection->send_iov,
		.iov_count = iov_count,
		.flags = connection->sock.send_flags,
	};
	loop_submit(&connection->send);
}

static void
flush(struct task *task)
{
	struct connection *connection = container_of(task, struct connection,
	    flush);

	connection->flush_queued = false;
	/* They may all have left early. */
	if (connection->replies.first || channel_has_output(connection))
		flush_now(connection);
	else
		connection_settle(connection);
}

static void
queue_flush(struct connection *connection)
{
	if (connection->flush_queued)
		return;
	connection->flush_queued = true;
	connection->flush.run = flush;
	loop_at_turn_end(connection->server_loop->loop, &connection->flush);
}

void
connection_flush_channel(struct connection *connection)
{
	if (channel_has_output(connection))
		queue_flush(connection);
}

void
connection_sent(struct connection *connection)
{
	finish_all(connection, &connection->sending);
	splice_settle(connection);
	if (connection->replies.first || (!connection->broken &&
	    channel_has_output(connection)))
		queue_flush(connection);
	connection_settle(connection);
}

void
connection_reply(struct request *request)
{
	struct connection *connection = request->connection;
	struct request_list *replies = &connection->replies;

	if (replies->first && replies->last->spliced_bytes > 0 &&
	    request->spliced_bytes == 0)
		splice_small_reply(request);
	list_append(replies, request);
	if (connection->pipe &&
	    connection->pipe->bytes >= SPLICE_EARLY_BYTES &&
	    !connection->sending.first)
		flush_now(connection);
	else
		queue_flush(connection);
}
