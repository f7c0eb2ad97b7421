/* SPDX-License-Identifier: MIT */
/*
 * Flattening beside requests, and emptying an image that has snapshots.
 *
 * Clients write, zero, trim and read their own clusters on two loops while the
 * image is flattened, and made longer, under many seeds.  Each reads what it
 * left there, all the time, and so does whoever opens the image after that,
 * alone.
 *
 * Guards against: a copy that covers what a client has written meanwhile, a
 * trim that brings the backing file's data back, a header written while others
 * write it; clusters of snapshots, or counts of them, given up with the disk's;
 * a plan that looks into tables which are taken away meanwhile.
 */
#include <stdlib.h>
#include <string.h>
#include "qcow2/header_update.h"
#include "qcow2/image_chain.h"
#include "qcow2/image_snapshot.h"
#include "qcow2/internal.h"
#include "runtime/loop.h"
#include "tests/schedule/world.h"

#define SECTOR 512u
#define CLUSTER 1024u
#define SECTORS 600u
#define LONGER_SECTORS 1601u
#define CLIENTS 3
#define REQUESTS 60
#define SEEDS 60

/* Of the backing file, which is shorter. */
#define BELOW 77
#define BELOW_SECTORS 501u

/* A client has every third cluster. */
struct client {
	struct world *world;
	unsigned number;
	bool done;
	struct co_start start;
};

static uint8_t values[SECTORS];
static struct client clients[CLIENTS];

/* ---- a client ---- */

static unsigned
choose_sector(struct client *client)
{
	unsigned clusters = SECTORS * SECTOR / CLUSTER;
	unsigned cluster = (unsigned)sim_below(client->world->sim,
	    clusters / CLIENTS) * CLIENTS + client->number;

	return cluster * (CLUSTER / SECTOR);
}

co_fn static void
change(struct client *client, enum action action, unsigned sector,
    unsigned count, uint8_t value)
{
	world_do(client->world, action, (uint64_t)sector * SECTOR,
	    (size_t)count * SECTOR, value, 0);
	memset(values + sector, value, count);
}

co_fn static void
request(struct client *client, unsigned round)
{
	unsigned sector = choose_sector(client);
	uint8_t value = (uint8_t)(1 + client->number * REQUESTS + round);

	switch (sim_below(client->world->sim, 6)) {
	case 0:
	case 1:
		change(client, ACTION_WRITE, sector + 1, 1, value);
		break;
	case 2:
		change(client, ACTION_WRITE, sector, 2, value);
		break;
	case 3:
		change(client, ACTION_ZERO, sector, 1, 0);
		break;
	case 4:
		change(client, ACTION_DISCARD, sector, 2, 0);
		break;
	default:
		world_expect(client->world, (uint64_t)sector * SECTOR, SECTOR,
		    values[sector]);
		break;
	}
}

co_fn static void
client_main(void *arg)
{
	struct client *client = arg;

	for (unsigned round = 0; round < REQUESTS; round++)
		request(client, round);
	client->done = true;
}

/* ---- flattening ---- */

co_fn static struct image *
open_below(void)
{
	struct image_options options = {
		.format = IMAGE_RAW, .no_backing = true, .loops = 2,
	};
	uint8_t data[SECTOR];
	struct image *image;
	struct error error;
	struct file *file;

	memset(data, BELOW, sizeof(data));
	ck_assert_int_eq(file_sim_create(sim_self(), "below",
	    BELOW_SECTORS * SECTOR, &file), 0);
	for (unsigned i = 0; i < BELOW_SECTORS; i++)
		file_sim_poke(file, data, SECTOR, (uint64_t)i * SECTOR);
	ck_assert_int_eq(image_open_file(file, &options, &image, &error), 0);
	return image;
}

static bool
go_on(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	(void)done;
	(void)total;
	return false;
}

static const struct image_progress progress = {.report = go_on};

co_fn static void
rest_on_below(struct world *world)
{
	static const struct header_backing backing = {"below", "raw"};
	struct error error;

	ck_assert_msg(!image_set_backing(world->image, &backing, &error),
	    "%s", error.message);
	world->image->backing = open_below();
	memset(values, 0, sizeof(values));
	memset(values, BELOW, BELOW_SECTORS);
}

co_fn static void
flatten_beside_clients(struct world *world)
{
	struct request grow = request_of(ACTION_RESIZE, LONGER_SECTORS *
	    SECTOR, 0, 0, 0);
	struct error error;

	rest_on_below(world);
	/* One of the two operations waits for the other. */
	if (world->options.seed % 2)
		request_start(world, 1, &grow);
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = (struct client){.world = world, .number = i};
		sim_start(world->sim, i % 2, &clients[i].start, client_main,
		    &clients[i]);
	}
	ck_assert_msg(!image_flatten(world->image, &progress, &error), "%s",
	    error.message);
	for (unsigned i = 0; i < CLIENTS; i++)
		while (!clients[i].done)
			loop_sleep(1000000);
	if (!(world->options.seed % 2))
		request_start(world, 1, &grow);
	request_finish(&grow);
}

/* A byte is enough to tell them apart. */
co_fn static void
expect_values(struct world *world)
{
	ck_assert_ptr_null(world->image->backing);
	ck_assert(!world->image->header.backing);
	for (unsigned i = 0; i < SECTORS; i++)
		world_expect(world, (uint64_t)i * SECTOR, SECTOR, values[i]);
	world_expect(world, SECTORS * SECTOR, (LONGER_SECTORS - SECTORS) *
	    SECTOR, 0);
}

START_TEST(flattening_beside_requests)
{
	struct world_options options = {
		.seed = (uint64_t)_i, .cluster_bytes = CLUSTER,
		.disk_bytes = SECTORS * SECTOR,
	};
	struct world world;

	world_create(&world, &options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, flatten_beside_clients);
	ck_assert_int_eq(world_close(&world), 0);
	world_assert_clean(&world);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, expect_values);
	world_finish(&world);
}
END_TEST

/* ---- planning ---- */

#define PLANNED (560u * SECTOR)

struct planning {
	struct image *image;
	int result;
	bool done;
	struct co_start start;
};

co_fn static void
plan_main(void *arg)
{
	struct planning *planning = arg;
	struct image_plan plan;

	planning->result = image_plan(planning->image, PLANNED, SECTOR, &plan);
	if (planning->result == 1)
		image_plan_end(&plan);
	planning->done = true;
}

co_fn static void
write_planned(struct world *world)
{
	world_write(world, PLANNED, SECTOR, 1);
}

/* The plan is reading the table that the shorter disk will not have. */
co_fn static void
shorten_beside_plan(struct world *world)
{
	struct request shrink = request_of(ACTION_RESIZE, SECTOR, 0, 0, 0);
	struct planning planning = {.image = world->image};
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ, .limit = 1};

	world->image->backing = open_below();
	file_sim_hold(world->disk, &hold);
	sim_start(world->sim, 1, &planning.start, plan_main, &planning);
	file_sim_await(&hold, 1);
	request_start(world, 0, &shrink);
	pause_world();
	ck_assert_uint_eq(image_size_bytes(world->image), SECTORS * SECTOR);
	file_sim_release(world->disk, &hold);
	request_finish(&shrink);
	ck_assert(planning.done);
	ck_assert_int_eq(planning.result, 0);
}

START_TEST(a_plan_while_the_disk_is_cut)
{
	struct world_options options = {
		.seed = (uint64_t)_i, .cluster_bytes = CLUSTER,
		.disk_bytes = SECTORS * SECTOR,
	};
	struct world world;

	world_prepare(&world, &options, write_planned);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, shorten_beside_plan);
	world_finish(&world);
}
END_TEST

/* ---- emptying ---- */

#define OLD_VALUE 5
#define NEW_VALUE 6
#define FILLED (700u * 512)

/* More clusters than one refcount block counts. */
static const struct world_options emptied_options = {
	.seed = 1, .cluster_bytes = 512, .disk_bytes = 1000 * 512,
};

co_fn static void
empty(struct world *world)
{
	struct timespec date = {.tv_sec = 1};
	struct error error;

	world_write(world, 0, FILLED, OLD_VALUE);
	ck_assert_int_eq(image_snapshot_create(world->image, "kept", &date,
	    NULL, &error), 0);
	world_write(world, 1000, FILLED / 2, NEW_VALUE);
	ck_assert_msg(!image_empty(world->image, NULL, &error), "%s",
	    error.message);
	world_expect(world, 0, FILLED, 0);
	world_write(world, 5000, 512, NEW_VALUE);
	world_expect(world, 5000, 512, NEW_VALUE);
}

co_fn static void
bring_back(struct world *world)
{
	struct error error;

	world_expect(world, 5000, 512, NEW_VALUE);
	world_expect(world, 5512, FILLED - 5512, 0);
	ck_assert_msg(!image_snapshot_apply(world->image, "kept", NULL,
	    &error),
	    "%s", error.message);
	world_expect(world, 0, FILLED, OLD_VALUE);
}

START_TEST(emptied_image_keeps_its_snapshots)
{
	struct world world;

	world_create(&world, &emptied_options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, empty);
	ck_assert_int_eq(world_close(&world), 0);
	world_assert_clean(&world);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, bring_back);
	world_finish(&world);
}
END_TEST

co_fn static void
fill_and_empty(struct world *world)
{
	struct error error;

	world_write(world, 0, FILLED, OLD_VALUE);
	ck_assert_int_eq(image_empty(world->image, NULL, &error), 0);
}

co_fn static void
fill_again(struct world *world)
{
	world_expect(world, 0, FILLED, 0);
	world_write(world, 0, FILLED, NEW_VALUE);
	world_flush(world);
	world_expect(world, 0, FILLED, NEW_VALUE);
}

/* Header, refcount table and block, L1 table. */
START_TEST(emptied_file_is_as_short_as_a_new_one)
{
	struct world_options options = emptied_options;
	struct world world;
	int64_t new_bytes;

	options.refcount_bits = _i ? 64 : 16;
	world_create(&world, &options);
	new_bytes = file_size(world.disk);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fill_and_empty);
	ck_assert_int_gt(file_size(world.disk), FILLED);
	ck_assert_int_eq(world_close(&world), 0);
	world_assert_clean(&world);
	ck_assert_int_le(file_size(world.disk), new_bytes);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fill_again);
	world_finish(&world);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("chain_work");
	TCase *flattening = tcase_create("flattening");
	TCase *planning = tcase_create("planning");
	TCase *emptying = tcase_create("emptying");

	tcase_set_timeout(flattening, 60);
	tcase_add_loop_test(flattening, flattening_beside_requests, 1,
	    SEEDS + 1);
	tcase_add_loop_test(planning, a_plan_while_the_disk_is_cut, 0, 12);
	tcase_add_test(emptying, emptied_image_keeps_its_snapshots);
	tcase_add_loop_test(emptying, emptied_file_is_as_short_as_a_new_one,
	    0, 2);
	suite_add_tcase(suite, flattening);
	suite_add_tcase(suite, planning);
	suite_add_tcase(suite, emptying);
	return world_main(suite);
}
