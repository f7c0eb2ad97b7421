/* SPDX-License-Identifier: MIT */
/*
 * Who may use which export.  Where there is TLS, one without it gets those of
 * --tls-optional, and one with it those that --allow does not keep from it.
 */
#include "runtime/log.h"
#include "server/allow.h"
#include "server/connection.h"
#include "server/export.h"
#include "server/handshake_internal.h"
#include "server/server.h"
#include "server/tls_session.h"

static bool
is_plain_beside_tls(const struct handshake *handshake)
{
	const struct connection *connection = handshake->connection;

	return connection->server_loop->server->tls && !connection->tls;
}

bool
handshake_must_start_tls(const struct handshake *handshake)
{
	return is_plain_beside_tls(handshake) &&
	    !handshake->connection->server_loop->server->tls_is_optional;
}

uint32_t
handshake_objection(const struct handshake *handshake,
    const struct export *export)
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

int
handshake_put_objection(struct handshake *handshake, uint32_t error)
{
	char client[256];

	switch (error) {
	case NBD_REP_ERR_TLS_REQD:
		return handshake_put_error(handshake, error,
		    "this needs TLS: start it first");
	case NBD_REP_ERR_POLICY:
		log_info("client asked for an export that --allow keeps from "
		    "it peer=\"%s\" tls=\"%s\"",
		    handshake->connection->peer.name, tls_session_describe(
		    handshake->connection->tls, client, sizeof(client)));
		return handshake_put_error(handshake, error,
		    "this client is not allowed to use the export");
	default:
		return handshake_put_error(handshake, error,
		    "there is no export of that name");
	}
}
