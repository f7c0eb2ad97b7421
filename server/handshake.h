/* SPDX-License-Identifier: MIT */
/*
 * The handshake: all that is settled before requests are taken.
 *
 * It is a conversation of options and replies, which ends with the client's
 * choice of an export.  Nothing of it remains but what it has put into the
 * connection.
 */
#ifndef SERVER_HANDSHAKE_H
#define SERVER_HANDSHAKE_H

#include "runtime/co.h"

struct connection;

/*
 * Settles everything until transmission: fills connection->export (entered),
 * ->terms.  -errno: the connection is to be closed, why_ended is set.
 */
co_fn int handshake_run(struct connection *connection);

#endif
