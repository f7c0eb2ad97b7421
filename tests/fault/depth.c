/* SPDX-License-Identifier: MIT */
/*
 * The stack of a coroutine at the end of the longest chain there may be.
 *
 * Each image asks the one below it, in the same coroutine, so that the depth
 * of the stack is the length of the chain.  A write of less than a cluster
 * reads around itself through all of it, down to a compressed cluster, to one
 * that does not inflate and to a table with a bad entry, of which the log is
 * told from down there.  The guard page is the witness; how much was left above
 * it is printed.
 *
 * Guards against: frames on the way down that grow.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "qcow2/entry.h"
#include "qcow2/internal.h"
#include "runtime/loop_internal.h"
#include "runtime/log.h"
#include "tests/fault/base.h"

#define PAGE_BYTES 4096u

/* Of the stack; what a C library's printf may need on top of what is seen. */
#define LEFT_BYTES_MIN 8192u

#define CLUSTER_BYTES 65536u
#define CLUSTERS 8u

enum {
	AT_PLAIN,
	AT_COMPRESSED,
	AT_DAMAGED,	/* compressed, but not any more */
	AT_BAD_ENTRY,
};

static struct file *bottom;
static struct file *middle;
static size_t left_bytes;

static void
new_layer(struct world *world, uint64_t filled)
{
	struct layout layout = {
		.cluster_bytes = CLUSTER_BYTES,
		.disk_bytes = CLUSTERS * CLUSTER_BYTES,
		.filled_bytes = filled,
	};
	struct world_options options = {
		.seed = 1, .cluster_bytes = CLUSTER_BYTES,
	};
	struct base base;

	base_create(&base, &layout);
	world_clone(world, &options, base.disks[0]);
	base_free(&base);
}

static void
prepare_disks(void)
{
	struct world world;
	uint64_t at;

	new_layer(&world, CLUSTERS / 2 * CLUSTER_BYTES);
	world_compress(&world, AT_COMPRESSED * CLUSTER_BYTES, FOUND_TOP);
	world_compress(&world, AT_DAMAGED * CLUSTER_BYTES, FOUND_TOP);
	at = world_l2_entry(&world, AT_DAMAGED * CLUSTER_BYTES);
	world_poke64(&world, entry_compressed(world_peek64(&world, at),
	    16).host, UINT64_MAX);
	at = world_l2_entry(&world, AT_BAD_ENTRY * CLUSTER_BYTES);
	world_poke64(&world, at, 512);
	ck_assert_int_eq(file_sim_clone(world.disk, NULL, &bottom), 0);
	world_free(&world);
	new_layer(&world, 0);
	ck_assert_int_eq(file_sim_clone(world.disk, NULL, &middle), 0);
	world_free(&world);
}

/* ---- how much of a stack was touched ---- */

/* The lowest byte of the stack that address is on. */
static char *
stack_of(const void *address)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	uintptr_t begin, end, found = 0;
	char line[512];

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2 &&
		    begin <= (uintptr_t)address && (uintptr_t)address < end)
			found = begin;
	fclose(maps);
	ck_assert_uint_ne(found, 0);
	return (char *)found;
}

static size_t
untouched_bytes(char *stack)
{
	unsigned char pages[CO_STACK_BYTES / PAGE_BYTES];
	size_t count = 0;

	ck_assert_int_eq(mincore(stack, CO_STACK_BYTES, pages), 0);
	while (count < CO_STACK_BYTES / PAGE_BYTES && !(pages[count] & 1))
		count++;
	return count * PAGE_BYTES;
}

/* ---- the chain ---- */

co_fn static void
open_layers(struct world *world)
{
	struct image **imagep = &world->image;

	for (unsigned i = 0; i <= IMAGE_CHAIN_MAX; i++) {
		struct image_options options = {
			.format = IMAGE_QCOW2, .writable = i == 0,
			.no_backing = true, .loops = 2,
		};
		struct file *file, *handle;

		ck_assert_int_eq(file_sim_clone(i == IMAGE_CHAIN_MAX ?
		    bottom : middle, world->sim, &file), 0);
		ck_assert_int_eq(file_sim_open(file, &handle), 0);
		file_close(file);
		ck_assert_int_eq(image_open_file(handle, &options, imagep,
		    &world->error), 0);
		imagep = &(*imagep)->backing;
	}
}

co_fn static void
close_layers(struct world *world)
{
	ck_assert_int_eq(image_close(world->image), 0);
	world->image = NULL;
}

struct attempt {
	struct co_start start;
	struct world *world;
	unsigned cluster;
	int err;
	char *stack;
};

co_fn static void
write_around(void *arg)
{
	struct attempt *attempt = arg;
	static const char data[1024];

	attempt->stack = stack_of(&arg);
	attempt->err = image_write(attempt->world->image,
	    attempt->cluster * CLUSTER_BYTES + 3 * 512, data, sizeof(data), 0);
}

/* A coroutine of its own, whose stack nobody used before. */
static void
try_cluster(struct world *world, unsigned cluster, int expected)
{
	struct attempt attempt = {.world = world, .cluster = cluster};
	size_t left;

	co_pool_drain();
	sim_start(world->sim, 0, &attempt.start, write_around, &attempt);
	while (sim_run(world->sim) != SIM_DONE)
		;
	ck_assert_int_eq(attempt.err, expected);
	left = untouched_bytes(attempt.stack);
	if (left < left_bytes)
		left_bytes = left;
}

START_TEST(longest_chain)
{
	struct world world;

	log_set_level(LOG_LEVEL_ERROR);
	prepare_disks();
	left_bytes = CO_STACK_BYTES;
	for (unsigned cluster = AT_PLAIN; cluster <= AT_BAD_ENTRY; cluster++) {
		world_clone(&world, &(struct world_options){
			.seed = 1, .cluster_bytes = CLUSTER_BYTES,
		}, middle);
		world_run(&world, open_layers);
		try_cluster(&world, cluster, cluster >= AT_DAMAGED ? -EIO :
		    0);
		world_run(&world, close_layers);
		world_free(&world);
	}
	file_close(bottom);
	file_close(middle);
	printf("%u images below the top: %zu of %u bytes of a stack are "
	    "never touched\n", IMAGE_CHAIN_MAX, left_bytes, CO_STACK_BYTES);
	ck_assert_uint_ge(left_bytes, LEFT_BYTES_MIN);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("depth");
	TCase *tests = tcase_create("depth");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, longest_chain);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
