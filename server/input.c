/* SPDX-License-Identifier: MIT */
#include "server/input.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/buf.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/tls_session.h"

int
input_begin(struct input *input, struct connection *connection)
{
	const struct op *receive = &connection->receive;

	*input = (struct input){.connection = connection};
	if (!connection->tls) {
		input->next = receive->pooled;
		input->left = (size_t)receive->result;
		return 0;
	}
	if (receive->pooled)
		tls_session_feed(connection->tls, receive->pooled,
		    (size_t)receive->result);
	input->record = buf_get(TLS_RECORD_BYTES);
	return input->record ? 0 : -ENOMEM;
}

void
input_end(struct input *input)
{
	free(input->copy);
	buf_put(input->record, TLS_RECORD_BYTES);
	loop_recv_put(&input->connection->receive);
}

int
input_more(struct input *input)
{
	int err;

	assert(input->left == 0);
	if (!input->record)
		return 0;
	err = channel_read(input->connection, input->record, TLS_RECORD_BYTES,
	    &input->left);
	if (err)
		return err == -EAGAIN ? 0 : err;
	input->next = input->record;
	return 1;
}

size_t
input_skip(struct input *input, size_t bytes)
{
	size_t skipped = bytes < input->left ? bytes : input->left;

	input->next += skipped;
	input->left -= skipped;
	return skipped;
}

size_t
input_take(struct input *input, void *target, size_t bytes)
{
	const uint8_t *source = input->next;
	size_t taken = input_skip(input, bytes);

	if (taken > 0)
		memcpy(target, source, taken);
	return taken;
}

int
input_detach(struct input *input)
{
	struct connection *connection = input->connection;

	if (connection->receive.pooled && input->left > 0 && !input->record) {
		input->copy = malloc(input->left);
		if (!input->copy)
			return -ENOMEM;
		memcpy(input->copy, input->next, input->left);
		input->next = input->copy;
	}
	return channel_detach(connection);
}

int
input_receive(struct input *input, void *target, size_t bytes)
{
	int err;

	assert(input->left == 0);
	/* What is encrypted and has arrived is read from where it is. */
	err = input->record ? 0 : input_detach(input);
	if (err)
		return err;
	return channel_recv_exact(input->connection, target, bytes);
}
