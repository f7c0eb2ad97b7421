/* SPDX-License-Identifier: MIT */
/*
 * Guards the error of each wrong request, that it changes nothing, and that
 * the connection is of use afterwards.
 */
#include "tests/system/test_libnbd.h"

#include <errno.h>
#include <stdlib.h>

#define FUA LIBNBD_CMD_FLAG_FUA

static int
ignore_extents(void *user_data, const char *context, uint64_t offset,
    uint32_t *entries, size_t count, int *error)
{
	(void)user_data, (void)context, (void)offset;
	(void)entries, (void)count, (void)error;
	return 0;
}

static int
status(struct nbd_handle *nbd, uint64_t length, uint64_t offset,
    uint32_t flags)
{
	return nbd_block_status(nbd, length, offset,
	    (nbd_extent_callback){.callback = ignore_extents}, flags);
}

/* ---- ranges ---- */

/* Ranges that leave a disk of MAIN_BYTES, one by overflow. */
static const struct range {
	uint64_t offset;
	size_t length;
} past_the_end[] = {
	{MAIN_BYTES - 511, 512},
	{MAIN_BYTES, 1},
	{MAIN_BYTES + 512, 512},
	{1ull << 62, 512},
	{UINT64_MAX - 511, 512},
	{UINT64_MAX, 512},
};
#define RANGES (sizeof(past_the_end) / sizeof(past_the_end[0]))

START_TEST(nothing_is_read_or_written_past_the_end)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static char data[512];

	clear(nbd);
	write_filled(nbd, 512, MAIN_BYTES - 512, 1, 0);
	for (unsigned i = 0; i < RANGES; i++) {
		uint64_t offset = past_the_end[i].offset;
		size_t length = past_the_end[i].length;

		MUST_FAIL(nbd_pread(nbd, data, length, offset, 0), EINVAL);
		MUST_FAIL(nbd_pwrite(nbd, data, length, offset, 0), ENOSPC);
		MUST_FAIL(nbd_pwrite(nbd, data, length, offset, FUA), ENOSPC);
		MUST_FAIL(nbd_zero(nbd, length, offset, 0), ENOSPC);
		MUST_FAIL(nbd_trim(nbd, length, offset, 0), EINVAL);
		MUST_FAIL(nbd_cache(nbd, length, offset, 0), EINVAL);
		if (_i)
			MUST_FAIL(status(nbd, length, offset, 0), EINVAL);
		read_filled(nbd, 512, MAIN_BYTES - 512, 1);
	}
	client_close(nbd);
}
END_TEST

START_TEST(odd_end_is_exact)
{
	struct nbd_handle *nbd = client_open(ODD, _i);
	char data[2];

	MUST_FAIL(nbd_pread(nbd, data, 2, ODD_BYTES - 1, 0), EINVAL);
	MUST_FAIL(nbd_pwrite(nbd, data, 2, ODD_BYTES - 1, 0), ENOSPC);
	MUST_FAIL(nbd_pwrite(nbd, data, 1, ODD_BYTES, 0), ENOSPC);
	MUST_FAIL(nbd_zero(nbd, ODD_BYTES + 1, 0, 0), ENOSPC);
	MUST_FAIL(nbd_trim(nbd, ODD_BYTES + 1, 0, 0), EINVAL);
	client_close(nbd);
}
END_TEST

/* Nearly 4 GiB without a payload is no reason to hang up. */
START_TEST(huge_requests_without_payload_are_answered)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	const uint64_t huge = UINT32_MAX;

	MUST_FAIL(nbd_zero(nbd, huge, 0, 0), ENOSPC);
	MUST_FAIL(nbd_trim(nbd, huge, 0, 0), EINVAL);
	MUST_FAIL(nbd_cache(nbd, huge, 0, 0), EINVAL);
	if (_i)
		MUST_FAIL(status(nbd, huge, 0, 0), EINVAL);
	read_bytes(nbd, 512, MAIN_BYTES / 2, 0);
	client_close(nbd);
}
END_TEST

/* ---- payloads ---- */

START_TEST(payloads_over_the_limit_are_refused)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	const size_t length = REQUEST_BYTES_MAX + 1;
	char *data = calloc(1, length);

	clear(nbd);
	MUST_FAIL(nbd_pread(nbd, data, length, 0, 0),
	    _i ? EOVERFLOW : EINVAL);
	read_bytes(nbd, 512, 0, 0);
	/* The payload is read and thrown away, or the connection ends. */
	fill(data, length, 1);
	ck_assert_int_lt(nbd_pwrite(nbd, data, length, 0, 0), 0);
	nbd_close(nbd);
	nbd = client_open(MAIN, _i);
	read_bytes(nbd, 512, 0, 0);
	client_close(nbd);
	free(data);
}
END_TEST

/* ---- commands that are not offered ---- */

START_TEST(read_only_export_refuses_every_change)
{
	struct nbd_handle *nbd = client_open(READ_ONLY, _i);
	char data[512] = {0};

	MUST_FAIL(nbd_pwrite(nbd, data, 512, 0, 0), EPERM);
	MUST_FAIL(nbd_pwrite(nbd, data, 512, 0, FUA), EPERM);
	MUST_FAIL(nbd_zero(nbd, 512, 0, 0), EPERM);
	MUST_FAIL(nbd_trim(nbd, 512, 0, 0), EPERM);
	MUST(nbd_flush(nbd, 0));
	MUST(nbd_cache(nbd, 512, 0, 0));
	read_bytes(nbd, READ_ONLY_BYTES, 0, 0x5a);
	client_close(nbd);
}
END_TEST

START_TEST(block_status_needs_a_context)
{
	struct nbd_handle *nbd = nbd_create();

	MUST(nbd_set_strict_mode(nbd, 0));
	MUST(nbd_connect_uri(nbd, getenv(MAIN)));
	MUST_FAIL(status(nbd, 512, 0, 0), EINVAL);
	read_bytes(nbd, 512, MAIN_BYTES / 2, 0);
	client_close(nbd);
}
END_TEST

/* ---- flags ---- */

START_TEST(flags_of_other_commands_are_refused)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static const uint32_t wrong[] = {
		LIBNBD_CMD_FLAG_REQ_ONE, 1 << 6, 1 << 15,
		LIBNBD_CMD_FLAG_DF, LIBNBD_CMD_FLAG_NO_HOLE,
	};
	char data[512] = {0};

	clear(nbd);
	write_filled(nbd, 512, 0, 1, 0);
	for (unsigned i = 0; i < 5; i++) {
		MUST_FAIL(nbd_pwrite(nbd, data, 512, 0, wrong[i]), EINVAL);
		MUST_FAIL(nbd_trim(nbd, 512, 0, wrong[i]), EINVAL);
		MUST_FAIL(nbd_flush(nbd, wrong[i]), EINVAL);
		MUST_FAIL(nbd_cache(nbd, 512, 0, wrong[i]), EINVAL);
		if (wrong[i] != LIBNBD_CMD_FLAG_NO_HOLE)
			MUST_FAIL(nbd_zero(nbd, 512, 0, wrong[i]), EINVAL);
		/* DF is known to those who have structured replies. */
		if (wrong[i] != LIBNBD_CMD_FLAG_DF || !_i)
			MUST_FAIL(nbd_pread(nbd, data, 512, 0, wrong[i]),
			    EINVAL);
		read_filled(nbd, 512, 0, 1);
	}
	client_close(nbd);
}
END_TEST

/* ---- after an error ---- */

/* Right and wrong ones in flight at once: each gets its own answer. */
START_TEST(errors_do_not_mix_with_answers)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static char data[32][4096];
	int64_t cookies[32];

	clear(nbd);
	for (unsigned i = 0; i < 32; i++)
		write_filled(nbd, 4096, i * 4096, i, 0);
	for (unsigned i = 0; i < 32; i++)
		cookies[i] = MUST(nbd_aio_pread(nbd, data[i], 4096,
		    i % 3 ? i * 4096 : MAIN_BYTES, NBD_NULL_COMPLETION, 0));
	while (nbd_aio_in_flight(nbd) > 0)
		MUST(nbd_poll(nbd, -1));
	for (unsigned i = 0; i < 32; i++) {
		int result = nbd_aio_command_completed(nbd, cookies[i]);

		if (i % 3) {
			MUST(result);
			expect_filled(data[i], 4096, i);
		} else {
			MUST_FAIL(result, EINVAL);
		}
	}
	client_close(nbd);
}
END_TEST

TCase *
case_of_errors(void)
{
	TCase *errors = tcase_create("errors");

	tcase_set_timeout(errors, 60);
	tcase_add_loop_test(errors, nothing_is_read_or_written_past_the_end,
	    0, REPLY_KINDS);
	tcase_add_loop_test(errors, odd_end_is_exact, 0, REPLY_KINDS);
	tcase_add_loop_test(errors,
	    huge_requests_without_payload_are_answered, 0, REPLY_KINDS);
	tcase_add_loop_test(errors, payloads_over_the_limit_are_refused,
	    0, REPLY_KINDS);
	tcase_add_loop_test(errors, read_only_export_refuses_every_change,
	    0, REPLY_KINDS);
	tcase_add_test(errors, block_status_needs_a_context);
	tcase_add_loop_test(errors, flags_of_other_commands_are_refused,
	    0, REPLY_KINDS);
	tcase_add_loop_test(errors, errors_do_not_mix_with_answers,
	    0, REPLY_KINDS);
	return errors;
}
