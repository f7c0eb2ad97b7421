/* SPDX-License-Identifier: MIT */
/*
 * Random schedules: a crew of clients on two simulated loops, mixed requests
 * to a few clusters, every order of completion that the seed brings.
 *
 *	schedules IMAGE FIRST-SEED COUNT [packed|staying]
 *
 * IMAGE is an empty qcow2 file.  packed: half of the writes are of compressed
 * clusters; staying: with discard=no-unref.  After each: no read saw a byte
 * that its sector must not have (sectors say who wrote them), nothing waits for
 * ever, and the file is clean.  A failure prints its seed; run it alone with
 * COUNT 1.
 *
 * Guards against: host clusters reused while I/O is in flight (R1 to R3),
 * overlapping changes of one mapping (R8), punches after reuse (R5), two users
 * of one cluster (R6, R10, R12), streams packed into clusters that are freed
 * (R9), lost wakes and deadlocks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/log.h"
#include "tests/crash/crew.h"

/* Everything on top of each other in a few clusters. */
static const struct crew_options narrow = {
	.loops = 2, .clients = 6, .requests = 30,
	.reads = 4, .writes = 5, .zeros = 2, .trims = 3, .flushes = 2,
	.fua_one_in = 8, .length_max = 16384,
	.places = 2, .place_bytes = 32768,
};

/* The same with compressed clusters, which share host clusters. */
static const struct crew_options packed = {
	.loops = 2, .clients = 6, .requests = 30,
	.reads = 5, .writes = 7, .zeros = 1, .trims = 4, .flushes = 2,
	.compressed_one_in = 2, .fua_one_in = 8, .length_max = 16384,
	.places = 2, .place_bytes = 32768,
};

/* As narrow, with clusters that keep their place, and zeros that leave them. */
static const struct crew_options staying = {
	.loops = 2, .clients = 6, .requests = 30,
	.discard = IMAGE_DISCARD_NO_UNREF, .leaves_room = true,
	.reads = 4, .writes = 6, .zeros = 3, .trims = 3, .flushes = 2,
	.fua_one_in = 8, .length_max = 16384,
	.places = 2, .place_bytes = 32768,
};

/* The options of that name, NULL for none; or NULL. */
static const struct crew_options *
find_options(const char *name)
{
	if (!name)
		return &narrow;
	if (!strcmp(name, "packed"))
		return &packed;
	return strcmp(name, "staying") ? NULL : &staying;
}

static int
try_seed(struct file *base, const struct crew_options *how, uint64_t seed,
    bool alone)
{
	struct crew_options options = *how;
	struct crew crew;
	int failed;

	options.seed = seed;
	crew_create(&crew, &options, base);
	crew_open(&crew);
	crew_work(&crew);
	crew_read_all(&crew);
	crew_close(&crew);
	if (!crew.failure[0])
		crew_check(&crew);
	if (crew.errors)
		crew_fail(&crew, "%u requests failed", crew.errors);
	failed = crew.failure[0] != '\0';
	if (failed)
		printf("seed %llu: %s\n", (unsigned long long)seed,
		    crew.failure);
	if (failed && alone)
		crew_print(&crew);
	if (!strncmp(crew.failure, "deadlock", 8))
		exit(1);	/* its coroutines cannot be freed */
	crew_free(&crew);
	return failed;
}

int
main(int argc, char **argv)
{
	const struct crew_options *how = NULL;
	uint64_t first, count, failed = 0;
	struct file *base;

	if (argc == 4 || argc == 5)
		how = find_options(argv[4]);
	if (!how) {
		fprintf(stderr, "usage: schedules IMAGE FIRST-SEED COUNT "
		    "[packed|staying]\n");
		return 64;
	}
	first = strtoull(argv[2], NULL, 10);
	count = strtoull(argv[3], NULL, 10);
	if (file_sim_create(NULL, "disk", 0, &base) ||
	    file_sim_load(base, argv[1])) {
		fprintf(stderr, "cannot load %s\n", argv[1]);
		return 1;
	}
	for (uint64_t i = 0; i < count && failed < 10; i++)
		failed += (uint64_t)try_seed(base, how, first + i,
		    count == 1);
	file_close(base);
	printf("%s: %llu schedules from seed %llu, %llu failed\n", argv[1],
	    (unsigned long long)count, (unsigned long long)first,
	    (unsigned long long)failed);
	return failed > 0;
}
