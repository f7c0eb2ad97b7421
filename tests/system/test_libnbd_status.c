/* SPDX-License-Identifier: MIT */
/*
 * Guards block status: which ranges are holes and which read as zeros, that the
 * extents add up, and that the answer to REQ_ONE is one.
 */
#include "tests/system/test_libnbd.h"

#define HOLE (STATE_HOLE | STATE_ZERO)

/* Appends to struct runs; the callback may be called more than once. */
static int
note_extents(void *user_data, const char *context, uint64_t offset,
    uint32_t *entries, size_t count, int *error)
{
	struct runs *runs = user_data;

	(void)offset;
	ck_assert_str_eq(context, LIBNBD_CONTEXT_BASE_ALLOCATION);
	ck_assert_int_eq(*error, 0);
	ck_assert_uint_eq(count % 2, 0);
	for (size_t i = 0; i < count; i += 2) {
		struct run *last = runs->count > 0 ?
		    &runs->run[runs->count - 1] : NULL;

		ck_assert_uint_gt(entries[i], 0);
		if (last && last->state == entries[i + 1]) {
			last->length += entries[i];
			continue;
		}
		ck_assert_uint_lt(runs->count, RUNS_MAX);
		runs->run[runs->count++] = (struct run){
			.length = entries[i], .state = entries[i + 1],
		};
	}
	return 0;
}

static uint64_t
runs_length(const struct runs *runs)
{
	uint64_t length = 0;

	for (unsigned i = 0; i < runs->count; i++)
		length += runs->run[i].length;
	return length;
}

void
get_runs(struct nbd_handle *nbd, uint64_t length, uint64_t offset,
    uint32_t flags, struct runs *runs)
{
	runs->count = 0;
	MUST(nbd_block_status(nbd, length, offset,
	    (nbd_extent_callback){.callback = note_extents,
	    .user_data = runs}, flags));
}

/* The whole answer must be these count runs. */
static void
expect_runs(struct nbd_handle *nbd, uint64_t length, uint64_t offset,
    const struct run *expected, unsigned count)
{
	struct runs runs;

	get_runs(nbd, length, offset, 0, &runs);
	ck_assert_uint_eq(runs.count, count);
	for (unsigned i = 0; i < count; i++) {
		ck_assert_uint_eq(runs.run[i].length, expected[i].length);
		ck_assert_uint_eq(runs.run[i].state, expected[i].state);
	}
}

START_TEST(states_follow_what_was_done)
{
	struct nbd_handle *nbd = client_open(MAIN, true);
	const struct run nothing[] = {{8 * CLUSTER, HOLE}};
	const struct run written[] = {
		{2 * CLUSTER, HOLE}, {4 * CLUSTER, 0}, {2 * CLUSTER, HOLE},
	};
	const struct run zeroed[] = {
		{2 * CLUSTER, HOLE}, {CLUSTER, 0}, {CLUSTER, STATE_ZERO},
		{CLUSTER, HOLE}, {CLUSTER, 0}, {2 * CLUSTER, HOLE},
	};

	clear(nbd);
	expect_runs(nbd, 8 * CLUSTER, 0, nothing, 1);
	write_filled(nbd, 4 * CLUSTER - 2, 2 * CLUSTER + 1, 1, 0);
	expect_runs(nbd, 8 * CLUSTER, 0, written, 3);
	MUST(nbd_zero(nbd, CLUSTER, 3 * CLUSTER, LIBNBD_CMD_FLAG_NO_HOLE));
	MUST(nbd_trim(nbd, CLUSTER, 4 * CLUSTER, 0));
	expect_runs(nbd, 8 * CLUSTER, 0, zeroed, 6);
	clear(nbd);
	/* The room that NO_HOLE kept goes with the data. */
	expect_runs(nbd, 8 * CLUSTER, 0, nothing, 1);
	client_close(nbd);
}
END_TEST

START_TEST(ranges_need_not_be_aligned)
{
	struct nbd_handle *nbd = client_open(MAIN, true);
	const struct run expected[] = {
		{CLUSTER - 1, HOLE}, {CLUSTER, 0}, {1, HOLE},
	};

	clear(nbd);
	write_filled(nbd, CLUSTER, CLUSTER, 1, 0);
	expect_runs(nbd, 2 * CLUSTER, 1, expected, 3);
	expect_runs(nbd, 1, CLUSTER + 5, (const struct run[]){{1, 0}}, 1);
	client_close(nbd);
}
END_TEST

START_TEST(req_one_gets_one_extent_of_the_range)
{
	struct nbd_handle *nbd = client_open(MAIN, true);
	struct runs runs;

	clear(nbd);
	write_filled(nbd, CLUSTER, CLUSTER, 1, 0);
	get_runs(nbd, 4 * CLUSTER, 5, LIBNBD_CMD_FLAG_REQ_ONE, &runs);
	ck_assert_uint_eq(runs.count, 1);
	ck_assert_uint_eq(runs.run[0].length, CLUSTER - 5);
	ck_assert_uint_eq(runs.run[0].state, HOLE);
	get_runs(nbd, 10, CLUSTER + 5, LIBNBD_CMD_FLAG_REQ_ONE, &runs);
	ck_assert_uint_eq(runs.count, 1);
	ck_assert_uint_eq(runs.run[0].length, 10);
	ck_assert_uint_eq(runs.run[0].state, 0);
	client_close(nbd);
}
END_TEST

/* An answer may be cut short, never empty; asked on, it comes to the end. */
START_TEST(answers_add_up_to_the_disk)
{
	struct nbd_handle *nbd = client_open(MAIN, true);
	uint64_t offset = 0;

	clear(nbd);
	for (uint64_t i = 0; i < 30; i += 2)
		write_filled(nbd, CLUSTER, i * CLUSTER, 1, 0);
	while (offset < MAIN_BYTES) {
		struct runs runs;
		uint64_t length;

		get_runs(nbd, MAIN_BYTES - offset, offset, 0, &runs);
		length = runs_length(&runs);
		ck_assert_uint_gt(length, 0);
		ck_assert_uint_le(length, MAIN_BYTES - offset);
		offset += length;
	}
	client_close(nbd);
}
END_TEST

START_TEST(part_of_a_sector_has_a_state)
{
	struct nbd_handle *nbd = client_open(ODD, true);
	const uint64_t begin = ODD_BYTES / CLUSTER * CLUSTER;
	const struct run nothing[] = {{ODD_BYTES, HOLE}};
	const struct run tail[] = {{begin, HOLE}, {ODD_BYTES - begin, 0}};

	clear(nbd);
	expect_runs(nbd, ODD_BYTES, 0, nothing, 1);
	write_filled(nbd, 1, ODD_BYTES - 1, 1, 0);
	expect_runs(nbd, ODD_BYTES, 0, tail, 2);
	client_close(nbd);
}
END_TEST

TCase *
case_of_status(void)
{
	TCase *status = tcase_create("status");

	tcase_set_timeout(status, 60);
	tcase_add_test(status, states_follow_what_was_done);
	tcase_add_test(status, ranges_need_not_be_aligned);
	tcase_add_test(status, req_one_gets_one_extent_of_the_range);
	tcase_add_test(status, answers_add_up_to_the_disk);
	tcase_add_test(status, part_of_a_sector_has_a_state);
	return status;
}
