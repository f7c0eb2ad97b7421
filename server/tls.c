/* SPDX-License-Identifier: MIT */
#include "server/tls.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "runtime/log.h"
#include "runtime/secret.h"
#include "server/tls_file.h"
#include "server/tls_psk.h"
#include "server/tls_session.h"

#define PATH_BYTES_MAX 4096
#define KEY_FILE_BYTES_MAX (64u << 10)

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

/* ---- what OpenSSL has to say ---- */

/* Never NULL; forgets what else there is to be said. */
static const char *
openssl_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);

	if (ERR_SYSTEM_ERROR(code))
		reason = strerror(ERR_GET_REASON(code));
	ERR_clear_error();
	return reason ? reason : "unknown error";
}

static int
refuse(struct error *error, const char *path, const char *what)
{
	return error_set(error, -EINVAL, "cannot use %s: %s: %s", path, what,
	    openssl_reason());
}

/* ---- the files of a directory ---- */

static int
name_file(const struct tls *tls, const char *name, char path[PATH_BYTES_MAX],
    struct error *error)
{
	int bytes = snprintf(path, PATH_BYTES_MAX, "%s/%s",
	    tls->options.directory, name);

	if (bytes < 0 || bytes >= PATH_BYTES_MAX)
		return error_set(error, -ENAMETOOLONG, "the name of the TLS "
		    "directory is too long");
	return 0;
}

/* The same, of a file that can be read. */
static int
find_file(const struct tls *tls, const char *name, char path[PATH_BYTES_MAX],
    struct error *error)
{
	int err = name_file(tls, name, path, error);

	if (err || access(path, R_OK) == 0)
		return err;
	err = error_set(error, -errno, "cannot read %s: %s", path,
	    strerror(errno));
	error_hint(error, "the directory for --tls holds server-cert.pem, "
	    "server-key.pem and ca-cert.pem (which clients' certificates are "
	    "held against); to make them: qnbd tls init --dir %s",
	    tls->options.directory);
	return err;
}

/* One that has run out would be refused by every client. */
static int
check_times(const X509 *certificate, const char *path, struct error *error)
{
	if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		return error_set(error, -EINVAL, "%s is not valid yet; is the "
		    "clock right?", path);
	if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		return error_set(error, -EINVAL, "%s has expired; it has to "
		    "be made anew", path);
	return 0;
}

static int
load_certificate(const struct tls *tls, SSL_CTX *ssl, struct error *error)
{
	char path[PATH_BYTES_MAX];
	int err = find_file(tls, "server-cert.pem", path, error);

	if (err)
		return err;
	if (SSL_CTX_use_certificate_chain_file(ssl, path) != 1)
		return refuse(error, path, "it is no certificate for a server");
	return check_times(SSL_CTX_get0_certificate(ssl), path, error);
}

/* There is nobody to ask: the server must start by itself. */
static int
have_no_passphrase(char *text, int size, int writing, void *arg)
{
	(void)text;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int
use_key(SSL_CTX *ssl, const char *path, const char *text, size_t bytes,
    struct error *error)
{
	BIO *bio = BIO_new_mem_buf(text, (int)bytes);
	EVP_PKEY *key = NULL;
	int used = 0;

	if (bio)
		key = PEM_read_bio_PrivateKey(bio, NULL, have_no_passphrase,
		    NULL);
	if (key)
		used = SSL_CTX_use_PrivateKey(ssl, key);
	BIO_free(bio);
	EVP_PKEY_free(key);
	if (!key)
		return refuse(error, path,
		    "it is no private key without a passphrase");
	if (used != 1 || SSL_CTX_check_private_key(ssl) != 1)
		return refuse(error, path,
		    "it is not the key of server-cert.pem");
	return 0;
}

static int
load_key(const struct tls *tls, SSL_CTX *ssl, struct error *error)
{
	char path[PATH_BYTES_MAX];
	char *text;
	size_t bytes;
	int err = find_file(tls, "server-key.pem", path, error);

	if (!err)
		err = tls_file_read(path, KEY_FILE_BYTES_MAX, &text, &bytes,
		    error);
	if (err)
		return err;
	err = use_key(ssl, path, text, bytes - 1, error);
	secret_put(text, bytes);
	return err;
}

/* ca-crl.pem is used if it is there. */
static int
load_revoked(const struct tls *tls, SSL_CTX *ssl, struct error *error)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);
	X509_LOOKUP *lookup;
	char path[PATH_BYTES_MAX];
	int err = name_file(tls, "ca-crl.pem", path, error);

	if (err)
		return err;
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
	if (!lookup || X509_load_crl_file(lookup, path, X509_FILETYPE_PEM) < 1)
		return refuse(error, path,
		    "it is no list of revoked certificates");
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return 0;
}

/* Who may say who the clients are. */
static int
load_authority(const struct tls *tls, SSL_CTX *ssl, struct error *error)
{
	STACK_OF(X509_NAME) *names;
	char path[PATH_BYTES_MAX];
	int err = find_file(tls, "ca-cert.pem", path, error);

	if (err)
		return err;
	if (SSL_CTX_load_verify_file(ssl, path) != 1)
		return refuse(error, path,
		    "it is no certificate of an authority");
	names = SSL_load_client_CA_file(path);
	if (!names)
		return refuse(error, path,
		    "it is no certificate of an authority");
	SSL_CTX_set_client_CA_list(ssl, names);
	SSL_CTX_set_verify(ssl,
	    SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return load_revoked(tls, ssl, error);
}

static int
load_directory(const struct tls *tls, SSL_CTX *ssl, struct error *error)
{
	int err = load_certificate(tls, ssl, error);

	if (!err)
		err = load_key(tls, ssl, error);
	if (!err && tls->options.verify_clients)
		err = load_authority(tls, ssl, error);
	return err;
}

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
		    openssl_reason());
	if (set_up(options, context->ssl))
		return error_set(error, -EINVAL, "cannot set TLS up: %s",
		    openssl_reason());
	if (options->directory)
		err = load_directory(tls, context->ssl, error);
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
