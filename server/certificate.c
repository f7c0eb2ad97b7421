/* SPDX-License-Identifier: MIT */
#include "server/certificate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SERIAL_BYTES 16

/* A clock that is behind by so much does not find a new one not yet valid. */
#define BACKDATED_S (60 * 60)
#define DAY_S INT64_C(86400)

/* What stands for the hosts in OpenSSL's own notation, at most. */
#define HOSTS_BYTES (OPTION_TEXTS_MAX * (CERTIFICATE_HOST_BYTES_MAX + 8))
#define CERTIFICATE_HOST_BYTES_MAX 253

/* ---- names ---- */

int
certificate_check_name(const char *name, struct error *error)
{
	size_t bytes = strlen(name);

	if (bytes == 0 || bytes > CERTIFICATE_NAME_BYTES_MAX)
		return error_set(error, -EINVAL, "a name has 1 to %d bytes",
		    CERTIFICATE_NAME_BYTES_MAX);
	for (size_t i = 0; i < bytes; i++)
		if ((unsigned char)name[i] < ' ' || name[i] == 127)
			return error_set(error, -EINVAL,
			    "a name has no control characters");
	return 0;
}

static bool
is_address(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, address) == 1 ||
	    inet_pton(AF_INET6, host, address) == 1;
}

int
certificate_check_host(const char *host, struct error *error)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.*";
	size_t bytes = strlen(host);

	if (is_address(host))
		return 0;
	if (bytes > 0 && bytes <= CERTIFICATE_HOST_BYTES_MAX &&
	    strspn(host, letters) == bytes)
		return 0;
	error_set(error, -EINVAL, "%s is no host name and no address", host);
	error_hint(error, "name the server as its clients do, without a port: "
	    "--host nbd.example.com --host 192.0.2.7");
	return -EINVAL;
}

/* ---- making ---- */

/* OpenSSL's words for what it would not do. */
static int
complain(struct error *error, const char *what)
{
	unsigned long code = ERR_get_error();

	ERR_clear_error();
	return error_set(error, -EIO, "cannot %s: %s", what,
	    code ? ERR_reason_error_string(code) : "OpenSSL does not say why");
}

static int
set_serial(X509 *x509)
{
	unsigned char bytes[SERIAL_BYTES];
	BIGNUM *number = NULL;
	int done = 0;

	if (RAND_bytes(bytes, sizeof(bytes)) == 1) {
		bytes[0] &= 0x7f;	/* a serial number is positive */
		number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	}
	if (number)
		done = BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x509))
		    != NULL;
	BN_free(number);
	return done;
}

static int
set_times(X509 *x509, int64_t days)
{
	time_t now = time(NULL);

	return X509_time_adj_ex(X509_getm_notBefore(x509), 0, -BACKDATED_S,
	    &now) && X509_time_adj_ex(X509_getm_notAfter(x509), (int)days, 0,
	    &now);
}

static int
set_subject(X509 *x509, const char *name)
{
	return X509_NAME_add_entry_by_NID(X509_get_subject_name(x509),
	    NID_commonName, MBSTRING_UTF8, (const unsigned char *)name, -1, -1,
	    0);
}

/* Adds an extension that is written in OpenSSL's configuration language. */
static int
add_extension(X509 *x509, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX context;
	int done;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	if (!extension)
		return 0;
	done = X509_add_ext(x509, extension, -1);
	X509_EXTENSION_free(extension);
	return done;
}

/* The names were checked: none holds what would end it in that language. */
static int
add_hosts(X509 *x509, X509 *issuer, const struct option_texts *hosts)
{
	char *value = calloc(1, HOSTS_BYTES);
	size_t end = 0;
	int done;

	if (!value)
		return 0;
	for (unsigned i = 0; i < hosts->count; i++)
		end += (size_t)snprintf(value + end, HOSTS_BYTES - end,
		    "%s%s:%s", i > 0 ? "," : "",
		    is_address(hosts->list[i]) ? "IP" : "DNS",
		    hosts->list[i]);
	done = add_extension(x509, issuer, NID_subject_alt_name, value);
	free(value);
	return done;
}

static int
add_extensions(X509 *x509, X509 *issuer,
    const struct certificate_request *request)
{
	bool authority = request->role == CERTIFICATE_AUTHORITY;

	/* A key of this kind enciphers none, but QEMU wanted it until 2025. */
	if (!add_extension(x509, issuer, NID_basic_constraints,
	    authority ? "critical,CA:TRUE" : "critical,CA:FALSE") ||
	    !add_extension(x509, issuer, NID_key_usage, authority ?
	    "critical,keyCertSign,cRLSign" :
	    "critical,digitalSignature,keyEncipherment") ||
	    !add_extension(x509, issuer, NID_subject_key_identifier, "hash"))
		return 0;
	if (authority)
		return 1;
	if (!add_extension(x509, issuer, NID_authority_key_identifier,
	    "keyid") || !add_extension(x509, issuer, NID_ext_key_usage,
	    request->role == CERTIFICATE_SERVER ? "serverAuth" : "clientAuth"))
		return 0;
	return !request->hosts || add_hosts(x509, issuer, request->hosts);
}

int
certificate_make(const struct certificate_request *request,
    const struct certificate *authority, struct certificate *certificate,
    struct error *error)
{
	const struct certificate *signer = authority ? authority : certificate;
	X509 *x509 = X509_new();

	*certificate = (struct certificate){
		.x509 = x509, .key = request->key,
	};
	if (request->key)
		EVP_PKEY_up_ref(request->key);
	else
		certificate->key = EVP_EC_gen("P-256");
	if (x509 && certificate->key &&
	    X509_set_version(x509, X509_VERSION_3) &&
	    set_serial(x509) && set_times(x509, request->days) &&
	    set_subject(x509, request->name) &&
	    X509_set_issuer_name(x509, X509_get_subject_name(signer->x509)) &&
	    X509_set_pubkey(x509, certificate->key) &&
	    add_extensions(x509, signer->x509, request) &&
	    X509_sign(x509, signer->key, EVP_sha256()))
		return 0;
	certificate_free(certificate);
	return complain(error, "make a certificate");
}

void
certificate_free(struct certificate *certificate)
{
	X509_free(certificate->x509);
	EVP_PKEY_free(certificate->key);
	*certificate = (struct certificate){0};
}
