/* SPDX-License-Identifier: MIT */
/*
 * Guards the layout of new images: the refcount table and the blocks must have
 * room for all clusters, themselves included, at every width, cluster size and
 * length of the disk; the check finds nothing wrong with any.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "qcow2/check.h"
#include "qcow2/create.h"
#include "runtime/file.h"
#include "tests/unit/test_runtime.h"

/* Clusters of a preallocated disk, so that each run stays short. */
#define CLUSTERS_MAX 70000u

static struct error error;

static struct create_options
make_options(uint64_t cluster_bytes, uint64_t refcount_bits)
{
	return (struct create_options){
		.version = 3,
		.cluster_bytes = cluster_bytes,
		.refcount_bits = refcount_bits,
		.compression = COMPRESSION_DEFLATE,
	};
}

co_fn static void
create_and_check(struct file *file, const struct create_options *options)
{
	struct check_result result;

	ck_assert_int_eq(file_truncate(file, 0), 0);
	ck_assert_msg(create_image(file, "x.qcow2", options, &error) == 0,
	    "%s", error.message);
	ck_assert_msg(check_file(file, "x.qcow2", &result, &error) == 0,
	    "%s", error.message);
	ck_assert_uint_eq(result.corruptions, 0);
	ck_assert_uint_eq(result.leaks, 0);
	ck_assert_uint_eq(result.check_errors, 0);
	ck_assert_uint_eq(result.fragmented_clusters, 0);
	ck_assert_uint_eq(result.total_clusters, (options->size_bytes +
	    options->cluster_bytes - 1) / options->cluster_bytes);
	ck_assert_uint_eq(result.allocated_clusters,
	    options->preallocation ? result.total_clusters : 0);
	ck_assert_int_eq(file_size(file), (int64_t)result.image_end_offset);
}

co_fn static void
try_sizes(struct file *file, struct create_options *options)
{
	uint64_t span = options->cluster_bytes * options->cluster_bytes / 8;
	uint64_t block = options->cluster_bytes * 8 / options->refcount_bits *
	    options->cluster_bytes;
	const uint64_t sizes[] = {
		0, 512, options->cluster_bytes, options->cluster_bytes + 512,
		span, span + 512, 3 * span, block, block + 512,
		block - 6 * options->cluster_bytes,
		block - 5 * options->cluster_bytes,
		block - 4 * options->cluster_bytes,
		2 * block, 40 * block,
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		options->size_bytes = sizes[i];
		options->preallocation = CREATE_OFF;
		create_and_check(file, options);
		if (sizes[i] / options->cluster_bytes > CLUSTERS_MAX)
			continue;
		options->preallocation = CREATE_METADATA;
		create_and_check(file, options);
	}
}

static unsigned cluster_bits;

co_fn static void
try_widths(void *arg)
{
	for (uint64_t bits = 1; bits <= 64; bits *= 2) {
		struct create_options options =
		    make_options(1ull << cluster_bits, bits);

		try_sizes(arg, &options);
	}
}

START_TEST(images_of_every_geometry_are_sound)
{
	struct file *file;
	char path[512];

	cluster_bits = (unsigned)_i;
	snprintf(path, sizeof(path), "%s/x.qcow2", test_directory());
	ck_assert_int_eq(file_open(AT_FDCWD, path, FILE_WRITE | FILE_CREATE,
	    0, &file), 0);
	test_run(try_widths, file);
	file_close(file);
	unlink(path);
}
END_TEST

/* In the first L2 table, at its end, in the last one; and at the end. */
co_fn static void
try_backings(void *arg)
{
	struct create_options options = make_options(512, 16);
	const uint64_t span = 512 * 512 / 8;
	const uint64_t backings[] = {
		0, 1, 512, 513, span - 512, span, span + 1, 3 * span,
		5 * span - 512, 5 * span, 5 * span + 1,
	};

	options.size_bytes = 5 * span + 512;
	options.preallocation = CREATE_METADATA;
	options.backing_name = "below";
	options.backing_format = "raw";
	for (size_t i = 0; i < sizeof(backings) / sizeof(backings[0]); i++) {
		uint64_t below = (backings[i] + 511) / 512;
		struct check_result result;

		options.backing_bytes = backings[i];
		ck_assert_int_eq(file_truncate(arg, 0), 0);
		if (below == 5 * span / 512 + 1) {
			ck_assert_int_eq(create_image(arg, "x", &options,
			    &error), -EINVAL);
			continue;
		}
		ck_assert_int_eq(create_image(arg, "x", &options, &error), 0);
		ck_assert_int_eq(check_file(arg, "x", &result, &error), 0);
		ck_assert_uint_eq(result.corruptions, 0);
		ck_assert_uint_eq(result.leaks, 0);
		ck_assert_uint_eq(result.allocated_clusters,
		    result.total_clusters - below);
		ck_assert_int_eq(file_size(arg),
		    (int64_t)result.image_end_offset);
	}
}

START_TEST(clusters_below_stay_visible)
{
	struct file *file;
	char path[512];

	snprintf(path, sizeof(path), "%s/x.qcow2", test_directory());
	ck_assert_int_eq(file_open(AT_FDCWD, path, FILE_WRITE | FILE_CREATE,
	    0, &file), 0);
	test_run(try_backings, file);
	file_close(file);
	unlink(path);
}
END_TEST

START_TEST(disk_too_long_for_its_clusters_is_refused)
{
	static const struct {
		uint64_t cluster_bytes;
		uint64_t size_bytes;
		enum create_preallocation preallocation;
		int status;
	} disks[] = {
		/* The L1 table may have 32 MiB. */
		{ 512, 128ull << 30, CREATE_OFF, 0 },
		{ 512, (128ull << 30) + 1, CREATE_OFF, -EFBIG },
		{ 65536, 2ull << 50, CREATE_OFF, 0 },
		{ 65536, (2ull << 50) + 1, CREATE_OFF, -EFBIG },
		{ 2u << 20, 2ull << 60, CREATE_OFF, 0 },
		{ 2u << 20, INT64_MAX, CREATE_OFF, -EFBIG },
		{ 65536, UINT64_MAX, CREATE_OFF, -EFBIG },
		/* Host offsets have 56 bits. */
		{ 2u << 20, 1ull << 56, CREATE_METADATA, -EFBIG },
		{ 2u << 20, 1ull << 55, CREATE_METADATA, 0 },
		/* The refcount table may have 8 MiB. */
		{ 512, 120ull << 30, CREATE_METADATA, 0 },
		{ 512, 128ull << 30, CREATE_METADATA, -EFBIG },
	};
	struct create_options options = make_options(disks[_i].cluster_bytes,
	    16);

	options.size_bytes = disks[_i].size_bytes;
	options.preallocation = disks[_i].preallocation;
	ck_assert_int_eq(create_check(&options, &error), disks[_i].status);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("create");
	TCase *layout = tcase_create("layout");

	tcase_set_timeout(layout, 120);
	tcase_add_loop_test(layout, images_of_every_geometry_are_sound, 9,
	    22);
	tcase_add_test(layout, clusters_below_stay_visible);
	tcase_add_loop_test(layout, disk_too_long_for_its_clusters_is_refused,
	    0, 11);
	suite_add_tcase(suite, layout);
	return test_main(suite);
}
