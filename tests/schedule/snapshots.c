/* SPDX-License-Identifier: MIT */
/*
 * Snapshots, and requests held at one of their steps (pause.h).
 *
 * Guards against: a snapshot that a write in flight still changes (R14), or
 * that requests pass by while its moment comes; a copy that a write in place
 * overtakes, as the snapshot that had the cluster goes; a snapshot that waits
 * for ever for a request that waits for it; tables that are forgotten, or
 * remembered, at the wrong time when an operation fails; bits of the header
 * that two set at once.
 */
#include <errno.h>
#include <stdlib.h>
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "runtime/loop.h"
#include "tests/schedule/pause.h"
#include "tests/schedule/races.h"

#define DISK_BYTES (8u << 20)
#define SECTOR_BYTES 512u

/* In the second L2 table. */
#define FAR (2u << 20)
/* In the third. */
#define FARTHER (4u << 20)

/* ---- the moment ---- */

co_fn static void
prepare(struct world *world)
{
	world_write(world, A, 2 * CLUSTER, 0x11);
	world_write(world, FAR, CLUSTER, 0x11);
}

static struct request
snapshot_of(enum action action, unsigned number)
{
	return request_of(action, number, 0, 0, 0);
}

/* A write in place is under way: the snapshot has it, and waits for it. */
co_fn static void
write_through_moment(struct world *world)
{
	struct request write = request_of(ACTION_WRITE, A, CLUSTER, 0x22, 0);
	struct request create = snapshot_of(ACTION_SNAPSHOT_CREATE, 1);
	struct request late = request_of(ACTION_WRITE, FAR, CLUSTER, 0x33, 0);
	struct pause pause;

	pause_begin(&pause, world, PAUSE_DATA, A, 0x22);
	request_start(world, 1, &write);
	pause_await(&pause);
	request_start(world, 0, &create);
	pause_world();
	ck_assert(!create.done);
	request_start(world, 1, &late);
	pause_world();
	ck_assert(!late.done);
	pause_end(&pause);
	request_finish(&create);
	request_finish(&write);
	request_finish(&late);
	world_expect_snapshot(world, 1, A, CLUSTER, 0x22);
	world_expect_snapshot(world, 1, FAR, CLUSTER, 0x11);
	world_expect(world, FAR, CLUSTER, 0x33);
}

static void
play(const struct world_options *options,
    void (*before)(struct world *world), void (*fn)(struct world *world))
{
	struct world world;

	world_prepare(&world, options, before);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fn);
	world_finish(&world);
}

START_TEST(r14_a_write_in_place_while_a_snapshot_is_made)
{
	play(&(struct world_options){
		.seed = _i, .disk_bytes = DISK_BYTES,
	}, prepare, write_through_moment);
}
END_TEST

/*
 * The copy of a shared cluster is under way when it becomes the disk's alone;
 * a write to another part of it must not go to the old place.
 */
co_fn static void
delete_beside_copy(struct world *world)
{
	struct request copy = request_of(ACTION_WRITE, A, HALF, 0x22, 0);
	struct request delete = snapshot_of(ACTION_SNAPSHOT_DELETE, 1);
	struct request write = request_of(ACTION_WRITE, A + HALF, HALF, 0x33,
	    0);
	struct pause pause;

	world_snapshot(world, CREATE, 1);
	/* The table is the disk's, and this cluster is not. */
	world_write(world, B, CLUSTER, 0x44);
	pause_begin(&pause, world, PAUSE_LINK, A, 0x22);
	request_start(world, 1, &copy);
	pause_await(&pause);
	request_start(world, 0, &delete);
	pause_world();
	request_start(world, 0, &write);
	pause_world();
	pause_end(&pause);
	request_finish(&copy);
	request_finish(&write);
	request_finish(&delete);
	world_expect(world, A, HALF, 0x22);
	world_expect(world, A + HALF, HALF, 0x33);
}

START_TEST(a_copy_while_its_snapshot_is_deleted)
{
	play(&(struct world_options){
		.seed = _i, .disk_bytes = DISK_BYTES,
	}, prepare, delete_beside_copy);
}
END_TEST

/* A write of part of a cluster is inside, and reads what stands beside it. */
co_fn static void
create_beside_copy(struct world *world)
{
	struct request copy = request_of(ACTION_WRITE, B + 512, HALF, 0x22, 0);
	struct request create = snapshot_of(ACTION_SNAPSHOT_CREATE, 2);
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ, .limit = 1};

	world_snapshot(world, CREATE, 1);
	/* The copy of the table comes first: then it has all but the data. */
	world_write(world, A, CLUSTER, 0x22);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &copy);
	file_sim_await(&hold, 1);
	request_start(world, 0, &create);
	pause_world();
	file_sim_release(world->disk, &hold);
	request_finish(&copy);
	request_finish(&create);
	world_expect_snapshot(world, 2, B, 512, 0x11);
	world_expect_snapshot(world, 2, B + 512, HALF, 0x22);
	world_expect_snapshot(world, 2, B + 512 + HALF, HALF - 512, 0x11);
	world_expect_snapshot(world, 1, B, CLUSTER, 0x11);
}

START_TEST(a_copy_while_a_snapshot_is_made)
{
	play(&(struct world_options){
		.seed = _i / 2, .disk_bytes = DISK_BYTES, .encrypted = _i % 2,
	}, prepare, create_beside_copy);
}
END_TEST

/* ---- operations that fail ---- */

/* Where a snapshot's L1 table stands; snapshots have places from 0. */
static uint64_t
l1_of_snapshot(struct world *world, unsigned place)
{
	uint64_t entry = world_peek64(world, 64);

	/* All have names of one length. */
	while (place-- > 0)
		entry += 40 + 24 + 8;
	return world_peek64(world, entry);
}

/* And its first L2 table. */
static uint64_t
table_of_snapshot(struct world *world, unsigned place)
{
	return entry_host(world_peek64(world, l1_of_snapshot(world, place)));
}

/*
 * The first snapshot cannot be applied, since the refcounts of its second table
 * are at their end.  Meanwhile the disk has copied its first one, which is then
 * the second snapshot's alone, and must be forgotten.
 */
co_fn static void
prepare_full_refcounts(struct world *world)
{
	world_write(world, A, CLUSTER, 0x11);
	world_write(world, FAR, CLUSTER, 0x11);
	world_snapshot(world, CREATE, 1);
	world_write(world, A, CLUSTER, 0x22);
	world_snapshot(world, CREATE, 2);
}

co_fn static void
fail_to_apply(struct world *world)
{
	struct request apply = snapshot_of(ACTION_SNAPSHOT_APPLY, 1);
	struct request write = request_of(ACTION_WRITE, B, CLUSTER, 0x33, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_READ, .limit = 1,
		.offset = table_of_snapshot(world, 0), .length = CLUSTER,
	};

	file_sim_hold(world->disk, &hold);
	request_start(world, 0, &apply);
	file_sim_await(&hold, 1);
	request_start(world, 1, &write);
	pause_world();
	file_sim_release(world->disk, &hold);
	ck_assert_int_eq(request_wait(&apply), -ERANGE);
	request_finish(&write);
	world_snapshot(world, DELETE, 2);
	world_expect(world, A, CLUSTER, 0x22);
	world_expect(world, B, CLUSTER, 0x33);
	world_expect_snapshot(world, 1, A, CLUSTER, 0x11);
}

START_TEST(a_table_copied_while_applying_fails)
{
	play(&(struct world_options){
		.seed = _i, .disk_bytes = DISK_BYTES, .refcount_bits = 2,
	}, prepare_full_refcounts, fail_to_apply);
}
END_TEST

/*
 * Applies the first snapshot.  While its L1 table is read, the disk writes
 * to guest; while its L2 table at second is, a barrier comes.
 */
co_fn static int
apply_beside_copy(struct world *world, uint64_t second, uint64_t guest)
{
	struct request apply = snapshot_of(ACTION_SNAPSHOT_APPLY, 1);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_READ, .limit = 1,
		.offset = l1_of_snapshot(world, 0), .length = CLUSTER,
	};
	struct file_sim_hold again = {
		.kinds = FILE_SIM_READ, .limit = 1,
		.offset = second, .length = CLUSTER,
	};

	file_sim_hold(world->disk, &hold);
	file_sim_hold(world->disk, &again);
	request_start(world, 0, &apply);
	file_sim_await(&hold, 1);
	world_write(world, guest, CLUSTER, 0x33);
	file_sim_release(world->disk, &hold);
	file_sim_await(&again, 1);
	world_flush(world);
	file_sim_release(world->disk, &again);
	return request_wait(&apply);
}

/*
 * The disk copies a table that it is about to get back: it has to stay in the
 * index of metadata, or changing its flags later would look like corruption.
 */
co_fn static void
copy_what_comes_back(struct world *world)
{
	uint64_t l1 = l1_of_snapshot(world, 0);
	/* The first table is shared; a barrier comes before the second. */
	uint64_t second = entry_host(world_peek64(world, l1 + ENTRY_BYTES));

	ck_assert_int_eq(apply_beside_copy(world, second, B), 0);
	world_snapshot(world, DELETE, 1);
	world_write(world, A, CLUSTER, 0x44);
	world_flush(world);
	world_expect(world, A, CLUSTER, 0x44);
	world_expect(world, B, CLUSTER, 0x11);
}

co_fn static void
prepare_snapshot(struct world *world)
{
	prepare(world);
	world_snapshot(world, CREATE, 1);
}

START_TEST(a_table_copied_while_it_is_applied)
{
	play(&(struct world_options){
		.seed = _i, .disk_bytes = DISK_BYTES,
	}, prepare_snapshot, copy_what_comes_back);
}
END_TEST

/*
 * The same, but the disk does not get it back, since applying fails before that
 * table's turn: then it is forgotten as ever.
 */
co_fn static void
copy_what_does_not_come(struct world *world)
{
	ck_assert_int_eq(apply_beside_copy(world, table_of_snapshot(world, 0),
	    FARTHER), -ERANGE);
	world_snapshot(world, DELETE, 2);
	world_snapshot(world, DELETE, 1);
	world_expect(world, FARTHER, CLUSTER, 0x33);
	world_expect(world, A, CLUSTER, 0x22);
}

co_fn static void
prepare_three_tables(struct world *world)
{
	world_write(world, FARTHER, CLUSTER, 0x11);
	prepare_full_refcounts(world);
}

START_TEST(a_table_copied_before_applying_fails)
{
	play(&(struct world_options){
		.seed = _i, .disk_bytes = DISK_BYTES, .refcount_bits = 2,
	}, prepare_three_tables, copy_what_does_not_come);
}
END_TEST

/* ---- two who write the features in the header ---- */

/* Where the header has them. */
#define INCOMPATIBLE 72u

/*
 * The dirty bit is on its way to the disk when a read finds the image corrupt:
 * the one must not put the bits back to what they were before the other.
 */
co_fn static void
find_corruption_beside(struct world *world)
{
	struct request create = snapshot_of(ACTION_SNAPSHOT_CREATE, 1);
	struct request read = request_of(ACTION_READ, FAR, CLUSTER, 0, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .limit = 1,
		.offset = INCOMPATIBLE, .length = 8,
		.after_effect = *(bool *)world->arg,
	};

	file_sim_hold(world->disk, &hold);
	request_start(world, 0, &create);
	file_sim_await(&hold, 1);
	request_start(world, 1, &read);
	pause_world();
	file_sim_release(world->disk, &hold);
	ck_assert_int_eq(request_wait(&read), -EIO);
	free(read.data);
	ck_assert_int_eq(request_wait(&create), -EIO);
}

START_TEST(the_dirty_bit_beside_the_corrupt_bit)
{
	bool after_effect = _i % 2;
	struct world world;
	uint64_t at;

	world_prepare(&world, &(struct world_options){
		.seed = _i, .disk_bytes = DISK_BYTES,
	}, prepare);
	world.arg = &after_effect;
	at = world_l2_entry(&world, FAR);
	world_poke64(&world, at, world_peek64(&world, at) + SECTOR_BYTES);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, find_corruption_beside);
	ck_assert_int_eq(world_close(&world), -EIO);
	ck_assert_uint_eq(world_peek64(&world, INCOMPATIBLE),
	    HEADER_DIRTY | HEADER_CORRUPT);
	world_free(&world);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("snapshots");
	TCase *tests = tcase_create("snapshots");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests,
	    r14_a_write_in_place_while_a_snapshot_is_made, 0, RACE_SEEDS);
	tcase_add_loop_test(tests, a_copy_while_its_snapshot_is_deleted, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, a_copy_while_a_snapshot_is_made, 0,
	    2 * RACE_SEEDS);
	tcase_add_loop_test(tests, a_table_copied_while_applying_fails, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, a_table_copied_while_it_is_applied, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, a_table_copied_before_applying_fails, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, the_dirty_bit_beside_the_corrupt_bit, 0,
	    2 * RACE_SEEDS);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
