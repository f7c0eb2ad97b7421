/* SPDX-License-Identifier: MIT */
/*
 * Making and checking an image while the disk fails.
 *
 * Each operation fails once, with each error and in each way of being short or
 * interrupted.  An error is told as it is, with a message; what is tried again
 * leads to the same image and to the same verdict as if nothing had been.
 *
 * Guards against: an image that is called good though a write failed, a check
 * that takes what it could not read for zeros and calls it damage.
 */
#include <errno.h>
#include <string.h>
#include "qcow2/create.h"
#include "tests/fault/base.h"

static const int errors[] = {-EIO, -ENOSPC};
static const int transients[] = {-EINTR, -EAGAIN, -ECANCELED, 1, 511};

#define COUNT(array) (sizeof(array) / sizeof(array[0]))

static void
fail_nth(struct file *file, unsigned kind, uint64_t nth, int result)
{
	file_sim_fail(file, &(struct file_sim_fault){
		.kinds = kind, .nth = nth, .result = result,
	});
}

/* ---- making one ---- */

static const struct create_options images[] = {
	{.size_bytes = 1 << 20, .version = 3, .cluster_bytes = 512,
	    .refcount_bits = 16},
	{.size_bytes = 1 << 20, .version = 2, .cluster_bytes = 65536,
	    .refcount_bits = 16},
	{.size_bytes = 1 << 20, .version = 3, .cluster_bytes = 4096,
	    .refcount_bits = 64, .backing_name = "base",
	    .backing_format = "raw"},
	{.size_bytes = 1 << 20, .version = 3, .cluster_bytes = 512,
	    .refcount_bits = 1, .preallocation = CREATE_METADATA},
	{.size_bytes = 1 << 20, .version = 3, .cluster_bytes = 4096,
	    .refcount_bits = 16, .preallocation = CREATE_FALLOC},
	{.size_bytes = 1 << 20, .version = 3, .cluster_bytes = 4096,
	    .refcount_bits = 16, .preallocation = CREATE_FULL},
};

static void
expect_clean(struct file *file)
{
	struct check_result result;
	struct error error;

	file_sim_plain();
	if (check_file(file, "disk", &result, &error))
		ck_abort_msg("%s", error.message);
	ck_assert_uint_eq(result.corruptions, 0);
	ck_assert_uint_eq(result.check_errors, 0);
	ck_assert_uint_eq(result.leaks, 0);
}

/* How many operations of the kind it takes; the hash of what is made. */
static uint64_t
create_failing(const struct create_options *options, unsigned kind,
    uint64_t nth, int result, uint64_t *hashp)
{
	struct error error = {0};
	struct file *file;
	uint64_t count;
	int err;

	ck_assert_int_eq(file_sim_create(NULL, "disk", 0, &file), 0);
	if (nth > 0)
		fail_nth(file, kind, nth, result);
	file_sim_plain();
	err = create_image(file, "disk", options, &error);
	count = file_sim_count(file, kind);
	if (nth > 0)
		ck_assert_uint_eq(file_sim_failed(file), 1);
	file_sim_heal(file);
	if (err) {
		ck_assert_int_eq(err, result);
		ck_assert_uint_gt(strlen(error.message), 0);
	} else {
		expect_clean(file);
		*hashp = file_sim_hash(file);
	}
	ck_assert_msg(!err || result < 0, "nothing was wrong");
	file_close(file);
	return count;
}

static void
create_in_trouble(const struct create_options *options, unsigned kind)
{
	uint64_t whole = 0;
	uint64_t count = create_failing(options, kind, 0, 0, &whole);

	for (uint64_t nth = 1; nth <= count; nth++) {
		for (unsigned i = 0; i < COUNT(errors); i++) {
			uint64_t hash = 0;

			create_failing(options, kind, nth, errors[i], &hash);
			ck_assert_msg(!hash, "error %d of operation %llu is "
			    "forgotten", errors[i], (unsigned long long)nth);
		}
		for (unsigned i = 0; i < COUNT(transients); i++) {
			uint64_t hash = 0;

			if (transients[i] > 0 && kind != FILE_SIM_WRITE)
				continue;
			create_failing(options, kind, nth, transients[i],
			    &hash);
			ck_assert_uint_eq(hash, whole);
		}
	}
}

START_TEST(creating)
{
	create_in_trouble(&images[_i], FILE_SIM_WRITE);
	create_in_trouble(&images[_i], FILE_SIM_ALLOCATE);
	create_in_trouble(&images[_i], FILE_SIM_TRUNCATE);
}
END_TEST

/* ---- checking one ---- */

static const struct layout layouts[] = {
	{.cluster_bytes = 1024, .disk_bytes = 512 << 10,
	    .filled_bytes = 8192, .flags = LAYOUT_COMPRESSED | LAYOUT_SHARED},
	{.cluster_bytes = 1024, .disk_bytes = 512 << 10,
	    .filled_bytes = 8192, .flags = LAYOUT_SNAPSHOT},
	{.cluster_bytes = 1024, .disk_bytes = 512 << 10,
	    .filled_bytes = 8192, .flags = LAYOUT_BITMAP},
	{.cluster_bytes = 512, .disk_bytes = 512 << 10,
	    .filled_bytes = 256 << 10, .refcount_bits = 64},
};

static void
check_failing(struct file *disk, uint64_t nth, int result,
    const struct check_result *whole)
{
	struct check_result found = {.leaks = UINT64_MAX};
	struct error error = {0};
	int err;

	fail_nth(disk, FILE_SIM_READ, nth, result);
	file_sim_plain();
	err = check_file(disk, "disk", &found, &error);
	file_sim_heal(disk);
	if (result == -EIO) {
		ck_assert_int_eq(err, -EIO);
		ck_assert_uint_gt(strlen(error.message), 0);
		ck_assert_uint_eq(found.leaks, UINT64_MAX);
		return;
	}
	ck_assert_int_eq(err, 0);
	ck_assert_mem_eq(&found, whole, sizeof(found));
}

START_TEST(checking)
{
	struct check_result whole;
	struct error error;
	struct base base;
	uint64_t count;

	base_create(&base, &layouts[_i]);
	count = file_sim_count(base.disks[0], FILE_SIM_READ);
	file_sim_plain();
	ck_assert_int_eq(check_file(base.disks[0], "disk", &whole, &error),
	    0);
	ck_assert_uint_eq(whole.corruptions, 0);
	count = file_sim_count(base.disks[0], FILE_SIM_READ) - count;
	ck_assert_uint_gt(count, 2);
	for (uint64_t nth = 1; nth <= count; nth++) {
		check_failing(base.disks[0], nth, -EIO, &whole);
		for (unsigned i = 0; i < COUNT(transients); i++)
			check_failing(base.disks[0], nth, transients[i],
			    &whole);
	}
	base_free(&base);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("tools");
	TCase *tests = tcase_create("tools");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, creating, 0, COUNT(images));
	tcase_add_loop_test(tests, checking, 0, COUNT(layouts));
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
