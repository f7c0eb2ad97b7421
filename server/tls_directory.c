/* SPDX-License-Identifier: MIT */
#include "server/tls_directory.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "runtime/secret.h"
#include "server/certificate.h"
#include "server/tls_file.h"

/* What is loaded from where, and into what. */
struct load {
	const char *directory;
	SSL_CTX *ssl;
	struct error *error;
	char path[PATH_MAX];	/* of the file at hand */
};

static int
refuse(struct load *load, const char *what)
{
	if (!ERR_peek_last_error())
		return error_set(load->error, -EINVAL, "cannot use %s: %s",
		    load->path, what);
	return error_set(load->error, -EINVAL, "cannot use %s: %s: %s",
	    load->path, what, tls_file_reason());
}

static int
name_file(struct load *load, const char *name)
{
	int bytes = snprintf(load->path, sizeof(load->path), "%s/%s",
	    load->directory, name);

	if (bytes < 0 || (size_t)bytes >= sizeof(load->path))
		return error_set(load->error, -ENAMETOOLONG, "the name of the "
		    "TLS directory is too long");
	return 0;
}

static void
hint_at_files(struct load *load)
{
	error_hint(load->error, "the directory for --tls holds %s, %s and %s "
	    "(which clients' certificates are held against); to make them: "
	    "qnbd tls init --dir %s --host NAME", CERTIFICATE_SERVER_FILE,
	    CERTIFICATE_SERVER_KEY_FILE, CERTIFICATE_CA_FILE,
	    load->directory);
}

static int
open_file(struct load *load, const char *name, BIO **biop)
{
	int err = name_file(load, name);

	if (!err)
		err = tls_file_open(load->path,
		    TLS_FILE_CERTIFICATES_BYTES_MAX, biop, load->error);
	if (err == -ENOENT)
		hint_at_files(load);
	return err;
}

/* ---- the server's own ---- */

/* One that has run out would be refused by every client. */
static int
check_times(struct load *load, const X509 *certificate)
{
	if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		return error_set(load->error, -EINVAL, "%s is not valid yet; "
		    "is the clock right?", load->path);
	if (X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0)
		return 0;
	error_set(load->error, -EINVAL, "%s has expired", load->path);
	error_hint(load->error, "if qnbd made it: qnbd tls init --dir %s "
	    "--renew --host NAME", load->directory);
	return -EINVAL;
}

/* What stands between it and an authority that clients know. */
static int
use_chain(SSL_CTX *ssl, BIO *bio)
{
	X509 *next;

	SSL_CTX_clear_chain_certs(ssl);
	while ((next = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
		if (SSL_CTX_add0_chain_cert(ssl, next) != 1) {
			X509_free(next);
			return 0;
		}
	/* The end is an error, too: there is no further one. */
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return 0;
	ERR_clear_error();
	return 1;
}

static int
load_certificate(struct load *load)
{
	X509 *certificate;
	int used = 0;
	BIO *bio;
	int err = open_file(load, CERTIFICATE_SERVER_FILE, &bio);

	if (err)
		return err;
	certificate = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
	if (certificate)
		used = SSL_CTX_use_certificate(load->ssl, certificate) == 1 &&
		    use_chain(load->ssl, bio);
	X509_free(certificate);
	BIO_free(bio);
	if (!used)
		return refuse(load, "it is no certificate for a server");
	return check_times(load, SSL_CTX_get0_certificate(load->ssl));
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
refuse_pair(struct load *load)
{
	int err = refuse(load, "it is not the key of "
	    CERTIFICATE_SERVER_FILE);

	error_hint(load->error, "as when the two were not replaced together; "
	    "if qnbd made them: qnbd tls init --dir %s --renew --host NAME",
	    load->directory);
	return err;
}

static int
use_key(struct load *load, const char *text, size_t bytes)
{
	BIO *bio = BIO_new_mem_buf(text, (int)bytes);
	EVP_PKEY *key = NULL;
	int used = 0;

	if (bio)
		key = PEM_read_bio_PrivateKey(bio, NULL, have_no_passphrase,
		    NULL);
	if (key)
		used = SSL_CTX_use_PrivateKey(load->ssl, key);
	BIO_free(bio);
	EVP_PKEY_free(key);
	if (!key)
		return refuse(load,
		    "it is no private key without a passphrase");
	if (used != 1 || SSL_CTX_check_private_key(load->ssl) != 1)
		return refuse_pair(load);
	return 0;
}

static int
load_key(struct load *load)
{
	char *text;
	size_t bytes;
	int err = name_file(load, CERTIFICATE_SERVER_KEY_FILE);

	if (!err)
		err = tls_file_read(load->path, TLS_FILE_KEY_BYTES_MAX, &text,
		    &bytes, load->error);
	if (err == -ENOENT)
		hint_at_files(load);
	if (err)
		return err;
	err = use_key(load, text, bytes - 1);
	secret_put(text, bytes);
	return err;
}

/* ---- its clients' ---- */

/* All that a file of authorities or lists holds; NULL if it makes no sense. */
static STACK_OF(X509_INFO) *
read_all(BIO *bio)
{
	STACK_OF(X509_INFO) *all = PEM_X509_INFO_read_bio(bio, NULL,
	    have_no_passphrase, NULL);

	BIO_free(bio);
	return all;
}

/* How many lists were added, or -1. */
static int
add_lists(X509_STORE *store, STACK_OF(X509_INFO) *all)
{
	int count = 0;

	for (int i = 0; i < sk_X509_INFO_num(all); i++) {
		X509_CRL *list = sk_X509_INFO_value(all, i)->crl;

		if (list && X509_STORE_add_crl(store, list) != 1)
			return -1;
		count += list != NULL;
	}
	return count;
}

/* How many authorities were added, or -1; clients are told their names. */
static int
add_authorities(SSL_CTX *ssl, STACK_OF(X509_INFO) *all)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);
	int count = 0;

	for (int i = 0; i < sk_X509_INFO_num(all); i++) {
		X509 *authority = sk_X509_INFO_value(all, i)->x509;

		if (authority && (X509_STORE_add_cert(store, authority) != 1 ||
		    SSL_CTX_add_client_CA(ssl, authority) != 1))
			return -1;
		count += authority != NULL;
	}
	return count;
}

/* The file is used if it is there. */
static int
load_revoked(struct load *load)
{
	X509_STORE *store = SSL_CTX_get_cert_store(load->ssl);
	STACK_OF(X509_INFO) *all;
	int count;
	BIO *bio;
	int err = name_file(load, CERTIFICATE_CRL_FILE);

	if (!err)
		err = tls_file_open(load->path, TLS_FILE_REVOKED_BYTES_MAX,
		    &bio, load->error);
	if (err)
		return err == -ENOENT ? 0 : err;
	all = read_all(bio);
	count = add_lists(store, all);
	sk_X509_INFO_pop_free(all, X509_INFO_free);
	if (count < 1)
		return refuse(load, "it is no list of revoked certificates");
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return 0;
}

/* Who may say who the clients are. */
static int
load_authorities(struct load *load)
{
	STACK_OF(X509_INFO) *all;
	int count;
	BIO *bio;
	int err = open_file(load, CERTIFICATE_CA_FILE, &bio);

	if (err)
		return err;
	all = read_all(bio);
	count = add_authorities(load->ssl, all);
	if (count > 0 &&
	    add_lists(SSL_CTX_get_cert_store(load->ssl), all) < 0)
		count = -1;
	sk_X509_INFO_pop_free(all, X509_INFO_free);
	if (count < 1)
		return refuse(load, "it is no certificate of an authority");
	SSL_CTX_set_verify(load->ssl,
	    SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return load_revoked(load);
}

int
tls_directory_load(const char *directory, bool verify_clients, SSL_CTX *ssl,
    struct error *error)
{
	struct load load = {
		.directory = directory, .ssl = ssl, .error = error,
	};
	int err = load_certificate(&load);

	if (!err)
		err = load_key(&load);
	if (!err && verify_clients)
		err = load_authorities(&load);
	return err;
}
