/* SPDX-License-Identifier: MIT */
/*
 * Races in a sector of an encrypted image.  All of a sector changes in the
 * file when a byte of it does, so requests that have no byte in common meet
 * there all the same.
 *
 * Guards against: a writer that undoes another one's bytes in the sector they
 * share, readers that see half of a sector's old content and half of the new,
 * which decrypts to neither; and against requests that wait for each other
 * without need, or for ever.
 */
#include "tests/schedule/races.h"

#include "qcow2/entry.h"

#define SECTOR 512u
#define PART 100u

static uint64_t
find_host(struct world *world)
{
	return entry_host(world_peek64(world, world_l2_entry(world, A)));
}

/* Starts late and waits until the kinds of it, at A's sector, are held. */
co_fn static void
hold(struct world *world, struct request *late, unsigned kinds,
    struct file_sim_hold *hold)
{
	*hold = (struct file_sim_hold){
		.kinds = kinds, .offset = *(uint64_t *)world->arg,
		.length = SECTOR, .limit = 1,
	};
	file_sim_hold(world->disk, hold);
	request_start(world, 1, late);
	file_sim_await(hold, 1);
}

/* The first part is being written, as far as to kinds, and others come. */
co_fn static void
write_beside(struct world *world, unsigned kinds)
{
	struct request first = request_of(ACTION_WRITE, A, PART, 0x22, 0);
	struct request second = request_of(ACTION_WRITE, A + PART, PART, 0x33,
	    0);
	struct request third = request_of(ACTION_WRITE, A + 2 * PART, CLUSTER -
	    2 * PART, 0x44, IMAGE_FUA);
	struct request reader = request_of(ACTION_READ, A + 3 * PART, PART,
	    0x44, 0);
	struct file_sim_hold held;

	hold(world, &first, kinds, &held);
	request_start(world, 0, &second);
	request_start(world, 1, &third);
	pause_world();
	ck_assert(!second.done && !third.done);
	request_start(world, 0, &reader);
	/* Other sectors do not wait. */
	world_expect(world, B, CLUSTER, 0x55);
	world_write(world, B + 10, CLUSTER - 10, 0x66);
	ck_assert(!reader.done);
	file_sim_release(world->disk, &held);
	request_finish(&first);
	request_finish(&second);
	request_finish(&third);
	request_finish(&reader);
	world_expect(world, A, PART, 0x22);
	world_expect(world, A + PART, PART, 0x33);
	world_expect(world, A + 2 * PART, CLUSTER - 2 * PART, 0x44);
}

co_fn static void
beside_a_read(struct world *world)
{
	write_beside(world, FILE_SIM_READ);
}

co_fn static void
beside_a_write(struct world *world)
{
	write_beside(world, FILE_SIM_WRITE);
}

/* Readers do not wait for each other, and a writer waits for both. */
co_fn static void
readers(struct world *world)
{
	struct request first = request_of(ACTION_READ, A, SECTOR, 0x11, 0);
	struct request writer = request_of(ACTION_WRITE, A + PART, SECTOR, 0x22,
	    0);
	struct file_sim_hold held;

	hold(world, &first, FILE_SIM_READ, &held);
	world_expect(world, A, CLUSTER, 0x11);
	request_start(world, 0, &writer);
	pause_world();
	ck_assert(!writer.done);
	file_sim_release(world->disk, &held);
	request_finish(&first);
	request_finish(&writer);
	world_expect(world, A, PART, 0x11);
	world_expect(world, A + PART, SECTOR, 0x22);
}

/* Its cluster is freed and reused while a write in place is under way. */
co_fn static void
discard_under_a_write(struct world *world)
{
	struct request first = request_of(ACTION_WRITE, A, PART, 0x22, 0);
	struct request second = request_of(ACTION_WRITE, A + PART, PART, 0x33,
	    0);
	struct file_sim_hold held;

	hold(world, &first, FILE_SIM_READ, &held);
	request_start(world, 0, &second);
	pause_world();
	world_discard(world, A, CLUSTER);
	flush_all(world);
	world_write(world, C, CLUSTER, 0x44);
	ck_assert_uint_ne(world_host(world, C), held.offset);
	file_sim_release(world->disk, &held);
	request_finish(&first);
	request_finish(&second);
	world_expect(world, A, CLUSTER, 0);
	world_expect(world, C, CLUSTER, 0x44);
}

/* Zeros that keep their room, and a write that finds it in use. */
co_fn static void
kept_room_under_a_write(struct world *world)
{
	struct request first = request_of(ACTION_WRITE, A, PART, 0x22, 0);
	struct file_sim_hold held;

	hold(world, &first, FILE_SIM_WRITE, &held);
	world_zero(world, A, CLUSTER, IMAGE_NO_HOLE);
	world_expect(world, A, CLUSTER, 0);
	world_write(world, A + PART, PART, 0x44);
	file_sim_release(world->disk, &held);
	request_finish(&first);
	world_expect(world, A, PART, 0);
	world_expect(world, A + PART, PART, 0x44);
	world_expect(world, A + 2 * PART, CLUSTER - 2 * PART, 0);
}

co_fn static void
prepare(struct world *world)
{
	world_write(world, A, CLUSTER, 0x11);
	world_write(world, B, CLUSTER, 0x55);
}

static void (*const plays[])(struct world *world) = {
	beside_a_read, beside_a_write, readers, discard_under_a_write,
	kept_room_under_a_write,
};

#define PLAYS (sizeof(plays) / sizeof(plays[0]))

/* Each race under each seed. */
START_TEST(sector)
{
	struct world_options options = {
		.seed = (uint64_t)_i / PLAYS, .encrypted = true,
	};
	struct world world;
	uint64_t host;

	world_prepare(&world, &options, prepare);
	host = find_host(&world);
	world.arg = &host;
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, plays[(size_t)_i % PLAYS]);
	world_finish(&world);
}
END_TEST

void
races_add_sectors(TCase *tests)
{
	tcase_add_loop_test(tests, sector, 0, PLAYS * RACE_SEEDS);
}
