/* SPDX-License-Identifier: MIT */
/*
 * TLS for clients: certificates and keys, and how they are replaced.
 *
 * A context is one set of files, loaded.  Sessions hold a reference to the one
 * they began with, so that a reload neither waits for them nor ends them.  TLS
 * 1.2 and 1.3, with ciphers that keep old sessions secret when a key becomes
 * known; no renegotiation, no compression, no tickets (a session lasts as long
 * as its connection).
 *
 * The private key is in OpenSSL's memory, keys of users in memory of their own
 * (runtime/secret.h); tls_open() has secret_forbid_dumps() called for both.
 */
#ifndef SERVER_TLS_H
#define SERVER_TLS_H

#include <stdbool.h>
#include <openssl/ssl.h>
#include "runtime/error.h"

struct tls;
struct tls_context;
struct tls_psk_list;

/* Where things come from; the texts stay the caller's. */
struct tls_options {
	const char *directory;	/* certificates, or NULL */
	const char *psk_file;	/* or NULL; not both are */
	bool verify_clients;	/* who has no key shows a certificate */
};

/* Reads all files; -errno, and error says which does not fit and why. */
int tls_open(const struct tls_options *options, struct tls **tlsp,
    struct error *error);

/*
 * Reads all files again, for the sessions to come; if anything is wrong with
 * them the old ones stay.  It may block; from any thread.
 */
int tls_reload(struct tls *tls, struct error *error);

/* Sessions may outlive it; NULL is fine. */
void tls_close(struct tls *tls);

/* ---- for tls_session.c ---- */

/* The newest context, with a reference to it; from any thread. */
struct tls_context *tls_context_get(struct tls *tls);
void tls_context_put(struct tls_context *context);

SSL_CTX *tls_context_ssl(const struct tls_context *context);

/* NULL if there is none. */
const struct tls_psk_list *tls_context_psk(const struct tls_context *context);

#endif
