/* SPDX-License-Identifier: MIT */
/*
 * TLS sessions without a socket, with OpenSSL as the client.  Guards against:
 * data that is mixed up between records and pieces, sessions that keep memory
 * while they are idle, clients that change their keys, that never stop to do
 * so, that end without a word or send what is no TLS, and a user taken for who
 * asked for his key and did not have it.
 *
 * Pre-shared keys need no files but one, so all sessions here have those.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "server/allow.h"
#include "server/tls_session.h"
#include "tests/tls_pair.h"
#include "tests/unit/test_runtime.h"

#define LONG_BYTES (300 << 10)
static struct tls_pairs pairs;

static void
open_all(void)
{
	tls_pairs_open(&pairs, NULL);
}

static void
close_all(void)
{
	tls_pairs_close(&pairs);
}

static void
pair_start(struct tls_pair *pair)
{
	tls_pair_open(pair, &pairs);
	ck_assert_int_eq(tls_pair_shake(pair), 0);
}

/* Sends the iovecs in pieces; the client has to get expected. */
static void
check_sending(struct tls_pair *pair, struct iovec *iov, unsigned count,
    const uint8_t *expected, size_t bytes)
{
	uint8_t *got = malloc(bytes);
	size_t have = 0, part;

	while (count > 0) {
		ck_assert_int_eq(tls_session_write(pair->server, &iov, &count),
		    0);
		ck_assert_uint_gt(tls_pair_carry_out(pair), 0);
		while (have < bytes && SSL_read_ex(pair->client, got + have,
		    bytes - have, &part) == 1)
			have += part;
	}
	ck_assert_uint_eq(have, bytes);
	ck_assert_mem_eq(got, expected, bytes);
	free(got);
}

START_TEST(long_and_short_pieces_arrive_in_order)
{
	static const size_t lengths[] = {
		16, 4096, 0, 1, TLS_RECORD_BYTES, 20, TLS_RECORD_BYTES + 1,
		LONG_BYTES, 3, 0,
	};
	enum { COUNT = sizeof(lengths) / sizeof(lengths[0]) };
	struct iovec iov[COUNT];
	struct tls_pair pair;
	uint8_t *data;
	size_t bytes = 0;

	for (unsigned i = 0; i < COUNT; i++)
		bytes += lengths[i];
	data = malloc(bytes);
	test_fill(data, bytes, 1);
	bytes = 0;
	for (unsigned i = 0; i < COUNT; i++) {
		iov[i] = (struct iovec){data + bytes, lengths[i]};
		bytes += lengths[i];
	}
	pair_start(&pair);
	check_sending(&pair, iov, COUNT, data, bytes);
	tls_pair_close(&pair);
	free(data);
}
END_TEST

START_TEST(what_arrives_is_read_in_any_portions)
{
	static uint8_t data[LONG_BYTES], got[LONG_BYTES];
	struct tls_pair pair;
	size_t have = 0, part;

	test_fill(data, sizeof(data), 2);
	pair_start(&pair);
	ck_assert_int_eq(SSL_write(pair.client, data, sizeof(data)),
	    sizeof(data));
	tls_pair_carry_in(&pair);
	for (size_t portion = 1; have < sizeof(got); portion *= 3) {
		size_t size = sizeof(got) - have;

		if (size > portion)
			size = portion;
		ck_assert_int_eq(tls_session_read(pair.server, got + have,
		    size, &part), 0);
		ck_assert_uint_eq(part, size);
		have += part;
	}
	ck_assert_int_eq(tls_session_read(pair.server, got, 1, &part),
	    -EAGAIN);
	ck_assert_mem_eq(data, got, sizeof(data));
	tls_pair_close(&pair);
}
END_TEST

START_TEST(idle_sessions_keep_no_buffer)
{
	struct iovec iov = {(char *)"reply", 5}, *next = &iov;
	unsigned count = 1;
	struct tls_pair pair;
	char request[16];
	size_t bytes;

	pair_start(&pair);
	ck_assert_ptr_null(pair.server->out);
	ck_assert_int_eq(tls_session_write(pair.server, &next, &count), 0);
	ck_assert_ptr_nonnull(pair.server->out);
	tls_pair_carry_out(&pair);
	ck_assert_ptr_null(pair.server->out);
	/* Nor what it had to keep of what arrived, once that is read. */
	ck_assert_int_eq(SSL_write(pair.client, "request", 7), 7);
	tls_pair_carry_in(&pair);
	ck_assert_int_eq(tls_session_keep(pair.server), 0);
	ck_assert_ptr_nonnull(pair.server->in_copy);
	ck_assert_int_eq(tls_session_read(pair.server, request,
	    sizeof(request), &bytes), 0);
	ck_assert_uint_eq(bytes, 7);
	ck_assert_ptr_null(pair.server->in_copy);
	tls_pair_close(&pair);
}
END_TEST

static int
read_one(struct tls_pair *pair)
{
	uint8_t byte;
	size_t bytes;

	return tls_session_read(pair->server, &byte, 1, &bytes);
}

START_TEST(a_client_may_change_its_keys)
{
	struct tls_pair pair;
	struct iovec iov = {(char *)"reply", 5};

	pair_start(&pair);
	ck_assert_int_eq(SSL_key_update(pair.client,
	    SSL_KEY_UPDATE_REQUESTED), 1);
	ck_assert_int_eq(SSL_write(pair.client, "x", 1), 1);
	tls_pair_carry_in(&pair);
	ck_assert_int_eq(read_one(&pair), 0);
	/* It is asked to do the same, and does so with its next reply. */
	check_sending(&pair, &iov, 1, (const uint8_t *)"reply", 5);
	tls_pair_close(&pair);
}
END_TEST

/* Each has to be answered, and this client takes no answers. */
START_TEST(a_client_that_only_changes_its_keys_is_stopped)
{
	struct tls_pair pair;
	int err = -EAGAIN;

	pair_start(&pair);
	for (unsigned i = 0; i < 100000 && err == -EAGAIN; i++) {
		ck_assert_int_eq(SSL_key_update(pair.client,
		    SSL_KEY_UPDATE_REQUESTED), 1);
		ck_assert_int_eq(SSL_do_handshake(pair.client), 1);
		tls_pair_carry_in(&pair);
		err = read_one(&pair);
		ck_assert_uint_le(pair.server->out_bytes, TLS_OUT_BYTES);
	}
	ck_assert_int_eq(err, -EPROTO);
	tls_pair_close(&pair);
}
END_TEST

START_TEST(ends_are_told_apart)
{
	struct tls_pair pair;

	pair_start(&pair);
	ck_assert_int_eq(read_one(&pair), -EAGAIN);
	SSL_shutdown(pair.client);
	tls_pair_carry_in(&pair);
	ck_assert_int_eq(read_one(&pair), -ENODATA);
	ck_assert_int_eq(read_one(&pair), -ENODATA);
	tls_session_end(pair.server);
	ck_assert_uint_gt(tls_pair_carry_out(&pair), 0);
	ck_assert_int_eq(SSL_shutdown(pair.client), 1);
	tls_pair_close(&pair);
}
END_TEST

START_TEST(garbage_fails_for_good)
{
	static const uint8_t garbage[64] = {23, 3, 3, 0, 32, 1, 2, 3};
	struct iovec iov = {(char *)"reply", 5}, *next = &iov;
	unsigned count = 1;
	struct tls_pair pair;

	pair_start(&pair);
	tls_session_feed(pair.server, garbage, sizeof(garbage));
	ck_assert_int_eq(read_one(&pair), -EPROTO);
	ck_assert_ptr_nonnull(strstr(pair.server->why, "TLS: "));
	ck_assert_int_eq(read_one(&pair), -EPROTO);
	ck_assert_int_eq(tls_session_write(pair.server, &next, &count),
	    -EPROTO);
	tls_pair_close(&pair);
}
END_TEST

/* In the handshake, and of any kind of it. */
START_TEST(every_byte_of_the_first_flight_may_be_wrong)
{
	struct tls_pair pair;
	uint8_t flight[2048];
	int bytes;

	tls_pair_open(&pair, &pairs);
	SSL_do_handshake(pair.client);
	bytes = BIO_read(pair.from_client, flight, sizeof(flight));
	ck_assert_int_gt(bytes, 100);
	tls_pair_close(&pair);
	for (int i = 0; i < bytes; i++) {
		uint8_t *copy = malloc((size_t)bytes);
		int err;

		memcpy(copy, flight, (size_t)bytes);
		copy[i] ^= (uint8_t)(1 + i % 255);
		tls_pair_open(&pair, &pairs);
		tls_session_feed(pair.server, copy, (size_t)bytes);
		err = tls_session_shake(pair.server);
		ck_assert_msg(err == -EAGAIN || err == -EPROTO, "%d: %d", i,
		    err);
		tls_pair_close(&pair);
		free(copy);
	}
}
END_TEST

/* ---- who it is ---- */

static void
set_version(int version)
{
	SSL_CTX_set_min_proto_version(pairs.client, version);
	SSL_CTX_set_max_proto_version(pairs.client, version);
	SSL_CTX_set_cipher_list(pairs.client, "PSK");
}

START_TEST(users_have_shown_their_key)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct tls_pair pair;

	for (unsigned i = 0; i < 2; i++) {
		set_version(versions[i]);
		pairs.wrong_key = false;
		pair_start(&pair);
		ck_assert(tls_session_has_name(pair.server, TLS_NAME_USER,
		    "alice"));
		ck_assert(!tls_session_has_name(pair.server, TLS_NAME_USER,
		    "bob"));
		ck_assert(!tls_session_has_name(pair.server, TLS_NAME_USER,
		    ""));
		ck_assert(!tls_session_has_name(pair.server, TLS_NAME_CN,
		    "alice"));
		tls_pair_close(&pair);
		pairs.wrong_key = true;
		tls_pair_open(&pair, &pairs);
		ck_assert_int_eq(tls_pair_shake(&pair), -EPROTO);
		tls_pair_close(&pair);
	}
}
END_TEST

static FILE *
open_file(const char *directory, const char *name)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	return file;
}

/* That has signed itself; nobody here looks who did. */
static void
make_certificate(const char *directory)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_NAME *name = X509_get_subject_name(certificate);
	FILE *file;

	ck_assert_ptr_nonnull(key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
	    (const unsigned char *)"server", -1, -1, 0);
	X509_set_issuer_name(certificate, name);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	X509_set_pubkey(certificate, key);
	ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
	file = open_file(directory, "server-cert.pem");
	PEM_write_X509(file, certificate);
	fclose(file);
	file = open_file(directory, "server-key.pem");
	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

/*
 * The client asks for the user's key and offers no cipher that goes with it,
 * so the server shows its certificate instead.
 */
START_TEST(a_key_that_was_not_used_makes_no_user)
{
	const char *directory = test_directory();
	struct tls_pairs both;
	struct tls_pair pair;

	make_certificate(directory);
	tls_pairs_open(&both, directory);
	both.wrong_key = true;
	SSL_CTX_set_ciphersuites(both.client, "TLS_AES_256_GCM_SHA384");
	tls_pair_open(&pair, &both);
	ck_assert_int_eq(tls_pair_shake(&pair), 0);
	ck_assert(!tls_session_has_name(pair.server, TLS_NAME_USER, "alice"));
	tls_pair_close(&pair);
	tls_pairs_close(&both);
}
END_TEST

START_TEST(old_versions_are_refused)
{
	struct tls_pair pair;

	set_version(TLS1_1_VERSION);
	SSL_CTX_set_cipher_list(pairs.client, "PSK:@SECLEVEL=0");
	tls_pair_open(&pair, &pairs);
	ck_assert_int_eq(tls_pair_shake(&pair), -EPROTO);
	tls_pair_close(&pair);
}
END_TEST

START_TEST(rules_are_read)
{
	struct allow_rule rule;

	ck_assert(allow_parse("CN=host1", &rule));
	ck_assert(rule.for_all && rule.kind == TLS_NAME_CN);
	ck_assert_str_eq(rule.value, "host1");
	ck_assert(allow_parse("vm:1:DNS=a:CN=b", &rule));
	ck_assert(!rule.for_all && rule.kind == TLS_NAME_DNS);
	ck_assert(allow_is_for(&rule, "vm:1"));
	ck_assert(!allow_is_for(&rule, "vm"));
	ck_assert_str_eq(rule.value, "a:CN=b");
	ck_assert(allow_parse(":USER=x", &rule));
	ck_assert(allow_is_for(&rule, ""));
	ck_assert(!allow_parse("host1", &rule));
	ck_assert(!allow_parse("CN=", &rule));
	ck_assert(!allow_parse("vm1:", &rule));
	ck_assert(!allow_parse("cn=host1", &rule));
}
END_TEST

START_TEST(rules_permit)
{
	static const char *const texts[] = {
		"one:CN=alice", "two:USER=bob", "three:USER=alice",
		"three:CN=x",
	};
	struct allow_list rules = {.count = 4};
	struct tls_pair pair;

	for (unsigned i = 0; i < rules.count; i++)
		ck_assert(allow_parse(texts[i], &rules.list[i]));
	pair_start(&pair);
	ck_assert(!allow_permits(&rules, "one", pair.server));
	ck_assert(!allow_permits(&rules, "two", pair.server));
	ck_assert(allow_permits(&rules, "three", pair.server));
	ck_assert(allow_permits(&rules, "four", pair.server));
	ck_assert(!allow_permits(&rules, "three", NULL));
	ck_assert(allow_parse("USER=admin", &rules.list[rules.count++]));
	ck_assert(!allow_permits(&rules, "four", pair.server));
	ck_assert(allow_permits(&rules, "three", pair.server));
	tls_pair_close(&pair);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("tls");
	TCase *tcase = tcase_create("tls");

	tcase_add_checked_fixture(tcase, open_all, close_all);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, long_and_short_pieces_arrive_in_order);
	tcase_add_test(tcase, what_arrives_is_read_in_any_portions);
	tcase_add_test(tcase, idle_sessions_keep_no_buffer);
	tcase_add_test(tcase, a_client_may_change_its_keys);
	tcase_add_test(tcase, a_client_that_only_changes_its_keys_is_stopped);
	tcase_add_test(tcase, ends_are_told_apart);
	tcase_add_test(tcase, garbage_fails_for_good);
	tcase_add_test(tcase, every_byte_of_the_first_flight_may_be_wrong);
	tcase_add_test(tcase, users_have_shown_their_key);
	tcase_add_test(tcase, a_key_that_was_not_used_makes_no_user);
	tcase_add_test(tcase, old_versions_are_refused);
	tcase_add_test(tcase, rules_are_read);
	tcase_add_test(tcase, rules_permit);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
