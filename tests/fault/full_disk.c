/* SPDX-License-Identifier: MIT */
/*
 * Disks that are full: with whatever room there is, writes work or say ENOSPC,
 * and when there is room again they go on without a restart.
 *
 * Guards against: clusters given out twice or lost where there is no room, a
 * full disk that needs a restart, room that is there and is not found, a draft
 * that wants more room at once than it needs, a file that may not be as long as
 * the next reserve.
 */
#include <errno.h>
#include "qcow2/image_resize.h"
#include "qcow2/internal.h"
#include "tests/schedule/world.h"

#define FULL_DISK (4u << 20)
#define FULL_PIECES 16
#define FULL_PIECE 65536u

struct filling {
	bool is_draft;		/* which takes its room ahead */
	bool sets_aside;	/* clusters, once there is room */
	bool has_quota;		/* what the disk has left is not for it */
	struct file_ops quota_ops;
	unsigned written;	/* pieces */
};

static void
prepare_file(struct file *file, struct filling *filling)
{
	file->is_draft = filling->is_draft;
	file->wants_room = filling->is_draft;
	if (filling->has_quota) {
		filling->quota_ops = *file->ops;
		filling->quota_ops.bytes_left = NULL;
		file->ops = &filling->quota_ops;
	}
}

/* As much as goes in; how many pieces. */
co_fn static void
write_until_full(struct world *world)
{
	struct filling *filling = world->arg;
	unsigned *written = &filling->written;

	prepare_file(world->image->file, filling);
	for (*written = 0; *written < FULL_PIECES; ++*written) {
		struct request request = request_of(ACTION_WRITE,
		    *written * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(*written + 1), 0);
		int err;

		request_start(world, 1, &request);
		err = request_wait(&request);
		if (!err)
			err = image_flush(world->image);
		if (!err)
			continue;
		ck_assert_int_eq(err, -ENOSPC);
		break;
	}
	for (unsigned i = 0; i < *written; i++)
		world_expect(world, i * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(i + 1));
}

co_fn static void
write_the_rest(struct world *world)
{
	unsigned written = ((struct filling *)world->arg)->written;

	for (unsigned i = written; i < FULL_PIECES; i++)
		world_write(world, i * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(i + 1));
	world_flush(world);
	for (unsigned i = 0; i < FULL_PIECES; i++)
		world_expect(world, i * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(i + 1));
}

/* Whatever room there is; when there is more, it goes on without a restart. */
static void
fill_up(uint64_t seed, uint64_t cluster_bytes, struct filling filling)
{
	for (uint64_t budget = 16384; budget < 1200000;
	    budget += 4096 * (1 + budget / 65536)) {
		struct world_options options = {
			.seed = seed, .cluster_bytes = cluster_bytes,
			.disk_bytes = FULL_DISK,
		};
		struct world world;

		world_create(&world, &options);
		world.arg = &filling;
		file_sim_set_budget(world.disk, budget +
		    file_sim_allocated_bytes(world.disk));
		ck_assert_int_eq(world_open(&world), 0);
		world_run(&world, write_until_full);
		ck_assert_uint_ge((filling.written + 2) * FULL_PIECE, budget <
		    FULL_PIECES * FULL_PIECE ? budget : 0);
		/* So little is not taken ahead: others need it, too. */
		if (!filling.has_quota)
			ck_assert_uint_eq(file_sim_count(world.disk,
			    FILE_SIM_ALLOCATE), 0);
		file_sim_set_budget(world.disk, UINT64_MAX);
		world_run(&world, write_the_rest);
		world_finish(&world);
	}
}

START_TEST(disk_full_then_freed)
{
	fill_up(_i, _i % 2 ? 4096 : 512, (struct filling){0});
}
END_TEST

START_TEST(draft_on_a_full_disk)
{
	fill_up(_i / 2, _i % 2 ? 4096 : 512, (struct filling){
		.is_draft = true, .has_quota = _i / 2 % 2,
	});
}
END_TEST

/* ---- where the disk has room, but not for this file ---- */

#define LONGEST_FILE (300u * 1024)

/* It gets longer, and what is new its clusters, which nobody writes to. */
co_fn static void
set_the_rest_aside(struct world *world)
{
	struct image_resize how = {
		.size_bytes = FULL_DISK + 2 * FULL_PIECE,
		.preallocation = CREATE_METADATA,
	};

	ck_assert_msg(!image_resize(world->image, &how, &world->error), "%s",
	    world->error.message);
}

/* The length of files is limited: it fills up, as far as that goes. */
co_fn static void
write_to_the_limit(struct world *world)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_WRITE | FILE_SIM_ALLOCATE, .nth = 1,
		.from_then_on = true, .result = -ENOSPC,
		.offset = LONGEST_FILE, .length = UINT64_MAX - LONGEST_FILE,
	};
	struct filling *filling = world->arg;

	file_sim_fail(world->disk, &fault);
	write_until_full(world);
	ck_assert_uint_ge((filling->written + 2) * FULL_PIECE, LONGEST_FILE);
	file_sim_heal(world->disk);
	if (filling->sets_aside)
		set_the_rest_aside(world);
	else
		write_the_rest(world);
}

co_fn static void
write_what_was_set_aside(struct world *world)
{
	world_expect(world, FULL_DISK, 2 * FULL_PIECE, 0);
	world_write(world, FULL_DISK, 2 * FULL_PIECE, 0x22);
	world_expect(world, FULL_DISK, 2 * FULL_PIECE, 0x22);
}

START_TEST(file_may_not_be_longer)
{
	struct world_options options = {
		.seed = (uint64_t)_i / 4, .disk_bytes = FULL_DISK,
		.cluster_bytes = _i % 2 ? 4096 : 512,
	};
	struct filling filling = {
		.is_draft = _i / 2 % 2, .sets_aside = _i / 4 % 2,
	};
	struct world world;

	world_create(&world, &options);
	world.arg = &filling;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, write_to_the_limit);
	ck_assert_int_eq(world_close(&world), 0);
	world_assert_clean(&world);
	ck_assert_int_eq(world_open(&world), 0);
	if (filling.sets_aside)
		world_run(&world, write_what_was_set_aside);
	world_finish(&world);
}
END_TEST

/*
 * What was discarded and is in quarantine counts as room: the write that finds
 * none waits for it, and so do zeros that want room.
 */
co_fn static void
trade_room_for(struct world *world, enum action action, uint8_t value,
    unsigned flags)
{
	for (unsigned i = 0; i < FULL_PIECES; i++)
		world_write(world, i * FULL_PIECE, FULL_PIECE, 0x11);
	world_flush(world);
	file_sim_set_budget(world->disk,
	    file_sim_allocated_bytes(world->disk));
	for (unsigned i = 0; i < FULL_PIECES; i++) {
		world_discard(world, i * FULL_PIECE, FULL_PIECE);
		world_do(world, action, (FULL_PIECES + i) * FULL_PIECE,
		    FULL_PIECE, value, flags);
	}
	file_sim_set_budget(world->disk, UINT64_MAX);
	world_expect(world, 0, FULL_PIECES * FULL_PIECE, 0);
	world_expect(world, FULL_PIECES * FULL_PIECE,
	    FULL_PIECES * FULL_PIECE, value);
}

co_fn static void
trade_room(struct world *world)
{
	trade_room_for(world, ACTION_WRITE, 0x22, 0);
}

co_fn static void
trade_room_for_zeros(struct world *world)
{
	trade_room_for(world, ACTION_ZERO, 0, IMAGE_NO_HOLE);
}

START_TEST(room_in_quarantine_is_room_for_zeros)
{
	world_play(&(struct world_options){
		.seed = _i, .disk_bytes = FULL_DISK,
	}, trade_room_for_zeros);
}
END_TEST

START_TEST(room_in_quarantine_is_room)
{
	world_play(&(struct world_options){
		.seed = _i, .disk_bytes = FULL_DISK,
	}, trade_room);
}
END_TEST

/*
 * A device is full but for a part in the middle, which was given back: every
 * write that fits must work, and at the first attempt.
 */
#define DEVICE_BYTES (4u << 20)
#define DEVICE_FREED (512u * 1024)

co_fn static void
fill_device(struct world *world)
{
	uint64_t guest = 0;
	int err = 0;

	for (; !err; guest += 16384) {
		struct request request = request_of(ACTION_WRITE, guest,
		    16384, 0x11, 0);

		request_start(world, 0, &request);
		err = request_wait(&request);
	}
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_gt(guest, DEVICE_BYTES * 3 / 4);
	world_discard(world, guest / 2, DEVICE_FREED);
	world_flush(world);
}

co_fn static void
use_room_in_the_middle(struct world *world)
{
	for (uint64_t done = 0; done < DEVICE_FREED * 3 / 4; done += 16384)
		world_write(world, DEVICE_BYTES + done, 16384, 0x22);
	world_expect(world, 0, 16384, 0x11);
	world_expect(world, DEVICE_BYTES, DEVICE_FREED * 3 / 4, 0x22);
}

START_TEST(device_with_room_in_the_middle)
{
	struct world_options options = {
		.seed = _i, .cluster_bytes = 512, .device_bytes = DEVICE_BYTES,
		.disk_bytes = 2 * DEVICE_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, fill_device);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, use_room_in_the_middle);
	world_finish(&world);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("full_disk");
	TCase *tests = tcase_create("full_disk");

	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, disk_full_then_freed, 0, 4);
	tcase_add_loop_test(tests, draft_on_a_full_disk, 0, 8);
	tcase_add_loop_test(tests, file_may_not_be_longer, 0, 16);
	tcase_add_loop_test(tests, room_in_quarantine_is_room, 0, 4);
	tcase_add_loop_test(tests, room_in_quarantine_is_room_for_zeros,
	    0, 4);
	tcase_add_loop_test(tests, device_with_room_in_the_middle, 0, 4);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
