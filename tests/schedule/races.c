/* SPDX-License-Identifier: MIT */
/*
 * Races that other engines have lost, each played out step by step: one
 * operation of the disk is held while the others overtake it.
 *
 *	R1   r1_write_in_place_and_discard, _and_zero, _and_kept_room,
 *	     _and_discard_no_unref
 *	R2   r2_read_and_discard
 *	R3   r3_compressed_read_and_discard
 *	R4   r4_crash_after_reuse, r4_crash_after_reuse_of_compressed
 *	R5   r5_punch_before_reuse; no_reuse_before_the_punch_has_ended
 *	R6   r6_table_and_full_disk, r6_live_table_with_refcount_0
 *	R7   r7_one_reader_of_a_table
 *	R8   r8_allocating_write_and_zero, _and_kept_room, _and_discard,
 *	     _and_zero_of_other_half
 *	R9   r9_readers_and_writers_of_compressed,
 *	     r9_writers_of_a_shared_cluster; and packing.c
 *	R10  r10_one_maker_of_an_l2_table, r10_new_refcount_blocks,
 *	     r10_refcount_table_moves
 *	R11  r11_refcounts_change_while_written
 *	R12  r12_failed_write_before_another
 *	R13  r13_flush_covers_what_was_answered, r13_fua_beside_a_failed_sync;
 *	     a_flush_covers_other_connections
 *	R14  none: a write in place under way while a snapshot is made; qnbd
 *	     makes no snapshots yet
 *	R15  r15_last_cluster_of_the_disk, r15_end_of_the_file
 *
 * Sectors of encrypted images are in races_sectors.c.
 *
 * R6, R7, R10 to R12 and R15 are in races_tables.c, no_reuse_... in pauses.c,
 * a_flush_... in server_races.c.
 *
 * Guards against what the tests are named for; above each stands how it goes
 * wrong, and who went wrong.
 */
#include "tests/schedule/races.h"

#include <errno.h>
#include <stdlib.h>
#include "qcow2/entry.h"
#include "runtime/loop.h"
#include "tests/crash/state.h"

bool
begins_with(const struct file_sim_op *op, void *arg)
{
	const uint8_t *data = op->iov_count ? op->iov[0].iov_base : NULL;

	return data && *data == *(const uint8_t *)arg;
}

void
prepare_a(struct world *world)
{
	world_write(world, A, CLUSTER, 0x11);
}

/* ---- R1: a write in place under way, its cluster freed and reused ---- */

/*
 * QEMU does it: a write in place registers nothing, so a discard frees the
 * cluster under it, another write gets it, and the first one lands on that.
 * The check finds nothing wrong.
 */
co_fn static void
write_in_place_and(struct world *world, enum action action, unsigned flags)
{
	struct request late = request_of(ACTION_WRITE, A, CLUSTER, 0x33, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE};
	uint64_t host;

	world_write(world, A, CLUSTER, 0x11);
	world_flush(world);
	host = world_host(world, A);
	hold.offset = host;
	hold.length = CLUSTER;
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &late);
	file_sim_await(&hold, 1);
	world_do(world, action, A, CLUSTER, 0, flags);
	flush_all(world);
	world_write(world, B, CLUSTER, 0x22);
	ck_assert_uint_ne(world_host(world, B), host);
	flush_all(world);
	file_sim_release(world->disk, &hold);
	request_finish(&late);
	world_expect(world, A, CLUSTER, 0);
	world_expect(world, B, CLUSTER, 0x22);
	/* And when it has landed, the cluster is used again. */
	flush_all(world);
	world_write(world, C, CLUSTER, 0x44);
	ck_assert_uint_eq(world_host(world, C), host);
}

co_fn static void
r1_discard(struct world *world)
{
	write_in_place_and(world, ACTION_DISCARD, 0);
}

co_fn static void
r1_zero(struct world *world)
{
	write_in_place_and(world, ACTION_ZERO, 0);
}

/*
 * Zeros that keep their room: the late write may land there, but must not come
 * to light when a later write maps the cluster again.
 */
co_fn static void
write_in_place_and_stay(struct world *world, enum action action,
    unsigned flags)
{
	struct request late = request_of(ACTION_WRITE, A, CLUSTER, 0x33, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE};

	world_write(world, A, CLUSTER, 0x11);
	world_flush(world);
	hold.offset = world_host(world, A);
	hold.length = CLUSTER;
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &late);
	file_sim_await(&hold, 1);
	world_do(world, action, A, CLUSTER, 0, flags);
	ck_assert_uint_eq(world_host(world, A), hold.offset);
	world_expect(world, A, CLUSTER, 0);
	world_write(world, A, 512, 0x44);
	file_sim_release(world->disk, &hold);
	request_finish(&late);
	world_expect(world, A, 512, 0x44);
	world_expect(world, A + 512, CLUSTER - 512, 0);
}

co_fn static void
r1_kept_room(struct world *world)
{
	write_in_place_and_stay(world, ACTION_ZERO, IMAGE_NO_HOLE);
}

co_fn static void
r1_discard_no_unref(struct world *world)
{
	write_in_place_and_stay(world, ACTION_DISCARD, 0);
}

START_TEST(r1_write_in_place_and_discard)
{
	world_play(&(struct world_options){.seed = _i}, r1_discard);
}
END_TEST

START_TEST(r1_write_in_place_and_zero)
{
	world_play(&(struct world_options){.seed = _i}, r1_zero);
}
END_TEST

START_TEST(r1_write_in_place_and_kept_room)
{
	world_play(&(struct world_options){.seed = _i}, r1_kept_room);
}
END_TEST

START_TEST(r1_write_in_place_and_discard_no_unref)
{
	struct world_options options = {
		.seed = _i, .discard = IMAGE_DISCARD_NO_UNREF,
	};

	world_play(&options, r1_discard_no_unref);
}
END_TEST

/* ---- R2, R3: reads under way, their cluster freed and reused ---- */

/*
 * QEMU returns the other cluster's bytes, and for a compressed cluster EIO, as
 * what it reads does not inflate.  Old content or zeros are both right.
 */
co_fn static void
read_and_discard(struct world *world)
{
	struct request late = request_of(ACTION_READ, A, CLUSTER, 0x11, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_READ, .offset = *(uint64_t *)world->arg,
		.length = CLUSTER,
	};

	world_expect(world, A, CLUSTER, 0x11);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &late);
	file_sim_await(&hold, 1);
	world_discard(world, A, CLUSTER);
	flush_all(world);
	world_write(world, B, CLUSTER, 0x22);
	flush_all(world);
	file_sim_release(world->disk, &hold);
	request_finish(&late);
	world_expect(world, A, CLUSTER, 0);
	world_expect(world, B, CLUSTER, 0x22);
	world_write(world, D, CLUSTER, 0x33);
	flush_all(world);
	world_write(world, C, CLUSTER, 0x44);
	ck_assert_uint_eq(world_host(world, C), hold.offset);
}

static void
play_read(uint64_t seed, bool compressed)
{
	struct world world;
	uint64_t host;

	world_prepare(&world, &(struct world_options){.seed = seed},
	    prepare_a);
	host = entry_host(world_peek64(&world, world_l2_entry(&world, A)));
	if (compressed)
		world_compress(&world, A, 0x11);
	world.arg = &host;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, read_and_discard);
	world_finish(&world);
}

START_TEST(r2_read_and_discard)
{
	play_read(_i, false);
}
END_TEST

START_TEST(r3_compressed_read_and_discard)
{
	play_read(_i, true);
}
END_TEST

/* ---- R4: a crash after early reuse ---- */

/*
 * QEMU reuses what an unflushed change freed: A is flushed, overwritten (or
 * zeroed), B gets its old cluster; after a crash that lost the change, A reads
 * B's bytes, or EIO if it was compressed.
 */
co_fn static void
overwrite_and_reuse(struct world *world)
{
	struct request flush = request_of(ACTION_FLUSH, 0, 0, 0, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_SYNC};

	world_write(world, C, CLUSTER, 0x33);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &flush);
	file_sim_await(&hold, 1);
	/* The barrier under way does not know of this, nor frees for it. */
	if (world->arg)
		world_write(world, A, CLUSTER, 0x22);
	else
		world_zero(world, A, CLUSTER, 0);
	file_sim_release(world->disk, &hold);
	request_finish(&flush);
	pause_world();
	world_write(world, B, CLUSTER, 0x33);
	pause_world();
	world_discard(world, B, CLUSTER);
	world_write(world, D, CLUSTER, 0x44);
	flush_all(world);
	world_write(world, C + HALF, HALF, 0x44);
}

static bool
is_one_of(const uint8_t *sector, const char *allowed, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (is_all(sector, 512, (uint8_t)allowed[i]))
			return true;
	return false;
}

co_fn static void
expect_sectors(struct world *world, uint64_t guest, const char *allowed,
    size_t count)
{
	uint8_t data[CLUSTER];

	ck_assert_int_eq(image_read(world->image, guest, data, CLUSTER, NULL),
	    0);
	for (size_t i = 0; i < CLUSTER; i += 512)
		ck_assert_msg(is_one_of(data + i, allowed, count),
		    "0x%02x at 0x%llx after: %s", data[i],
		    (unsigned long long)guest + i, (char *)world->arg);
}

co_fn static void
expect_r4(struct world *world)
{
	expect_sectors(world, A, "\x11\x22\0", 3);
	expect_sectors(world, B, "\x33\0", 2);
	expect_sectors(world, C, "\x33\x44\0", 3);
	expect_sectors(world, D, "\x44\0", 2);
}

static int
visit_r4(const struct crash_state *state, void *arg)
{
	struct check_result result;
	struct world world;

	(void)arg;
	world_clone(&world, &(struct world_options){.loops = 1}, state->file);
	world.arg = (char *)state->text;
	result = world_check(&world);
	ck_assert_msg(!result.corruptions && !result.check_errors,
	    "corrupt after: %s", state->text);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, expect_r4);
	ck_assert_int_eq(world_close(&world), 0);
	world_free(&world);
	return 0;
}

static void
crash_r4(uint64_t seed, bool compressed)
{
	struct world_options options = {.seed = seed, .recorded = true};
	struct world world;
	struct file *base;

	world_prepare(&world, &options, prepare_a);
	if (compressed)
		world_compress(&world, A, 0x11);
	world.arg = compressed ? &world : NULL;
	ck_assert_int_eq(file_sim_clone(world.disk, NULL, &base), 0);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, overwrite_and_reuse);
	ck_assert_int_eq(world_close(&world), 0);
	ck_assert_int_eq(crash_explore(world.log, WORLD_DISK, base,
	    &crash_defaults, visit_r4, NULL, NULL), 0);
	file_close(base);
	world_free(&world);
}

START_TEST(r4_crash_after_reuse)
{
	crash_r4(_i, false);
}
END_TEST

START_TEST(r4_crash_after_reuse_of_compressed)
{
	crash_r4(_i, true);
}
END_TEST

/* ---- R5: a punch that comes after the reuse ---- */

/* Cloud Hypervisor lost production data: it freed first and punched later. */
co_fn static void
late_punch(struct world *world)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_PUNCH};
	uint64_t host;

	world_write(world, A, CLUSTER, 0x11);
	world_flush(world);
	host = world_host(world, A);
	world_discard(world, A, CLUSTER);
	file_sim_hold(world->disk, &hold);
	world_flush(world);
	file_sim_await(&hold, 1);
	world_write(world, B, CLUSTER, 0x22);
	ck_assert_uint_ne(world_host(world, B), host);
	file_sim_release(world->disk, &hold);
	pause_world();
	world_write(world, C, CLUSTER, 0x33);
	ck_assert_uint_eq(world_host(world, C), host);
	flush_all(world);
	world_expect(world, A, CLUSTER, 0);
	world_expect(world, B, CLUSTER, 0x22);
	world_expect(world, C, CLUSTER, 0x33);
}

START_TEST(r5_punch_before_reuse)
{
	world_play(&(struct world_options){.seed = _i}, late_punch);
}
END_TEST

/* ---- R8: zeros and discards against an allocating write ---- */

/*
 * QEMU, latent from 2011 to 2026: the zeroing changes an entry while the write
 * that is under way means to link it: two guest clusters share a host cluster.
 */
co_fn static void
allocate_and(struct world *world, enum action action, unsigned flags)
{
	struct request write = request_of(ACTION_WRITE, A, CLUSTER, 0x11, 0);
	struct request clear = request_of(action, A, 2 * CLUSTER, 0, flags);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = begins_with,
		.arg = &write.value,
	};

	world_write(world, B, CLUSTER, 0x22);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &write);
	file_sim_await(&hold, 1);
	request_start(world, 0, &clear);
	pause_world();
	ck_assert(!clear.done);
	world_write(world, C, CLUSTER, 0x33);
	file_sim_release(world->disk, &hold);
	request_finish(&write);
	request_finish(&clear);
	world_expect(world, A, 2 * CLUSTER, 0);
	world_expect(world, C, CLUSTER, 0x33);
}

co_fn static void
r8_zero(struct world *world)
{
	allocate_and(world, ACTION_ZERO, 0);
}

co_fn static void
r8_keep(struct world *world)
{
	allocate_and(world, ACTION_ZERO, IMAGE_NO_HOLE);
}

co_fn static void
r8_discard(struct world *world)
{
	allocate_and(world, ACTION_DISCARD, 0);
}

/*
 * And the other half of the same bug: zeroing half of a cluster that reads as
 * zeros does nothing, or the whole cluster; the kind must be looked at again
 * after waiting for the write to the other half.
 */
co_fn static void
r8_half(struct world *world)
{
	struct request write =
	    request_of(ACTION_WRITE, A + HALF, HALF, 0x11, 0);
	struct request zero = request_of(ACTION_ZERO, A, HALF, 0, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = begins_with,
		.arg = &write.value,
	};

	world_write(world, B, CLUSTER, 0x22);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &write);
	file_sim_await(&hold, 1);
	request_start(world, 0, &zero);
	pause_world();
	file_sim_release(world->disk, &hold);
	request_finish(&write);
	request_finish(&zero);
	world_expect(world, A, HALF, 0);
	world_expect(world, A + HALF, HALF, 0x11);
}

START_TEST(r8_allocating_write_and_zero)
{
	world_play(&(struct world_options){.seed = _i}, r8_zero);
}
END_TEST

START_TEST(r8_allocating_write_and_kept_room)
{
	world_play(&(struct world_options){.seed = _i}, r8_keep);
}
END_TEST

START_TEST(r8_allocating_write_and_discard)
{
	world_play(&(struct world_options){.seed = _i}, r8_discard);
}
END_TEST

START_TEST(r8_allocating_write_and_zero_of_other_half)
{
	world_play(&(struct world_options){.seed = _i}, r8_half);
}
END_TEST

/* ---- R9: readers and writers of a cluster that gets a new place ---- */

/*
 * QEMU's compressed write publishes the entry before the data.  A reader must
 * see the old content until the write is done, here of a compressed cluster;
 * and two writers of its halves must not lose one another's.
 */
co_fn static void
move_compressed(struct world *world)
{
	struct request first = request_of(ACTION_WRITE, A, HALF, 0x22, 0);
	struct request second =
	    request_of(ACTION_WRITE, A + HALF, HALF, 0x33, 0);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = begins_with,
		.arg = &first.value, .after_effect = world->options.seed % 2,
	};

	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &first);
	file_sim_await(&hold, 1);
	request_start(world, 0, &second);
	pause_world();
	world_expect(world, A, CLUSTER, 0x11);
	file_sim_release(world->disk, &hold);
	request_finish(&first);
	request_finish(&second);
	world_expect(world, A, HALF, 0x22);
	world_expect(world, A + HALF, HALF, 0x33);
}

START_TEST(r9_readers_and_writers_of_compressed)
{
	struct world world;

	world_prepare(&world, &(struct world_options){.seed = _i}, prepare_a);
	world_compress(&world, A, 0x11);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, move_compressed);
	world_finish(&world);
}
END_TEST

/* The same of a cluster that two guest clusters share. */
co_fn static void
part_shared(struct world *world)
{
	struct request writes[] = {
		request_of(ACTION_WRITE, A, HALF, 0x22, 0),
		request_of(ACTION_WRITE, B + HALF, HALF, 0x33, 0),
	};

	for (unsigned i = 0; i < 2; i++)
		request_start(world, i, &writes[i]);
	for (unsigned i = 0; i < 2; i++)
		request_finish(&writes[i]);
	world_expect(world, A, HALF, 0x22);
	world_expect(world, A + HALF, CLUSTER, 0x11);
	world_expect(world, B + HALF, HALF, 0x33);
	ck_assert_uint_ne(world_host(world, A), world_host(world, B));
}

START_TEST(r9_writers_of_a_shared_cluster)
{
	struct world world;

	world_prepare(&world, &(struct world_options){.seed = _i}, prepare_a);
	world_share(&world, A, B);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, part_shared);
	world_finish(&world);
}
END_TEST

/* ---- R13: what a flush covers ---- */

/*
 * All that was answered before it, in place or not, and nothing that came
 * after: else it never ends under load.
 */
co_fn static void
flush_while_writing(struct world *world)
{
	struct request flushes[] = {
		request_of(ACTION_FLUSH, 0, 0, 0, 0),
		request_of(ACTION_FLUSH, 0, 0, 0, 0),
		request_of(ACTION_FLUSH, 0, 0, 0, 0),
	};
	struct file_sim_hold hold = {.kinds = FILE_SIM_SYNC};

	world_write(world, A, CLUSTER, 0x11);
	flush_all(world);
	file_sim_hold(world->disk, &hold);
	world_write(world, A, CLUSTER, 0x22);
	request_start(world, 1, &flushes[0]);
	file_sim_await(&hold, 1);
	/* The first is under way and does not cover this. */
	world_write(world, A, CLUSTER, 0x33);
	request_start(world, 0, &flushes[1]);
	pause_world();
	file_sim_release_one(world->disk, &hold);
	file_sim_await(&hold, 2);
	pause_world();
	ck_assert(flushes[0].done && !flushes[1].done);
	/* Nothing has changed since: it waits for the same. */
	request_start(world, 1, &flushes[2]);
	pause_world();
	world_write(world, A, CLUSTER, 0x44);
	file_sim_release_one(world->disk, &hold);
	pause_world();
	ck_assert(flushes[1].done && flushes[2].done);
	ck_assert_uint_eq(hold.caught, 2);
	file_sim_release(world->disk, &hold);
	for (unsigned i = 0; i < 3; i++)
		request_finish(&flushes[i]);
}

START_TEST(r13_flush_covers_what_was_answered)
{
	world_play(&(struct world_options){.seed = _i}, flush_while_writing);
}
END_TEST

/*
 * A lone FUA write and an fdatasync at a time: the kernel tells an error of
 * writing back once for each open file, so the one may hear of the other's.
 */
co_fn static void
fua_and_failed_sync(struct world *world)
{
	struct request fua =
	    request_of(ACTION_WRITE, A, CLUSTER, 0x22, IMAGE_FUA);
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = begins_with,
		.arg = &fua.value, .after_effect = true,
	};
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_SYNC, .nth = 1, .result = -EIO,
	};

	world_write(world, A, 2 * CLUSTER, 0x11);
	flush_all(world);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &fua);
	file_sim_await(&hold, 1);
	world_write(world, B, CLUSTER, 0x33);
	file_sim_fail(world->disk, &fault);
	ck_assert_int_ne(image_flush(world->image), 0);
	file_sim_release(world->disk, &hold);
	ck_assert_int_ne(request_wait(&fua), 0);
	ck_assert_int_ne(image_flush(world->image), 0);
}

START_TEST(r13_fua_beside_a_failed_sync)
{
	struct world world;

	world_create(&world, &(struct world_options){.seed = _i});
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fua_and_failed_sync);
	ck_assert_int_ne(world_close(&world), 0);
	world_free(&world);
}
END_TEST

/* ---- what a crash may cost ---- */

#define DEVICE_BYTES (4u << 20)

co_fn static void
write_little(struct world *world)
{
	/* The reserve is filled up again after each flush. */
	for (unsigned i = 0; i < 20; i++) {
		world_write(world, A + i * CLUSTER, CLUSTER, 0x11);
		flush_all(world);
	}
}

co_fn static void
write_much(struct world *world)
{
	world_expect(world, A, CLUSTER, 0x11);
	for (uint64_t guest = 0; guest < DEVICE_BYTES / 2; guest += 65536)
		world_write(world, guest, 65536, 0x22);
	flush_all(world);
}

/* The reserve is leaked then: it may not have been all that was left. */
START_TEST(device_has_room_after_a_crash)
{
	struct world_options options = {
		.seed = _i, .device_bytes = DEVICE_BYTES,
		.disk_bytes = DEVICE_BYTES,
	};
	struct world world, after;

	world_create(&world, &options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, write_little);
	world_clone(&after, &options, world.disk);
	ck_assert_int_eq(world_close(&world), 0);
	world_free(&world);
	ck_assert_int_eq(world_open(&after), 0);
	world_run(&after, write_much);
	ck_assert_int_eq(world_close(&after), 0);
	ck_assert_uint_eq(world_check(&after).corruptions, 0);
	world_free(&after);
}
END_TEST

#define GAP_CLUSTERS 64
#define TABLE_SPAN (CLUSTER * CLUSTER / 8)	/* of an L2 table */

co_fn static void
write_beside_the_gap(struct world *world)
{
	world_expect(world, A, CLUSTER, 0x11);
	for (unsigned i = 1; i < 8; i++)
		world_write(world, i * TABLE_SPAN, CLUSTER, 0x22);
	flush_all(world);
	for (unsigned i = 1; i < 8; i++)
		world_expect(world, i * TABLE_SPAN, CLUSTER, 0x22);
}

/*
 * A refcount far behind the end of the file, and none before it: half of a
 * refcount block was written and the file did not grow.  What lies between
 * must stay out of use, free or not.
 */
START_TEST(refcounts_past_the_end_after_a_crash)
{
	struct world_options options = {
		.seed = _i, .disk_bytes = 8 * TABLE_SPAN,
	};
	const uint8_t one[2] = {0, 1};
	struct world world;
	uint64_t end;

	world_prepare(&world, &options, write_little);
	end = (uint64_t)file_size(world.disk) + GAP_CLUSTERS * CLUSTER;
	file_sim_poke(world.disk, one, sizeof(one),
	    world_refcount(&world, end));
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, write_beside_the_gap);
	ck_assert_int_eq(world_close(&world), 0);
	ck_assert_uint_eq(world_check(&world).corruptions, 0);
	world_free(&world);
}
END_TEST

/* ---- all of them ---- */

int
main(void)
{
	Suite *suite = suite_create("races");
	TCase *tests = tcase_create("races");
	const TTest *const races[] = {
		r1_write_in_place_and_discard,
		r1_write_in_place_and_zero,
		r1_write_in_place_and_kept_room,
		r1_write_in_place_and_discard_no_unref,
		r2_read_and_discard,
		r3_compressed_read_and_discard,
		r5_punch_before_reuse,
		r8_allocating_write_and_zero,
		r8_allocating_write_and_kept_room,
		r8_allocating_write_and_discard,
		r8_allocating_write_and_zero_of_other_half,
		r9_readers_and_writers_of_compressed,
		r9_writers_of_a_shared_cluster,
		r13_flush_covers_what_was_answered,
		r13_fua_beside_a_failed_sync,
	};

	tcase_set_timeout(tests, 60);
	for (size_t i = 0; i < sizeof(races) / sizeof(races[0]); i++)
		tcase_add_loop_test(tests, races[i], 0, RACE_SEEDS);
	tcase_add_loop_test(tests, r4_crash_after_reuse, 0, 3);
	tcase_add_loop_test(tests, r4_crash_after_reuse_of_compressed, 0, 3);
	tcase_add_loop_test(tests, device_has_room_after_a_crash, 0, 3);
	tcase_add_loop_test(tests, refcounts_past_the_end_after_a_crash, 0,
	    3);
	races_add_tables(tests);
	races_add_sectors(tests);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
