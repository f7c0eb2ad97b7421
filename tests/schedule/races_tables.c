/* SPDX-License-Identifier: MIT */
/*
 * Races of tables, and at the ends of the disk and the file; see races.c.
 *
 * Guards against what the tests are named for.
 */
#include <errno.h>
#include <stdlib.h>
#include "qcow2/entry.h"
#include "tests/schedule/races.h"

/* New tables: one cluster of zeros, aligned to it. */
static bool
is_new_table(const struct file_sim_op *op, void *arg)
{
	uint64_t cluster_bytes = *(const uint64_t *)arg;

	return op->length == cluster_bytes &&
	    op->offset % cluster_bytes == 0 &&
	    is_all(op->iov[0].iov_base, op->iov[0].iov_len, 0);
}

/* ---- R6: tables whose refcounts do not say so ---- */

#define TABLES_DISK_BYTES (8u * 1024 * 1024)
#define OTHER_TABLE (4u * 1024 * 1024)

co_fn static void
fail_new_table(struct world *world)
{
	struct request request =
	    request_of(ACTION_WRITE, OTHER_TABLE, CLUSTER, 0x22, 0);
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_WRITE, .nth = *(uint64_t *)world->arg,
		.from_then_on = true, .result = -ENOSPC,
	};

	file_sim_fail(world->disk, &fault);
	request_start(world, 1, &request);
	request_wait(&request);
	if (!request.err)
		image_flush(world->image);
	file_sim_heal(world->disk);
}

/* Fills a good part of the disk: whatever is free is used. */
co_fn static void
fill_disk(struct world *world)
{
	for (uint64_t guest = CLUSTER; guest < OTHER_TABLE; guest += 65536)
		world_write(world, guest, 65536, 0x55);
	world_flush(world);
	world_expect(world, A, CLUSTER, 0x11);
}

/*
 * Cloud Hypervisor published a table before its refcount, met ENOSPC, and the
 * reopened image gave the table's cluster out again: 118 of 200 tables lost.
 */
START_TEST(r6_table_and_full_disk)
{
	struct world_options options = {
		.seed = _i, .disk_bytes = TABLES_DISK_BYTES,
	};
	struct world world, after;
	uint64_t nth = 1 + (uint64_t)_i;
	struct check_result result;

	world_prepare(&world, &options, prepare_a);
	world.arg = &nth;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fail_new_table);
	/* As it is when the server is killed now. */
	world_clone(&after, &options, world.disk);
	ck_assert_int_eq(world_close(&world), 0);
	world_free(&world);
	result = world_check(&after);
	ck_assert_uint_eq(result.corruptions, 0);
	ck_assert_int_eq(world_open(&after), 0);
	world_run(&after, fill_disk);
	ck_assert_int_eq(world_close(&after), 0);
	result = world_check(&after);
	ck_assert_uint_eq(result.corruptions, 0);
	world_free(&after);
}
END_TEST

/* Writes until that is stopped, then looks whether the table stands. */
co_fn static void
fill_until_stopped(struct world *world)
{
	int err = 0;

	for (uint64_t guest = CLUSTER; guest < OTHER_TABLE && !err;
	    guest += 65536) {
		struct request request =
		    request_of(ACTION_WRITE, guest, 65536, 0x55, 0);

		request_start(world, 0, &request);
		err = request_wait(&request);
	}
	ck_assert_int_eq(err, -EIO);
	world_expect(world, A, CLUSTER, 0x11);
}

/*
 * A table with refcount 0, as such programs leave it, is not given out: the
 * image is marked as corrupt, which keeps it from being written again.
 */
START_TEST(r6_live_table_with_refcount_0)
{
	struct world_options options = {
		.seed = _i, .disk_bytes = TABLES_DISK_BYTES,
	};
	const uint16_t none = 0;
	struct world world;
	uint64_t table, entry;

	world_prepare(&world, &options, prepare_a);
	table = entry_host(world_peek64(&world, world_peek64(&world, 40)));
	entry = world_peek64(&world, table);
	file_sim_poke(world.disk, &none, sizeof(none),
	    world_refcount(&world, table));
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fill_until_stopped);
	ck_assert_int_eq(world_close(&world), -EIO);
	ck_assert_uint_eq(world_peek64(&world, table), entry);
	ck_assert_int_eq(world_open(&world), -EROFS);
	world_free(&world);
}
END_TEST

/* ---- R7: two loops and one table ---- */

co_fn static void
read_twice(struct world *world)
{
	struct request reads[] = {
		request_of(ACTION_READ, A, CLUSTER, 0x11, 0),
		request_of(ACTION_READ, A, HALF, 0x11, 0),
		request_of(ACTION_WRITE, B, HALF, 0x22, 0),
	};
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_READ, .offset = *(uint64_t *)world->arg,
		.length = CLUSTER,
	};

	file_sim_hold(world->disk, &hold);
	for (unsigned i = 0; i < 3; i++)
		request_start(world, i % 2, &reads[i]);
	file_sim_await(&hold, 1);
	pause_world();
	ck_assert_uint_eq(hold.caught, 1);
	file_sim_release(world->disk, &hold);
	for (unsigned i = 0; i < 3; i++)
		request_finish(&reads[i]);
	world_expect(world, B, HALF, 0x22);
}

/* Cloud Hypervisor let its queues load and evict shared tables unguarded. */
START_TEST(r7_one_reader_of_a_table)
{
	struct world world;
	uint64_t table;

	world_prepare(&world, &(struct world_options){.seed = _i}, prepare_a);
	table = entry_host(world_peek64(&world, world_peek64(&world, 40)));
	world.arg = &table;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, read_twice);
	world_finish(&world);
}
END_TEST

/* ---- R10: growing tables ---- */

/* Two writers miss the same L2 table: one makes it, the other waits. */
co_fn static void
miss_table_twice(struct world *world)
{
	struct request writes[] = {
		request_of(ACTION_WRITE, OTHER_TABLE, CLUSTER, 0x22, 0),
		request_of(ACTION_WRITE, OTHER_TABLE + CLUSTER, CLUSTER,
		    0x33, 0),
	};
	uint64_t cluster_bytes = CLUSTER;
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = is_new_table,
		.arg = &cluster_bytes,
	};

	file_sim_hold(world->disk, &hold);
	for (unsigned i = 0; i < 2; i++)
		request_start(world, i, &writes[i]);
	file_sim_await(&hold, 1);
	pause_world();
	ck_assert_uint_eq(hold.caught, 1);
	world_expect(world, OTHER_TABLE, 2 * CLUSTER, 0);
	file_sim_release(world->disk, &hold);
	for (unsigned i = 0; i < 2; i++)
		request_finish(&writes[i]);
	world_expect(world, OTHER_TABLE, CLUSTER, 0x22);
	world_expect(world, OTHER_TABLE + CLUSTER, CLUSTER, 0x33);
}

START_TEST(r10_one_maker_of_an_l2_table)
{
	world_play(&(struct world_options){
		.seed = _i, .disk_bytes = TABLES_DISK_BYTES,
	}, miss_table_twice);
}
END_TEST

/* With clusters of 512, a refcount block is full after 256 of them. */
#define SMALL 512u
#define GROW_PIECE (32u * 1024)
#define GROW_PIECES 12

/*
 * Every new table or block is held while the others write, read and free: a
 * new refcount block may take the very cluster that was chosen (QEMU starts
 * again with EAGAIN), and nobody may get what is being made.
 */
co_fn static void
grow_blocks(struct world *world)
{
	struct request writes[GROW_PIECES];
	uint64_t cluster_bytes = SMALL;
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = is_new_table,
		.arg = &cluster_bytes,
	};

	file_sim_hold(world->disk, &hold);
	for (unsigned i = 0; i < GROW_PIECES; i++) {
		writes[i] = request_of(ACTION_WRITE, i * GROW_PIECE,
		    GROW_PIECE, (uint8_t)(i + 1), 0);
		request_start(world, i % 2, &writes[i]);
		file_sim_await(&hold, i + 1);
		world_expect(world, GROW_PIECES * GROW_PIECE, SMALL, 0);
		file_sim_release_one(world->disk, &hold);
	}
	file_sim_release(world->disk, &hold);
	for (unsigned i = 0; i < GROW_PIECES; i++)
		request_finish(&writes[i]);
	world_flush(world);
	for (unsigned i = 0; i < GROW_PIECES; i++)
		world_expect(world, i * GROW_PIECE, GROW_PIECE,
		    (uint8_t)(i + 1));
}

START_TEST(r10_new_refcount_blocks)
{
	world_play(&(struct world_options){
		.seed = _i, .cluster_bytes = SMALL, .disk_bytes = 1u << 20,
	}, grow_blocks);
}
END_TEST

/* Past 8 MiB a refcount table of one such cluster is full and moves. */
#define MOVE_PIECE (512u * 1024)
#define MOVE_PIECES 20

co_fn static void
move_refcount_table(struct world *world)
{
	struct request writes[MOVE_PIECES];
	uint64_t table = world_peek64(world, 48);

	for (unsigned i = 0; i < MOVE_PIECES; i++) {
		writes[i] = request_of(ACTION_WRITE, i * MOVE_PIECE,
		    MOVE_PIECE, (uint8_t)(i + 1), 0);
		request_start(world, i % 2, &writes[i]);
	}
	for (unsigned i = 0; i < MOVE_PIECES; i++) {
		world_flush(world);
		request_finish(&writes[i]);
	}
	flush_all(world);
	ck_assert_uint_ne(world_peek64(world, 48), table);
	for (unsigned i = 0; i < MOVE_PIECES; i++)
		world_expect(world, i * MOVE_PIECE, MOVE_PIECE,
		    (uint8_t)(i + 1));
}

START_TEST(r10_refcount_table_moves)
{
	struct world_options options = {
		.seed = _i, .cluster_bytes = SMALL, .disk_bytes = 12u << 20,
	};

	world_play(&options, move_refcount_table);
}
END_TEST

/* ---- R11: refcounts that change while they are written ---- */

/*
 * The buffer under way must not change (the record compares it when the write
 * completes), and the change must not be lost.
 */
co_fn static void
take_while_written(struct world *world)
{
	struct request flush = request_of(ACTION_FLUSH, 0, 0, 0, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE,
		.offset = world_refcount(world, 0), .length = CLUSTER,
	};
	uint64_t host;

	world_write(world, A, 2 * CLUSTER, 0x11);
	world_flush(world);
	host = world_host(world, A);
	world_discard(world, A, CLUSTER);
	world_flush(world);
	pause_world();
	/* The refcount of host is 0 now, but not on disk. */
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &flush);
	file_sim_await(&hold, 1);
	world_write(world, C, CLUSTER, 0x33);
	ck_assert_uint_eq(world_host(world, C), host);
	world_discard(world, B, CLUSTER);
	file_sim_release(world->disk, &hold);
	request_finish(&flush);
	flush_all(world);
	world_expect(world, C, CLUSTER, 0x33);
}

START_TEST(r11_refcounts_change_while_written)
{
	world_play(&(struct world_options){.seed = _i, .recorded = true},
	    take_while_written);
}
END_TEST

/* ---- R12: a failed write after another has gone on behind it ---- */

co_fn static void
fail_first_of_two(struct world *world)
{
	struct request first = request_of(ACTION_WRITE, B, CLUSTER, 0x22, 0);
	struct request second = request_of(ACTION_WRITE, C, CLUSTER, 0x33, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE};
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_WRITE, .nth = 1, .result = -EIO,
	};
	uint64_t host;

	world_write(world, A, CLUSTER, 0x11);
	host = world_host(world, A) + CLUSTER;
	hold.offset = fault.offset = host;
	hold.length = fault.length = CLUSTER;
	file_sim_fail(world->disk, &fault);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &first);
	file_sim_await(&hold, 1);
	request_start(world, 0, &second);
	request_finish(&second);
	file_sim_release(world->disk, &hold);
	ck_assert_int_eq(request_wait(&first), -EIO);
	world_expect(world, B, CLUSTER, 0);
	world_expect(world, C, CLUSTER, 0x33);
	/* What it had is used again, once. */
	world_write(world, D, CLUSTER, 0x44);
	ck_assert_uint_eq(world_host(world, D), host);
	world_write(world, B, CLUSTER, 0x55);
	world_expect(world, A, CLUSTER, 0x11);
	world_expect(world, B, CLUSTER, 0x55);
	world_expect(world, C, CLUSTER, 0x33);
	world_expect(world, D, CLUSTER, 0x44);
}

START_TEST(r12_failed_write_before_another)
{
	world_play(&(struct world_options){.seed = _i}, fail_first_of_two);
}
END_TEST

/* ---- a block status and its table ---- */

/*
 * A table without the copied flag and with a refcount of one is copied while a
 * block status waits for a part of it; then its cluster is freed and becomes
 * another table.
 */
#define LARGE 65536u
#define LARGE_DISK (1ull << 30)
#define LARGE_SLICE (4096 / 8 * (uint64_t)LARGE)

co_fn static void
ask_while_table_moves(struct world *world)
{
	struct request status = request_of(ACTION_STATUS, 0, LARGE, 0, 0);
	struct request copy = request_of(ACTION_WRITE, LARGE_SLICE, LARGE,
	    0x22, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_READ, .offset = *(uint64_t *)world->arg,
		.length = 4096, .limit = 1,
	};

	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &status);
	file_sim_await(&hold, 1);
	request_start(world, 0, &copy);
	file_sim_release(world->disk, &hold);
	request_finish(&copy);
	flush_all(world);
	world_write(world, LARGE_DISK / 2, LARGE, 0x33);
	flush_all(world);
	request_finish(&status);
	world_expect(world, 0, LARGE, 0x11);
	world_expect(world, LARGE_SLICE, LARGE, 0x22);
	world_expect(world, LARGE_DISK / 2, LARGE, 0x33);
}

co_fn static void
prepare_large(struct world *world)
{
	world_write(world, 0, LARGE, 0x11);
}

START_TEST(status_while_its_table_moves)
{
	struct world_options options = {
		.seed = _i, .cluster_bytes = LARGE, .disk_bytes = LARGE_DISK,
	};
	struct world world;
	uint64_t at, table;

	world_prepare(&world, &options, prepare_large);
	at = world_peek64(&world, 40);
	table = entry_host(world_peek64(&world, at));
	world_poke64(&world, at, table);
	world.arg = &table;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, ask_while_table_moves);
	world_finish(&world);
}
END_TEST

/* ---- R15: the ends of the disk and of the file ---- */

#define ODD_BYTES (10 * CLUSTER + 1536)

co_fn static void
last_cluster(struct world *world)
{
	uint64_t last = 10 * CLUSTER;

	world_write(world, last + 512, 1024, 0x11);
	world_expect(world, last, 512, 0);
	world_expect(world, last + 512, 1024, 0x11);
	world_zero(world, last + 1024, 512, 0);
	world_expect(world, last + 512, 512, 0x11);
	world_expect(world, last + 1024, 512, 0);
	world_discard(world, last + 512, 1024);
	world_expect(world, last + 512, 512, 0x11);
	/* All that there is of it: a whole cluster. */
	world_discard(world, last, 1536);
	ck_assert_uint_eq(world_host(world, last), 0);
	world_expect(world, last - CLUSTER, CLUSTER + 1536, 0);
	world_write(world, last - 512, 512 + 1536, 0x22);
	world_zero(world, last - CLUSTER, CLUSTER + 1536, 0);
	ck_assert_uint_eq(world_host(world, last), 0);
	world_write(world, last, 1536, 0x33);
}

START_TEST(r15_last_cluster_of_the_disk)
{
	world_play(&(struct world_options){
		.seed = _i, .disk_bytes = ODD_BYTES,
	}, last_cluster);
}
END_TEST

co_fn static void
cut_file(struct world *world)
{
	ck_assert_int_eq(file_truncate(world->disk, *(uint64_t *)world->arg +
	    512), 0);
}

co_fn static void
read_past_file(struct world *world)
{
	world_expect(world, A, 512, 0x11);
	world_expect(world, A + 512, CLUSTER - 512, 0);
	world_write(world, B, CLUSTER, 0x22);
	world_flush(world);
	world_expect(world, A + 512, CLUSTER - 512, 0);
	world_write(world, A + 1024, 512, 0x33);
	world_expect(world, A + 512, 512, 0);
	world_expect(world, A + 1024, 512, 0x33);
	world_expect(world, B, CLUSTER, 0x22);
}

/* A file that ends inside its last cluster reads as zeros behind its end. */
START_TEST(r15_end_of_the_file)
{
	struct world world;
	uint64_t host;

	world_prepare(&world, &(struct world_options){.seed = _i}, prepare_a);
	host = entry_host(world_peek64(&world, world_l2_entry(&world, A)));
	world.arg = &host;
	world_run(&world, cut_file);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, read_past_file);
	world_finish(&world);
}
END_TEST

/* ---- all of them ---- */

void
races_add_tables(TCase *tests)
{
	const TTest *const races[] = {
		r6_table_and_full_disk,
		r6_live_table_with_refcount_0,
		r7_one_reader_of_a_table,
		r10_one_maker_of_an_l2_table,
		r10_new_refcount_blocks,
		r11_refcounts_change_while_written,
		r12_failed_write_before_another,
		status_while_its_table_moves,
		r15_last_cluster_of_the_disk,
		r15_end_of_the_file,
	};

	for (size_t i = 0; i < sizeof(races) / sizeof(races[0]); i++)
		tcase_add_loop_test(tests, races[i], 0, RACE_SEEDS);
	tcase_add_loop_test(tests, r10_refcount_table_moves, 0, 3);
}
