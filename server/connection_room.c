/* SPDX-License-Identifier: MIT */
/*
 * Cost: within the reserve nothing is shared, and nothing but the connection's
 * own counts is touched; see budget.h for what is beyond.
 */
#include "server/connection_room.h"

#include <errno.h>
#include "server/budget.h"
#include "server/connection.h"
#include "server/server.h"

static struct budget *
budget_of(const struct connection *connection)
{
	return &connection->server_loop->server->budget;
}

void
connection_room_wake(struct connection *connection)
{
	struct co *receiver = connection->room_waiter;

	if (!receiver)
		return;
	connection->room_waiter = NULL;
	co_wake(receiver);
}

static co_fn void
wait_for_wake(struct connection *connection)
{
	connection->room_waiter = co_self();
	co_suspend();
}

/* What a connection that holds so much has to have from the budget. */
static uint64_t
budget_share(uint64_t memory)
{
	return memory > BUDGET_RESERVE_BYTES ?
	    memory - BUDGET_RESERVE_BYTES : 0;
}

/* One request is let in whatever it needs, so that none waits for ever. */
static bool
is_within_limits(const struct connection *connection, uint64_t bytes)
{
	uint64_t memory = connection->memory_in_flight + bytes;

	if (connection->requests_in_flight == 0)
		return true;
	return connection->requests_in_flight < CONNECTION_REQUESTS_MAX &&
	    memory <= CONNECTION_MEMORY_MAX && budget_share(memory) <=
	    budget_of(connection)->limit_bytes / BUDGET_CLIENTS_MIN;
}

bool
connection_room_take(struct connection *connection, uint64_t bytes)
{
	uint64_t share = budget_share(connection->memory_in_flight + bytes);

	if (!is_within_limits(connection, bytes))
		return false;
	if (share > connection->budget_bytes) {
		if (!budget_take(budget_of(connection),
		    share - connection->budget_bytes))
			return false;
		connection->budget_bytes = share;
	}
	connection->memory_in_flight += bytes;
	return true;
}

/* The budget has given what was waited for. */
static void
budget_came(struct task *task)
{
	struct budget_waiter *waiter = container_of(task,
	    struct budget_waiter, task);
	struct connection *connection = container_of(waiter,
	    struct connection, budget_waiter);

	waiter->waiting = false;
	connection->budget_bytes += waiter->bytes;
	connection_room_wake(connection);
}

/* Waits until the budget has given bytes, or there is nobody to answer. */
static co_fn void
wait_for_budget(struct connection *connection, uint64_t bytes)
{
	struct budget_waiter *waiter = &connection->budget_waiter;

	waiter->task.run = budget_came;
	budget_wait(budget_of(connection), waiter, bytes);
	while (waiter->waiting) {
		if (connection->broken &&
		    budget_cancel(budget_of(connection), waiter))
			return;
		wait_for_wake(connection);
	}
}

int
connection_room_wait(struct connection *connection, uint64_t bytes)
{
	uint64_t share;

	while (!is_within_limits(connection, bytes) && !connection->broken)
		wait_for_wake(connection);
	share = budget_share(connection->memory_in_flight + bytes);
	if (share > connection->budget_bytes && !connection->broken)
		wait_for_budget(connection, share - connection->budget_bytes);
	connection->memory_in_flight += bytes;
	if (!connection->broken)
		return 0;
	connection_room_put(connection, bytes);
	return -EPIPE;
}

void
connection_room_put(struct connection *connection, uint64_t bytes)
{
	uint64_t share;

	connection->memory_in_flight -= bytes;
	share = budget_share(connection->memory_in_flight);
	if (connection->budget_bytes > share) {
		budget_put(budget_of(connection),
		    connection->budget_bytes - share);
		connection->budget_bytes = share;
	}
	connection_room_wake(connection);
}
