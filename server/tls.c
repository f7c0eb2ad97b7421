/* SPDX-License-Identifier: MIT */
#include "server/tls.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include "runtime/secret.h"
#include "server/tls_directory.h"
#include "server/tls_file.h"
#include "server/tls_psk.h"
#include "server/tls_session.h"

/*
 * AES-128-GCM comes first: it is the fastest, and the one that a pre-shared key
 * goes with in TLS 1.3 (a key has no hash of its own, so all take SHA-256).
 */
#define CIPHERS_1_3 \
	"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:" \
	"TLS_CHACHA20_POLY1305_SHA256"
#define CIPHERS_CERTIFICATE \
	"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:" \
	"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
	"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define CIPHERS_PSK \
	"DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384:" \
	"ECDHE-PSK-CHACHA20-POLY1305"
#define CIPHERS_CERTIFICATE_AND_PSK CIPHERS_PSK ":" CIPHERS_CERTIFICATE

struct tls_context {
	atomic_uint references;
	SSL_CTX *ssl;
	struct tls_psk_list *psk;
};

struct tls {
	struct tls_options options;	/* with copies of the texts */
	pthread_mutex_t lock;		/* of context; nothing else is taken */
	struct tls_context *context;
};

/* ---- a context ---- */

static const char *
cipher_list(const struct tls_options *options)
{
	if (!options->psk_file)
		return CIPHERS_CERTIFICATE;
	if (!options->directory)
		return CIPHERS_PSK;
	return CIPHERS_CERTIFICATE_AND_PSK;
}

/* What does not depend on any file. */
static int
set_up(const struct tls_options *options, SSL_CTX *ssl)
{
	static const unsigned char id[] = "qnbd";

	SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION |
	    SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
	    SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS |
	    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ssl, 0);
	SSL_CTX_set_keylog_callback(ssl, tls_session_keylog);
	SSL_CTX_set_dh_auto(ssl, 1);
	/* A key that both know is a session of before, as OpenSSL sees it. */
	SSL_CTX_set_session_id_context(ssl, id, sizeof(id) - 1);
	return SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 &&
	    SSL_CTX_set_ciphersuites(ssl, CIPHERS_1_3) == 1 &&
	    SSL_CTX_set_cipher_list(ssl, cipher_list(options)) == 1 ?
	    0 : -EINVAL;
}

static int
fill(const struct tls *tls, struct tls_context *context, struct error *error)
{
	const struct tls_options *options = &tls->options;
	int err = 0;

	context->ssl = SSL_CTX_new(TLS_server_method());
	if (!context->ssl)
		return error_set(error, -ENOMEM, "cannot set TLS up: %s",
		    tls_file_reason());
	if (set_up(options, context->ssl))
		return error_set(error, -EINVAL, "cannot set TLS up: %s",
		    tls_file_reason());
	if (options->directory)
		err = tls_directory_load(options->directory,
		    options->verify_clients, context->ssl, error);
	if (!err && options->psk_file)
		err = tls_psk_load(options->psk_file, &context->psk, error);
	return err;
}

static int
load_context(const struct tls *tls, struct tls_context **contextp,
    struct error *error)
{
	struct tls_context *context = calloc(1, sizeof(*context));
	int err;

	if (!context)
		return error_set(error, -ENOMEM, "out of memory");
	atomic_init(&context->references, 1);
	err = fill(tls, context, error);
	ERR_clear_error();
	if (err) {
		tls_context_put(context);
		return err;
	}
	*contextp = context;
	return 0;
}

struct tls_context *
tls_context_get(struct tls *tls)
{
	struct tls_context *context;

	pthread_mutex_lock(&tls->lock);
	context = tls->context;
	atomic_fetch_add(&context->references, 1);
	pthread_mutex_unlock(&tls->lock);
	return context;
}

void
tls_context_put(struct tls_context *context)
{
	if (!context || atomic_fetch_sub(&context->references, 1) != 1)
		return;
	SSL_CTX_free(context->ssl);
	tls_psk_free(context->psk);
	free(context);
}

SSL_CTX *
tls_context_ssl(const struct tls_context *context)
{
	return context->ssl;
}

const struct tls_psk_list *
tls_context_psk(const struct tls_context *context)
{
	return context->psk;
}

/* ---- the newest of them ---- */

static int
copy_text(const char **text)
{
	if (!*text)
		return 0;
	*text = strdup(*text);
	return *text ? 0 : -ENOMEM;
}

int
tls_open(const struct tls_options *options, struct tls **tlsp,
    struct error *error)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	int err;

	if (!tls)
		return error_set(error, -ENOMEM, "out of memory");
	secret_forbid_dumps();
	tls->options = *options;
	pthread_mutex_init(&tls->lock, NULL);
	err = copy_text(&tls->options.directory);
	if (copy_text(&tls->options.psk_file) || err)
		err = error_set(error, -ENOMEM, "out of memory");
	if (!err)
		err = load_context(tls, &tls->context, error);
	if (err) {
		tls_close(tls);
		return err;
	}
	*tlsp = tls;
	return 0;
}

int
tls_reload(struct tls *tls, struct error *error)
{
	struct tls_context *context, *old;
	int err = load_context(tls, &context, error);

	if (err)
		return err;
	pthread_mutex_lock(&tls->lock);
	old = tls->context;
	tls->context = context;
	pthread_mutex_unlock(&tls->lock);
	tls_context_put(old);
	return 0;
}

void
tls_close(struct tls *tls)
{
	if (!tls)
		return;
	tls_context_put(tls->context);
	pthread_mutex_destroy(&tls->lock);
	free((void *)(uintptr_t)tls->options.directory);
	free((void *)(uintptr_t)tls->options.psk_file);
	free(tls);
}
