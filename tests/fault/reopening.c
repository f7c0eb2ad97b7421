/* SPDX-License-Identifier: MIT */
/*
 * An image is opened anew while its disk, or the one below it, fails: every
 * operation fails once, and from then on, or is short; and every allocation.
 *
 * Whatever happens, image_reopen() that fails leaves the image reading and
 * writing as it did (a failed sync takes the writing away, O6, as ever), and
 * image_invalidate() leaves it so or lost, which is told and gives errors; what
 * was flushed is there; and once the disk works again, the same works.
 *
 * Guards against: errors that are swallowed, half an opening, the lock of
 * operations or the door left closed, a reserve that is used though it was
 * given back, old tables that are believed after a failure.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/header_update.h"
#include "qcow2/image_chain.h"
#include "qcow2/image_reopen.h"
#include "qcow2/internal.h"
#include "runtime/buf.h"
#include "runtime/sanitizers.h"
#include "tests/fault/allocator.h"
#include "tests/key.h"
#include "tests/schedule/world.h"

#define CLUSTER 1024u
#define OLD 5
#define NEW 6
#define LATER 7
#define BELOW 77

/* On disk since long: old data; what was written just before; and below. */
#define OLD_BYTES (20 * CLUSTER)
#define NEW_AT (200 * CLUSTER)
#define NEW_BYTES (30 * CLUSTER)
#define LATER_AT (400 * CLUSTER)
#define BELOW_AT (100 * CLUSTER)
#define BELOW_BYTES (4 * CLUSTER)

#define DIRTY_OFFSET 72
#define LAZY_OFFSET 80

enum way {
	TO_READING,
	TO_WRITING,
	TO_WRITING_DIRTY,	/* which repairs it */
	ANEW_READING,
	ANEW_WRITING,
	WAYS,
};

static const struct layout {
	bool lazy;
	bool encrypted;
	bool below;
} layouts[] = {
	{false, false, false},
	{true, true, false},
	{false, false, true},
};

static const struct trouble {
	unsigned kinds;		/* 0: of memory */
	int result;
	bool for_good;
} troubles[] = {
	{FILE_SIM_ANY, -EIO, false},
	{FILE_SIM_ANY, -EIO, true},
	{FILE_SIM_WRITE | FILE_SIM_ALLOCATE | FILE_SIM_TRUNCATE, -ENOSPC,
	    false},
	{FILE_SIM_READ | FILE_SIM_WRITE, 511, false},
	{FILE_SIM_ANY, -EINTR, false},
	{0, -ENOMEM, false},
	{0, -ENOMEM, true},
};

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* The sanitizer is slow. */
#ifdef WITH_ASAN
#define STRIDE 3
#else
#define STRIDE 1
#endif

struct trial {
	const struct layout *layout;
	const struct trouble *trouble;	/* NULL: none */
	enum way way;
	bool is_below;			/* whose disk fails */
	unsigned kind;
	uint64_t nth;
	uint64_t operations;		/* that could have failed */
	struct file *found;		/* the disk, in plain mode */
	struct file *below;
	struct world world;
};

static char now[128];

static void
tell(void)
{
	if (*now)
		fprintf(stderr, "in %s\n", now);
}

/* ---- images ---- */

static bool
is_anew(enum way way)
{
	return way == ANEW_READING || way == ANEW_WRITING;
}

static bool
begins_writing(enum way way)
{
	return way == TO_READING || way == ANEW_WRITING;
}

static struct image_options
options_of(const struct trial *trial, bool writable)
{
	return (struct image_options){
		.format = IMAGE_QCOW2, .writable = writable, .loops = 2,
		.metadata_cache_bytes = 65536,
		.keys = &test_key, .keys_count = trial->layout->encrypted,
	};
}

co_fn static int
open_anew(struct trial *trial, bool writable)
{
	struct image_options options = options_of(trial, writable);
	struct world *world = &trial->world;

	/* It keeps its key. */
	options.keys_count = 0;
	return is_anew(trial->way) ?
	    image_invalidate(world->image, &options, &world->error) :
	    image_reopen(world->image, &options, &world->error);
}

co_fn static void
open_below(struct trial *trial)
{
	struct image_options options = {.format = IMAGE_RAW, .loops = 2};
	struct error error;
	struct file *file;

	ck_assert_int_eq(file_sim_open(trial->below, &file), 0);
	ck_assert_int_eq(image_open_file(file, &options,
	    &trial->world.image->backing, &error), 0);
}

co_fn static void
open_first(struct trial *trial)
{
	struct image_options options = options_of(trial,
	    begins_writing(trial->way));
	struct world *world = &trial->world;
	struct file *file;

	ck_assert_int_eq(file_sim_open(world->disk, &file), 0);
	ck_assert_int_eq(image_open_file(file, &options, &world->image,
	    &world->error), 0);
	if (trial->layout->below)
		open_below(trial);
}

/* ---- the disk as it is found ---- */

co_fn static void
fill(struct world *world)
{
	static const struct header_backing backing = {"below", "raw"};
	struct trial *trial = world->arg;

	world_write(world, 0, OLD_BYTES, OLD);
	if (trial->layout->below)
		ck_assert_int_eq(image_set_backing(world->image, &backing,
		    &world->error), 0);
}

static void
create_disk(struct trial *trial)
{
	struct world_options options = {
		.seed = 1, .cluster_bytes = CLUSTER,
		.disk_bytes = 512 * CLUSTER,
		.encrypted = trial->layout->encrypted,
	};
	struct world *world = &trial->world;

	world_create(world, &options);
	world->arg = trial;
	if (trial->layout->lazy)
		world_poke64(world, LAZY_OFFSET, HEADER_LAZY_REFCOUNTS);
	ck_assert_int_eq(world_open(world), 0);
	world_run(world, fill);
	ck_assert_int_eq(world_close(world), 0);
	if (trial->way == TO_WRITING_DIRTY) {
		uint64_t entry = world_peek64(world,
		    world_l2_entry(world, CLUSTER));

		file_sim_poke(world->disk, "\0", 2,
		    world_refcount(world, entry_host(entry)));
		world_poke64(world, DIRTY_OFFSET, HEADER_DIRTY);
	}
	ck_assert_int_eq(file_sim_clone(world->disk, NULL, &trial->found), 0);
	world_free(world);
}

/* ---- one trial ---- */

co_fn static void
write_before(struct world *world)
{
	world_write(world, NEW_AT, NEW_BYTES, NEW);
	world_discard(world, NEW_AT, 4 * CLUSTER);
}

static struct file *
troubled(struct trial *trial)
{
	return trial->is_below ? trial->below : trial->world.disk;
}

static void
begin_trouble(struct trial *trial)
{
	const struct trouble *trouble = trial->trouble;
	struct file_sim_fault fault = {
		.kinds = trial->kind, .nth = trial->nth,
	};

	if (!trial->kind) {
		buf_pool_drain();
		allocator_begin(trouble ? trial->nth : 0,
		    trouble && trouble->for_good);
	} else if (trouble) {
		fault.result = trouble->result;
		fault.from_then_on = trouble->for_good;
		file_sim_fail(troubled(trial), &fault);
	} else {
		trial->operations = file_sim_count(troubled(trial),
		    trial->kind);
	}
}

static void
end_trouble(struct trial *trial)
{
	uint64_t failed;

	if (!trial->kind)
		trial->operations = allocator_end(&failed);
	else if (!trial->trouble)
		trial->operations = file_sim_count(troubled(trial),
		    trial->kind) - trial->operations;
	file_sim_heal(troubled(trial));
}

/* Whether there is nothing but one of the two. */
co_fn static void
expect_either(struct world *world, uint64_t guest, uint64_t length,
    uint8_t value, uint8_t other)
{
	uint8_t data[CLUSTER];

	for (uint64_t at = guest; at < guest + length; at += CLUSTER) {
		ck_assert_int_eq(image_read(world->image, at, data,
		    sizeof(data), NULL), 0);
		ck_assert(is_all(data, sizeof(data), value) ||
		    is_all(data, sizeof(data), other));
	}
}

/* lost: what was not flushed may be. */
co_fn static void
expect_all(struct trial *trial, bool lost)
{
	struct world *world = &trial->world;

	world_expect(world, 0, OLD_BYTES, OLD);
	world_expect(world, NEW_AT, 4 * CLUSTER, 0);
	world_expect(world, LATER_AT + 4 * CLUSTER, CLUSTER, 0);
	if (trial->layout->below)
		world_expect(world, BELOW_AT, BELOW_BYTES, BELOW);
	if (begins_writing(trial->way))
		expect_either(world, NEW_AT + 4 * CLUSTER,
		    NEW_BYTES - 4 * CLUSTER, NEW, lost ? 0 : NEW);
}

co_fn static int
try_to_write(struct world *world)
{
	uint8_t data[CLUSTER];

	memset(data, LATER, sizeof(data));
	return image_write(world->image, LATER_AT, data, sizeof(data), 0);
}

/* Operations work, too. */
co_fn static void
write_more(struct world *world)
{
	world_write(world, LATER_AT, 4 * CLUSTER, LATER);
	world_expect(world, LATER_AT, 4 * CLUSTER, LATER);
	world_snapshot(world, CREATE, 1);
	world_snapshot(world, DELETE, 1);
	world_flush(world);
}

/* All requests fail, until it is read anew. */
co_fn static void
judge_lost(struct trial *trial)
{
	struct image_options options = options_of(trial, false);
	struct world *world = &trial->world;
	uint8_t data[CLUSTER];

	ck_assert(is_anew(trial->way));
	ck_assert_ptr_nonnull(strstr(world->error.message,
	    "cannot be read anew"));
	ck_assert_int_eq(image_read(world->image, 0, data, sizeof(data),
	    NULL), -EIO);
	ck_assert_int_eq(try_to_write(world), -EIO);
	options.keys_count = 0;
	ck_assert_msg(!image_invalidate(world->image, &options,
	    &world->error), "%s", world->error.message);
}

co_fn static void
judge_failure(struct trial *trial, int err)
{
	struct world *world = &trial->world;
	bool writable = begins_writing(trial->way), failed;

	ck_assert(trial->trouble && trial->trouble->result == err);
	ck_assert_uint_gt(strlen(world->error.message), 0);
	ck_assert(image_writable(world->image) == writable);
	failed = world->image->failed;
	if (atomic_load(&world->image->door.lost)) {
		judge_lost(trial);
		expect_all(trial, failed);
		return;
	}
	expect_all(trial, failed);
	if (!writable) {
		ck_assert_int_eq(try_to_write(world), -EROFS);
	} else if (failed) {
		struct image_options options = options_of(trial, true);

		ck_assert_int_eq(try_to_write(world), -EIO);
		options.keys_count = 0;
		ck_assert_int_eq(image_invalidate(world->image, &options,
		    &world->error), 0);
		expect_all(trial, true);
	} else {
		write_more(world);
	}
}

co_fn static void
try(struct world *world)
{
	struct trial *trial = world->arg;
	bool writable = trial->way == TO_WRITING ||
	    trial->way == TO_WRITING_DIRTY, failed;
	int err;

	open_first(trial);
	if (begins_writing(trial->way))
		write_before(world);
	begin_trouble(trial);
	err = open_anew(trial, writable);
	end_trouble(trial);
	failed = err && world->image->failed;
	if (err)
		judge_failure(trial, err);
	err = open_anew(trial, writable);
	ck_assert_msg(!err, "again: %s", world->error.message);
	/* The first write has been found out not to be lost by now. */
	expect_all(trial, true);
	if (image_writable(world->image))
		write_more(world);
	else
		ck_assert_int_eq(try_to_write(world), -EROFS);
	err = image_close(world->image);
	world->image = NULL;
	ck_assert(!err || failed);
}

static void
run(struct trial *trial)
{
	struct world_options options = {
		.seed = trial->nth + 1, .cluster_bytes = CLUSTER,
		.encrypted = trial->layout->encrypted,
	};
	struct check_result result;
	uint8_t data[BELOW_BYTES];

	snprintf(now, sizeof(now), "layout %d, way %u: %s %llu%s returns %d%s",
	    (int)(trial->layout - layouts), trial->way, trial->kind ?
	    file_sim_kind_name(trial->kind) : "allocation",
	    (unsigned long long)trial->nth, trial->is_below ? " below" : "",
	    trial->trouble ? trial->trouble->result : 0,
	    trial->trouble && trial->trouble->for_good ? " from then on" : "");
	world_clone(&trial->world, &options, trial->found);
	memset(data, BELOW, sizeof(data));
	ck_assert_int_eq(file_sim_create(trial->world.sim, "below",
	    512 * CLUSTER, &trial->below), 0);
	file_sim_poke(trial->below, data, sizeof(data), BELOW_AT);
	trial->world.arg = trial;
	world_run(&trial->world, try);
	result = world_check(&trial->world);
	ck_assert_uint_eq(result.corruptions, 0);
	ck_assert_uint_eq(result.check_errors, 0);
	if (!trial->trouble)
		ck_assert_uint_eq(result.leaks, 0);
	file_close(trial->below);
	world_free(&trial->world);
	now[0] = '\0';
}

static uint64_t
try_each(struct trial *trial, const struct trouble *trouble)
{
	uint64_t count, runs = 0;

	trial->trouble = NULL;
	trial->nth = 0;
	run(trial);
	count = trial->operations;
	trial->trouble = trouble;
	for (trial->nth = 1; trial->nth <= count; trial->nth += STRIDE) {
		run(trial);
		runs++;
	}
	return runs;
}

START_TEST(reopening_fails_as_a_whole)
{
	const struct trouble *trouble = &troubles[_i % COUNT(troubles)];
	int rest = _i / COUNT(troubles);
	struct trial trial = {
		.layout = &layouts[rest / WAYS], .way = rest % WAYS,
	};
	uint64_t runs = 0;

	atexit(tell);
	create_disk(&trial);
	if (!trouble->kinds)
		runs += try_each(&trial, trouble);
	for (unsigned kind = 1; kind <= FILE_SIM_ANY; kind *= 2) {
		if (!(trouble->kinds & kind))
			continue;
		trial.kind = kind;
		trial.is_below = false;
		runs += try_each(&trial, trouble);
		trial.is_below = trial.layout->below;
		if (trial.is_below)
			runs += try_each(&trial, trouble);
	}
	file_close(trial.found);
	printf("%llu runs\n", (unsigned long long)runs);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("reopening");
	TCase *faults = tcase_create("faults");

	tcase_set_timeout(faults, 120);
	tcase_add_loop_test(faults, reopening_fails_as_a_whole, 0,
	    COUNT(layouts) * WAYS * COUNT(troubles));
	suite_add_tcase(suite, faults);
	return world_main(suite);
}
