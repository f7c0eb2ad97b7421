/* SPDX-License-Identifier: MIT */
#include "tests/tls_pair.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY_TEXT "000102030405060708090a0b0c0d0e0f"
#define KEY_BYTES 16

static unsigned
give_key(SSL *ssl, const char *hint, char *user, unsigned user_size,
    unsigned char *key, unsigned key_size)
{
	const struct tls_pairs *pairs = SSL_CTX_get_app_data(
	    SSL_get_SSL_CTX(ssl));

	(void)hint;
	assert(key_size >= KEY_BYTES);
	snprintf(user, user_size, "alice");
	for (unsigned i = 0; i < KEY_BYTES; i++)
		key[i] = (unsigned char)(i + pairs->wrong_key);
	return KEY_BYTES;
}

void
tls_pairs_open(struct tls_pairs *pairs, const char *directory)
{
	char path[] = "/tmp/qnbd-test-psk.XXXXXX";
	const struct tls_options options = {
		.psk_file = path, .directory = directory,
	};
	struct error error;
	int fd = mkstemp(path);

	assert(fd >= 0);
	dprintf(fd, "alice:" KEY_TEXT "\n#626F62:" KEY_TEXT KEY_TEXT "\n");
	close(fd);
	*pairs = (struct tls_pairs){0};
	if (tls_open(&options, &pairs->tls, &error)) {
		fprintf(stderr, "%s\n", error.message);
		abort();
	}
	unlink(path);
	pairs->client = SSL_CTX_new(TLS_client_method());
	assert(pairs->client);
	SSL_CTX_set_app_data(pairs->client, pairs);
	SSL_CTX_set_psk_client_callback(pairs->client, give_key);
}

void
tls_pairs_close(struct tls_pairs *pairs)
{
	SSL_CTX_free(pairs->client);
	tls_close(pairs->tls);
}

void
tls_pair_open(struct tls_pair *pair, struct tls_pairs *pairs)
{
	int err = tls_session_new(pairs->tls, false, &pair->server);

	assert(!err);
	pair->client = SSL_new(pairs->client);
	pair->to_client = BIO_new(BIO_s_mem());
	pair->from_client = BIO_new(BIO_s_mem());
	SSL_set_bio(pair->client, pair->to_client, pair->from_client);
	SSL_set_connect_state(pair->client);
}

void
tls_pair_close(struct tls_pair *pair)
{
	tls_session_free(pair->server);
	SSL_free(pair->client);
}

size_t
tls_pair_carry_out(struct tls_pair *pair)
{
	struct iovec iov;
	int written;

	if (!tls_session_output(pair->server, &iov))
		return 0;
	written = BIO_write(pair->to_client, iov.iov_base, (int)iov.iov_len);
	assert(written == (int)iov.iov_len);
	tls_session_sent(pair->server);
	return iov.iov_len;
}

void
tls_pair_feed(struct tls_pair *pair, const void *data, size_t bytes)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);
	int err;

	memcpy(copy, data, bytes);
	tls_session_feed(pair->server, copy, bytes);
	err = tls_session_keep(pair->server);
	assert(!err);
	free(copy);
}

void
tls_pair_carry_in(struct tls_pair *pair)
{
	char *data;
	long bytes = BIO_get_mem_data(pair->from_client, &data);

	tls_pair_feed(pair, data, bytes > 0 ? (size_t)bytes : 0);
	(void)BIO_reset(pair->from_client);
}

int
tls_pair_shake(struct tls_pair *pair)
{
	int err = -EAGAIN;

	for (unsigned i = 0; i < 10 && err == -EAGAIN; i++) {
		SSL_do_handshake(pair->client);
		tls_pair_carry_in(pair);
		err = tls_session_shake(pair->server);
		tls_pair_carry_out(pair);
	}
	if (!err) {
		int result = SSL_do_handshake(pair->client);

		assert(result == 1);
	}
	return err;
}
