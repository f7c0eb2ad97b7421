/* SPDX-License-Identifier: MIT */
/*
 * Resizing, and requests held at one of their steps (pause.h).
 *
 * Guards against: requests that get behind the end of a disk while it becomes
 * longer, whose data is then covered with zeros; what was cut off and comes
 * back; a write that is in flight where the disk is being cut, and lands in
 * somebody else's cluster; zeros that cover what was written behind an end that
 * is none any more; a resize that a snapshot's moment meets half way; FUA that
 * is answered behind an end that the disk does not have, stably; what a cut
 * that failed leaves uncounted, and nobody repairs; a write to a raw image that
 * makes it as long as it was after it was cut, or is lost where it was not.
 */
#include <errno.h>
#include <stdlib.h>
#include "qcow2/create.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "runtime/loop.h"
#include "tests/schedule/pause.h"
#include "tests/schedule/races.h"

#define DISK_BYTES (3u << 20)

/* In the second L2 table, which goes as a whole when the disk is cut. */
#define FAR (2u << 20)
#define SHORT (1u << 20)
#define LONG (9u << 20)

co_fn static void
prepare(struct world *world)
{
	world_write(world, A, 2 * CLUSTER, 0x11);
	world_write(world, SHORT - CLUSTER, 2 * CLUSTER, 0x11);
	world_write(world, FAR, CLUSTER, 0x11);
}

static void
play(const struct world_options *options, void (*fn)(struct world *world))
{
	struct world world;

	world_prepare(&world, options, prepare);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fn);
	world_finish(&world);
}

static struct world_options
options_of(int seed)
{
	return (struct world_options){
		.seed = (uint64_t)seed, .disk_bytes = DISK_BYTES,
	};
}

static struct request
resize_to(uint64_t bytes, enum create_preallocation preallocation)
{
	return request_of(ACTION_RESIZE, bytes, 0, preallocation, 0);
}

co_fn static void
expect_refused(struct request *request)
{
	ck_assert_int_eq(request_wait(request), -EINVAL);
	free(request->data);
	request->data = NULL;
}

/* ---- longer ---- */

static bool
is_zeros(const struct file_sim_op *op, void *arg)
{
	(void)arg;
	return op->length > CLUSTER &&
	    is_all(op->iov[0].iov_base, op->iov[0].iov_len, 0);
}

/* What is new is being written, and nobody sees it yet. */
co_fn static void
touch_what_is_new(struct world *world)
{
	struct request grow = resize_to(LONG, CREATE_FULL);
	struct request requests[] = {
		request_of(ACTION_WRITE, LONG - CLUSTER, CLUSTER, 0x22, 0),
		request_of(ACTION_WRITE, DISK_BYTES - HALF, CLUSTER, 0x22, 0),
		request_of(ACTION_READ, DISK_BYTES, 512, 0, 0),
		request_of(ACTION_ZERO, DISK_BYTES, CLUSTER, 0, 0),
		request_of(ACTION_DISCARD, DISK_BYTES, CLUSTER, 0, 0),
		request_of(ACTION_STATUS, DISK_BYTES, CLUSTER, 0, 0),
		request_of(ACTION_COMPRESS, DISK_BYTES, CLUSTER, 0x22, 0),
	};
	unsigned count = sizeof(requests) / sizeof(requests[0]);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = is_zeros, .limit = 1,
	};

	file_sim_hold(world->disk, &hold);
	request_start(world, 0, &grow);
	file_sim_await(&hold, 1);
	for (unsigned i = 0; i < count; i++)
		request_start(world, 1, &requests[i]);
	for (unsigned i = 0; i < count; i++)
		expect_refused(&requests[i]);
	/* The disk as it is goes on. */
	world_write(world, DISK_BYTES - CLUSTER, CLUSTER, 0x33);
	file_sim_release(world->disk, &hold);
	request_finish(&grow);
	world_expect(world, DISK_BYTES - CLUSTER, CLUSTER, 0x33);
	world_expect(world, DISK_BYTES, LONG - DISK_BYTES, 0);
	world_write(world, LONG - CLUSTER, CLUSTER, 0x22);
	world_expect(world, LONG - CLUSTER, CLUSTER, 0x22);
}

START_TEST(requests_behind_the_end_while_it_grows)
{
	struct world_options options = options_of(_i);

	play(&options, touch_what_is_new);
}
END_TEST

/*
 * A write in place is under way where the disk is to be cut, which waits for
 * it; who comes too late is refused.  Longer again, the disk has zeros there.
 */
co_fn static void
cut_and_grow_beside_write(struct world *world)
{
	struct request write = request_of(ACTION_WRITE, FAR, CLUSTER, 0x22, 0);
	struct request late = request_of(ACTION_WRITE, FAR, HALF, 0x33, 0);
	struct request cut = resize_to(SHORT + HALF, CREATE_OFF);
	struct pause pause;

	pause_begin(&pause, world, PAUSE_DATA, FAR, 0x22);
	request_start(world, 1, &write);
	pause_await(&pause);
	request_start(world, 0, &cut);
	pause_world();
	ck_assert(!cut.done);
	request_start(world, 1, &late);
	pause_world();
	ck_assert(!late.done);
	pause_end(&pause);
	request_finish(&write);
	request_finish(&cut);
	expect_refused(&late);
	world_expect(world, SHORT, HALF, 0x11);
	world_resize(world, LONG, CREATE_OFF);
	world_expect(world, SHORT, HALF, 0x11);
	world_expect(world, SHORT + HALF, LONG - SHORT - HALF, 0);
}

START_TEST(a_write_where_the_disk_is_cut)
{
	struct world_options options = options_of(_i);

	play(&options, cut_and_grow_beside_write);
}
END_TEST

/* Nobody is in what was cut off when its clusters are somebody else's. */
co_fn static void
cut_beside_read(struct world *world)
{
	struct request read = request_of(ACTION_READ, FAR, CLUSTER, 0x11, 0);
	struct request cut = resize_to(SHORT, CREATE_OFF);
	struct pause pause;

	pause_begin(&pause, world, PAUSE_READ, FAR, 0);
	request_start(world, 1, &read);
	pause_await(&pause);
	request_start(world, 0, &cut);
	pause_world();
	ck_assert(!cut.done);
	pause_end(&pause);
	request_finish(&read);
	request_finish(&cut);
	flush_all(world);
	for (uint64_t guest = 4 * CLUSTER; guest < SHORT / 2; guest += CLUSTER)
		world_write(world, guest, CLUSTER, 0x44);
	world_flush(world);
	world_expect(world, 4 * CLUSTER, SHORT / 2 - 4 * CLUSTER, 0x44);
	world_expect(world, SHORT - CLUSTER, CLUSTER, 0x11);
}

START_TEST(a_read_where_the_disk_is_cut)
{
	struct world_options options = options_of(_i);

	play(&options, cut_beside_read);
}
END_TEST

/* ---- a last cluster that is not the last any more ---- */

/* Of a longer disk, which ends within a cluster; it has five tables. */
#define ODD_BYTES (LONG + HALF)

co_fn static void
prepare_tables(struct world *world)
{
	for (uint64_t guest = 0; guest < ODD_BYTES; guest += FAR)
		world_write(world, guest, CLUSTER, 0x11);
}

/*
 * Zeros go table by table, and take all of the cluster that the disk ends in,
 * when they come to it.  By then it is longer, and there is something.
 */
co_fn static void
zero_beside_growth(struct world *world)
{
	struct request zero = request_of(ACTION_ZERO, 0, ODD_BYTES, 0, 0);
	struct request grow = resize_to(LONG + CLUSTER, CREATE_OFF);
	struct pause second, fourth;

	zero.action = *(enum action *)world->arg;
	pause_begin(&second, world, PAUSE_TABLE_LOAD, FAR, 0);
	pause_begin(&fourth, world, PAUSE_TABLE_LOAD, 3 * FAR, 0);
	request_start(world, 1, &zero);
	pause_await(&second);
	request_start(world, 0, &grow);
	pause_world();
	ck_assert(!grow.done);
	pause_end(&second);
	pause_await(&fourth);
	request_finish(&grow);
	world_write(world, ODD_BYTES, HALF, 0x22);
	pause_end(&fourth);
	request_finish(&zero);
	world_expect(world, 0, ODD_BYTES, 0);
	world_expect(world, ODD_BYTES, HALF, 0x22);
}

START_TEST(zeros_to_the_end_while_it_grows)
{
	enum action action = _i % 2 ? ACTION_ZERO : ACTION_DISCARD;
	struct world_options options = {
		.seed = (uint64_t)_i / 2, .disk_bytes = ODD_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, prepare_tables);
	world.arg = &action;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, zero_beside_growth);
	world_finish(&world);
}
END_TEST

/* ---- a length that is not on the disk ---- */

/* As much as the L1 table leads to. */
#define FULL_BYTES (4u << 20)

#define SIZE_AT 24

/*
 * The barrier that was to switch the length failed: what is written where the
 * disk is new is worth nothing before another has done it.
 */
co_fn static void
write_behind_failed_switch(struct world *world)
{
	struct request grow = resize_to(FULL_BYTES, CREATE_FULL);
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_WRITE, .nth = 1, .result = -EIO,
		.offset = SIZE_AT, .length = 8,
	};

	file_sim_fail(world->disk, &fault);
	request_start(world, 0, &grow);
	ck_assert_int_eq(request_wait(&grow), -EIO);
	world_do(world, ACTION_WRITE, DISK_BYTES, CLUSTER, 0x22, IMAGE_FUA);
	ck_assert_uint_eq(world_peek64(world, SIZE_AT), FULL_BYTES);
}

START_TEST(fua_after_a_failed_switch)
{
	struct world_options options = options_of(_i);

	play(&options, write_behind_failed_switch);
}
END_TEST

/*
 * The length is the new one for all, and the header is being written: what is
 * made stable by then, where the disk is new, needs the header, too.
 */
co_fn static void
flush_while_the_header_is_written(struct world *world)
{
	struct request grow = resize_to(FULL_BYTES, CREATE_OFF);
	struct request write = request_of(ACTION_WRITE, DISK_BYTES, CLUSTER,
	    0x22, *(unsigned *)world->arg);
	struct request flush = request_of(ACTION_FLUSH, 0, 0, 0, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .offset = SIZE_AT, .length = 8,
	};

	file_sim_hold(world->disk, &hold);
	request_start(world, 0, &grow);
	file_sim_await(&hold, 1);
	ck_assert_uint_eq(image_size_bytes(world->image), FULL_BYTES);
	request_start(world, 1, &write);
	pause_world();
	ck_assert(write.done == !write.flags);
	request_start(world, 1, &flush);
	pause_world();
	ck_assert(!flush.done && !grow.done);
	ck_assert_uint_eq(world_peek64(world, SIZE_AT), DISK_BYTES);
	file_sim_release(world->disk, &hold);
	request_finish(write.flags ? &write : &flush);
	ck_assert_uint_eq(world_peek64(world, SIZE_AT), FULL_BYTES);
	request_finish(write.flags ? &flush : &write);
	request_finish(&grow);
}

START_TEST(flush_behind_an_end_that_is_on_its_way)
{
	struct world_options options = options_of(_i / 2);
	unsigned flags = _i % 2 ? IMAGE_FUA : 0;
	struct world world;

	world_prepare(&world, &options, prepare);
	world.arg = &flags;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, flush_while_the_header_is_written);
	world_finish(&world);
}
END_TEST

/* ---- a cut that fails half way ---- */

#define L1_AT 40
#define FEATURES_AT 72
#define LAZY_AT 80

static const struct failing_cut {
	unsigned kind;
	uint64_t at;		/* what fails: an entry of the L1 table, or */
	bool is_table;		/* one of the tables that go */
} failing_cuts[] = {
	{FILE_SIM_WRITE, ENTRY_BYTES, false},
	{FILE_SIM_READ, FAR, true},
};

co_fn static void
cut_with_failure(struct world *world)
{
	const struct failing_cut *failing = world->arg;
	struct request cut = resize_to(CLUSTER, CREATE_OFF);
	struct file_sim_fault fault = {
		.kinds = failing->kind, .nth = 1, .result = -EIO,
		.offset = failing->is_table ?
		    world_l2_entry(world, failing->at) :
		    world_peek64(world, L1_AT) + failing->at,
		.length = ENTRY_BYTES,
	};

	/* Something is allocated, so it is dirty. */
	world_write(world, A + 4 * CLUSTER, CLUSTER, 0x11);
	file_sim_fail(world->disk, &fault);
	request_start(world, 0, &cut);
	ck_assert_int_eq(request_wait(&cut), -EIO);
	ck_assert_uint_eq(file_sim_failed(world->disk), 1);
}

/* Every table that was given up, but for the one that could not be read. */
START_TEST(what_a_failed_cut_leaks_is_repaired)
{
	struct world_options options = {
		.seed = (uint64_t)_i / 2, .disk_bytes = ODD_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, prepare_tables);
	world_poke64(&world, LAZY_AT, HEADER_LAZY_REFCOUNTS);
	world.arg = (void *)&failing_cuts[_i % 2];
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, cut_with_failure);
	ck_assert_int_eq(world_close(&world), 0);
	ck_assert_uint_eq(world_peek64(&world, FEATURES_AT), HEADER_DIRTY);
	if (failing_cuts[_i % 2].is_table)
		ck_assert_uint_eq(world_check(&world).leaks, 1);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, flush_all);
	world_finish(&world);
}
END_TEST

/* ---- beside snapshots ---- */

/* The one that comes second waits for the other; each has its length. */
co_fn static void
snapshot_beside_growth(struct world *world)
{
	struct request grow = resize_to(LONG, CREATE_FULL);
	struct request create = request_of(ACTION_SNAPSHOT_CREATE, 2, 0, 0, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = is_zeros, .limit = 1,
	};

	world_snapshot(world, CREATE, 1);
	file_sim_hold(world->disk, &hold);
	request_start(world, 0, &grow);
	file_sim_await(&hold, 1);
	request_start(world, 1, &create);
	pause_world();
	ck_assert(!create.done);
	file_sim_release(world->disk, &hold);
	request_finish(&grow);
	request_finish(&create);
	world_write(world, LONG - CLUSTER, CLUSTER, 0x22);
	world_expect_snapshot(world, 2, LONG - CLUSTER, CLUSTER, 0);
	world_snapshot(world, APPLY, 1);
	world_expect(world, FAR, CLUSTER, 0x11);
	expect_refused(&(struct request){.err = image_write(world->image,
	    DISK_BYTES, "", 1, 0), .done = true});
	world_snapshot(world, APPLY, 2);
	world_expect(world, DISK_BYTES, LONG - DISK_BYTES, 0);
}

START_TEST(a_snapshot_while_the_disk_grows)
{
	struct world_options options = options_of(_i);

	play(&options, snapshot_beside_growth);
}
END_TEST

/* ---- raw images ---- */

/* For the requests of a test; what the world had before is returned. */
co_fn static struct image *
put_raw_image(struct world *world, struct file **diskp)
{
	struct image_options options = {
		.format = IMAGE_RAW, .writable = true, .loops = 2,
	};
	struct image *was = world->image;
	struct file *file;

	ck_assert_int_eq(file_sim_create(world->sim, "raw", LONG, diskp), 0);
	ck_assert_int_eq(file_sim_open(*diskp, &file), 0);
	ck_assert_int_eq(image_open_file(file, &options, &world->image,
	    &world->error), 0);
	return was;
}

static bool
is_value(const struct file_sim_op *op, void *arg)
{
	return is_all(op->iov[0].iov_base, 1, *(uint8_t *)arg);
}

/* Two writes are under way, over the new end and behind it. */
co_fn static void
cut_raw_beside_writes(struct world *world)
{
	struct request over = request_of(ACTION_WRITE, SHORT - HALF, CLUSTER,
	    0x22, 0);
	struct request behind = request_of(ACTION_WRITE, FAR, CLUSTER, 0x22,
	    0);
	struct request late[] = {
		request_of(ACTION_WRITE, FAR, HALF, 0x33, IMAGE_FUA),
		request_of(ACTION_WRITE, SHORT, 1, 0x33, 0),
		request_of(ACTION_ZERO, SHORT - 1, 2, 0, 0),
		request_of(ACTION_DISCARD, FAR, HALF, 0, 0),
	};
	struct request cut = resize_to(SHORT, CREATE_OFF);
	uint8_t value = 0x22;
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = is_value, .arg = &value,
	};
	struct file *disk;
	struct image *was = put_raw_image(world, &disk);

	file_sim_hold(disk, &hold);
	request_start(world, 1, &over);
	request_start(world, 1, &behind);
	file_sim_await(&hold, 2);
	request_start(world, 0, &cut);
	pause_world();
	ck_assert(!cut.done);
	for (unsigned i = 0; i < 4; i++)
		request_start(world, i % 2, &late[i]);
	pause_world();
	file_sim_release(disk, &hold);
	request_finish(&over);
	request_finish(&behind);
	request_finish(&cut);
	for (unsigned i = 0; i < 4; i++)
		expect_refused(&late[i]);
	ck_assert_int_eq(file_size(disk), SHORT);
	world_expect(world, SHORT - HALF, HALF, 0x22);
	world_resize(world, LONG - 511, CREATE_OFF);
	ck_assert_int_eq(file_size(disk), LONG);
	world_expect(world, SHORT, LONG - SHORT, 0);
	ck_assert_int_eq(image_close(world->image), 0);
	world->image = was;
	file_close(disk);
}

START_TEST(writes_where_a_raw_disk_is_cut)
{
	struct world_options options = options_of(_i);

	play(&options, cut_raw_beside_writes);
}
END_TEST

/* O6: nor is it resized. */
co_fn static void
cut_failed_raw(struct world *world)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_SYNC, .nth = 1, .result = -EIO,
	};
	struct request sizes[] = {
		resize_to(SHORT, CREATE_OFF), resize_to(2 * LONG, CREATE_OFF),
	};
	struct file *disk;
	struct image *was = put_raw_image(world, &disk);

	world_write(world, 0, CLUSTER, 0x11);
	file_sim_fail(disk, &fault);
	ck_assert_int_eq(image_flush(world->image), -EIO);
	for (unsigned i = 0; i < 2; i++) {
		request_start(world, 1, &sizes[i]);
		ck_assert_int_eq(request_wait(&sizes[i]), -EIO);
	}
	ck_assert_uint_eq(file_sim_count(disk, FILE_SIM_TRUNCATE), 0);
	ck_assert_int_eq(image_close(world->image), -EIO);
	world->image = was;
	file_close(disk);
}

START_TEST(failed_raw_disk_keeps_its_length)
{
	struct world_options options = options_of(_i);

	play(&options, cut_failed_raw);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("resizes");
	TCase *tests = tcase_create("resizes");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, requests_behind_the_end_while_it_grows, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, a_write_where_the_disk_is_cut, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, a_read_where_the_disk_is_cut, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, zeros_to_the_end_while_it_grows, 0,
	    2 * RACE_SEEDS);
	tcase_add_loop_test(tests, fua_after_a_failed_switch, 0, RACE_SEEDS);
	tcase_add_loop_test(tests, flush_behind_an_end_that_is_on_its_way, 0,
	    2 * RACE_SEEDS);
	tcase_add_loop_test(tests, what_a_failed_cut_leaks_is_repaired, 0,
	    2 * RACE_SEEDS);
	tcase_add_loop_test(tests, a_snapshot_while_the_disk_grows, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, writes_where_a_raw_disk_is_cut, 0,
	    RACE_SEEDS);
	tcase_add_loop_test(tests, failed_raw_disk_keeps_its_length, 0, 2);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
