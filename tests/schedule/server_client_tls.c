/* SPDX-License-Identifier: MIT */
/*
 * A client's bytes, in the clear or inside of TLS.
 *
 * OpenSSL is the client, with a pre-shared key: then no message's length
 * depends on anything random, and neither does the order of events.  Records
 * are cut in two on the way now and then, wherever it may be.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include "tests/schedule/server_client_internal.h"

/* Between the two pieces of what was cut. */
#define PAUSE_NS 50000000

#define CUT_ONE_IN 4

/* The server has to answer that, whatever else it has to say. */
#define NEW_KEYS_ONE_IN 16

/* A record that is never whole or never right. */
#define LAST_BYTES 100

struct client_tls {
	SSL *ssl;
	BIO *in;	/* what arrived; both are the SSL's */
	BIO *out;	/* what is to be sent */
};

static struct sim *
sim_of(const struct client *client)
{
	return client->site->crew->sim;
}

/* ---- sending ---- */

co_fn static int
send_raw(struct client *client, const void *bytes, size_t count)
{
	struct iovec iov = {
		.iov_base = (void *)(uintptr_t)bytes, .iov_len = count,
	};

	return count > 0 ? sock_send(&client->sock, &iov, 1) : 0;
}

/* Takes what OpenSSL wants to have sent; free(*bytesp) ends it. */
static size_t
take_out(struct client *client, uint8_t **bytesp)
{
	char *data;
	long count = BIO_get_mem_data(client->tls->out, &data);
	uint8_t *copy = malloc(count > 0 ? (size_t)count : 1);

	if (!copy)
		abort();
	if (count > 0)
		memcpy(copy, data, (size_t)count);
	(void)BIO_reset(client->tls->out);
	*bytesp = copy;
	return count > 0 ? (size_t)count : 0;
}

co_fn static int
send_out(struct client *client)
{
	struct sim *sim = sim_of(client);
	uint8_t *bytes;
	size_t count = take_out(client, &bytes);
	size_t first = count;
	int err;

	if (count > 0 && sim_below(sim, CUT_ONE_IN) == 0)
		first = sim_below(sim, count);
	err = send_raw(client, bytes, first);
	if (!err && first < count) {
		loop_sleep(sim_below(sim, PAUSE_NS));
		err = send_raw(client, bytes + first, count - first);
	}
	free(bytes);
	return err;
}

static void
encrypt(struct client *client, const void *bytes, size_t count)
{
	size_t written;

	ERR_clear_error();
	if (count > 0 && (SSL_write_ex(client->tls->ssl, bytes, count,
	    &written) != 1 || written != count))
		client_fail(client, "TLS does not encrypt", count);
}

int
client_send(struct client *client, const void *bytes, size_t count)
{
	if (!client->tls)
		return send_raw(client, bytes, count);
	/* The network shows nothing: this is when a request begins. */
	if (client->tap.hear)
		client->tap.hear(&client->tap, false, bytes, count);
	if (sim_below(sim_of(client), NEW_KEYS_ONE_IN) == 0)
		(void)SSL_key_update(client->tls->ssl,
		    SSL_KEY_UPDATE_REQUESTED);
	encrypt(client, bytes, count);
	return send_out(client);
}

/* ---- receiving ---- */

co_fn static int
fetch(struct client *client)
{
	struct op op = {0};
	int64_t count = sock_recv_pooled(&client->sock, &op);

	if (count <= 0)
		return count < 0 ? (int)count : -ECONNRESET;
	if (BIO_write(client->tls->in, op.pooled, (int)count) != (int)count)
		abort();
	loop_recv_put(&op);
	return 0;
}

/* result is what an SSL_ function returned that did not succeed. */
static int
explain(struct client *client, int result)
{
	switch (SSL_get_error(client->tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return -ENODATA;
	default:
		/* Alerts have numbers of their own, above all reasons. */
		client->alerted = ERR_GET_REASON(ERR_peek_last_error()) >
		    SSL_AD_REASON_OFFSET;
		return client->alerted ? -ECONNABORTED : -EPROTO;
	}
}

int
client_receive_exact(struct client *client, void *data, size_t length)
{
	size_t done = 0, got;

	if (!client->tls)
		return sock_recv_exact(&client->sock, data, length);
	while (done < length) {
		int result, err = 0;

		ERR_clear_error();
		result = SSL_read_ex(client->tls->ssl, (char *)data + done,
		    length - done, &got);
		if (result == 1)
			done += got;
		else
			err = explain(client, result);
		if (err == -EAGAIN)
			err = fetch(client);
		if (err)
			return err == -ENODATA && done > 0 ? -ECONNRESET : err;
	}
	/* And this is when a reply has come. */
	if (client->tap.hear)
		client->tap.hear(&client->tap, true, data, length);
	return 0;
}

/* ---- the beginning ---- */

static struct client_tls *
make(const struct tls_pairs *pairs)
{
	struct client_tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		abort();
	tls->ssl = SSL_new(pairs->client);
	tls->in = BIO_new(BIO_s_mem());
	tls->out = BIO_new(BIO_s_mem());
	if (!tls->ssl || !tls->in || !tls->out)
		abort();
	SSL_set_bio(tls->ssl, tls->in, tls->out);
	SSL_set_connect_state(tls->ssl);
	return tls;
}

/* Somewhere in what it would have to say next. */
co_fn static int
vanish(struct client *client)
{
	uint8_t *bytes;
	size_t count = take_out(client, &bytes);

	(void)send_raw(client, bytes, sim_below(sim_of(client), count + 1));
	free(bytes);
	return -ECONNABORTED;
}

int
client_start_tls(struct client *client)
{
	unsigned flights = client->options.vanishes ?
	    1 + (unsigned)sim_below(sim_of(client), 2) : 0;
	int result, err = -EAGAIN;

	client->tls = make(client->site->tls);
	for (unsigned flight = 1; err == -EAGAIN; flight++) {
		ERR_clear_error();
		result = SSL_do_handshake(client->tls->ssl);
		err = result == 1 ? 0 : explain(client, result);
		if (flight == flights)
			return vanish(client);
		if (err && err != -EAGAIN)
			return err;
		result = send_out(client);
		if (!result && err)
			result = fetch(client);
		if (result)
			return result;
	}
	return err;
}

/* ---- the end ---- */

int
client_end_tls(struct client *client)
{
	ERR_clear_error();
	(void)SSL_shutdown(client->tls->ssl);
	return send_out(client);
}

void
client_spoil_tls(struct client *client, bool cut)
{
	static const uint8_t last[LAST_BYTES];
	uint8_t *bytes;
	size_t count;

	encrypt(client, last, sizeof(last));
	count = take_out(client, &bytes);
	if (cut)
		count = sim_below(sim_of(client), count);
	else
		bytes[count - 1] ^= 1;
	(void)send_raw(client, bytes, count);
	free(bytes);
}

void
client_free_tls(struct client *client)
{
	if (!client->tls)
		return;
	SSL_free(client->tls->ssl);
	free(client->tls);
	client->tls = NULL;
}
