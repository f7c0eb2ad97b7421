/* SPDX-License-Identifier: MIT */
/*
 * Exports: which there are, what is told of one, and the choice of one.
 */
#include <errno.h>
#include "proto/handshake.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/handshake_internal.h"
#include "server/server.h"

int
handshake_list(struct handshake *handshake)
{
	for (unsigned i = 0; i < handshake->exports->count; i++) {
		const struct export *export = handshake->exports->list[i];
		int err;

		if (handshake_objection(handshake, export))
			continue;
		handshake->out_bytes += nbd_option_reply_put_server(
		    handshake_reply_end(handshake), nbd_text_of(export->name),
		    export->description);
		err = handshake_make_room(handshake);
		if (err)
			return err;
	}
	return handshake_put_ack(handshake);
}

static uint16_t
transmission_flags(const struct handshake *handshake,
    const struct export *export, struct nbd_text name)
{
	uint16_t flags = export->flags;

	if (handshake_has_chunks(handshake))
		flags |= NBD_FLAG_SEND_DF;
	if (handshake->extended_headers &&
	    handshake_contexts_for(handshake, name))
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
		.structured_replies = handshake_has_chunks(handshake),
		.extended_headers = handshake->extended_headers,
		.contexts = handshake_contexts_for(handshake, name),
	};
	connection->export = export;
	return true;
}

int
handshake_export_name(struct handshake *handshake)
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
	if (handshake_objection(handshake, export)) {
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
	    handshake_reply_end(handshake), option, connection->export ?
	    connection->terms.export_bytes : atomic_load(&export->size_bytes),
	    transmission_flags(handshake, export, go->name));
	if (nbd_option_go_wants(go, NBD_INFO_BLOCK_SIZE))
		handshake->out_bytes += nbd_option_reply_put_info_block_size(
		    handshake_reply_end(handshake), option,
		    &export->block_size);
	if (nbd_option_go_wants(go, NBD_INFO_NAME))
		handshake->out_bytes += nbd_option_reply_put_info_name(
		    handshake_reply_end(handshake), option,
		    nbd_text_of(export->name));
	if (nbd_option_go_wants(go, NBD_INFO_DESCRIPTION) &&
	    export->description)
		handshake->out_bytes += nbd_option_reply_put_info_description(
		    handshake_reply_end(handshake), option,
		    export->description);
}

int
handshake_go(struct handshake *handshake)
{
	struct nbd_option_go wanted;
	struct export *export;
	uint32_t error;
	int err;

	err = nbd_option_parse_go(handshake->data,
	    handshake->option.data_bytes, &wanted);
	if (err)
		return handshake_put_error(handshake, NBD_REP_ERR_INVALID,
		    "the option's lengths do not add up");
	export = export_find(handshake->exports, wanted.name);
	error = handshake_objection(handshake, export);
	if (error)
		return handshake_put_objection(handshake, error);
	if (handshake->option.type == NBD_OPT_GO &&
	    !choose(handshake, export, wanted.name))
		return handshake_put_error(handshake, NBD_REP_ERR_POLICY,
		    "the export has all the clients it may have at once");
	put_facts(handshake, export, &wanted);
	handshake_put_ack(handshake);
	return handshake->option.type == NBD_OPT_GO ? LEAD_ON : GO_ON;
}
