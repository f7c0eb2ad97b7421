/* SPDX-License-Identifier: MIT */
/*
 * Certificates: made for a server and its clients, and looked at.
 *
 * Keys are of the curve P-256, which TLS libraries have in common and which
 * costs a server the least.  Serial numbers are 127 random bits.  Names are
 * those that a peer checks: a server's are in the subject alternative name, a
 * client's is the common name (and what `serve --allow` looks at).
 * (RFC 5280 sections 4.1 and 4.2.)
 */
#ifndef SERVER_CERTIFICATE_H
#define SERVER_CERTIFICATE_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdint.h>
#include "runtime/error.h"
#include "server/options.h"

/* X.520's limit for a common name. */
#define CERTIFICATE_NAME_BYTES_MAX 64

/* What `serve --tls DIR` and its clients look for in a directory. */
#define CERTIFICATE_CA_FILE "ca-cert.pem"
#define CERTIFICATE_CA_KEY_FILE "ca-key.pem"
#define CERTIFICATE_CRL_FILE "ca-crl.pem"
#define CERTIFICATE_SERVER_FILE "server-cert.pem"
#define CERTIFICATE_SERVER_KEY_FILE "server-key.pem"
#define CERTIFICATE_CLIENT_FILE "client-cert.pem"
#define CERTIFICATE_CLIENT_KEY_FILE "client-key.pem"

enum certificate_role {
	CERTIFICATE_AUTHORITY,	/* signs the others, and itself */
	CERTIFICATE_SERVER,
	CERTIFICATE_CLIENT,
};

/* A certificate and its private key; all zeros is none. */
struct certificate {
	X509 *x509;
	EVP_PKEY *key;
};

/* What a new one is to say. */
struct certificate_request {
	enum certificate_role role;
	const char *name;		/* the common name */
	const struct option_texts *hosts;	/* a server's, or NULL */
	int64_t days;			/* from now on */
	EVP_PKEY *key;			/* that it is for; NULL: a new one */
};

/*
 * -EINVAL unless name may be a common name, host a name or an address that
 * clients connect to; *error says what is wrong with it.
 */
int certificate_check_name(const char *name, struct error *error);
int certificate_check_host(const char *host, struct error *error);

/*
 * Makes a certificate, and a key unless there is one, signed by authority, or
 * if NULL by itself.
 */
int certificate_make(const struct certificate_request *request,
    const struct certificate *authority, struct certificate *certificate,
    struct error *error);

/* Reads both files of directory; -ENOENT and others, told in *error. */
int certificate_load(const char *directory, const char *file,
    const char *key_file, struct certificate *certificate,
    struct error *error);

/* The same without a key, or the key alone. */
int certificate_load_public(const char *directory, const char *file,
    X509 **x509p, struct error *error);
int certificate_load_key(const char *directory, const char *key_file,
    EVP_PKEY **keyp, struct error *error);

/*
 * Writes both files into directory: both are stable and whole before either
 * gets its name, the key first and for its owner only.  A file that is there is
 * -EEXIST, and no new one is left; or, with replace, it is replaced.  Between
 * the two names a loss of power leaves a key that is not the certificate's.
 */
int certificate_save(const struct certificate *certificate,
    const char *directory, const char *file, const char *key_file,
    bool replace, struct error *error);

/* The same for the certificate alone. */
int certificate_save_public(X509 *x509, const char *directory,
    const char *file, bool replace, struct error *error);

/* Frees both and wipes the key. */
void certificate_free(struct certificate *certificate);

#endif
