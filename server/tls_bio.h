/* SPDX-License-Identifier: MIT */
/*
 * The two ends of a session that OpenSSL reads from and writes to: what
 * arrived, and what is to be sent, both in memory.
 */
#ifndef SERVER_TLS_BIO_H
#define SERVER_TLS_BIO_H

#include <openssl/bio.h>

struct tls_session;

/* NULL if there is no memory. */
BIO *tls_bio_new_input(struct tls_session *session);
BIO *tls_bio_new_output(struct tls_session *session);

#endif
