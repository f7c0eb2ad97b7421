/* SPDX-License-Identifier: MIT */
/*
 * Clusters that keep their place when they are discarded, step by step, and
 * zeros that are found out in writes.
 *
 * Guards against a punch of what was written since, places that are lost, so
 * that the file gets longer, punches of what a snapshot has, and zeros that
 * allocate something or are taken for zeros though they are not.  What a write
 * in place that is under way does there is in races.c.
 */
#include "qcow2/entry.h"
#include "runtime/loop.h"
#include "tests/schedule/races.h"

static const struct world_options no_unref = {
	.seed = 1, .discard = IMAGE_DISCARD_NO_UNREF,
};

/* Tables, and the reserve, are there after this. */
co_fn static void
begin(struct world *world)
{
	world_write(world, A, CLUSTER, 0x11);
	world_write(world, D, CLUSTER, 0x44);
	flush_all(world);
}

static uint64_t
punches(struct world *world)
{
	return file_sim_count(world->disk, FILE_SIM_PUNCH);
}

static bool
is_on_disk(struct world *world, uint64_t host, uint8_t value)
{
	uint8_t data[CLUSTER];

	file_sim_peek(world->disk, data, CLUSTER, host);
	return is_all(data, CLUSTER, value);
}

/* ---- discards ---- */

co_fn static void
place_is_kept(struct world *world)
{
	uint64_t host;

	begin(world);
	host = world_host(world, A);
	world_discard(world, A, CLUSTER);
	world_expect(world, A, CLUSTER, 0);
	ck_assert_uint_eq(world_host(world, A), host);
	flush_all(world);
	ck_assert(is_on_disk(world, host, 0));
	ck_assert_uint_eq(punches(world), 1);
	/* Nobody else gets it, and it is written to again. */
	world_write(world, B, CLUSTER, 0x22);
	ck_assert_uint_ne(world_host(world, B), host);
	world_write(world, A, 512, 0x33);
	ck_assert_uint_eq(world_host(world, A), host);
	world_expect(world, A, 512, 0x33);
	world_expect(world, A + 512, CLUSTER - 512, 0);
}

START_TEST(discarded_cluster_keeps_its_place)
{
	world_play(&no_unref, place_is_kept);
}
END_TEST

/* Zeros without NO_HOLE are no other thing, those with it are not punched. */
co_fn static void
zeros(struct world *world)
{
	uint64_t host;

	begin(world);
	host = world_host(world, A);
	world_zero(world, A, CLUSTER, IMAGE_NO_HOLE);
	world_zero(world, D, CLUSTER, 0);
	flush_all(world);
	ck_assert(is_on_disk(world, host, 0x11));
	ck_assert_uint_eq(world_host(world, A), host);
	ck_assert(is_on_disk(world, world_host(world, D), 0));
	ck_assert_uint_eq(punches(world), 1);
}

START_TEST(zeros_keep_their_place_too)
{
	world_play(&no_unref, zeros);
}
END_TEST

/*
 * Nobody writes there any more: then the next write must find its place again,
 * though it is of the epoch of the trim itself.  Else trims and writes by turns
 * make the file longer, which no-unref is there to prevent.
 */
co_fn static void
by_turns(struct world *world)
{
	uint64_t host;

	world_write(world, A, 4 * CLUSTER, 0x11);
	world_flush(world);
	host = world_host(world, A);
	for (uint8_t turn = 1; turn < 5; turn++) {
		world_discard(world, A, 4 * CLUSTER);
		world_expect(world, A, 4 * CLUSTER, 0);
		world_write(world, A + 512, CLUSTER, turn);
		world_write(world, C, 2 * CLUSTER, turn);
		for (unsigned i = 0; i < 4; i++)
			ck_assert_uint_eq(world_host(world, i * CLUSTER),
			    host + i * CLUSTER);
		world_expect(world, A, 512, 0);
		world_expect(world, A + 512, CLUSTER, turn);
		world_expect(world, B + 512, CLUSTER - 512, 0);
		world_expect(world, C, 2 * CLUSTER, turn);
	}
}

START_TEST(trims_and_writes_by_turns_stay_in_place)
{
	struct world_options options = no_unref;

	options.seed = _i;
	world_play(&options, by_turns);
}
END_TEST

co_fn static void
written_during_punch(struct world *world)
{
	struct request trim = request_of(ACTION_DISCARD, A, CLUSTER, 0, 0);
	struct request write = request_of(ACTION_WRITE, A, CLUSTER, 0x22, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_PUNCH};

	begin(world);
	file_sim_hold(world->disk, &hold);
	request_start(world, 0, &trim);
	file_sim_await(&hold, 1);
	request_start(world, 1, &write);
	world_write(world, D, CLUSTER, 0x55);
	world_write(world, C, CLUSTER, 0x66);
	pause_world();
	ck_assert(!write.done);
	file_sim_release(world->disk, &hold);
	request_finish(&trim);
	request_finish(&write);
	world_expect(world, A, CLUSTER, 0x22);
	flush_all(world);
	world_expect(world, A, CLUSTER, 0x22);
}

START_TEST(write_waits_for_the_punch_of_its_cluster)
{
	world_play(&no_unref, written_during_punch);
}
END_TEST

/* ---- what cannot keep its place ---- */

co_fn static void
discard_shared(struct world *world)
{
	world_discard(world, A, CLUSTER);
	world_expect(world, A, CLUSTER, 0);
	ck_assert_uint_eq(world_host(world, A), 0);
	flush_all(world);
	ck_assert_uint_eq(punches(world), 0);
	world_expect(world, B, CLUSTER, 0x11);
}

START_TEST(shared_cluster_is_neither_kept_nor_punched)
{
	struct world world;

	world_prepare(&world, &no_unref, begin);
	world_share(&world, A, B);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, discard_shared);
	ck_assert_int_eq(world_close(&world), 0);
	world_free(&world);
}
END_TEST

/* ---- zeros in writes ---- */

static uint64_t
writes(struct world *world)
{
	return file_sim_count(world->disk, FILE_SIM_WRITE);
}

/* What was zeros is left alone; what was not keeps its room. */
co_fn static void
detect_on(struct world *world)
{
	uint64_t host, before;

	begin(world);
	host = world_host(world, A);
	before = writes(world);
	world_write(world, A, 4 * CLUSTER, 0);
	world_write(world, B + 512, 512, 0);
	ck_assert_uint_eq(writes(world), before);
	world_expect(world, A, 4 * CLUSTER, 0);
	ck_assert_uint_eq(world_host(world, A), host);
	ck_assert_uint_eq(world_host(world, B), 0);
	flush_all(world);
	ck_assert_uint_eq(punches(world), 0);
	ck_assert(is_on_disk(world, host, 0x11));
	/* A single byte that is not zero makes it data. */
	world_write(world, A, CLUSTER, 0x22);
	world_write(world, A + 1, CLUSTER - 2, 0);
	world_expect(world, A, 1, 0x22);
	world_expect(world, A + 1, CLUSTER - 2, 0);
	world_expect(world, A + CLUSTER - 1, 1, 0x22);
}

START_TEST(zeros_written_are_found_out)
{
	world_play(&(struct world_options){.seed = 1,
	    .detect_zeroes = IMAGE_DETECT_ON}, detect_on);
}
END_TEST

co_fn static void
detect_unmap(struct world *world)
{
	begin(world);
	world_do(world, ACTION_WRITE, A, CLUSTER, 0, IMAGE_FUA);
	ck_assert_uint_eq(world_host(world, A), 0);
	world_expect(world, A, CLUSTER, 0);
	flush_all(world);
	ck_assert_uint_eq(punches(world), 1);
}

START_TEST(zeros_written_give_room_back_where_they_may)
{
	world_play(&(struct world_options){.seed = 1,
	    .detect_zeroes = IMAGE_DETECT_UNMAP}, detect_unmap);
}
END_TEST

co_fn static void
detect_off(struct world *world)
{
	begin(world);
	world_write(world, A, CLUSTER, 0);
	world_write(world, B, CLUSTER, 0);
	ck_assert_uint_ne(world_host(world, B), 0);
	ck_assert(is_on_disk(world, world_host(world, A), 0));
}

START_TEST(zeros_written_are_data_otherwise)
{
	world_play(&(struct world_options){.seed = 1}, detect_off);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("kept");
	TCase *discards = tcase_create("discards");
	TCase *detection = tcase_create("detection");

	tcase_add_test(discards, discarded_cluster_keeps_its_place);
	tcase_add_test(discards, zeros_keep_their_place_too);
	tcase_add_loop_test(discards, trims_and_writes_by_turns_stay_in_place,
	    0, RACE_SEEDS);
	tcase_add_test(discards, write_waits_for_the_punch_of_its_cluster);
	tcase_add_test(discards, shared_cluster_is_neither_kept_nor_punched);
	tcase_add_test(detection, zeros_written_are_found_out);
	tcase_add_test(detection,
	    zeros_written_give_room_back_where_they_may);
	tcase_add_test(detection, zeros_written_are_data_otherwise);
	suite_add_tcase(suite, discards);
	suite_add_tcase(suite, detection);
	return world_main(suite);
}
