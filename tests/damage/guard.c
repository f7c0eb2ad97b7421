/* SPDX-License-Identifier: MIT */
/*
 * The guard over metadata, one kind of hit after the other.
 *
 * Guards against a write that lands in a table it is not for, whether a
 * damaged image leads there or a mistake of our own (which the tests make, in
 * the index or in the tables of the disk): it must not happen, the corrupt bit
 * must be on the disk, stably, before anybody hears of it, writes must stop,
 * and reads must go on.
 */
#include <errno.h>
#include <stdlib.h>
#include "qcow2/entry.h"
#include "qcow2/internal.h"
#include "qcow2/refcount_table.h"
#include "tests/schedule/world.h"

#define CLUSTER 4096u
#define SMALL_CLUSTER 512u
#define A 0u
#define B (1 * CLUSTER)
#define C (2 * CLUSTER)
#define D (3 * CLUSTER)
/* Under another L2 table than these. */
#define FAR (4u * 1024 * 1024)
#define DISK_BYTES (8u * 1024 * 1024)

#define INCOMPATIBLE_OFFSET 72u

/* Of the disk of small clusters: tells of this block, grows the table. */
#define IN_NEXT_BLOCK 300u
#define PAST_THE_TABLE (64u * 256)

static const struct world_options options = {
	.disk_bytes = DISK_BYTES, .loops = 1,
};
static const struct world_options small_options = {
	.cluster_bytes = SMALL_CLUSTER, .disk_bytes = 64 * SMALL_CLUSTER,
	.loops = 1,
};

static void
assert_marked(struct world *world, bool marked)
{
	ck_assert_uint_eq(world_peek64(world, INCOMPATIBLE_OFFSET) &
	    HEADER_CORRUPT, marked ? HEADER_CORRUPT : 0);
}

co_fn static int
try(struct world *world, enum action action, uint64_t guest)
{
	struct request request = request_of(action, guest, CLUSTER, 0x77, 0);
	int err;

	if (action == ACTION_FLUSH)
		request.length = 0;
	request_start(world, 0, &request);
	err = request_wait(&request);
	free(request.data);
	return err;
}

/* Whatever would change something fails, whether it must allocate or not. */
co_fn static void
expect_stopped(struct world *world)
{
	struct allocation allocation;

	ck_assert_int_eq(try(world, ACTION_WRITE, A), -EIO);
	ck_assert_int_eq(try(world, ACTION_WRITE,
	    world->options.disk_bytes / 2), -EIO);
	ck_assert_int_eq(try(world, ACTION_ZERO, A), -EIO);
	ck_assert_int_eq(try(world, ACTION_DISCARD, A), -EIO);
	ck_assert_int_eq(try(world, ACTION_FLUSH, 0), -EIO);
	monitor_enter(&world->image->monitor);
	ck_assert_int_eq(alloc_clusters(world->image, 1, &allocation), -EIO);
	monitor_leave(&world->image->monitor);
	world_expect(world, A, CLUSTER, 0x11);
}

/* Ends a world whose image is marked: nobody opens it for writing again. */
static void
finish_marked(struct world *world)
{
	ck_assert_int_eq(world_close(world), -EIO);
	assert_marked(world, true);
	ck_assert_int_eq(world_open(world), -EROFS);
	world_free(world);
}

co_fn static void
write_a_b(struct world *world)
{
	world_write(world, A, CLUSTER, 0x11);
	world_write(world, B, CLUSTER, 0x22);
}

/* ---- what is found when a slice is loaded ---- */

/* Takes the entry of B; the result stands in its place. */
static uint64_t
unaligned(struct world *world, uint64_t entry)
{
	(void)world;
	return entry | 512;
}

static uint64_t
past_all(struct world *world, uint64_t entry)
{
	(void)world, (void)entry;
	return 1ull << 40 | ENTRY_COPIED;
}

static uint64_t
at_l1(struct world *world, uint64_t entry)
{
	(void)entry;
	return world_peek64(world, 40) | ENTRY_COPIED;
}

static uint64_t
at_refcount_table(struct world *world, uint64_t entry)
{
	(void)entry;
	return world_peek64(world, 48) | ENTRY_COPIED;
}

static uint64_t
at_refcount_block(struct world *world, uint64_t entry)
{
	(void)entry;
	return world_peek64(world, world_peek64(world, 48)) | ENTRY_ZERO;
}

static uint64_t
at_own_table(struct world *world, uint64_t entry)
{
	(void)entry;
	return world_peek64(world, world_peek64(world, 40));
}

static uint64_t
compressed_in_table(struct world *world, uint64_t entry)
{
	return at_refcount_table(world, entry) ^ ENTRY_COPIED ^
	    ENTRY_COMPRESSED;
}

static uint64_t
compressed_past_all(struct world *world, uint64_t entry)
{
	(void)world, (void)entry;
	return ENTRY_COMPRESSED | 1ull << 40;
}

static uint64_t
reserved_bits(struct world *world, uint64_t entry)
{
	(void)world;
	return entry | 1ull << 57;
}

static uint64_t
compressed_and_copied(struct world *world, uint64_t entry)
{
	(void)world;
	return entry | ENTRY_COMPRESSED;
}

static const struct found_case {
	uint64_t (*change)(struct world *world, uint64_t entry);
	bool proof;
} found_cases[] = {
	{unaligned, true},
	{past_all, true},
	{at_l1, true},
	{at_refcount_table, true},
	{at_refcount_block, true},
	{at_own_table, true},
	{compressed_in_table, true},
	{compressed_past_all, true},
	{reserved_bits, false},
	{compressed_and_copied, false},
};

co_fn static void
meet_bad_entry(struct world *world)
{
	const struct found_case *found = world->arg;

	world_expect(world, A, CLUSTER, 0x11);
	assert_marked(world, found->proof);
	ck_assert_int_eq(try(world, ACTION_READ, B), -EIO);
	ck_assert_int_eq(try(world, ACTION_WRITE, B), -EIO);
	if (found->proof) {
		expect_stopped(world);
		return;
	}
	world_write(world, A, CLUSTER, 0x44);
	world_flush(world);
}

START_TEST(bad_entry)
{
	struct world world;
	uint64_t at;

	world_prepare(&world, &options, write_a_b);
	at = world_l2_entry(&world, B);
	world_poke64(&world, at, found_cases[_i].change(&world,
	    world_peek64(&world, at)));
	world.arg = (void *)(uintptr_t)&found_cases[_i];
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, meet_bad_entry);
	if (found_cases[_i].proof) {
		finish_marked(&world);
		return;
	}
	ck_assert_int_eq(world_close(&world), 0);
	assert_marked(&world, false);
	world_free(&world);
}
END_TEST

/* A version 2 image cannot be marked; writes stop all the same. */
START_TEST(zero_flag_in_version_2)
{
	const uint8_t version = 2;
	struct world world;
	uint64_t at;

	world_prepare(&world, &options, write_a_b);
	at = world_l2_entry(&world, B);
	world_poke64(&world, at, world_peek64(&world, at) | ENTRY_ZERO);
	file_sim_poke(world.disk, &version, 1, 7);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, expect_stopped);
	ck_assert_int_eq(world_close(&world), -EIO);
	ck_assert_uint_eq(world_peek64(&world, INCOMPATIBLE_OFFSET), 0);
	world_free(&world);
}
END_TEST

co_fn static void
cut_file(struct world *world)
{
	ck_assert_int_eq(file_truncate(world->disk, *(uint64_t *)world->arg),
	    0);
}

co_fn static void
use_cut_file(struct world *world)
{
	ck_assert_int_eq(try(world, ACTION_READ, B), -EIO);
	world_write(world, A, CLUSTER, 0x44);
	world_write(world, C, 4 * CLUSTER, 0x33);
	world_flush(world);
	world_expect(world, C, 4 * CLUSTER, 0x33);
	ck_assert_int_eq(try(world, ACTION_READ, B), -EIO);
}

/*
 * A file that was cut short has lost data; it proves no more than that.  What
 * would be there is not given out, even where it has no refcount: entries that
 * point there are wrong.
 */
START_TEST(cut_short)
{
	const uint16_t one = htobe16(1);
	struct world world;
	uint64_t end;

	world_prepare(&world, &options, write_a_b);
	end = entry_host(world_peek64(&world, world_l2_entry(&world, B)));
	file_sim_poke(world.disk, &one, sizeof(one),
	    world_refcount(&world, end + 8 * CLUSTER));
	world.arg = &end;
	world_run(&world, cut_file);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, use_cut_file);
	ck_assert_int_eq(world_close(&world), 0);
	assert_marked(&world, false);
	world_free(&world);
}
END_TEST

co_fn static void
read_both(struct world *world)
{
	struct image_options read_only = {
		.format = IMAGE_QCOW2, .no_backing = true, .loops = 1,
	};
	struct file *handle;

	ck_assert_int_eq(file_sim_open(world->disk, &handle), 0);
	ck_assert_int_eq(image_open_file(handle, &read_only, &world->image,
	    &world->error), 0);
	world_expect(world, A, CLUSTER, 0x11);
	ck_assert_int_eq(try(world, ACTION_READ, B), -EIO);
	ck_assert_int_eq(image_close(world->image), 0);
	world->image = NULL;
}

START_TEST(one_that_is_only_read_is_left_alone)
{
	const unsigned changes = FILE_SIM_ANY & ~FILE_SIM_READ;
	struct world world;
	uint64_t before;

	world_prepare(&world, &options, write_a_b);
	world_poke64(&world, world_l2_entry(&world, B), 1ull << 40);
	before = file_sim_count(world.disk, changes);
	world_run(&world, read_both);
	ck_assert_uint_eq(file_sim_count(world.disk, changes), before);
	world_free(&world);
}
END_TEST

/* Bits of what says where the refcounts are, and how wide. */
START_TEST(refcounts_that_do_not_know_the_tables)
{
	const uint16_t none = 0;
	const uint8_t order = 2;
	struct world world;
	uint64_t table, host;

	world_prepare(&world, &options, write_a_b);
	table = world_peek64(&world, 48);
	if (_i == 0)
		file_sim_poke(world.disk, &order, 1, 99);
	else if (_i == 1)
		world_poke64(&world, table, world_peek64(&world,
		    world_l2_entry(&world, B)) & ~ENTRY_COPIED);
	else if (_i == 2)
		file_sim_poke(world.disk, &none, sizeof(none),
		    world_refcount(&world, world_peek64(&world, 40)));
	else if (_i == 3)
		world_poke64(&world, world_refcount(&world, 0),
		    world_peek64(&world, world_refcount(&world, 0)) +
		    (1ull << 48));
	else {
		/* A second block, in a cluster without a refcount. */
		host = entry_host(world_peek64(&world,
		    world_l2_entry(&world, B)));
		world_poke64(&world, table + ENTRY_BYTES, host);
		file_sim_poke(world.disk, &none, sizeof(none),
		    world_refcount(&world, host));
	}
	ck_assert_int_eq(world_open(&world), -EIO);
	assert_marked(&world, false);
	world_free(&world);
}
END_TEST

/* ---- what becomes a table after the slice was loaded ---- */

/* Waits until all that the last barrier let out has left the quarantine. */
co_fn static void
settle(struct image *image)
{
	monitor_enter(&image->monitor);
	barrier_wait_idle(image);
	monitor_leave(&image->monitor);
}

co_fn static void
let_table_take_it(struct world *world)
{
	uint64_t host = world_host(world, A), table;

	world_expect(world, B, CLUSTER, 0x11);
	world_discard(world, A, CLUSTER);
	world_flush(world);
	settle(world->image);
	ck_assert_uint_gt(world->image->allocator.free_count, 0);
	world_write(world, FAR, CLUSTER, 0x55);
	table = entry_host(world->image->l1[FAR / (512 * CLUSTER)]);
	ck_assert_uint_eq(table, host);
	ck_assert_int_eq(try(world, ACTION_WRITE, B), -EIO);
	ck_assert_int_eq(try(world, ACTION_READ, B), -EIO);
	assert_marked(world, true);
}

/*
 * Two guest clusters in one host cluster whose refcount is 1: when one gives
 * it back it becomes an L2 table, and the other wrote over that, in place.
 */
START_TEST(second_user_of_what_is_a_table_now)
{
	struct world world;

	world_prepare(&world, &options, write_a_b);
	world_poke64(&world, world_l2_entry(&world, B),
	    world_peek64(&world, world_l2_entry(&world, A)));
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, let_table_take_it);
	finish_marked(&world);
}
END_TEST

/* ---- what is given out, and given back ---- */

/* Nobody may write here: a write that does is held for ever. */
static struct file_sim_hold forbidden;

static void
forbid(struct world *world, uint64_t offset, uint64_t length)
{
	forbidden = (struct file_sim_hold){
		.kinds = FILE_SIM_ANY & ~FILE_SIM_READ & ~FILE_SIM_SYNC,
		.offset = offset, .length = length,
	};
	file_sim_hold(world->disk, &forbidden);
}

/* Ends that; nobody must have tried. */
static void
allow(struct world *world)
{
	ck_assert_uint_eq(forbidden.caught, 0);
	file_sim_release(world->disk, &forbidden);
}

/* Says that there is a table where something else will go. */
static void
claim_cluster(struct world *world, uint64_t cluster)
{
	struct image *image = world->image;
	uint64_t host = cluster << image->cluster_bits;

	ck_assert_int_eq(metadata_add_cluster(&image->metadata, METADATA_L2,
	    host), 0);
	forbid(world, host, image->cluster_bytes);
}

co_fn static int
take_reserve_at_table(struct world *world)
{
	struct allocator *allocator = &world->image->allocator;

	world_write(world, C, CLUSTER, 0x33);
	ck_assert_uint_lt(allocator->reserve_next, allocator->reserve_end);
	ck_assert_uint_eq(allocator->free_count, 0);
	claim_cluster(world, allocator->reserve_next);
	return try(world, ACTION_WRITE, D);
}

co_fn static int
make_reserve_at_table(struct world *world)
{
	struct image *image = world->image;
	/* A file grows by a write to the last sector of the reserve. */
	uint64_t last = image->end_cluster + ALLOC_RESERVE_CLUSTERS_MAX - 1;

	ck_assert_uint_eq(image->allocator.reserve_end, 0);
	claim_cluster(world, last);
	return try(world, ACTION_WRITE, C);
}

co_fn static int
ensure_block(struct world *world, uint64_t cluster)
{
	struct image *image = world->image;
	int err;

	monitor_enter(&image->monitor);
	err = refcount_table_ensure(image, cluster);
	monitor_leave(&image->monitor);
	return err;
}

co_fn static int
make_block_at_table(struct world *world)
{
	claim_cluster(world, world->image->end_cluster);
	return ensure_block(world, IN_NEXT_BLOCK);
}

co_fn static int
grow_table_at_table(struct world *world)
{
	claim_cluster(world, world->image->end_cluster + 1);
	return ensure_block(world, PAST_THE_TABLE);
}

co_fn static int
punch_table(struct world *world)
{
	struct image *image = world->image;
	uint64_t host = world_host(world, B);

	world_discard(world, B, CLUSTER);
	claim_cluster(world, host >> image->cluster_bits);
	/* This one is done before the cluster leaves quarantine. */
	world_flush(world);
	settle(image);
	return try(world, ACTION_FLUSH, 0);
}

/* ---- what is written ---- */

/* Takes a table of one cluster out of the index, and of sight. */
static void
forget_table(struct world *world, uint64_t entry)
{
	struct image *image = world->image;

	metadata_remove_cluster(&image->metadata, entry_host(entry));
	forbid(world, entry_host(entry), image->cluster_bytes);
}

static void
forget_range(struct world *world, uint64_t host, uint64_t bytes)
{
	metadata_remove_range(&world->image->metadata, host);
	forbid(world, host, bytes);
}

co_fn static int
write_forgotten_l2(struct world *world)
{
	world_write(world, C, CLUSTER, 0x33);
	forget_table(world, world->image->l1[0]);
	return try(world, ACTION_FLUSH, 0);
}

/* In the index, but as something else. */
co_fn static int
write_l2_to_block(struct world *world)
{
	struct image *image = world->image;

	world_write(world, C, CLUSTER, 0x33);
	forget_table(world, image->l1[0]);
	ck_assert_int_eq(metadata_add_cluster(&image->metadata,
	    METADATA_REFCOUNT_BLOCK, entry_host(image->l1[0])), 0);
	return try(world, ACTION_FLUSH, 0);
}

co_fn static int
write_forgotten_block(struct world *world)
{
	world_write(world, C, CLUSTER, 0x33);
	forget_table(world, world->image->refcount_table[0]);
	return try(world, ACTION_FLUSH, 0);
}

co_fn static int
write_forgotten_l1(struct world *world)
{
	const struct header *header = &world->image->header;

	world_write(world, FAR, CLUSTER, 0x33);
	forget_range(world, header->l1_offset, header->l1_entries *
	    ENTRY_BYTES);
	return try(world, ACTION_FLUSH, 0);
}

co_fn static int
hook_in_forgotten_table(struct world *world)
{
	struct image *image = world->image;

	ck_assert_int_eq(ensure_block(world, IN_NEXT_BLOCK), 0);
	forget_range(world, image->header.refcount_table_offset,
	    image->cluster_bytes);
	return try(world, ACTION_FLUSH, 0);
}

co_fn static int
write_forgotten_moved_table(struct world *world)
{
	struct image *image = world->image;

	ck_assert_int_eq(ensure_block(world, PAST_THE_TABLE), 0);
	ck_assert_uint_ne(image->moves.refcount_table.host, 0);
	forget_range(world, image->moves.refcount_table.host,
	    image->cluster_bytes);
	return try(world, ACTION_FLUSH, 0);
}

co_fn static int
switch_forgotten_header(struct world *world)
{
	ck_assert_int_eq(ensure_block(world, PAST_THE_TABLE), 0);
	metadata_remove_range(&world->image->metadata, 0);
	forbid(world, 48, 12);
	return try(world, ACTION_FLUSH, 0);
}

static const struct hit_case {
	const struct world_options *options;
	int (*hit)(struct world *world);
} hit_cases[] = {
	{&options, take_reserve_at_table},
	{&options, make_reserve_at_table},
	{&small_options, make_block_at_table},
	{&small_options, grow_table_at_table},
	{&options, punch_table},
	{&options, write_forgotten_l2},
	{&options, write_l2_to_block},
	{&options, write_forgotten_block},
	{&options, write_forgotten_l1},
	{&small_options, hook_in_forgotten_table},
	{&small_options, write_forgotten_moved_table},
	{&small_options, switch_forgotten_header},
};

co_fn static void
hit_and_stop(struct world *world)
{
	const struct hit_case *hit = world->arg;

	ck_assert_int_eq(hit->hit(world), -EIO);
	assert_marked(world, true);
	expect_stopped(world);
	allow(world);
}

START_TEST(hit)
{
	struct world world;

	world_prepare(&world, hit_cases[_i].options, write_a_b);
	world.arg = (void *)(uintptr_t)&hit_cases[_i];
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, hit_and_stop);
	finish_marked(&world);
}
END_TEST

/* ---- in which order ---- */

co_fn static void
hold_marking(struct world *world)
{
	struct request first = request_of(ACTION_WRITE, D, CLUSTER, 0x44, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_SYNC};
	uint64_t writes;

	world_write(world, C, CLUSTER, 0x33);
	writes = file_sim_count(world->disk, FILE_SIM_WRITE);
	claim_cluster(world, world->image->allocator.reserve_next);
	file_sim_hold(world->disk, &hold);
	request_start(world, 0, &first);
	file_sim_await(&hold, 1);
	/* The bit is written, and nobody has heard of it yet. */
	assert_marked(world, true);
	ck_assert(!first.done);
	/* Others need not wait: they change nothing. */
	ck_assert_int_eq(try(world, ACTION_WRITE, C), -EIO);
	ck_assert_int_eq(try(world, ACTION_FLUSH, 0), -EIO);
	world_expect(world, C, CLUSTER, 0x33);
	/* Nor does a second hit: it is marked once. */
	monitor_enter(&world->image->monitor);
	ck_assert_int_eq(guard_new(world->image, 0, CLUSTER), -EIO);
	monitor_leave(&world->image->monitor);
	ck_assert(!first.done);
	file_sim_release(world->disk, &hold);
	ck_assert_int_eq(request_wait(&first), -EIO);
	free(first.data);
	expect_stopped(world);
	/* The bit was the last thing that was written. */
	ck_assert_uint_eq(file_sim_count(world->disk, FILE_SIM_WRITE),
	    writes + 1);
	ck_assert_uint_eq(hold.caught, 1);
	allow(world);
}

START_TEST(marked_before_anybody_hears_of_it)
{
	struct world world;

	world_prepare(&world, &options, write_a_b);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, hold_marking);
	finish_marked(&world);
}
END_TEST

co_fn static void
hit_while_punching(struct world *world)
{
	struct image *image = world->image;
	struct file_sim_hold hold = {.kinds = FILE_SIM_PUNCH};

	/* Two runs, with C between. */
	world_write(world, C, CLUSTER, 0x33);
	world_write(world, D, CLUSTER, 0x44);
	world_discard(world, B, CLUSTER);
	world_discard(world, D, CLUSTER);
	file_sim_hold(world->disk, &hold);
	world_flush(world);
	file_sim_await(&hold, 1);
	claim_cluster(world, image->allocator.reserve_next);
	ck_assert_int_eq(try(world, ACTION_WRITE, FAR), -EIO);
	file_sim_release(world->disk, &hold);
	settle(image);
	ck_assert_uint_eq(hold.caught, 1);
	ck_assert_uint_gt(image->quarantine.count, 0);
	expect_stopped(world);
	allow(world);
}

START_TEST(nothing_is_punched_from_then_on)
{
	struct world world;

	world_prepare(&world, &options, write_a_b);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, hit_while_punching);
	finish_marked(&world);
}
END_TEST

co_fn static void
fail_marking(struct world *world)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_WRITE, .offset = INCOMPATIBLE_OFFSET,
		.length = 8, .nth = 1, .result = -ENOSPC,
	};

	world_write(world, C, CLUSTER, 0x33);
	claim_cluster(world, world->image->allocator.reserve_next);
	file_sim_fail(world->disk, &fault);
	ck_assert_int_eq(try(world, ACTION_WRITE, D), -EIO);
	ck_assert_uint_eq(file_sim_failed(world->disk), 1);
	expect_stopped(world);
	allow(world);
}

START_TEST(writes_stop_where_it_cannot_be_marked)
{
	struct world world;

	world_prepare(&world, &options, write_a_b);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fail_marking);
	ck_assert_int_eq(world_close(&world), -EIO);
	world_free(&world);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("guard");
	TCase *tcase = tcase_create("guard");

	tcase_add_loop_test(tcase, bad_entry, 0,
	    sizeof(found_cases) / sizeof(*found_cases));
	tcase_add_test(tcase, zero_flag_in_version_2);
	tcase_add_test(tcase, cut_short);
	tcase_add_loop_test(tcase, refcounts_that_do_not_know_the_tables, 0,
	    5);
	tcase_add_test(tcase, one_that_is_only_read_is_left_alone);
	tcase_add_test(tcase, second_user_of_what_is_a_table_now);
	tcase_add_loop_test(tcase, hit, 0,
	    sizeof(hit_cases) / sizeof(*hit_cases));
	tcase_add_test(tcase, marked_before_anybody_hears_of_it);
	tcase_add_test(tcase, nothing_is_punched_from_then_on);
	tcase_add_test(tcase, writes_stop_where_it_cannot_be_marked);
	suite_add_tcase(suite, tcase);
	return world_main(suite);
}
