/* SPDX-License-Identifier: MIT */
/*
 * The TLS of one connection: bytes in, bytes out, no socket.
 *
 * What arrived is lent to it with tls_session_feed() and taken from there as
 * it is read; what it has to send gathers in a buffer of its own, which exists
 * only while there is something in it.  So an idle session holds none of our
 * memory, and it runs on every loop there is.
 *
 * Where the kernel can do the sending (struct tls_session::kernel_sends), what
 * is to be sent goes to the socket as it is, and nothing is written here.
 *
 * One thread at a time uses a session.  Nothing here suspends.
 */
#ifndef SERVER_TLS_SESSION_H
#define SERVER_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "runtime/loop.h"
#include "server/tls.h"
#include "server/tls_kernel.h"
#include "server/tls_psk.h"

/* What one record holds in the clear at most. */
#define TLS_RECORD_BYTES (16u << 10)

/*
 * Of encrypted bytes to be sent; a piece of a long reply.  Encrypting as much
 * takes about 50 us, then others have their turn.
 */
#define TLS_OUT_BYTES (128u << 10)

struct tls_session {
	SSL *ssl;
	struct tls_context *context;

	/* Ciphertext that arrived and was not looked at yet. */
	const uint8_t *in;
	size_t in_bytes;
	uint8_t *in_copy;	/* malloc'ed, if it stands there */

	/* Ciphertext to be sent. */
	uint8_t *out;		/* from buf_get(TLS_OUT_BYTES), or NULL */
	size_t out_bytes;
	size_t sending_bytes;	/* of these, in a send under way */

	/* For the kernel; the secret is wiped when it has it. */
	bool keep_secret;
	uint8_t secret[TLS_KERNEL_SECRET_BYTES_MAX];
	size_t secret_bytes;
	bool kernel_sends;
	bool failed;		/* nothing can be read or written any more */
	char user[TLS_PSK_USER_BYTES_MAX + 1];	/* whose key it asked for */
	char why[128];		/* it failed */
};

/*
 * A server's side of a session; for_kernel: tls_session_hand_over() may
 * follow.  -ENOMEM.
 */
int tls_session_new(struct tls *tls, bool for_kernel,
    struct tls_session **sessionp);

/* NULL is fine. */
void tls_session_free(struct tls_session *session);

/* What arrived: it must stay until it is all taken, or kept. */
void tls_session_feed(struct tls_session *session, const void *data,
    size_t bytes);

/* Copies what is not taken yet, so that the memory it is in can go. */
int tls_session_keep(struct tls_session *session);

/*
 * A step of the handshake, on any thread: 0 it is done, -EAGAIN more has to
 * arrive, -EPROTO it failed and why is told.  Either way there may be
 * something to send.
 */
int tls_session_shake(struct tls_session *session);

/*
 * After the handshake, when there is nothing to send: lets the kernel do the
 * sending on the socket fd.  -errno: it will not, and all is as before.
 */
int tls_session_hand_over(struct tls_session *session, int fd);

/*
 * The next bytes in the clear, size at most; some are left only if *bytesp is
 * size.  -EAGAIN: more has to arrive; -ENODATA: the client ended the session;
 * -EPROTO: what arrived is not of it.
 */
int tls_session_read(struct tls_session *session, void *data, size_t size,
    size_t *bytesp);

/*
 * Encrypts from the front of the iovecs what one send may hold, and moves on
 * in them.  -EPROTO, -ENOMEM.
 */
int tls_session_write(struct tls_session *session, struct iovec **iov,
    unsigned *iov_count);

/* Says that nothing will follow: to be sent, too. */
void tls_session_end(struct tls_session *session);

/* What is to be sent; it stays in place till tls_session_sent(). */
bool tls_session_output(struct tls_session *session, struct iovec *iov);
void tls_session_sent(struct tls_session *session);

/* For tls.c: OpenSSL tells its secrets here, as for a log of keys. */
void tls_session_keylog(const SSL *ssl, const char *line);

/* ---- who the client is; since the handshake ---- */

enum tls_name {
	TLS_NAME_CN,	/* the subject's common name */
	TLS_NAME_DNS,	/* one of the alternative names */
	TLS_NAME_USER,	/* of a pre-shared key */
};

bool tls_session_has_name(const struct tls_session *session,
    enum tls_name kind, const char *name);

/* For the log: `TLSv1.3 CN="host1"`; cut to size. */
const char *tls_session_describe(const struct tls_session *session,
    char *text, size_t size);

#endif
