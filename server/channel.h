/* SPDX-License-Identifier: MIT */
/*
 * The channel of a connection: its socket, and TLS in between since STARTTLS.
 *
 * What arrives and leaves goes through here, so that nobody else has to know
 * which of the two it is.  Of a plain connection these are the functions of
 * runtime/sock.h.
 */
#ifndef SERVER_CHANNEL_H
#define SERVER_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include "runtime/co.h"

struct connection;

/*
 * Starts TLS as the server: returns when the handshake is done.  Its
 * cryptography runs on a worker.  -errno: the connection has to end, and why
 * is noted.
 */
co_fn int channel_start_tls(struct connection *connection);

/*
 * Receives exactly bytes; as sock_recv_exact() does, and -EPROTO if what
 * arrives is no TLS.  Since it may hold a pooled buffer then, the caller that
 * goes on to suspend calls channel_detach() first.
 */
co_fn int channel_recv_exact(struct connection *connection, void *data,
    size_t bytes);

/* Sends all of it, during the handshake. */
co_fn int channel_send(struct connection *connection, void *data,
    size_t bytes);

/*
 * Gives the pooled buffer back, and keeps what of TLS was not read yet.
 * -ENOMEM.
 */
int channel_detach(struct connection *connection);

/*
 * Of TLS: what has arrived, in the clear, size at most.  -EAGAIN: that was
 * all; else as tls_session_read().
 */
int channel_read(struct connection *connection, void *data, size_t size,
    size_t *bytesp);

/* Whether replies are encrypted here, and so cannot be spliced. */
bool channel_encrypts(const struct connection *connection);

/*
 * Encrypts and sends the first iov_count of send_iov piece by piece, and what
 * else TLS has to say; ends in connection_sent().
 */
void channel_send_replies(struct connection *connection, unsigned iov_count);

/* TLS has something to say besides. */
bool channel_has_output(const struct connection *connection);

/* A send of channel_send_replies() is under way. */
bool channel_is_sending(const struct connection *connection);

/* Ends TLS in good order where there is any, then closes the socket. */
co_fn void channel_close(struct connection *connection);

#endif
