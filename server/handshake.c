/* SPDX-License-Identifier: MIT */
/*
 * The handshake: fixed newstyle, from the greeting to GO or EXPORT_NAME.
 *
 *	greeting and flags, then options until one of them leads on
 *
 * An option is read whole before it is looked at, so a refused one leaves the
 * connection in step.  What a client may cost before it has chosen an export
 * is limited: the time in all (--timeout, set with the socket's deadline by
 * connection.c), HANDSHAKE_BYTES_MAX, HANDSHAKE_OPTIONS_MAX.
 * (Specification: "Handshake", "Option types".)
 */
#include "server/handshake.h"

#include <errno.h>
#include <stdlib.h>
#include "proto/handshake.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/handshake_internal.h"
#include "server/server.h"

#define HANDSHAKE_BYTES_MAX (64u << 10)
#define HANDSHAKE_OPTIONS_MAX 32

#define HANDSHAKE_FLAGS (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

/* ---- the next option ---- */

/*
 * Past a limit the client is cut off without a word: its data would have to
 * be read before it could see one.
 */
static int
count_option(struct handshake *handshake)
{
	handshake->bytes += NBD_OPTION_HEADER_BYTES +
	    handshake->option.data_bytes;
	handshake->options++;
	return handshake->bytes > HANDSHAKE_BYTES_MAX ||
	    handshake->options > HANDSHAKE_OPTIONS_MAX ? -EMSGSIZE : 0;
}

/* The next option and its data, which stay until the next call. */
static co_fn int
receive_option(struct handshake *handshake)
{
	struct connection *connection = handshake->connection;
	uint8_t header[NBD_OPTION_HEADER_BYTES];
	int err;

	free(handshake->data);
	handshake->data = NULL;
	err = handshake_receive(handshake, header, sizeof(header));
	if (err)
		return err;
	err = nbd_option_parse(header, &handshake->option);
	if (!err)
		err = count_option(handshake);
	if (err) {
		connection_note(connection, err == -EMSGSIZE ?
		    "handshake is too long" :
		    "no option where one was expected");
		return err;
	}
	if (handshake->option.data_bytes == 0)
		return 0;
	handshake->data = malloc(handshake->option.data_bytes);
	if (!handshake->data) {
		connection_note(connection, "out of memory");
		return -ENOMEM;
	}
	return handshake_receive(handshake, handshake->data,
	    handshake->option.data_bytes);
}

/* ---- options about the rest of the handshake ---- */

static co_fn int
abort_handshake(struct handshake *handshake)
{
	int err;

	connection_note(handshake->connection, "client disconnected");
	handshake_put_ack(handshake);
	err = handshake_send(handshake);
	return err ? err : -ECONNABORTED;
}

static int
structured_reply(struct handshake *handshake)
{
	if (handshake->extended_headers)
		return handshake_put_error(handshake,
		    NBD_REP_ERR_EXT_HEADER_REQD,
		    "extended headers were agreed upon already");
	handshake->structured_replies = true;
	return handshake_put_ack(handshake);
}

/* Chunks belong to them, whether structured replies came first or not. */
static int
extended_headers(struct handshake *handshake)
{
	handshake->extended_headers = true;
	return handshake_put_ack(handshake);
}

/* What was settled without TLS somebody else may have had a hand in. */
static void
forget(struct handshake *handshake)
{
	handshake->structured_replies = false;
	handshake->extended_headers = false;
	handshake_forget_contexts(handshake);
}

/* There is no way back: a client for whom TLS fails is cut off. */
static co_fn int
start_tls(struct handshake *handshake)
{
	struct connection *connection = handshake->connection;
	int err;

	if (!connection->server_loop->server->tls)
		return handshake_put_error(handshake, NBD_REP_ERR_UNSUP,
		    "the server has no TLS");
	if (connection->tls)
		return handshake_put_error(handshake, NBD_REP_ERR_INVALID,
		    "TLS is on already");
	handshake_put_ack(handshake);
	err = handshake_send(handshake);
	if (err)
		return err;
	forget(handshake);
	return channel_start_tls(connection);
}

/* ---- one after the other ---- */

static bool
must_be_empty(uint32_t option)
{
	return option == NBD_OPT_LIST || option == NBD_OPT_STARTTLS ||
	    option == NBD_OPT_STRUCTURED_REPLY ||
	    option == NBD_OPT_EXTENDED_HEADERS;
}

static co_fn int
answer_option(struct handshake *handshake)
{
	uint32_t type = handshake->option.type;

	if (type == NBD_OPT_EXPORT_NAME)
		return handshake_export_name(handshake);
	if (!(handshake->client_flags & NBD_FLAG_FIXED_NEWSTYLE)) {
		/* Such a client would not understand an error reply. */
		connection_note(handshake->connection,
		    "client cannot negotiate");
		return -EPROTO;
	}
	if (type == NBD_OPT_ABORT)
		return abort_handshake(handshake);
	if (handshake_must_start_tls(handshake) && type != NBD_OPT_STARTTLS)
		return handshake_put_objection(handshake,
		    NBD_REP_ERR_TLS_REQD);
	if (handshake->connection->server_loop->stopping)
		return handshake_put_error(handshake, NBD_REP_ERR_SHUTDOWN,
		    "the server is shutting down");
	if (must_be_empty(type) && handshake->option.data_bytes > 0)
		return handshake_put_error(handshake, NBD_REP_ERR_INVALID,
		    "the option takes no data");
	switch (type) {
	case NBD_OPT_LIST:
		return handshake_list(handshake);
	case NBD_OPT_STARTTLS:
		return start_tls(handshake);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return handshake_go(handshake);
	case NBD_OPT_STRUCTURED_REPLY:
		return structured_reply(handshake);
	case NBD_OPT_EXTENDED_HEADERS:
		return extended_headers(handshake);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return handshake_meta_context(handshake);
	}
	return handshake_put_error(handshake, NBD_REP_ERR_UNSUP,
	    "the option is not supported");
}

static co_fn int
greet(struct handshake *handshake)
{
	uint8_t wire[NBD_CLIENT_FLAGS_BYTES];
	int err;

	handshake->out_bytes = nbd_handshake_put_greeting(handshake->out,
	    HANDSHAKE_FLAGS);
	err = handshake_send(handshake);
	if (!err)
		err = handshake_receive(handshake, wire, sizeof(wire));
	if (err)
		return err;
	err = nbd_handshake_parse_client_flags(wire, HANDSHAKE_FLAGS,
	    &handshake->client_flags);
	if (err)
		connection_note(handshake->connection,
		    "client sent unknown flags");
	return err;
}

int
handshake_run(struct connection *connection)
{
	uint8_t out[HANDSHAKE_OUT_BYTES];
	struct handshake handshake = {
		.connection = connection,
		.exports = &connection->server_loop->server->exports,
		.out = out,
	};
	int result = greet(&handshake);

	while (result == GO_ON) {
		result = receive_option(&handshake);
		if (!result)
			result = answer_option(&handshake);
		if (result >= 0) {
			int err = handshake_send(&handshake);

			if (err)
				result = err;
		}
	}
	free(handshake.data);
	free(handshake.context_name);
	return result == LEAD_ON ? 0 : result;
}
