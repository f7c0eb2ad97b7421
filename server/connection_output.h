/* SPDX-License-Identifier: MIT */
/*
 * The output of a connection: replies in the order in which they became ready,
 * and what TLS has to say besides.
 *
 * It leaves at the end of a turn, all at once, when the send before has ended.
 * A request whose reply is here is still in flight; it ends when that has left.
 */
#ifndef SERVER_CONNECTION_OUTPUT_H
#define SERVER_CONNECTION_OUTPUT_H

struct connection;
struct request;

/* Takes the finished request over and sends its reply at the turn's end. */
void connection_reply(struct request *request);

/* Sends what TLS has to say besides replies, if there is any. */
void connection_flush_channel(struct connection *connection);

/* The send under way has ended, well or (broken) not. */
void connection_sent(struct connection *connection);

#endif
