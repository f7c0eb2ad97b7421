/* SPDX-License-Identifier: MIT */
/*
 * The oracle of crash tests.  Guards against an oracle that is too kind (lost
 * flushed data passes) and one that is too strict (what a server may do
 * fails), for each rule about flush, FUA, trim, errors and overlaps.
 */
#include <errno.h>
#include <string.h>
#include "tests/crash/oracle.h"
#include "tests/unit/test_runtime.h"

#define SEED 42
#define EXPORT_BYTES (1 << 20)

/* The sector all tests are about, and values of its writes. */
#define OFFSET 65536
#define ZEROS 0		/* not a value: zeros */

static struct oracle *
oracle_new(void)
{
	struct oracle *oracle;

	ck_assert_int_eq(oracle_create(SEED, EXPORT_BYTES, &oracle), 0);
	return oracle;
}

/* A request with both its numbers; replied RECORD_NEVER leaves it open. */
static void
request(struct oracle *oracle, enum record_kind kind, uint64_t value,
    unsigned flags, uint64_t received, uint64_t replied, int result)
{
	bool has_range = kind != RECORD_REQUEST_FLUSH;
	size_t index = oracle_begin(oracle, &(struct record){
		.kind = kind, .value = value, .flags = flags,
		.offset = has_range ? OFFSET - 512 : 0,
		.length = has_range ? 1536 : 0, .submitted = received,
	});

	if (replied != RECORD_NEVER)
		oracle_end(oracle, index, replied, result);
}

static void
write_at(struct oracle *oracle, uint64_t value, uint64_t received,
    uint64_t replied)
{
	request(oracle, RECORD_REQUEST_WRITE, value, 0, received, replied, 0);
}

static void
flush_at(struct oracle *oracle, uint64_t received, uint64_t replied)
{
	request(oracle, RECORD_REQUEST_FLUSH, 0, 0, received, replied, 0);
}

/* What the oracle says if the sector holds value after a crash at point. */
static enum oracle_verdict
judge(struct oracle *oracle, uint64_t point, uint64_t value)
{
	struct oracle_finding finding;
	char sector[512] = {0};

	if (value != ZEROS)
		sector_fill(sector, sizeof(sector), SEED, value, OFFSET);
	return oracle_judge_crash(oracle, point, OFFSET, sector,
	    sizeof(sector), &finding);
}

START_TEST(test_unflushed_write_may_be_lost)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 20);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, 1), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, 2), ORACLE_FOREIGN);
	/* It cannot be there before it came. */
	ck_assert_int_eq(judge(oracle, 10, 1), ORACLE_FOREIGN);
	ck_assert_int_eq(judge(oracle, 11, 1), ORACLE_GOOD);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_flushed_write_must_be_there)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 20);
	write_at(oracle, 2, 21, 30);
	flush_at(oracle, 31, 40);
	/* The flush must have been answered before the crash. */
	ck_assert_int_eq(judge(oracle, 40, ZEROS), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 41, ZEROS), ORACLE_LOST);
	ck_assert_int_eq(judge(oracle, 41, 1), ORACLE_LOST);
	ck_assert_int_eq(judge(oracle, 41, 2), ORACLE_GOOD);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_flush_covers_what_was_replied_before)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 20);
	flush_at(oracle, 19, 40);	/* received before the reply */
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_GOOD);
	flush_at(oracle, 50, 60);
	ck_assert_int_eq(judge(oracle, 60, ZEROS), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 61, ZEROS), ORACLE_LOST);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_failed_flush_promises_nothing)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 20);
	request(oracle, RECORD_REQUEST_FLUSH, 0, 0, 30, 40, -EIO);
	flush_at(oracle, 30, RECORD_NEVER);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_GOOD);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_fua)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 5, 6);
	request(oracle, RECORD_REQUEST_WRITE, 2, RECORD_FUA, 10, 20, 0);
	ck_assert_int_eq(judge(oracle, 20, 1), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 21, 1), ORACLE_LOST);
	ck_assert_int_eq(judge(oracle, 21, 2), ORACLE_GOOD);
	oracle_free(oracle);
}
END_TEST

/* Two at a time: either may win, even if the other was flushed. */
START_TEST(test_concurrent_writes)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 30);
	write_at(oracle, 2, 20, 40);
	flush_at(oracle, 50, 60);
	ck_assert_int_eq(judge(oracle, 100, 1), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, 2), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_LOST);
	oracle_free(oracle);
}
END_TEST

/* After the required one, both unflushed and unanswered ones may show. */
START_TEST(test_newer_writes_may_show)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 20);
	flush_at(oracle, 21, 30);
	write_at(oracle, 2, 40, 50);
	write_at(oracle, 3, 60, RECORD_NEVER);
	ck_assert_int_eq(judge(oracle, 100, 1), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, 2), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, 3), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_LOST);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_failed_write_is_old_or_new)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 1, 2);
	flush_at(oracle, 3, 4);
	request(oracle, RECORD_REQUEST_WRITE, 2, RECORD_FUA, 10, 20, -EIO);
	flush_at(oracle, 21, 30);
	ck_assert_int_eq(judge(oracle, 100, 1), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, 2), ORACLE_GOOD);
	write_at(oracle, 3, 40, 50);
	flush_at(oracle, 51, 60);
	ck_assert_int_eq(judge(oracle, 100, 2), ORACLE_LOST);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_zero_is_a_write_of_zeros)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 20);
	request(oracle, RECORD_REQUEST_ZERO, 0, 0, 30, 40, 0);
	ck_assert_int_eq(judge(oracle, 100, 1), ORACLE_GOOD);
	flush_at(oracle, 50, 60);
	ck_assert_int_eq(judge(oracle, 100, 1), ORACLE_LOST);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_GOOD);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_trim_is_never_required)
{
	struct oracle *oracle = oracle_new();

	write_at(oracle, 1, 10, 20);
	flush_at(oracle, 21, 30);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_LOST);
	request(oracle, RECORD_REQUEST_TRIM, 0, RECORD_FUA, 40, 50, 0);
	flush_at(oracle, 51, 60);
	ck_assert_int_eq(judge(oracle, 100, 1), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_GOOD);
	write_at(oracle, 2, 70, 80);
	flush_at(oracle, 81, 90);
	ck_assert_int_eq(judge(oracle, 100, ZEROS), ORACLE_LOST);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_initial_content)
{
	struct oracle *oracle = oracle_new();

	oracle_set_initial(oracle, OFFSET, 512, 7);
	ck_assert_int_eq(judge(oracle, 1, 7), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, 1, ZEROS), ORACLE_FOREIGN);
	write_at(oracle, 1, 10, 20);
	ck_assert_int_eq(judge(oracle, 100, 7), ORACLE_GOOD);
	flush_at(oracle, 21, 30);
	ck_assert_int_eq(judge(oracle, 100, 7), ORACLE_LOST);
	oracle_free(oracle);
}
END_TEST

/* Data of another sector, another run, or torn inside the sector. */
START_TEST(test_foreign_data_and_garbage)
{
	struct oracle *oracle = oracle_new();
	struct oracle_finding finding;
	char sectors[1024], text[200];

	write_at(oracle, 1, 10, 20);
	sector_fill(sectors, 512, SEED, 1, OFFSET);
	sector_fill(sectors + 512, 512, SEED, 1, OFFSET);
	ck_assert_int_eq(oracle_judge_crash(oracle, 100, OFFSET, sectors,
	    1024, &finding), ORACLE_FOREIGN);
	ck_assert_uint_eq(finding.offset, OFFSET + 512);
	ck_assert_uint_eq(finding.label.offset, OFFSET);
	oracle_explain(&finding, text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "foreign"));
	ck_assert_ptr_nonnull(strstr(text, "0x10200"));
	sector_fill(sectors, 512, SEED + 1, 1, OFFSET);
	ck_assert_int_eq(oracle_judge_crash(oracle, 100, OFFSET, sectors, 512,
	    &finding), ORACLE_FOREIGN);
	for (unsigned i = 0; i < 512; i++) {
		sector_fill(sectors, 512, SEED, 1, OFFSET);
		sectors[i] ^= 4;
		ck_assert_int_ne(oracle_judge_crash(oracle, 100, OFFSET,
		    sectors, 512, &finding), ORACLE_GOOD);
	}
	oracle_free(oracle);
}
END_TEST

/* A read sees every write that was answered before it came. */
START_TEST(test_live_read)
{
	struct oracle *oracle = oracle_new();
	struct oracle_finding finding;
	char old[512], new[512];

	sector_fill(old, 512, SEED, 1, OFFSET);
	sector_fill(new, 512, SEED, 2, OFFSET);
	write_at(oracle, 1, 10, 20);
	write_at(oracle, 2, 30, 40);
	ck_assert_int_eq(oracle_judge_read(oracle, 41, 50, OFFSET, old, 512,
	    &finding), ORACLE_LOST);
	ck_assert_int_eq(oracle_judge_read(oracle, 41, 50, OFFSET, new, 512,
	    &finding), ORACLE_GOOD);
	ck_assert_int_eq(oracle_judge_read(oracle, 35, 50, OFFSET, old, 512,
	    &finding), ORACLE_GOOD);
	ck_assert_int_eq(oracle_judge_read(oracle, 21, 29, OFFSET, new, 512,
	    &finding), ORACLE_FOREIGN);
	oracle_free(oracle);
}
END_TEST

START_TEST(test_requests_of_a_log)
{
	struct oracle *oracle = oracle_new();
	struct record_log *log;
	size_t write, flush;

	ck_assert_int_eq(record_log_create(&log), 0);
	write = record_begin(log, &(struct record){
		.kind = RECORD_REQUEST_WRITE, .source = 1, .value = 1,
		.offset = OFFSET, .length = 512,
	});
	record_end(log, write, 0);
	record_begin(log, &(struct record){.kind = RECORD_SYNC});
	flush = record_begin(log, &(struct record){
		.kind = RECORD_REQUEST_FLUSH, .source = 2,
	});
	record_end(log, flush, 0);
	oracle_add_log(oracle, log);
	ck_assert_int_eq(judge(oracle, record_log_next(log), 1), ORACLE_GOOD);
	ck_assert_int_eq(judge(oracle, record_log_next(log), ZEROS),
	    ORACLE_LOST);
	ck_assert_int_eq(judge(oracle, record_log_next(log) - 1, ZEROS),
	    ORACLE_GOOD);
	record_log_free(log);
	oracle_free(oracle);
}
END_TEST

/* States are told apart by it: equal only where the verdicts are. */
START_TEST(test_allowed)
{
	struct oracle *one = oracle_new(), *other = oracle_new();

	ck_assert_uint_eq(oracle_allowed(one, 1), oracle_allowed(other, 9));
	write_at(one, 1, 10, 20);
	flush_at(one, 30, 40);
	/* Nothing may show, the write may, the write must. */
	ck_assert_uint_eq(oracle_allowed(one, 10), oracle_allowed(other, 10));
	ck_assert_uint_ne(oracle_allowed(one, 11), oracle_allowed(one, 10));
	ck_assert_uint_eq(oracle_allowed(one, 40), oracle_allowed(one, 11));
	ck_assert_uint_ne(oracle_allowed(one, 41), oracle_allowed(one, 40));
	ck_assert_uint_ne(oracle_allowed(one, 41), oracle_allowed(one, 10));
	/* The same by other requests at other times. */
	request(other, RECORD_REQUEST_WRITE, 1, RECORD_FUA, 1, 2, 0);
	ck_assert_uint_eq(oracle_allowed(other, 3), oracle_allowed(one, 41));
	ck_assert_uint_eq(oracle_allowed(other, 2), oracle_allowed(one, 11));
	/* Another value is another thing, and so is another place. */
	write_at(other, 2, 3, 4);
	ck_assert_uint_ne(oracle_allowed(other, 5), oracle_allowed(one, 41));
	oracle_set_initial(one, 0, 512, 7);
	ck_assert_uint_ne(oracle_allowed(one, 41), oracle_allowed(other, 3));
	oracle_free(one);
	oracle_free(other);
}
END_TEST

/* Zeros that may show are allowed whether a trim or the beginning left them. */
START_TEST(test_allowed_zeros)
{
	struct oracle *oracle = oracle_new();

	request(oracle, RECORD_REQUEST_TRIM, 0, 0, 1, 2, 0);
	ck_assert_uint_eq(oracle_allowed(oracle, 3),
	    oracle_allowed(oracle, 1));
	write_at(oracle, 1, 3, 4);
	flush_at(oracle, 5, 6);
	request(oracle, RECORD_REQUEST_TRIM, 0, 0, 7, 8, 0);
	ck_assert_uint_ne(oracle_allowed(oracle, 8),
	    oracle_allowed(oracle, 7));
	oracle_free(oracle);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("oracle");
	TCase *tcase = tcase_create("oracle");

	tcase_add_test(tcase, test_unflushed_write_may_be_lost);
	tcase_add_test(tcase, test_flushed_write_must_be_there);
	tcase_add_test(tcase, test_flush_covers_what_was_replied_before);
	tcase_add_test(tcase, test_failed_flush_promises_nothing);
	tcase_add_test(tcase, test_fua);
	tcase_add_test(tcase, test_concurrent_writes);
	tcase_add_test(tcase, test_newer_writes_may_show);
	tcase_add_test(tcase, test_failed_write_is_old_or_new);
	tcase_add_test(tcase, test_zero_is_a_write_of_zeros);
	tcase_add_test(tcase, test_trim_is_never_required);
	tcase_add_test(tcase, test_initial_content);
	tcase_add_test(tcase, test_foreign_data_and_garbage);
	tcase_add_test(tcase, test_live_read);
	tcase_add_test(tcase, test_requests_of_a_log);
	tcase_add_test(tcase, test_allowed);
	tcase_add_test(tcase, test_allowed_zeros);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
