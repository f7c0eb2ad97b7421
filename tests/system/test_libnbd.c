/* SPDX-License-Identifier: MIT */
/*
 * Guards every command and flag against a client that others wrote: libnbd,
 * with simple and with structured replies.  Run by test-libnbd.sh.
 */
#include "tests/system/test_libnbd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- results ---- */

int64_t
must(int64_t result, const char *what)
{
	ck_assert_msg(result >= 0, "%s: %s", what, nbd_get_error());
	return result;
}

void
must_fail(int64_t result, const char *what, int expected_errno)
{
	ck_assert_msg(result < 0, "%s: no error", what);
	ck_assert_msg(nbd_get_errno() == expected_errno, "%s: %s, not %s",
	    what, strerror(nbd_get_errno()), strerror(expected_errno));
}

/* ---- connections ---- */

struct nbd_handle *
client_open(const char *variable, bool structured)
{
	struct nbd_handle *nbd = nbd_create();
	const char *uri = getenv(variable);

	ck_assert_msg(uri, "%s is not set; run test-libnbd.sh", variable);
	ck_assert_msg(nbd, "%s", nbd_get_error());
	MUST(nbd_set_strict_mode(nbd, 0));
	MUST(nbd_set_request_structured_replies(nbd, structured));
	if (structured)
		MUST(nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION));
	MUST(nbd_connect_uri(nbd, uri));
	ck_assert_int_eq(nbd_get_structured_replies_negotiated(nbd),
	    structured);
	return nbd;
}

void
client_close(struct nbd_handle *nbd)
{
	MUST(nbd_shutdown(nbd, 0));
	nbd_close(nbd);
}

/* ---- bytes ---- */

void
fill(char *data, size_t length, unsigned seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;

	for (size_t i = 0; i < length; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		data[i] = (char)(state >> 56);
	}
}

void
expect_same(const char *data, const char *expected, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (data[i] != expected[i])
			ck_abort_msg("byte %zu of %zu is 0x%02x, not 0x%02x",
			    i, length, (unsigned char)data[i],
			    (unsigned char)expected[i]);
}

void
expect_filled(const char *data, size_t length, unsigned seed)
{
	char *expected = malloc(length);

	ck_assert_ptr_nonnull(expected);
	fill(expected, length, seed);
	expect_same(data, expected, length);
	free(expected);
}

void
expect_bytes(const char *data, size_t length, char byte)
{
	char *expected = malloc(length);

	ck_assert_ptr_nonnull(expected);
	memset(expected, byte, length);
	expect_same(data, expected, length);
	free(expected);
}

void
write_filled(struct nbd_handle *nbd, size_t length, uint64_t offset,
    unsigned seed, uint32_t flags)
{
	char *data = malloc(length);

	ck_assert_ptr_nonnull(data);
	fill(data, length, seed);
	MUST(nbd_pwrite(nbd, data, length, offset, flags));
	free(data);
}

static char *
read_range(struct nbd_handle *nbd, size_t length, uint64_t offset)
{
	char *data = malloc(length);

	ck_assert_ptr_nonnull(data);
	/* So that what the reply leaves out is seen. */
	memset(data, 0xee, length);
	MUST(nbd_pread(nbd, data, length, offset, 0));
	return data;
}

void
read_filled(struct nbd_handle *nbd, size_t length, uint64_t offset,
    unsigned seed)
{
	char *data = read_range(nbd, length, offset);

	expect_filled(data, length, seed);
	free(data);
}

void
read_bytes(struct nbd_handle *nbd, size_t length, uint64_t offset, char byte)
{
	char *data = read_range(nbd, length, offset);

	expect_bytes(data, length, byte);
	free(data);
}

void
clear(struct nbd_handle *nbd)
{
	MUST(nbd_zero(nbd, (uint64_t)nbd_get_size(nbd), 0, 0));
}

/* ---- what a client is told ---- */

START_TEST(transmission_flags_tell_what_the_server_can)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);

	ck_assert_int_eq(nbd_get_size(nbd), MAIN_BYTES);
	ck_assert_int_eq(nbd_is_read_only(nbd), 0);
	ck_assert_int_eq(nbd_is_rotational(nbd), 0);
	ck_assert_int_eq(nbd_can_flush(nbd), 1);
	ck_assert_int_eq(nbd_can_fua(nbd), 1);
	ck_assert_int_eq(nbd_can_trim(nbd), 1);
	ck_assert_int_eq(nbd_can_zero(nbd), 1);
	ck_assert_int_eq(nbd_can_fast_zero(nbd), 1);
	ck_assert_int_eq(nbd_can_cache(nbd), 1);
	ck_assert_int_eq(nbd_can_multi_conn(nbd), 1);
	ck_assert_int_eq(nbd_can_df(nbd), _i);
	ck_assert_int_eq(nbd_can_meta_context(nbd,
	    LIBNBD_CONTEXT_BASE_ALLOCATION), _i);
	ck_assert_int_eq(nbd_can_meta_context(nbd, "x:unknown"), 0);
	client_close(nbd);
}
END_TEST

START_TEST(read_only_export_offers_no_writing)
{
	struct nbd_handle *nbd = client_open(READ_ONLY, _i);

	ck_assert_int_eq(nbd_get_size(nbd), READ_ONLY_BYTES);
	ck_assert_int_eq(nbd_is_read_only(nbd), 1);
	ck_assert_int_eq(nbd_can_trim(nbd), 0);
	ck_assert_int_eq(nbd_can_zero(nbd), 0);
	ck_assert_int_eq(nbd_can_fast_zero(nbd), 0);
	ck_assert_int_eq(nbd_can_multi_conn(nbd), 1);
	client_close(nbd);
}
END_TEST

START_TEST(block_sizes_allow_bytes_and_prefer_clusters)
{
	struct nbd_handle *nbd = client_open(MAIN, true);

	ck_assert_int_eq(nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM), 1);
	ck_assert_int_eq(nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED),
	    CLUSTER);
	ck_assert_int_ge(nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM),
	    REQUEST_BYTES_MAX);
	client_close(nbd);
}
END_TEST

/* Without FIXED_NEWSTYLE libnbd asks for the export by EXPORT_NAME. */
START_TEST(clients_of_old_get_the_export_too)
{
	static const uint32_t flags[] = {
		0,
		LIBNBD_HANDSHAKE_FLAG_NO_ZEROES,
		LIBNBD_HANDSHAKE_FLAG_FIXED_NEWSTYLE,
		LIBNBD_HANDSHAKE_FLAG_MASK,
	};
	struct nbd_handle *nbd = nbd_create();

	MUST(nbd_set_handshake_flags(nbd, flags[_i]));
	MUST(nbd_connect_uri(nbd, getenv(MAIN)));
	ck_assert_int_eq(nbd_get_size(nbd), MAIN_BYTES);
	write_filled(nbd, 512, 0, (unsigned)_i, 0);
	read_filled(nbd, 512, 0, (unsigned)_i);
	client_close(nbd);
}
END_TEST

static int
count_export(void *user_data, const char *name, const char *description)
{
	unsigned *seen = user_data;

	(void)description;
	if (strcmp(name, "main") == 0 || strcmp(name, "odd") == 0)
		(*seen)++;
	return 0;
}

START_TEST(haggling_goes_on_after_an_unknown_name)
{
	struct nbd_handle *nbd = nbd_create();
	unsigned seen = 0;

	MUST(nbd_set_opt_mode(nbd, true));
	MUST(nbd_connect_uri(nbd, getenv(MAIN)));
	MUST(nbd_opt_list(nbd, (nbd_list_callback){
	    .callback = count_export, .user_data = &seen}));
	ck_assert_uint_eq(seen, 2);
	MUST(nbd_set_export_name(nbd, "unknown"));
	MUST_FAIL(nbd_opt_info(nbd), ENOENT);
	MUST_FAIL(nbd_opt_go(nbd), ENOENT);
	MUST(nbd_set_export_name(nbd, "odd"));
	MUST(nbd_opt_info(nbd));
	ck_assert_int_eq(nbd_get_size(nbd), ODD_BYTES);
	MUST(nbd_set_export_name(nbd, "main"));
	MUST(nbd_opt_go(nbd));
	ck_assert_int_eq(nbd_get_size(nbd), MAIN_BYTES);
	client_close(nbd);
}
END_TEST

START_TEST(client_may_leave_while_haggling)
{
	struct nbd_handle *nbd = nbd_create();

	MUST(nbd_set_opt_mode(nbd, true));
	MUST(nbd_connect_uri(nbd, getenv(MAIN)));
	MUST(nbd_opt_abort(nbd));
	nbd_close(nbd);
}
END_TEST

TCase *
case_of_negotiation(void)
{
	TCase *negotiation = tcase_create("negotiation");

	tcase_add_loop_test(negotiation,
	    transmission_flags_tell_what_the_server_can, 0, REPLY_KINDS);
	tcase_add_loop_test(negotiation,
	    read_only_export_offers_no_writing, 0, REPLY_KINDS);
	tcase_add_test(negotiation,
	    block_sizes_allow_bytes_and_prefer_clusters);
	tcase_add_loop_test(negotiation,
	    clients_of_old_get_the_export_too, 0, 4);
	tcase_add_test(negotiation, haggling_goes_on_after_an_unknown_name);
	tcase_add_test(negotiation, client_may_leave_while_haggling);
	return negotiation;
}

int
main(void)
{
	Suite *suite = suite_create("libnbd");
	SRunner *runner;
	int failures;

	suite_add_tcase(suite, case_of_negotiation());
	suite_add_tcase(suite, case_of_commands());
	suite_add_tcase(suite, case_of_status());
	suite_add_tcase(suite, case_of_errors());
	suite_add_tcase(suite, case_of_load());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failures ? 1 : 0;
}
