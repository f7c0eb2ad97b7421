/* SPDX-License-Identifier: MIT */
/*
 * Both ends of a TLS session in memory: ours, and OpenSSL's as the client, who
 * is "alice" with a pre-shared key.  Everything is asserted.
 */
#ifndef TESTS_TLS_PAIR_H
#define TESTS_TLS_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include "server/tls_session.h"

/* What all pairs share. */
struct tls_pairs {
	struct tls *tls;
	SSL_CTX *client;
	bool wrong_key;		/* the client has not the key */
};

struct tls_pair {
	struct tls_session *server;
	SSL *client;
	BIO *to_client;
	BIO *from_client;
};

/* directory: for a server that has a certificate, too; or NULL. */
void tls_pairs_open(struct tls_pairs *pairs, const char *directory);
void tls_pairs_close(struct tls_pairs *pairs);

/* Without a handshake yet. */
void tls_pair_open(struct tls_pair *pair, struct tls_pairs *pairs);
void tls_pair_close(struct tls_pair *pair);

/* How the server took it: as tls_session_shake(). */
int tls_pair_shake(struct tls_pair *pair);

/* What the server has to send arrives; how many bytes. */
size_t tls_pair_carry_out(struct tls_pair *pair);

/* What the client has sent; in memory that is gone afterwards. */
void tls_pair_carry_in(struct tls_pair *pair);

/* Sends bytes that are none of the client's; the same. */
void tls_pair_feed(struct tls_pair *pair, const void *data, size_t bytes);

#endif
