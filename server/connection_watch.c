/* SPDX-License-Identifier: MIT */
#include "server/connection_watch.h"

#include "server/budget.h"
#include "server/channel.h"
#include "server/connection.h"
#include "server/server.h"

static unsigned
send_looks_max(const struct connection *connection)
{
	unsigned seconds = connection->server_loop->server->limits.send_s;

	return (seconds * 1000 + CONNECTION_WATCH_MS - 1) /
	    CONNECTION_WATCH_MS;
}

/* Whether the send under way is the one seen too many looks ago. */
static bool
send_is_stuck(struct connection *connection)
{
	if ((!connection->sending.first && !channel_is_sending(connection)) ||
	    connection->sends != connection->watched_sends) {
		connection->watched_sends = connection->sends;
		connection->watched_looks = 0;
		return false;
	}
	return ++connection->watched_looks >= send_looks_max(connection);
}

/*
 * Whether the client keeps memory that others wait for: it has a share of it,
 * its bytes are awaited or ours not taken, and none of either has moved.
 */
static bool
hoards_memory(struct connection *connection)
{
	uint64_t progress;

	if (connection->budget_bytes == 0 ||
	    !budget_is_short(&connection->server_loop->server->budget) ||
	    !(connection->sending.first || connection->payload_awaited)) {
		connection->hoard_looks = 0;
		return false;
	}
	progress = connection->sends + connection->requests_count +
	    sock_progress_bytes(&connection->sock);
	if (progress != connection->hoard_progress)
		connection->hoard_looks = 0;
	connection->hoard_progress = progress;
	return connection->hoard_looks++ >= CONNECTION_HOARD_LOOKS_MAX;
}

static void
watch(struct connection *connection)
{
	if (connection->broken)
		return;
	if (send_is_stuck(connection))
		connection_break(connection, "client took no replies");
	else if (hoards_memory(connection))
		connection_break(connection,
		    "client stood still while others waited for its memory");
}

void
connection_watch_all(struct server_loop *server_loop)
{
	for (struct connection *connection = server_loop->connections;
	    connection; connection = connection->next)
		watch(connection);
}
