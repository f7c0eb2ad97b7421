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
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "proto/handshake.h"
#include "proto/option.h"
#include "proto/option_reply.h"
#include "runtime/log.h"
#include "server/allow.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/context.h"
#include "server/export.h"
#include "server/server.h"
#include "server/tls_session.h"

#define HANDSHAKE_BYTES_MAX (64u << 10)
#define HANDSHAKE_OPTIONS_MAX 32

#define HANDSHAKE_FLAGS (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

/* The facts that GO tells besides a name and a description. */
#define FIXED_FACTS_BYTES 256

/*
 * All replies to one option, but to LIST, fit: GO's are the longest, and leave
 * room for one that is asked for by out_end().
 */
#define OUT_BYTES (2 * NBD_OPTION_REPLY_BYTES_MAX + FIXED_FACTS_BYTES)

/* What an option handler returns besides -errno. */
#define GO_ON 0
#define LEAD_ON 1	/* the handshake is over */

struct handshake {
	struct connection *connection;
	const struct export_table *exports;
	uint32_t client_flags;
	uint32_t bytes;			/* received so far */
	unsigned options;
	bool structured_replies;
	bool extended_headers;
	uint64_t contexts;		/* selected; see struct nbd_terms */
	char *context_name;		/* the export that they are for */

	struct nbd_option option;	/* the one being answered */
	uint8_t *data;

	/* Replies not sent yet; none when an option begins. */
	size_t out_bytes;
	uint8_t *out;			/* OUT_BYTES of them */
};

/* ---- sending ---- */

static co_fn int
send_out(struct handshake *handshake)
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

/* Where the next reply goes; there is room for a longest one. */
static uint8_t *
out_end(struct handshake *handshake)
{
	assert(handshake->out_bytes + NBD_OPTION_REPLY_BYTES_MAX <= OUT_BYTES);
	return handshake->out + handshake->out_bytes;
}

static int
put_ack(struct handshake *handshake)
{
	handshake->out_bytes += nbd_option_reply_put_ack(out_end(handshake),
	    handshake->option.type);
	return GO_ON;
}

static int
put_error(struct handshake *handshake, uint32_t error, const char *message)
{
	handshake->out_bytes += nbd_option_reply_put_error(out_end(handshake),
	    handshake->option.type, error, message);
	log_debug("option refused peer=\"%s\" option=%s reply=%s",
	    handshake->connection->peer.name,
	    nbd_option_name(handshake->option.type),
	    nbd_option_reply_name(error));
	return GO_ON;
}

/* ---- who may use which export ---- */

static bool
is_plain_beside_tls(const struct handshake *handshake)
{
	const struct connection *connection = handshake->connection;

	return connection->server_loop->server->tls && !connection->tls;
}

/* TLS has to be on before anything else. */
static bool
must_start_tls(const struct handshake *handshake)
{
	return is_plain_beside_tls(handshake) &&
	    !handshake->connection->server_loop->server->tls_is_optional;
}

/*
 * What stands against the client's use of export (NULL: one that is not
 * there): an NBD_REP_ERR_, or 0.  Without TLS none can tell apart which exports
 * are only for those with it, and which do not exist.
 */
static uint32_t
objection(const struct handshake *handshake, const struct export *export)
{
	const struct connection *connection = handshake->connection;
	const struct server *server = connection->server_loop->server;
	uint32_t type = handshake->option.type;

	if (is_plain_beside_tls(handshake) &&
	    (!export || export->needs_tls))
		return type == NBD_OPT_GO || type == NBD_OPT_INFO ?
		    NBD_REP_ERR_TLS_REQD : NBD_REP_ERR_UNKNOWN;
	if (!export)
		return NBD_REP_ERR_UNKNOWN;
	if (export->needs_tls &&
	    !allow_permits(server->allow, export->name, connection->tls))
		return NBD_REP_ERR_POLICY;
	return 0;
}

static int
put_objection(struct handshake *handshake, uint32_t error)
{
	char client[256];

	switch (error) {
	case NBD_REP_ERR_TLS_REQD:
		return put_error(handshake, error,
		    "this needs TLS: start it first");
	case NBD_REP_ERR_POLICY:
		log_info("client asked for an export that --allow keeps from "
		    "it peer=\"%s\" tls=\"%s\"",
		    handshake->connection->peer.name, tls_session_describe(
		    handshake->connection->tls, client, sizeof(client)));
		return put_error(handshake, error,
		    "this client is not allowed to use the export");
	default:
		return put_error(handshake, error,
		    "there is no export of that name");
	}
}

/* ---- receiving ---- */

static co_fn int
receive(struct handshake *handshake, void *data, size_t bytes)
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
	err = receive(handshake, header, sizeof(header));
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
	return receive(handshake, handshake->data,
	    handshake->option.data_bytes);
}

/* ---- what leads on ---- */

/* Chunks, of one kind or the other. */
static bool
has_chunks(const struct handshake *handshake)
{
	return handshake->structured_replies || handshake->extended_headers;
}

/* The contexts that were selected, if they are for the export of that name. */
static uint64_t
contexts_for(const struct handshake *handshake, struct nbd_text name)
{
	if (handshake->contexts == 0 ||
	    !nbd_text_equal(name, handshake->context_name))
		return 0;
	return handshake->contexts;
}

static uint16_t
transmission_flags(const struct handshake *handshake,
    const struct export *export, struct nbd_text name)
{
	uint16_t flags = export->flags;

	if (has_chunks(handshake))
		flags |= NBD_FLAG_SEND_DF;
	if (handshake->extended_headers && contexts_for(handshake, name))
		flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
	return flags;
}

/* False: the export has all the clients it may have. */
static bool
choose(struct handshake *handshake, struct export *export,
    struct nbd_text name)
{
	struct connection *connection = handshake->connection;
	const struct server *server = connection->server_loop->server;

	if (!export_enter(export, server->limits.export_connections_max))
		return false;
	connection->terms = (struct nbd_terms){
		.export_bytes = atomic_load(&export->size_bytes),
		.block_bytes_min = export->block_size.minimum,
		.transmission_flags = transmission_flags(handshake, export,
		    name),
		.structured_replies = has_chunks(handshake),
		.extended_headers = handshake->extended_headers,
		.contexts = contexts_for(handshake, name),
	};
	connection->export = export;
	return true;
}

/* The one option that has no error reply: closing says it all. */
static int
export_name(struct handshake *handshake)
{
	bool no_zeroes = handshake->client_flags & NBD_FLAG_NO_ZEROES;
	struct connection *connection = handshake->connection;
	struct export *export = NULL;
	struct nbd_text name;
	int err;

	if (connection->server_loop->stopping) {
		connection_note(connection, "server is shutting down");
		return -ESHUTDOWN;
	}
	if (handshake->extended_headers) {
		connection_note(connection,
		    "asked for an export by EXPORT_NAME after "
		    "EXTENDED_HEADERS, which wants GO");
		return -EPROTO;
	}
	err = nbd_option_parse_export_name(handshake->data,
	    handshake->option.data_bytes, &name);
	if (!err)
		export = export_find(handshake->exports, name);
	if (objection(handshake, export)) {
		connection_note(connection, export ?
		    "asked for an export it may not use (like this)" :
		    "asked for an unknown export");
		return -ENOENT;
	}
	if (!choose(handshake, export, name)) {
		connection_note(connection, "the export has enough clients");
		return -EBUSY;
	}
	handshake->out_bytes = nbd_handshake_put_export(handshake->out,
	    connection->terms.export_bytes,
	    connection->terms.transmission_flags, no_zeroes);
	return LEAD_ON;
}

static void
put_facts(struct handshake *handshake, const struct export *export,
    const struct nbd_option_go *go)
{
	const struct connection *connection = handshake->connection;
	uint32_t option = handshake->option.type;

	/* Of an export that is chosen, what its requests will be held to. */
	handshake->out_bytes += nbd_option_reply_put_info_export(
	    out_end(handshake), option, connection->export ?
	    connection->terms.export_bytes : atomic_load(&export->size_bytes),
	    transmission_flags(handshake, export, go->name));
	if (nbd_option_go_wants(go, NBD_INFO_BLOCK_SIZE))
		handshake->out_bytes += nbd_option_reply_put_info_block_size(
		    out_end(handshake), option, &export->block_size);
	if (nbd_option_go_wants(go, NBD_INFO_NAME))
		handshake->out_bytes += nbd_option_reply_put_info_name(
		    out_end(handshake), option, nbd_text_of(export->name));
	if (nbd_option_go_wants(go, NBD_INFO_DESCRIPTION) &&
	    export->description)
		handshake->out_bytes += nbd_option_reply_put_info_description(
		    out_end(handshake), option, export->description);
}

/* GO, and INFO, which only tells the same. */
static int
go(struct handshake *handshake)
{
	struct nbd_option_go wanted;
	struct export *export;
	uint32_t error;
	int err;

	err = nbd_option_parse_go(handshake->data,
	    handshake->option.data_bytes, &wanted);
	if (err)
		return put_error(handshake, NBD_REP_ERR_INVALID,
		    "the option's lengths do not add up");
	export = export_find(handshake->exports, wanted.name);
	error = objection(handshake, export);
	if (error)
		return put_objection(handshake, error);
	if (handshake->option.type == NBD_OPT_GO &&
	    !choose(handshake, export, wanted.name))
		return put_error(handshake, NBD_REP_ERR_POLICY,
		    "the export has all the clients it may have at once");
	put_facts(handshake, export, &wanted);
	put_ack(handshake);
	return handshake->option.type == NBD_OPT_GO ? LEAD_ON : GO_ON;
}

/* ---- other options ---- */

static co_fn int
list(struct handshake *handshake)
{
	for (unsigned i = 0; i < handshake->exports->count; i++) {
		const struct export *export = handshake->exports->list[i];

		if (objection(handshake, export))
			continue;
		handshake->out_bytes += nbd_option_reply_put_server(
		    out_end(handshake), nbd_text_of(export->name),
		    export->description);
		if (handshake->out_bytes > NBD_OPTION_REPLY_BYTES_MAX) {
			int err = send_out(handshake);

			if (err)
				return err;
		}
	}
	return put_ack(handshake);
}

/* A name, or (in LIST) what names begin with, up to a colon: "base:". */
static bool
query_matches(struct nbd_text query, const char *name, bool listing)
{
	if (nbd_text_equal(query, name))
		return true;
	return listing && query.bytes > 0 && query.bytes < strlen(name) &&
	    query.start[query.bytes - 1] == ':' &&
	    !memcmp(query.start, name, query.bytes);
}

/* The contexts of the export that are asked for. */
static uint64_t
contexts_asked(const struct export *export, struct nbd_option_meta *meta,
    bool listing)
{
	bool all = listing && meta->queries == 0;
	struct nbd_text query;
	uint64_t asked = 0;

	for (unsigned i = 0; all && i < export->contexts_count; i++)
		asked |= UINT64_C(1) << i;
	while (nbd_option_next_query(meta, &query))
		for (unsigned i = 0; i < export->contexts_count; i++)
			if (query_matches(query, export->contexts[i].name,
			    listing))
				asked |= UINT64_C(1) << i;
	return asked;
}

static co_fn int
put_contexts(struct handshake *handshake, const struct export *export,
    uint64_t asked)
{
	bool listing = handshake->option.type == NBD_OPT_LIST_META_CONTEXT;

	for (unsigned i = 0; i < export->contexts_count; i++) {
		if (!(asked >> i & 1))
			continue;
		handshake->out_bytes += nbd_option_reply_put_meta_context(
		    out_end(handshake), handshake->option.type,
		    listing ? 0 : i + 1,
		    nbd_text_of(export->contexts[i].name));
		if (handshake->out_bytes > NBD_OPTION_REPLY_BYTES_MAX) {
			int err = send_out(handshake);

			if (err)
				return err;
		}
	}
	return put_ack(handshake);
}

static int
remember_contexts(struct handshake *handshake, struct nbd_text name,
    uint64_t asked)
{
	handshake->context_name = strndup(name.start ? name.start : "",
	    name.bytes);
	if (!handshake->context_name) {
		connection_note(handshake->connection, "out of memory");
		return -ENOMEM;
	}
	handshake->contexts = asked;
	return 0;
}

static void
forget_contexts(struct handshake *handshake)
{
	free(handshake->context_name);
	handshake->context_name = NULL;
	handshake->contexts = 0;
}

static co_fn int
meta_context(struct handshake *handshake)
{
	bool listing = handshake->option.type == NBD_OPT_LIST_META_CONTEXT;
	const struct export *export;
	struct nbd_option_meta meta;
	uint64_t asked;
	uint32_t error;
	int err;

	/* Setting replaces what was set before, even if it fails. */
	if (!listing)
		forget_contexts(handshake);
	if (!has_chunks(handshake))
		return put_error(handshake, NBD_REP_ERR_INVALID,
		    "structured replies or extended headers come first");
	err = nbd_option_parse_meta(handshake->data,
	    handshake->option.data_bytes, &meta);
	if (err)
		return put_error(handshake, NBD_REP_ERR_INVALID,
		    "the option's lengths do not add up");
	export = export_find(handshake->exports, meta.name);
	error = objection(handshake, export);
	if (error)
		return put_objection(handshake, error);
	asked = contexts_asked(export, &meta, listing);
	if (!listing && asked) {
		err = remember_contexts(handshake, meta.name, asked);
		if (err)
			return err;
	}
	return put_contexts(handshake, export, asked);
}

static co_fn int
abort_handshake(struct handshake *handshake)
{
	int err;

	connection_note(handshake->connection, "client disconnected");
	put_ack(handshake);
	err = send_out(handshake);
	return err ? err : -ECONNABORTED;
}

static int
structured_reply(struct handshake *handshake)
{
	if (handshake->extended_headers)
		return put_error(handshake, NBD_REP_ERR_EXT_HEADER_REQD,
		    "extended headers were agreed upon already");
	handshake->structured_replies = true;
	return put_ack(handshake);
}

/* Chunks belong to them, whether structured replies came first or not. */
static int
extended_headers(struct handshake *handshake)
{
	handshake->extended_headers = true;
	return put_ack(handshake);
}

/* What was settled without TLS somebody else may have had a hand in. */
static void
forget(struct handshake *handshake)
{
	handshake->structured_replies = false;
	handshake->extended_headers = false;
	forget_contexts(handshake);
}

/* There is no way back: a client for whom TLS fails is cut off. */
static co_fn int
start_tls(struct handshake *handshake)
{
	struct connection *connection = handshake->connection;
	int err;

	if (!connection->server_loop->server->tls)
		return put_error(handshake, NBD_REP_ERR_UNSUP,
		    "the server has no TLS");
	if (connection->tls)
		return put_error(handshake, NBD_REP_ERR_INVALID,
		    "TLS is on already");
	put_ack(handshake);
	err = send_out(handshake);
	if (err)
		return err;
	forget(handshake);
	return channel_start_tls(connection);
}

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
		return export_name(handshake);
	if (!(handshake->client_flags & NBD_FLAG_FIXED_NEWSTYLE)) {
		/* Such a client would not understand an error reply. */
		connection_note(handshake->connection,
		    "client cannot negotiate");
		return -EPROTO;
	}
	if (type == NBD_OPT_ABORT)
		return abort_handshake(handshake);
	if (must_start_tls(handshake) && type != NBD_OPT_STARTTLS)
		return put_objection(handshake, NBD_REP_ERR_TLS_REQD);
	if (handshake->connection->server_loop->stopping)
		return put_error(handshake, NBD_REP_ERR_SHUTDOWN,
		    "the server is shutting down");
	if (must_be_empty(type) && handshake->option.data_bytes > 0)
		return put_error(handshake, NBD_REP_ERR_INVALID,
		    "the option takes no data");
	switch (type) {
	case NBD_OPT_LIST:
		return list(handshake);
	case NBD_OPT_STARTTLS:
		return start_tls(handshake);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return go(handshake);
	case NBD_OPT_STRUCTURED_REPLY:
		return structured_reply(handshake);
	case NBD_OPT_EXTENDED_HEADERS:
		return extended_headers(handshake);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return meta_context(handshake);
	}
	return put_error(handshake, NBD_REP_ERR_UNSUP,
	    "the option is not supported");
}

static co_fn int
greet(struct handshake *handshake)
{
	uint8_t wire[NBD_CLIENT_FLAGS_BYTES];
	int err;

	handshake->out_bytes = nbd_handshake_put_greeting(handshake->out,
	    HANDSHAKE_FLAGS);
	err = send_out(handshake);
	if (!err)
		err = receive(handshake, wire, sizeof(wire));
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
	uint8_t out[OUT_BYTES];
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
			int err = send_out(&handshake);

			if (err)
				result = err;
		}
	}
	free(handshake.data);
	free(handshake.context_name);
	return result == LEAD_ON ? 0 : result;
}
