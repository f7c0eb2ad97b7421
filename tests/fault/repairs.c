/* SPDX-License-Identifier: MIT */
/*
 * Repairing an image while the disk or the memory fails.
 *
 * Images are damaged as seeds say and repaired; each operation on the disk
 * fails once, with each error and in each way of being short or interrupted,
 * and each allocation fails once.  An error is told as it is, and the next
 * repair ends what was begun; what is tried again leads to the same image.  And
 * it is interrupted at each place where it may be.
 *
 * Guards against: a repair that calls an image sound though a write failed,
 * half a repair that the next one cannot end, memory that is not given back.
 */
#include <errno.h>
#include <string.h>
#include "qcow2/repair.h"
#include "runtime/sanitizers.h"
#include "tests/crash/inflict.h"
#include "tests/fault/allocator.h"
#include "tests/fault/base.h"

#ifdef WITH_ASAN
#define SEEDS 8
#else
#define SEEDS 40
#endif

#define COUNT(array) (sizeof(array) / sizeof(array[0]))

static const struct layout layouts[] = {
	{.cluster_bytes = 1024, .disk_bytes = 512 << 10,
	    .filled_bytes = 8192, .flags = LAYOUT_COMPRESSED | LAYOUT_SHARED},
	{.cluster_bytes = 4096, .disk_bytes = 512 << 10,
	    .filled_bytes = 32768, .flags = LAYOUT_SNAPSHOT},
	{.cluster_bytes = 512, .disk_bytes = 512 << 10,
	    .filled_bytes = 256 << 10, .refcount_bits = 64},
	{.cluster_bytes = 1024, .disk_bytes = 512 << 10,
	    .filled_bytes = 8192, .version = 2},
};

/* One repair that is to go wrong. */
struct attempt {
	struct file *damaged;
	unsigned kind;		/* 0: of allocations */
	uint64_t nth;		/* 0: none fails */
	int result;
	uint64_t asked;		/* whether to stop, */
	uint64_t stop_at;	/* and when the answer is yes; 0: never */
	/* What came of it. */
	int err;
	uint64_t hash;
	uint64_t counts[FILE_SIM_ANY + 1];
	uint64_t allocations;
};

static void
expect_message(const struct error *error, int err)
{
	ck_assert_uint_gt(strlen(error->message), 0);
	ck_assert_int_lt(err, 0);
}

/* Without trouble the rest is repaired. */
static void
expect_repairable(struct file *file)
{
	struct repair_result result;
	struct error error;

	file_sim_plain();
	if (repair_file(file, "disk", REPAIR_ALL, NULL, &result, &error))
		ck_abort_msg("%s", error.message);
	ck_assert_uint_eq(result.left.corruptions, 0);
	ck_assert_uint_eq(result.left.check_errors, 0);
	ck_assert_uint_eq(result.left.leaks, 0);
}

static bool
stop(void *arg)
{
	struct attempt *attempt = arg;

	return ++attempt->asked == attempt->stop_at;
}

static void
try_repair(struct attempt *attempt)
{
	const struct check_listener listener = {
		.stop = stop, .arg = attempt,
	};
	struct repair_result result = {.leaks_fixed = UINT64_MAX};
	struct error error = {0};
	uint64_t failed;
	struct file *file;

	ck_assert_int_eq(file_sim_clone(attempt->damaged, NULL, &file), 0);
	if (attempt->nth > 0 && attempt->kind)
		file_sim_fail(file, &(struct file_sim_fault){
			.kinds = attempt->kind, .nth = attempt->nth,
			.result = attempt->result,
		});
	file_sim_plain();
	allocator_begin(attempt->kind ? 0 : attempt->nth, false);
	attempt->err = repair_file(file, "disk", REPAIR_ALL, &listener,
	    &result, &error);
	attempt->allocations = allocator_end(&failed);
	for (unsigned bit = 1; bit <= FILE_SIM_ANY; bit *= 2)
		attempt->counts[bit] = file_sim_count(file, bit);
	file_sim_heal(file);
	if (attempt->err) {
		expect_message(&error, attempt->err);
		ck_assert_uint_eq(result.leaks_fixed, UINT64_MAX);
	}
	attempt->hash = file_sim_hash(file);
	expect_repairable(file);
	file_close(file);
}

/* Fails the operations of a kind, or allocations, with an error. */
static void
try_errors(const struct attempt *whole, unsigned kind, int result)
{
	uint64_t count = kind ? whole->counts[kind] : whole->allocations;

	for (uint64_t nth = 1; nth <= count; nth++) {
		struct attempt attempt = {
			.damaged = whole->damaged, .kind = kind, .nth = nth,
			.result = result,
		};

		try_repair(&attempt);
		ck_assert_msg(attempt.err == result, "error %d of operation "
		    "%llu became %d", result, (unsigned long long)nth,
		    attempt.err);
	}
}

/* What is tried again makes no difference. */
static void
try_transients(const struct attempt *whole, unsigned kind)
{
	static const int results[] = {-EINTR, -EAGAIN, -ECANCELED, 1, 511};

	for (uint64_t nth = 1; nth <= whole->counts[kind]; nth++) {
		struct attempt attempt = {
			.damaged = whole->damaged, .kind = kind, .nth = nth,
			.result = results[nth % COUNT(results)],
		};

		if (attempt.result > 0 && kind == FILE_SIM_SYNC)
			continue;
		try_repair(&attempt);
		ck_assert_int_eq(attempt.err, 0);
		ck_assert_uint_eq(attempt.hash, whole->hash);
	}
}

static void
try_interruptions(const struct attempt *whole)
{
	for (uint64_t nth = 1; nth <= whole->asked; nth++) {
		struct attempt attempt = {
			.damaged = whole->damaged, .stop_at = nth,
		};

		try_repair(&attempt);
		ck_assert_int_eq(attempt.err, -EINTR);
	}
}

static void
try_all(struct file *damaged, const char *text)
{
	struct attempt whole = {.damaged = damaged};

	try_repair(&whole);
	ck_assert_msg(whole.err == 0, "not repaired:%s", text);
	try_errors(&whole, FILE_SIM_READ, -EIO);
	try_errors(&whole, FILE_SIM_WRITE, -EIO);
	try_errors(&whole, FILE_SIM_WRITE, -ENOSPC);
	try_errors(&whole, FILE_SIM_SYNC, -EIO);
	try_errors(&whole, 0, -ENOMEM);
	try_interruptions(&whole);
	try_transients(&whole, FILE_SIM_READ);
	try_transients(&whole, FILE_SIM_WRITE);
	try_transients(&whole, FILE_SIM_SYNC);
}

START_TEST(repairing)
{
	struct base base;

	base_create(&base, &layouts[_i]);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct file *damaged;
		char text[256];

		ck_assert_int_eq(file_sim_clone(base.disks[0], NULL,
		    &damaged), 0);
		inflict(damaged, base.disks[0], seed, text, sizeof(text));
		try_all(damaged, text);
		file_close(damaged);
	}
	base_free(&base);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("repairs");
	TCase *tests = tcase_create("repairs");

	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, repairing, 0, COUNT(layouts));
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
