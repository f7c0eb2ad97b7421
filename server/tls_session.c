/* SPDX-License-Identifier: MIT */
/*
 * Cost of a record that is sent: OpenSSL's copy into a buffer of its own,
 * encryption there, and one copy from there to ours; all of it in the cache.
 * Replies shorter than a record are put together in one, which takes one copy
 * more and saves a header, a tag and a call for each.
 */
#include "server/tls_session.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include "runtime/buf.h"
#include "runtime/log.h"
#include "server/tls_bio.h"

/* A record of TLS 1.2 or 1.3 is at most this much longer than what it holds. */
#define RECORD_EXTRA_BYTES 64

/* Room that is left for OpenSSL's own messages. */
#define RESERVE_BYTES 1024

/* ---- making ---- */

/* Whoever asks for a user's key need not have it: see is_psk(). */
static unsigned
find_key(SSL *ssl, const char *user, unsigned char *key, unsigned size)
{
	struct tls_session *session = SSL_get_app_data(ssl);
	const uint8_t *found;
	size_t bytes;

	if (!user || strlen(user) >= sizeof(session->user))
		return 0;
	found = tls_psk_find(tls_context_psk(session->context), user, &bytes);
	if (!found || bytes > size)
		return 0;
	memcpy(key, found, bytes);
	strcpy(session->user, user);
	return (unsigned)bytes;
}

static int
set_up(struct tls_session *session)
{
	BIO *in, *out;

	session->ssl = SSL_new(tls_context_ssl(session->context));
	if (!session->ssl)
		return -ENOMEM;
	SSL_set_app_data(session->ssl, session);
	SSL_set_accept_state(session->ssl);
	if (tls_context_psk(session->context))
		SSL_set_psk_server_callback(session->ssl, find_key);
	in = tls_bio_new_input(session);
	out = tls_bio_new_output(session);
	if (!in || !out) {
		BIO_free(in);
		BIO_free(out);
		return -ENOMEM;
	}
	SSL_set_bio(session->ssl, in, out);
	return 0;
}

int
tls_session_new(struct tls *tls, bool for_kernel,
    struct tls_session **sessionp)
{
	struct tls_session *session = calloc(1, sizeof(*session));
	int err;

	if (!session)
		return -ENOMEM;
	session->context = tls_context_get(tls);
	session->keep_secret = for_kernel;
	err = set_up(session);
	ERR_clear_error();
	if (err) {
		tls_session_free(session);
		return err;
	}
	*sessionp = session;
	return 0;
}

void
tls_session_free(struct tls_session *session)
{
	if (!session)
		return;
	SSL_free(session->ssl);
	tls_context_put(session->context);
	explicit_bzero(session->secret, sizeof(session->secret));
	free(session->in_copy);
	buf_put(session->out, TLS_OUT_BYTES);
	free(session);
}

/* "LABEL CLIENT-RANDOM SECRET"; of the server's first traffic secret. */
void
tls_session_keylog(const SSL *ssl, const char *line)
{
	struct tls_session *session = SSL_get_app_data(ssl);
	const char *secret = strrchr(line, ' ');

	if (!session->keep_secret || !secret ||
	    strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24))
		return;
	if (OPENSSL_hexstr2buf_ex(session->secret, sizeof(session->secret),
	    &session->secret_bytes, secret + 1, '\0') != 1)
		session->secret_bytes = 0;
}

/* ---- what arrived ---- */

void
tls_session_feed(struct tls_session *session, const void *data, size_t bytes)
{
	assert(session->in_bytes == 0);
	free(session->in_copy);
	session->in_copy = NULL;
	session->in = data;
	session->in_bytes = bytes;
}

int
tls_session_keep(struct tls_session *session)
{
	uint8_t *copy;

	if (session->in_bytes == 0 || session->in_copy)
		return 0;
	copy = malloc(session->in_bytes);
	if (!copy) {
		session->in_bytes = 0;
		session->failed = true;
		return -ENOMEM;
	}
	memcpy(copy, session->in, session->in_bytes);
	session->in_copy = copy;
	session->in = copy;
	return 0;
}

/* All is taken: an idle session holds no memory for what may come. */
static void
give_copy_back(struct tls_session *session)
{
	if (session->in_bytes > 0)
		return;
	free(session->in_copy);
	session->in_copy = NULL;
}

/* ---- failing ---- */

/* What OpenSSL has against it, in the words of whoever reads the log. */
static void
explain(struct tls_session *session)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);

	session->failed = true;
	if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
	    ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		snprintf(session->why, sizeof(session->why),
		    "TLS: the client's certificate was refused: %s",
		    X509_verify_cert_error_string(
		    SSL_get_verify_result(session->ssl)));
	else
		snprintf(session->why, sizeof(session->why), "TLS: %s",
		    reason ? reason : "the client broke off");
	ERR_clear_error();
}

/* result is what an SSL_ function returned that did not succeed. */
static int
fail(struct tls_session *session, int result)
{
	switch (SSL_get_error(session->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		give_copy_back(session);
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return -ENODATA;
	default:
		/* Also if it has more to say than the client takes. */
		explain(session);
		return -EPROTO;
	}
}

/* ---- the handshake ---- */

/*
 * Whether the client has proved that it has a key: one that was asked for may
 * have gone unused, with a certificate in its place.
 */
static bool
is_psk(const SSL *ssl)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);

	if (SSL_version(ssl) >= TLS1_3_VERSION)
		return SSL_session_reused(ssl);
	return cipher && SSL_CIPHER_get_auth_nid(cipher) == NID_auth_psk;
}

int
tls_session_shake(struct tls_session *session)
{
	int result;

	if (session->failed)
		return -EPROTO;
	ERR_clear_error();
	result = SSL_accept(session->ssl);
	if (result != 1) {
		int err = fail(session, result);

		if (err == -ENODATA)
			explain(session);
		return err == -EAGAIN ? -EAGAIN : -EPROTO;
	}
	if (!is_psk(session->ssl))
		session->user[0] = '\0';
	return 0;
}

int
tls_session_hand_over(struct tls_session *session, int fd)
{
	int err = -ENOTSUP;

	assert(session->out_bytes == 0);
	if (session->secret_bytes > 0)
		err = tls_kernel_start(session->ssl, fd, session->secret,
		    session->secret_bytes);
	session->kernel_sends = !err;
	explicit_bzero(session->secret, sizeof(session->secret));
	session->secret_bytes = 0;
	return err;
}

/*
 * The client asks for new keys of ours, too: the kernel could not follow, and
 * without them the client would be right to end it.
 */
static bool
wants_kernel_keys(const struct tls_session *session)
{
	return session->kernel_sends &&
	    SSL_get_key_update_type(session->ssl) != SSL_KEY_UPDATE_NONE;
}

/* ---- in the clear ---- */

int
tls_session_read(struct tls_session *session, void *data, size_t size,
    size_t *bytesp)
{
	size_t bytes = 0;

	if (session->failed)
		return -EPROTO;
	ERR_clear_error();
	while (bytes < size) {
		size_t got;
		int result = SSL_read_ex(session->ssl, (uint8_t *)data + bytes,
		    size - bytes, &got);
		int err = result == 1 ? 0 : fail(session, result);

		if (err && bytes == 0)
			return err;
		if (err)
			break;		/* it is told the next time, too */
		bytes += got;
	}
	if (wants_kernel_keys(session)) {
		session->failed = true;
		snprintf(session->why, sizeof(session->why), "TLS: the client "
		    "wants new keys, which the kernel cannot change");
		return -EPROTO;
	}
	*bytesp = bytes;
	return 0;
}

static bool
has_room(const struct tls_session *session)
{
	return session->out_bytes + TLS_RECORD_BYTES + RECORD_EXTRA_BYTES +
	    RESERVE_BYTES <= TLS_OUT_BYTES;
}

/* Takes bytes off the front of the iovecs. */
static void
advance(struct iovec **iov, unsigned *iov_count, size_t bytes)
{
	(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + bytes;
	(*iov)->iov_len -= bytes;
	if ((*iov)->iov_len == 0) {
		(*iov)++;
		(*iov_count)--;
	}
}

/* What the next record shall hold: in place, or put together in room. */
static const uint8_t *
next_record(struct iovec **iov, unsigned *iov_count,
    uint8_t room[TLS_RECORD_BYTES], size_t *bytesp)
{
	const uint8_t *whole = (*iov)->iov_base;
	size_t bytes = 0;

	if ((*iov)->iov_len >= TLS_RECORD_BYTES || *iov_count == 1) {
		bytes = (*iov)->iov_len < TLS_RECORD_BYTES ?
		    (*iov)->iov_len : TLS_RECORD_BYTES;
		advance(iov, iov_count, bytes);
		*bytesp = bytes;
		return whole;
	}
	while (*iov_count > 0 && bytes < TLS_RECORD_BYTES) {
		size_t piece = (*iov)->iov_len;

		if (piece > TLS_RECORD_BYTES - bytes)
			piece = TLS_RECORD_BYTES - bytes;
		memcpy(room + bytes, (*iov)->iov_base, piece);
		advance(iov, iov_count, piece);
		bytes += piece;
	}
	*bytesp = bytes;
	return room;
}

int
tls_session_write(struct tls_session *session, struct iovec **iov,
    unsigned *iov_count)
{
	uint8_t room[TLS_RECORD_BYTES];

	if (session->failed)
		return -EPROTO;
	ERR_clear_error();
	while (*iov_count > 0 && has_room(session)) {
		size_t bytes, written;
		const uint8_t *data = next_record(iov, iov_count, room,
		    &bytes);

		if (bytes == 0)
			continue;
		if (SSL_write_ex(session->ssl, data, bytes, &written) != 1) {
			explain(session);
			return -EPROTO;
		}
		assert(written == bytes);
	}
	return 0;
}

void
tls_session_end(struct tls_session *session)
{
	if (session->failed)
		return;
	ERR_clear_error();
	(void)SSL_shutdown(session->ssl);
	ERR_clear_error();
}

/* ---- what is to be sent ---- */

static void
give_out_back(struct tls_session *session)
{
	buf_put(session->out, TLS_OUT_BYTES);
	session->out = NULL;
}

bool
tls_session_output(struct tls_session *session, struct iovec *iov)
{
	assert(session->sending_bytes == 0);
	if (session->out_bytes == 0) {
		give_out_back(session);
		return false;
	}
	session->sending_bytes = session->out_bytes;
	*iov = (struct iovec){
		.iov_base = session->out, .iov_len = session->out_bytes,
	};
	return true;
}

void
tls_session_sent(struct tls_session *session)
{
	session->out_bytes -= session->sending_bytes;
	if (session->out_bytes > 0)
		memmove(session->out, session->out + session->sending_bytes,
		    session->out_bytes);
	else
		give_out_back(session);
	session->sending_bytes = 0;
}

/* ---- who the client is ---- */

static bool
equals(const ASN1_STRING *text, const char *name, bool any_case)
{
	size_t bytes = strlen(name);
	const char *data = (const char *)ASN1_STRING_get0_data(text);

	if ((size_t)ASN1_STRING_length(text) != bytes)
		return false;
	return any_case ? !strncasecmp(data, name, bytes) :
	    !memcmp(data, name, bytes);
}

static bool
has_common_name(const X509 *certificate, const char *name)
{
	const X509_NAME *subject = X509_get_subject_name(certificate);
	int index = -1;

	while ((index = X509_NAME_get_index_by_NID(subject, NID_commonName,
	    index)) >= 0) {
		const X509_NAME_ENTRY *entry = X509_NAME_get_entry(subject,
		    index);

		if (equals(X509_NAME_ENTRY_get_data(entry), name, false))
			return true;
	}
	return false;
}

static bool
has_dns_name(const X509 *certificate, const char *name)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate,
	    NID_subject_alt_name, NULL, NULL);
	bool found = false;

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
		const GENERAL_NAME *one = sk_GENERAL_NAME_value(names, i);

		found = one->type == GEN_DNS &&
		    equals(one->d.dNSName, name, true);
	}
	GENERAL_NAMES_free(names);
	return found;
}

bool
tls_session_has_name(const struct tls_session *session, enum tls_name kind,
    const char *name)
{
	const X509 *certificate = SSL_get0_peer_certificate(session->ssl);

	if (kind == TLS_NAME_USER)
		return session->user[0] && !strcmp(session->user, name);
	if (!certificate || SSL_get_verify_result(session->ssl) != X509_V_OK)
		return false;
	return kind == TLS_NAME_CN ? has_common_name(certificate, name) :
	    has_dns_name(certificate, name);
}

static void
print_common_name(const X509 *certificate, char *text, size_t size)
{
	char name[128] = "";

	X509_NAME_get_text_by_NID(X509_get_subject_name(certificate),
	    NID_commonName, name, sizeof(name));
	log_quote(text, (int)size, name, (int)strlen(name));
}

const char *
tls_session_describe(const struct tls_session *session, char *text,
    size_t size)
{
	const X509 *certificate = SSL_get0_peer_certificate(session->ssl);
	char name[160] = "";

	if (session->user[0])
		log_quote(name, sizeof(name), session->user,
		    (int)strlen(session->user));
	else if (certificate)
		print_common_name(certificate, name, sizeof(name));
	snprintf(text, size, "%s%s%s", SSL_get_version(session->ssl),
	    session->user[0] ? " USER=" : certificate ? " CN=" : "", name);
	return text;
}
