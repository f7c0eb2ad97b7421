/* SPDX-License-Identifier: MIT */
/*
 * Images that are opened anew, and reading that is to go on.
 *
 * Guards against: an image that is corrupt, and after that cannot even be read;
 * plans that lead to files which are closed.
 */
#include <errno.h>
#include "qcow2/internal.h"
#include "tests/schedule/reopening.h"

/*
 * Found to be corrupt by this program, which took a bit of it, or another:
 * what is read anew is there, and nothing is written.
 */
co_fn static void
read_corrupt_anew(struct world *world)
{
	world_write(world, 0, CLUSTER, OLD);
	world_write(world, 40 * CLUSTER, CLUSTER, OLD);
	world_flush(world);
	if (*(bool *)world->arg) {
		monitor_enter(&world->image->monitor);
		ck_assert_int_eq(guard_corrupt(world->image, "a test"), -EIO);
		monitor_leave(&world->image->monitor);
		ck_assert_int_eq(write_fails(world), -EIO);
	} else {
		world_poke64(world, FEATURES, HEADER_CORRUPT);
	}
	world_expect(world, 0, CLUSTER, OLD);
	for (unsigned round = 0; round < 2; round++) {
		ck_assert_msg(!invalidate(world), "%s", world->error.message);
		ck_assert(!image_writable(world->image));
		ck_assert_uint_eq(world_peek64(world, FEATURES),
		    HEADER_CORRUPT);
		world_expect(world, 0, CLUSTER, OLD);
		ck_assert_int_eq(write_fails(world), -EROFS);
	}
	ck_assert_int_eq(reopen(world, true), -EROFS);
	world_expect(world, 40 * CLUSTER, CLUSTER, OLD);
	/* It has been repaired. */
	world_poke64(world, FEATURES, 0);
	must_reopen(world, true);
	world_write(world, CLUSTER, CLUSTER, NEW);
	world_expect(world, 40 * CLUSTER, CLUSTER, OLD);
}

START_TEST(corrupt_image_is_read_anew)
{
	struct world_options options = {.seed = (uint64_t)_i};
	bool found_here = _i % 2;
	struct world world;

	world_create(&world, &options);
	world.arg = &found_here;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, read_corrupt_anew);
	ck_assert_int_eq(world_close(&world), 0);
	/* But for the reserve that it had. */
	ck_assert_uint_eq(world_check(&world).corruptions, 0);
	world_free(&world);
}
END_TEST

/* ---- plans ---- */

struct switching {
	struct world *world;
	bool done;
	struct co_start start;
};

co_fn static void
switch_main(void *arg)
{
	struct switching *switching = arg;

	must_reopen(switching->world, true);
	switching->done = true;
}

/* It says where data is in a file that is there as long as the plan is. */
co_fn static void
reopen_beside_plan(struct world *world)
{
	struct switching switching = {.world = world};
	struct image_plan plan;
	uint8_t data[512];

	world_write(world, 0, CLUSTER, OLD);
	must_reopen(world, false);
	world->image->can_splice = true;
	ck_assert_int_eq(image_plan(world->image, 0, 512, &plan), 1);
	ck_assert_int_eq(invalidate(world), -EBUSY);
	sim_start(world->sim, 1, &switching.start, switch_main, &switching);
	pause_world();
	ck_assert(!switching.done);
	ck_assert_int_eq(file_pread(plan.ranges[0].file, data, sizeof(data),
	    plan.ranges[0].offset), 0);
	ck_assert(is_all(data, sizeof(data), OLD));
	image_plan_end(&plan);
	pause_world();
	ck_assert(switching.done);
	/* What may be written to is not planned, and nobody waits for it. */
	ck_assert_int_eq(image_plan(world->image, 0, 512, &plan), 0);
	must_reopen(world, false);
}

START_TEST(plans_are_waited_for)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i},
	    reopen_beside_plan);
}
END_TEST

void
reopening_add_reading_on(TCase *tests)
{
	tcase_add_loop_test(tests, corrupt_image_is_read_anew, 0, 8);
	tcase_add_loop_test(tests, plans_are_waited_for, 0, 8);
}
