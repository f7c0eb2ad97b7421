/* SPDX-License-Identifier: MIT */
/*
 * Images that are opened anew, in place: image_reopen(), image_invalidate().
 *
 * Each situation step by step on a simulated disk; and clients on two loops
 * that write and read all the while, under many seeds, as the image goes from
 * writing to reading and back.
 *
 * Guards against: old tables, refcounts, snapshots or lengths that outlive the
 * opening; writes that come through to an image that is only read; a dirty bit
 * that is left or ignored; requests caught between two openings; a failure that
 * leaves neither the old opening nor the new one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/create.h"
#include "qcow2/header_update.h"
#include "qcow2/image_chain.h"
#include "qcow2/image_reopen.h"
#include "qcow2/image_resize.h"
#include "qcow2/image_snapshot.h"
#include "qcow2/internal.h"
#include "runtime/loop.h"
#include "tests/key.h"
#include "tests/schedule/reopening.h"
#include "tests/schedule/world.h"

#define BELOW 77

static struct image_options
options_of(const struct world *world, bool writable)
{
	return (struct image_options){
		.format = IMAGE_QCOW2, .writable = writable,
		.loops = world->options.loops,
		.metadata_cache_bytes = world->options.cache_bytes,
	};
}

int
reopen(struct world *world, bool writable)
{
	struct image_options options = options_of(world, writable);

	return image_reopen(world->image, &options, &world->error);
}

void
must_reopen(struct world *world, bool writable)
{
	ck_assert_msg(!reopen(world, writable), "%s", world->error.message);
	ck_assert(image_writable(world->image) == writable);
}

int
invalidate(struct world *world)
{
	struct image_options options = options_of(world, false);

	return image_invalidate(world->image, &options, &world->error);
}

int
write_fails(struct world *world)
{
	struct request request = request_of(ACTION_WRITE, 0, 512, NEW, 0);

	request_start(world, 0, &request);
	return request_wait(&request);
}

co_fn static int
read_fails(struct world *world)
{
	struct request request = request_of(ACTION_READ, 0, 512, OLD, 0);
	int err;

	request_start(world, 0, &request);
	err = request_wait(&request);
	free(request.data);
	return err;
}

/* Another opening of the same disk, as another host has it. */
co_fn static struct image *
open_other(struct world *world)
{
	struct image_options options = options_of(world, true);
	struct image *image;
	struct error error;
	struct file *file;

	options.keys = &test_key;
	options.keys_count = world->options.encrypted;
	ck_assert_int_eq(file_sim_open(world->disk, &file), 0);
	ck_assert_int_eq(image_open_file(file, &options, &image, &error), 0);
	return image;
}

co_fn static void
write_there(struct image *other, uint64_t guest, size_t length, uint8_t value)
{
	uint8_t *data = malloc(length);

	ck_assert_ptr_nonnull(data);
	memset(data, value, length);
	ck_assert_int_eq(image_write(other, guest, data, length, 0), 0);
	free(data);
}

/* ---- invalidating ---- */

co_fn static void
see_what_another_wrote(struct world *world)
{
	struct image_resize longer = {.size_bytes = 512 * CLUSTER};
	struct timespec date = {.tv_sec = 1};
	struct image *other;
	struct error error;

	world_write(world, 0, 10 * CLUSTER, OLD);
	must_reopen(world, false);
	world_expect(world, 0, 10 * CLUSTER, OLD);
	world_expect(world, 100 * CLUSTER, CLUSTER, 0);
	other = open_other(world);
	ck_assert_int_eq(image_snapshot_create(other, "s", &date, NULL,
	    &error), 0);
	write_there(other, 0, 5 * CLUSTER, NEW);
	write_there(other, 100 * CLUSTER, CLUSTER, NEW);
	ck_assert_int_eq(image_discard(other, 9 * CLUSTER, CLUSTER, 0), 0);
	ck_assert_int_eq(image_resize(other, &longer, &error), 0);
	write_there(other, 511 * CLUSTER, CLUSTER, NEW);
	ck_assert_int_eq(image_close(other), 0);
	ck_assert_msg(!invalidate(world), "%s", world->error.message);
	ck_assert_uint_eq(image_size_bytes(world->image), 512 * CLUSTER);
	ck_assert_uint_eq(world->image->snapshots.count, 1);
	world_expect(world, 0, 5 * CLUSTER, NEW);
	world_expect(world, 5 * CLUSTER, 4 * CLUSTER, OLD);
	world_expect(world, 9 * CLUSTER, CLUSTER, 0);
	world_expect(world, 100 * CLUSTER, CLUSTER, NEW);
	world_expect(world, 511 * CLUSTER, CLUSTER, NEW);
	ck_assert_int_eq(write_fails(world), -EROFS);
	must_reopen(world, true);
	world_write(world, 200 * CLUSTER, 20 * CLUSTER, OLD);
	world_expect(world, 0, 5 * CLUSTER, NEW);
}

START_TEST(another_hosts_writes_are_seen)
{
	world_play(&(struct world_options){
		.seed = (uint64_t)_i, .encrypted = _i % 2,
		.cache_bytes = _i % 3 == 2,
	}, see_what_another_wrote);
}
END_TEST

/* A request that waits for the disk, and an operation that does. */
co_fn static void
refuse_while_busy(struct world *world)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ};
	struct request request = request_of(ACTION_READ, 0, CLUSTER, OLD, 0);
	struct request snapshot = request_of(ACTION_SNAPSHOT_CREATE, 1, 0, 0,
	    0);

	world_write(world, 0, CLUSTER, OLD);
	world_flush(world);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &request);
	file_sim_await(&hold, 1);
	ck_assert_int_eq(invalidate(world), -EBUSY);
	ck_assert_ptr_nonnull(strstr(world->error.message, "under way"));
	file_sim_release(world->disk, &hold);
	request_finish(&request);
	hold = (struct file_sim_hold){.kinds = FILE_SIM_SYNC};
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &snapshot);
	file_sim_await(&hold, 1);
	ck_assert_int_eq(invalidate(world), -EBUSY);
	file_sim_release(world->disk, &hold);
	request_finish(&snapshot);
	ck_assert_int_eq(invalidate(world), 0);
	world_expect(world, 0, CLUSTER, OLD);
	world_write(world, 0, CLUSTER, NEW);
	world_expect(world, 0, CLUSTER, NEW);
}

START_TEST(busy_image_is_not_invalidated)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i},
	    refuse_while_busy);
}
END_TEST

co_fn static void
lose_and_find(struct world *world)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_READ, .nth = 1, .result = -EIO,
	};

	world_write(world, 0, CLUSTER, OLD);
	must_reopen(world, false);
	world_expect(world, 0, CLUSTER, OLD);
	file_sim_fail(world->disk, &fault);
	ck_assert_int_eq(invalidate(world), -EIO);
	ck_assert_ptr_nonnull(strstr(world->error.message,
	    "cannot be read anew"));
	ck_assert_int_eq(read_fails(world), -EIO);
	ck_assert_int_eq(write_fails(world), -EIO);
	ck_assert_int_eq(image_flush(world->image), -EIO);
	ck_assert_int_eq(invalidate(world), 0);
	world_expect(world, 0, CLUSTER, OLD);
	file_sim_fail(world->disk, &fault);
	ck_assert_int_eq(invalidate(world), -EIO);
	must_reopen(world, true);
	world_write(world, CLUSTER, CLUSTER, NEW);
	world_expect(world, 0, CLUSTER, OLD);
}

START_TEST(lost_image_gives_errors_and_comes_back)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i},
	    lose_and_find);
}
END_TEST

/* Written over the disk by another host; and the old one again. */
co_fn static void
become_another(struct world *world)
{
	struct create_options create = {
		.version = 3, .size_bytes = 256 * CLUSTER,
		.cluster_bytes = 512,
		.refcount_bits = CREATE_REFCOUNT_BITS_DEFAULT,
	};
	static uint8_t old[8 * CLUSTER], other[8 * CLUSTER];
	struct file *file;

	world_write(world, 0, CLUSTER, OLD);
	must_reopen(world, false);
	ck_assert_int_eq(file_sim_create(world->sim, "other", 0, &file), 0);
	ck_assert_int_eq(create_image(file, "other", &create, &world->error),
	    0);
	file_sim_peek(file, other, sizeof(other), 0);
	file_close(file);
	file_sim_peek(world->disk, old, sizeof(old), 0);
	file_sim_poke(world->disk, other, sizeof(other), 0);
	ck_assert_int_eq(invalidate(world), -ESTALE);
	ck_assert_int_eq(read_fails(world), -EIO);
	ck_assert_int_eq(reopen(world, true), -ESTALE);
	ck_assert_int_eq(read_fails(world), -EIO);
	file_sim_poke(world->disk, old, sizeof(old), 0);
	must_reopen(world, true);
	world_expect(world, 0, CLUSTER, OLD);
}

START_TEST(another_image_in_its_place_is_refused)
{
	world_play(&(struct world_options){.seed = 1}, become_another);
}
END_TEST

/* O6: what was flushed is there, and it accepts writes again. */
co_fn static void
fail_and_recover(struct world *world)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_SYNC, .nth = 1, .result = -EIO,
	};

	world_write(world, 0, 4 * CLUSTER, OLD);
	world_flush(world);
	world_write(world, 20 * CLUSTER, CLUSTER, NEW);
	file_sim_fail(world->disk, &fault);
	ck_assert_int_eq(image_flush(world->image), -EIO);
	ck_assert_int_eq(write_fails(world), -EIO);
	ck_assert_int_eq(reopen(world, false), -EIO);
	ck_assert(image_writable(world->image));
	ck_assert_int_eq(write_fails(world), -EIO);
	ck_assert_msg(!invalidate(world), "%s", world->error.message);
	world_expect(world, 0, 4 * CLUSTER, OLD);
	world_write(world, 30 * CLUSTER, CLUSTER, NEW);
	world_flush(world);
	world_expect(world, 30 * CLUSTER, CLUSTER, NEW);
}

START_TEST(failed_image_is_read_anew)
{
	struct world_options options = {.seed = (uint64_t)_i};
	struct check_result result;
	struct world world;

	world_create(&world, &options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fail_and_recover);
	ck_assert_int_eq(world_close(&world), 0);
	/* The reserve, and what was not flushed. */
	result = world_check(&world);
	ck_assert_uint_eq(result.corruptions, 0);
	world_free(&world);
}
END_TEST

/* ---- reopening ---- */

#define LAZY_OFFSET 80

co_fn static void
end_dirty(struct world *world)
{
	world_write(world, 0, 20 * CLUSTER, OLD);
	ck_assert_uint_eq(world_peek64(world, FEATURES), HEADER_DIRTY);
	must_reopen(world, false);
	ck_assert_uint_eq(world_peek64(world, FEATURES), 0);
	world_assert_clean(world);
	world_expect(world, 0, 20 * CLUSTER, OLD);
	must_reopen(world, true);
	ck_assert_uint_eq(world_peek64(world, FEATURES), 0);
	world_write(world, 40 * CLUSTER, CLUSTER, OLD);
	ck_assert_uint_eq(world_peek64(world, FEATURES), HEADER_DIRTY);
	must_reopen(world, true);
	ck_assert_uint_eq(world_peek64(world, FEATURES), 0);
}

START_TEST(dirty_bit_goes_with_the_writing)
{
	struct world_options options = {.seed = (uint64_t)_i};
	struct world world;

	world_create(&world, &options);
	world_poke64(&world, LAZY_OFFSET, HEADER_LAZY_REFCOUNTS);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, end_dirty);
	world_finish(&world);
}
END_TEST

/* As a crash of another host leaves it. */
co_fn static void
repair_dirty(struct world *world)
{
	uint64_t host;
	uint16_t none = 0;

	world_write(world, 0, 20 * CLUSTER, OLD);
	must_reopen(world, false);
	host = world_host(world, CLUSTER);
	file_sim_poke(world->disk, &none, sizeof(none),
	    world_refcount(world, host));
	world_poke64(world, FEATURES, HEADER_DIRTY);
	ck_assert_int_eq(invalidate(world), 0);
	ck_assert_uint_eq(world_peek64(world, FEATURES), HEADER_DIRTY);
	world_expect(world, 0, 20 * CLUSTER, OLD);
	must_reopen(world, true);
	world_assert_clean(world);
	world_write(world, 40 * CLUSTER, 20 * CLUSTER, NEW);
	world_expect(world, 0, 20 * CLUSTER, OLD);
}

START_TEST(dirty_image_is_repaired_for_writing)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i},
	    repair_dirty);
}
END_TEST

#define AUTOCLEAR 88

co_fn static void
refuse_corrupt(struct world *world)
{
	world_write(world, 0, CLUSTER, OLD);
	must_reopen(world, false);
	world_poke64(world, AUTOCLEAR, 1ull << 40);
	world_poke64(world, FEATURES, HEADER_CORRUPT);
	ck_assert_int_eq(reopen(world, true), -EROFS);
	ck_assert(!image_writable(world->image));
	world_expect(world, 0, CLUSTER, OLD);
	ck_assert_uint_ne(world_peek64(world, AUTOCLEAR), 0);
	world_poke64(world, FEATURES, 0);
	must_reopen(world, true);
	ck_assert_uint_eq(world_peek64(world, AUTOCLEAR), 0);
}

START_TEST(corrupt_image_stays_readable)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i},
	    refuse_corrupt);
}
END_TEST

/* What a barrier had in hand, freed clusters, the reserve. */
co_fn static void
go_back_and_forth(struct world *world)
{
	for (unsigned round = 1; round < 20; round++) {
		uint64_t at = round % 5 * 7 * CLUSTER;

		world_write(world, at, 9 * CLUSTER, (uint8_t)round);
		world_discard(world, at + CLUSTER, 2 * CLUSTER);
		world_write(world, at + 512, 512, (uint8_t)round);
		must_reopen(world, false);
		world_assert_clean(world);
		world_expect(world, at, CLUSTER, (uint8_t)round);
		world_expect(world, at + CLUSTER, 2 * CLUSTER, 0);
		world_expect(world, at + 3 * CLUSTER, 6 * CLUSTER,
		    (uint8_t)round);
		must_reopen(world, true);
	}
}

START_TEST(nothing_is_lost_or_leaked_on_the_way)
{
	world_play(&(struct world_options){
		.seed = (uint64_t)_i,
		.refcount_bits = _i % 2 ? 1 : 0,
		.discard = _i % 3 ? IMAGE_DISCARD_UNMAP :
		    IMAGE_DISCARD_NO_UNREF,
	}, go_back_and_forth);
}
END_TEST

/* A failure on the way to reading: it goes on writing, from a new reserve. */
co_fn static void
fail_to_end_writing(struct world *world)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_READ, .nth = 1, .result = -EIO,
	};

	world_write(world, 0, 9 * CLUSTER, OLD);
	for (unsigned round = 0; round < 3; round++) {
		file_sim_fail(world->disk, &fault);
		ck_assert_int_eq(reopen(world, false), -EIO);
		file_sim_heal(world->disk);
		ck_assert(image_writable(world->image));
		world_write(world, (10 + round * 10) * CLUSTER, 9 * CLUSTER,
		    NEW);
		world_expect(world, 0, 9 * CLUSTER, OLD);
		world_expect(world, (10 + round * 10) * CLUSTER, 9 * CLUSTER,
		    NEW);
	}
}

START_TEST(failure_leaves_it_writing)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i},
	    fail_to_end_writing);
}
END_TEST

/* ---- keys, chains ---- */

co_fn static void
keep_the_key(struct world *world)
{
	struct image_options options = options_of(world, false);

	world_write(world, 0, 3 * CLUSTER, OLD);
	must_reopen(world, false);
	world_expect(world, 0, 3 * CLUSTER, OLD);
	ck_assert_int_eq(invalidate(world), 0);
	must_reopen(world, true);
	world_write(world, 512, 512, NEW);
	world_expect(world, 0, 512, OLD);
	/* Given anew; and too many. */
	options.keys = &test_key;
	options.keys_count = 1;
	ck_assert_int_eq(image_reopen(world->image, &options, &world->error),
	    0);
	world_expect(world, 512, 512, NEW);
	options.keys = (struct image_key[]){test_key, test_key};
	options.keys_count = 2;
	ck_assert_int_eq(image_reopen(world->image, &options, &world->error),
	    -EINVAL);
	world_expect(world, 512, 512, NEW);
	must_reopen(world, true);
}

START_TEST(keys_stay_unless_given)
{
	world_play(&(struct world_options){
		.seed = (uint64_t)_i, .encrypted = true,
	}, keep_the_key);
}
END_TEST

static struct file *below_disk;

co_fn static void
rest_on_below(struct world *world)
{
	static const struct header_backing backing = {"below", "raw"};
	struct image_options options = {
		.format = IMAGE_RAW, .no_backing = true,
		.loops = world->options.loops,
	};
	uint8_t data[CLUSTER];
	struct file *file;

	memset(data, BELOW, sizeof(data));
	ck_assert_int_eq(file_sim_create(world->sim, "below", 10 * CLUSTER,
	    &below_disk), 0);
	file_sim_poke(below_disk, data, sizeof(data), CLUSTER);
	ck_assert_int_eq(image_set_backing(world->image, &backing,
	    &world->error), 0);
	ck_assert_int_eq(file_sim_open(below_disk, &file), 0);
	ck_assert_int_eq(image_open_file(file, &options,
	    &world->image->backing, &world->error), 0);
}

co_fn static void
keep_the_chain(struct world *world)
{
	static const struct header_backing nothing = {.name = NULL};
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_READ, .nth = 1, .result = -EIO,
	};
	uint8_t data[CLUSTER];

	rest_on_below(world);
	world_write(world, 0, CLUSTER, OLD);
	world_expect(world, CLUSTER, CLUSTER, BELOW);
	must_reopen(world, false);
	world_expect(world, CLUSTER, CLUSTER, BELOW);
	memset(data, NEW, sizeof(data));
	file_sim_poke(below_disk, data, sizeof(data), CLUSTER);
	file_sim_poke(below_disk, data, sizeof(data), 12 * CLUSTER);
	ck_assert_int_eq(invalidate(world), 0);
	world_expect(world, CLUSTER, CLUSTER, NEW);
	world_expect(world, 12 * CLUSTER, CLUSTER, NEW);
	must_reopen(world, true);
	world_write(world, CLUSTER, 512, OLD);
	world_expect(world, CLUSTER + 512, CLUSTER - 512, NEW);
	file_sim_fail(below_disk, &fault);
	must_reopen(world, false);
	file_sim_heal(below_disk);
	must_reopen(world, true);
	/* Without one it is the same, but for what showed through. */
	ck_assert_int_eq(image_set_backing(world->image, &nothing,
	    &world->error), 0);
	must_reopen(world, true);
	ck_assert_ptr_null(image_backing(world->image));
	world_expect(world, 12 * CLUSTER, CLUSTER, 0);
	file_close(below_disk);
}

START_TEST(chain_is_opened_with_it)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i},
	    keep_the_chain);
}
END_TEST

/* ---- raw ---- */

co_fn static void
reopen_raw(struct world *world)
{
	struct image_options options = {
		.format = IMAGE_RAW, .loops = 2,
	};
	struct file *disk, *file;
	struct image *image;
	uint8_t data[512];
	struct error error;

	memset(data, NEW, sizeof(data));
	ck_assert_int_eq(file_sim_create(world->sim, "raw", CLUSTER, &disk),
	    0);
	ck_assert_int_eq(file_sim_open(disk, &file), 0);
	ck_assert_int_eq(image_open_file(file, &options, &image, &error), 0);
	ck_assert_int_eq(image_write(image, 0, data, sizeof(data), 0),
	    -EROFS);
	options.writable = true;
	ck_assert_int_eq(image_reopen(image, &options, &error), 0);
	ck_assert_int_eq(image_write(image, 512, data, sizeof(data), 0), 0);
	options.writable = false;
	ck_assert_int_eq(image_reopen(image, &options, &error), 0);
	file_sim_poke(disk, data, sizeof(data), 2 * CLUSTER - sizeof(data));
	ck_assert_int_eq(image_invalidate(image, &options, &error), 0);
	ck_assert_uint_eq(image_size_bytes(image), 2 * CLUSTER);
	memset(data, 0, sizeof(data));
	ck_assert_int_eq(image_read(image, 512, data, sizeof(data), NULL), 0);
	ck_assert(is_all(data, sizeof(data), NEW));
	ck_assert_int_eq(image_close(image), 0);
	file_close(disk);
}

START_TEST(raw_image_can_be_reopened)
{
	world_play(&(struct world_options){.seed = (uint64_t)_i}, reopen_raw);
}
END_TEST

/* ---- beside requests ---- */

#define CLIENTS 4
#define REQUESTS 200
#define PLACES 48

/* A client has every fourth cluster. */
struct client {
	struct world *world;
	unsigned number;
	unsigned written, refused;
	uint8_t values[PLACES];
	bool done;
	struct co_start start;
};

static struct client clients[CLIENTS];

co_fn static void
ask(struct client *client, unsigned round)
{
	struct world *world = client->world;
	uint64_t place = sim_below(world->sim, PLACES);
	uint8_t *value = &client->values[place];
	uint64_t guest = (place * CLIENTS + client->number) * CLUSTER;
	uint8_t data[CLUSTER], wanted = (uint8_t)(round + 1);
	int err;

	switch (sim_below(world->sim, 5)) {
	case 0:
	case 1:
		memset(data, wanted, sizeof(data));
		err = image_write(world->image, guest, data, sizeof(data),
		    sim_below(world->sim, 4) ? 0 : IMAGE_FUA);
		break;
	case 2:
		wanted = 0;
		err = image_discard(world->image, guest, CLUSTER, 0);
		break;
	case 3:
		err = image_flush(world->image);
		ck_assert_int_eq(err, 0);
		return;
	default:
		world_expect(world, guest, CLUSTER, *value);
		return;
	}
	ck_assert_msg(!err || err == -EROFS, "%d", err);
	if (!err)
		*value = wanted;
	client->written += !err;
	client->refused += !!err;
}

co_fn static void
client_main(void *arg)
{
	struct client *client = arg;

	for (unsigned round = 0; round < REQUESTS; round++) {
		ask(client, round);
		if (sim_below(client->world->sim, 3) == 0)
			loop_sleep(sim_below(client->world->sim, 400000));
	}
	client->done = true;
}

static bool
all_done(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!clients[i].done)
			return false;
	return true;
}

/* A snapshot comes and goes, too, if the image is for writing just then. */
co_fn static void
take_snapshot(struct world *world, struct request *request)
{
	if (request->done)
		ck_assert_msg(!request->err || request->err == -EROFS ||
		    request->err == -EEXIST || request->err == -ENOENT, "%d",
		    request->err);
	if (!request->done || sim_below(world->sim, 3))
		return;
	*request = request_of(sim_below(world->sim, 2) ?
	    ACTION_SNAPSHOT_CREATE : ACTION_SNAPSHOT_DELETE, 1, 0, 0, 0);
	request_start(world, 1, request);
}

co_fn static void
expect_all(struct world *world)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned place = 0; place < PLACES; place++)
			world_expect(world, (place * CLIENTS + i) *
			    (uint64_t)CLUSTER, CLUSTER,
			    clients[i].values[place]);
}

static unsigned switches, invalidations;

co_fn static void
reopen_beside_clients(struct world *world)
{
	struct request snapshot = {.done = true};
	bool writable = true;

	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = (struct client){.world = world, .number = i};
		sim_start(world->sim, i % 2, &clients[i].start, client_main,
		    &clients[i]);
	}
	while (!all_done()) {
		int err;

		if (sim_below(world->sim, 4) == 0) {
			err = invalidate(world);
			ck_assert_msg(!err || err == -EBUSY, "%s",
			    world->error.message);
			invalidations += !err;
		} else {
			writable = sim_below(world->sim, 3) > 0;
			must_reopen(world, writable);
			switches++;
		}
		take_snapshot(world, &snapshot);
		loop_sleep(sim_below(world->sim, 1000000));
	}
	while (!snapshot.done)
		loop_sleep(1000000);
	expect_all(world);
	must_reopen(world, true);
}

START_TEST(reopening_beside_requests)
{
	struct world_options options = {
		.seed = (uint64_t)_i, .encrypted = _i % 4 == 3,
		.cache_bytes = _i % 5 == 4,
	};
	struct world world;
	unsigned written = 0;

	switches = 0;
	invalidations = 0;
	world_create(&world, &options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, reopen_beside_clients);
	ck_assert_int_eq(world_close(&world), 0);
	world_assert_clean(&world);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, expect_all);
	world_finish(&world);
	for (unsigned i = 0; i < CLIENTS; i++)
		written += clients[i].written;
	ck_assert_uint_gt(written, 0);
	ck_assert_uint_gt(switches, 0);
}
END_TEST

#define SEEDS 60

int
main(void)
{
	Suite *suite = suite_create("reopening");
	TCase *steps = tcase_create("steps");
	TCase *random = tcase_create("random");

	tcase_add_loop_test(steps, another_hosts_writes_are_seen, 0, 12);
	tcase_add_loop_test(steps, busy_image_is_not_invalidated, 0, 8);
	tcase_add_loop_test(steps, lost_image_gives_errors_and_comes_back, 0,
	    8);
	tcase_add_test(steps, another_image_in_its_place_is_refused);
	tcase_add_loop_test(steps, failed_image_is_read_anew, 0, 8);
	tcase_add_loop_test(steps, dirty_bit_goes_with_the_writing, 0, 8);
	tcase_add_loop_test(steps, dirty_image_is_repaired_for_writing, 0, 8);
	tcase_add_loop_test(steps, corrupt_image_stays_readable, 0, 4);
	tcase_add_loop_test(steps, nothing_is_lost_or_leaked_on_the_way, 0,
	    12);
	tcase_add_loop_test(steps, failure_leaves_it_writing, 0, 8);
	tcase_add_loop_test(steps, keys_stay_unless_given, 0, 4);
	tcase_add_loop_test(steps, chain_is_opened_with_it, 0, 4);
	reopening_add_reading_on(steps);
	tcase_add_loop_test(steps, raw_image_can_be_reopened, 0, 4);
	suite_add_tcase(suite, steps);
	tcase_set_timeout(random, 60);
	tcase_add_loop_test(random, reopening_beside_requests, 0, SEEDS);
	suite_add_tcase(suite, random);
	return world_main(suite);
}
