/* SPDX-License-Identifier: MIT */
/*
 * The bytes of the handshake: what is received is read whole before it is
 * looked at, and the replies to one option leave in one send.
 */
#include <assert.h>
#include <errno.h>
#include "runtime/log.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/handshake_internal.h"

int
handshake_receive(struct handshake *handshake, void *data, size_t bytes)
{
	struct connection *connection = handshake->connection;
	int err = channel_recv_exact(connection, data, bytes);

	if (!err)
		err = channel_detach(connection);
	if (err == -ETIMEDOUT)
		connection_note(connection, "handshake took too long");
	else if (err == -ENODATA)
		connection_note(connection, "client closed");
	else if (err)
		connection_note(connection,
		    "client gone during the handshake");
	return err;
}

int
handshake_send(struct handshake *handshake)
{
	size_t bytes = handshake->out_bytes;
	int err;

	if (bytes == 0)
		return 0;
	handshake->out_bytes = 0;
	err = channel_send(handshake->connection, handshake->out, bytes);
	if (err)
		connection_note(handshake->connection,
		    err == -ETIMEDOUT ? "handshake took too long" :
		    "client gone during the handshake");
	return err;
}

int
handshake_make_room(struct handshake *handshake)
{
	return handshake->out_bytes > NBD_OPTION_REPLY_BYTES_MAX ?
	    handshake_send(handshake) : 0;
}

uint8_t *
handshake_reply_end(struct handshake *handshake)
{
	assert(handshake->out_bytes + NBD_OPTION_REPLY_BYTES_MAX <=
	    HANDSHAKE_OUT_BYTES);
	return handshake->out + handshake->out_bytes;
}

int
handshake_put_ack(struct handshake *handshake)
{
	handshake->out_bytes += nbd_option_reply_put_ack(
	    handshake_reply_end(handshake), handshake->option.type);
	return GO_ON;
}

int
handshake_put_error(struct handshake *handshake, uint32_t error,
    const char *message)
{
	handshake->out_bytes += nbd_option_reply_put_error(
	    handshake_reply_end(handshake), handshake->option.type, error,
	    message);
	log_debug("option refused peer=\"%s\" option=%s reply=%s",
	    handshake->connection->peer.name,
	    nbd_option_name(handshake->option.type),
	    nbd_option_reply_name(error));
	return GO_ON;
}
