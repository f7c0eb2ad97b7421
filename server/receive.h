/* SPDX-License-Identifier: MIT */
/*
 * The receiver of a connection: takes requests in and starts them.
 */
#ifndef SERVER_RECEIVE_H
#define SERVER_RECEIVE_H

struct connection;

/*
 * Begins to take requests, after the handshake.  From now on the connection
 * has a coroutine of its own only while there are bytes to look at; when
 * nothing can follow any more, input_over is set and the connection settles.
 */
void receive_start(struct connection *connection);

#endif
