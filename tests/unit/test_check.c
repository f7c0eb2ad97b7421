/* SPDX-License-Identifier: MIT */
/*
 * Guards the check where no other program can be asked: who may share a
 * cluster with whom, the zero flag of version 2, refcounts of all widths, and
 * what the caller is told.
 */
#include <check.h>
#include <errno.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/check.h"
#include "qcow2/entry.h"
#include "runtime/file.h"
#include "tests/unit/test_qcow2.h"
#include "tests/unit/test_runtime.h"

#define C	((uint64_t)MADE_CLUSTER_BYTES)

/* What stands in which cluster of the image made here. */
enum { HEADER, REFCOUNT_TABLE, L1, SNAPSHOTS, BLOCK, L2, DATA, MORE_DATA,
	FREE, CLUSTERS };

static uint8_t image[CLUSTERS * MADE_CLUSTER_BYTES];
static unsigned order;
static struct check_result result;
static struct error error;
static int status;

static void
set_refcount(unsigned cluster, uint64_t value)
{
	entry_refcount_set(image + BLOCK * C, order, cluster, value);
}

static void
set_l1(unsigned index, uint64_t entry)
{
	entry_store(image + L1 * C, index, entry);
}

static void
set_l2(unsigned index, uint64_t entry)
{
	entry_store(image + L2 * C, index, entry);
}

/* A sound image with two clusters of data and no snapshot. */
static void
make_image(unsigned version, unsigned refcount_order)
{
	memset(image, 0, sizeof(image));
	make_header(image, version);
	order = refcount_order;
	if (version == 3)
		bytes_put32(image + 96, order);
	entry_store(image + REFCOUNT_TABLE * C, 0, BLOCK * C);
	for (unsigned cluster = 0; cluster < FREE; cluster++)
		if (cluster != SNAPSHOTS)
			set_refcount(cluster, 1);
	set_l1(0, L2 * C | ENTRY_COPIED);
	set_l2(0, DATA * C | ENTRY_COPIED);
	set_l2(7, MORE_DATA * C | ENTRY_COPIED);
}

/* One snapshot, of the same L2 table, whose own L1 table is cluster FREE. */
static void
add_snapshot(void)
{
	uint8_t *entry = image + SNAPSHOTS * C;

	bytes_put32(image + 60, 1);
	bytes_put64(image + 64, SNAPSHOTS * C);
	bytes_put64(entry, FREE * C);
	bytes_put32(entry + 8, 4);
	bytes_put32(entry + 36, 16);
	entry_store(image + FREE * C, 0, L2 * C);
	set_l1(0, L2 * C);
	set_l2(0, DATA * C);
	set_l2(7, MORE_DATA * C);
	set_refcount(SNAPSHOTS, 1);
	set_refcount(FREE, 1);
	set_refcount(L2, 2);
	set_refcount(DATA, 2);
	set_refcount(MORE_DATA, 2);
}

co_fn static void
check(void *file)
{
	status = check_file(file, "x.qcow2", &result, &error);
}

static void
run(void)
{
	memset(&result, 0xff, sizeof(result));
	with_file(image, sizeof(image), sizeof(image), check);
}

static void
expect(uint64_t corruptions, uint64_t leaks, uint64_t errors)
{
	run();
	ck_assert_msg(status == 0, "%s", error.message);
	ck_assert_uint_eq(result.corruptions, corruptions);
	ck_assert_uint_eq(result.leaks, leaks);
	ck_assert_uint_eq(result.check_errors, errors);
}

START_TEST(sound_image_has_nothing_wrong)
{
	make_image(3, 4);
	expect(0, 0, 0);
	ck_assert_uint_eq(result.total_clusters, (8u << 20) / C);
	ck_assert_uint_eq(result.allocated_clusters, 2);
	ck_assert_uint_eq(result.fragmented_clusters, 0);
	ck_assert_uint_eq(result.compressed_clusters, 0);
	ck_assert_uint_eq(result.image_end_offset, FREE * C);
}
END_TEST

START_TEST(snapshot_shares_tables_and_data)
{
	make_image(3, 4);
	add_snapshot();
	expect(0, 0, 0);
	ck_assert_uint_eq(result.allocated_clusters, 2);
}
END_TEST

START_TEST(compressed_clusters_share_a_cluster)
{
	make_image(3, 4);
	set_l2(7, ENTRY_COMPRESSED | MORE_DATA * C);
	set_l2(8, ENTRY_COMPRESSED | (MORE_DATA * C + 100));
	set_refcount(MORE_DATA, 2);
	expect(0, 0, 0);
	ck_assert_uint_eq(result.compressed_clusters, 2);
}
END_TEST

/* The refcounts say that two use it, and yet they must not. */
START_TEST(no_data_may_lie_in_a_table)
{
	static const unsigned tables[] = { REFCOUNT_TABLE, L1, BLOCK, L2 };
	unsigned table = tables[_i];

	make_image(3, 4);
	set_l2(1, table * C);
	set_refcount(table, 2);
	set_l1(0, table == L2 ? L2 * C : L2 * C | ENTRY_COPIED);
	expect(1, 0, 0);
}
END_TEST

START_TEST(l2_table_may_not_lie_in_a_table_or_data)
{
	static const unsigned others[] = { REFCOUNT_TABLE, L1, BLOCK };

	make_image(3, 4);
	if (_i < 3) {
		set_l1(1, others[_i] * C);
		set_refcount(others[_i], 2);
		expect(1, 0, 0);
		return;
	}
	/* The snapshot has what is data for a table, and for data. */
	add_snapshot();
	entry_store(image + FREE * C, 1, DATA * C);
	set_refcount(DATA, 3);
	expect(2, 0, 0);
}
END_TEST

START_TEST(tables_of_one_user_may_not_overlap)
{
	make_image(3, 4);
	entry_store(image + REFCOUNT_TABLE * C, 1, L1 * C);
	set_refcount(L1, 2);
	expect(1, 0, 0);
}
END_TEST

/* And it is not gone through again: CVE-2015-5162, a small file for years. */
START_TEST(l2_table_may_be_named_once_by_an_l1_table)
{
	make_image(3, 4);
	set_l1(0, L2 * C);
	set_l1(1, L2 * C);
	set_refcount(L2, 2);
	expect(1, 0, 0);
	ck_assert_uint_eq(result.allocated_clusters, 2);
}
END_TEST

START_TEST(zero_flag_belongs_to_version_3)
{
	make_image(_i ? 3 : 2, 4);
	set_l2(9, ENTRY_ZERO);
	expect(_i ? 0 : 1, 0, 0);
}
END_TEST

START_TEST(refcounts_of_all_widths_are_compared)
{
	make_image(3, (unsigned)_i);
	expect(0, 0, 0);
	set_refcount(FREE, entry_refcount_max(order));
	expect(0, 1, 0);
	set_refcount(MORE_DATA, 0);
	/* The refcount, and the flag that says it is 1. */
	expect(2, 1, 0);
}
END_TEST

START_TEST(refcount_that_cannot_be_so_high_is_a_fault)
{
	make_image(3, 3);
	/* 257 users: counted in 8 bits, that would look like one. */
	for (unsigned index = 8; index < 8 + 256; index++)
		set_l2(index, MORE_DATA * C | ENTRY_COPIED);
	expect(2 + 1, 0, 0);
}
END_TEST

START_TEST(clusters_under_an_unreadable_block_are_not_checked)
{
	make_image(3, 4);
	entry_store(image + REFCOUNT_TABLE * C, 0, BLOCK * C + 512);
	run();
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(result.check_errors, CLUSTERS);
}
END_TEST

/* What is behind the end of a file that was cut short has refcounts still. */
START_TEST(copied_flag_of_a_lost_cluster_is_right)
{
	make_image(3, 4);
	set_l2(9, (CLUSTERS + 2) * C | ENTRY_COPIED);
	set_refcount(CLUSTERS + 2, 1);
	expect(1, 0, 0);
	set_refcount(CLUSTERS + 2, 2);
	expect(2, 0, 0);
}
END_TEST

/* Nothing is known of it, so it cannot be wrong. */
START_TEST(copied_flag_under_an_unreadable_block_is_no_fault)
{
	make_image(3, 4);
	entry_store(image + REFCOUNT_TABLE * C, 0, BLOCK * C + 512);
	expect(1, 0, CLUSTERS);
}
END_TEST

START_TEST(what_cannot_be_checked_leaves_the_result_alone)
{
	static const struct {
		uint32_t offset;
		uint32_t value;
		int status;
	} faults[] = {
		{ 0, 0, -EINVAL },		/* magic */
		{ 4, 4, -ENOTSUP },		/* version */
		{ 20, 30, -EINVAL },		/* cluster_bits */
		{ 36, 1u << 30, -EINVAL },	/* l1_size */
		{ 72, 1u << 31, -ENOTSUP },	/* an unknown feature */
		{ 76, 1u << 4, -EINVAL },	/* extended L2 entries */
	};
	struct check_result before;

	make_image(3, 4);
	bytes_put32(image + faults[_i].offset, faults[_i].value);
	run();
	ck_assert_int_eq(status, faults[_i].status);
	memset(&before, 0xff, sizeof(before));
	ck_assert_mem_eq(&result, &before, sizeof(before));
}
END_TEST

/* ---- what the listener hears ---- */

static unsigned lines[CHECK_ERROR + 1];
static uint64_t last_done, last_total;

static void
count_line(void *arg, enum check_finding kind, const char *line)
{
	ck_assert_ptr_eq(arg, lines);
	ck_assert(strlen(line) > 0 && !strchr(line, '\n'));
	lines[kind]++;
}

static void
note_progress(void *arg, uint64_t done, uint64_t total)
{
	ck_assert_ptr_eq(arg, lines);
	ck_assert_uint_ge(done, last_done);
	ck_assert_uint_le(done, total);
	ck_assert(last_total == 0 || last_total == total);
	last_done = done;
	last_total = total;
}

co_fn static void
check_listening(void *file)
{
	const struct check_listener listener = {
		.report = count_line, .progress = note_progress, .arg = lines,
	};

	status = check_file_listen(file, "x.qcow2", &listener, &result,
	    &error);
}

START_TEST(listener_hears_findings_and_progress)
{
	make_image(3, 4);
	set_refcount(FREE, 1);
	set_refcount(DATA, 0);
	set_l2(1, ENTRY_COPIED | 512);
	with_file(image, sizeof(image), sizeof(image), check_listening);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(lines[CHECK_CORRUPTION], result.corruptions);
	ck_assert_uint_eq(lines[CHECK_LEAK], 1);
	ck_assert_uint_eq(lines[CHECK_ERROR], 0);
	ck_assert_uint_gt(last_total, 0);
	ck_assert_uint_eq(last_done, last_total);
}
END_TEST

START_TEST(listener_is_not_flooded)
{
	make_image(3, 3);
	/* 2,000 clusters that nobody uses, in a file that is made longer. */
	for (unsigned cluster = FREE; cluster < FREE + 2000; cluster++)
		set_refcount(cluster, 1);
	with_file(image, sizeof(image), (FREE + 2000) * C,
	    check_listening);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(result.leaks, 2000);
	ck_assert_uint_eq(lines[CHECK_LEAK], CHECK_REPORTS_MAX);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("check");
	TCase *sharing = tcase_create("sharing");
	TCase *refcounts = tcase_create("refcounts");
	TCase *caller = tcase_create("caller");

	tcase_add_test(sharing, sound_image_has_nothing_wrong);
	tcase_add_test(sharing, snapshot_shares_tables_and_data);
	tcase_add_test(sharing, compressed_clusters_share_a_cluster);
	tcase_add_loop_test(sharing, no_data_may_lie_in_a_table, 0, 4);
	tcase_add_loop_test(sharing, l2_table_may_not_lie_in_a_table_or_data,
	    0, 4);
	tcase_add_test(sharing, tables_of_one_user_may_not_overlap);
	tcase_add_test(sharing, l2_table_may_be_named_once_by_an_l1_table);
	tcase_add_loop_test(sharing, zero_flag_belongs_to_version_3, 0, 2);
	tcase_add_loop_test(refcounts, refcounts_of_all_widths_are_compared,
	    0, 7);
	tcase_add_test(refcounts, refcount_that_cannot_be_so_high_is_a_fault);
	tcase_add_test(refcounts, copied_flag_of_a_lost_cluster_is_right);
	tcase_add_test(refcounts,
	    copied_flag_under_an_unreadable_block_is_no_fault);
	tcase_add_test(refcounts,
	    clusters_under_an_unreadable_block_are_not_checked);
	tcase_add_loop_test(caller,
	    what_cannot_be_checked_leaves_the_result_alone, 0, 6);
	tcase_add_test(caller, listener_hears_findings_and_progress);
	tcase_add_test(caller, listener_is_not_flooded);
	suite_add_tcase(suite, sharing);
	suite_add_tcase(suite, refcounts);
	suite_add_tcase(suite, caller);
	return test_main(suite);
}
