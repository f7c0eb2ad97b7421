/* SPDX-License-Identifier: MIT */
/*
 * Random schedules of snapshots and lengths: a keeper makes, deletes and
 * applies snapshots, and a resizer makes the disk longer and shorter, beside a
 * crew of clients, on two simulated loops.
 *
 *	snapshot_schedules [OPTIONS] IMAGE FIRST-SEED COUNT
 *
 *	-b FILE		what stands below IMAGE; raw if its name ends so
 *	-c		half of the writes are of compressed clusters
 *	-f		IMAGE is full in its first three quarters, and so are
 *			the snapshots that it has
 *	-n		no snapshots are made
 *	-r		the disk is resized, up to thrice its length
 *	-s		clusters keep their place: discard=no-unref
 *	-o FILE		keep the disk of the last seed there
 *
 * After each: no read saw a byte that its sector must not have, of the disk or
 * of any snapshot; those that were made and not deleted are there, and no
 * others; the disk is what was applied last, and what was written since, as
 * long as it was made last, and what is behind that is refused; nothing waits
 * for ever; the file is clean.  A failure prints its seed; run it alone with
 * COUNT 1.
 *
 * Guards against: writes that a snapshot's moment meets half way (R14), tables
 * that are changed though they are shared, references that are counted twice
 * or not at all, tables that are freed while somebody is in them; a disk that
 * becomes longer and shows what had been cut off, or a backing file, or loses
 * what is written meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/log.h"
#include "tests/crash/crew.h"

/* A few clusters of several tables. */
static const struct crew_options narrow = {
	.loops = 2, .clients = 5, .requests = 25,
	.reads = 3, .writes = 6, .zeros = 2, .trims = 2, .flushes = 1,
	.fua_one_in = 8, .length_max = 16384,
	.places = 3, .place_bytes = 16384,
	.operations = 8, .creates = 5, .deletes = 3, .applies = 1,
};

/* Of each run, if it is resized; and how often its length the disk may get. */
#define RESIZES 6
#define GROWTH 3

struct call {
	struct file *base;
	struct file *backing;
	bool backing_is_raw;
	bool is_full, is_packed, is_staying, is_resized, has_no_snapshots;
	const char *keep_path;
	uint64_t first, count;
};

struct totals {
	uint64_t failed, refused, done;
};

struct judging {
	struct crew *crew;
	char failure[1024];
};

co_fn static void
judge_snapshots(void *arg)
{
	struct judging *judging = arg;
	struct crew *crew = judging->crew;

	if (keeper_judge(crew, crew->disk, RECORD_NEVER, judging->failure,
	    sizeof(judging->failure)))
		crew_fail(crew, "%s", judging->failure);
}

co_fn static void
apply_one(void *arg)
{
	keeper_do(arg, KEEPER_APPLY);
}

static void
run(struct crew *crew, void (*fn)(void *arg), void *arg)
{
	struct co_start start;

	if (crew->failure[0])
		return;
	sim_start(crew->sim, 0, &start, fn, arg);
	if (sim_run(crew->sim) != SIM_DONE)
		crew_fail(crew, "deadlock of the keeper");
}

/* With requests, without, and what is left. */
static void
play(struct crew *crew)
{
	struct judging judging = {.crew = crew};

	crew_open(crew);
	crew_work(crew);
	crew_read_all(crew);
	if (crew->image && crew->options.operations > 0 &&
	    sim_below(crew->sim, 2))
		run(crew, apply_one, crew);
	crew_read_all(crew);
	crew_close(crew);
	if (!crew->failure[0])
		crew_check(crew);
	run(crew, judge_snapshots, &judging);
	if (crew->errors)
		crew_fail(crew, "%u requests failed", crew->errors);
}

static void
try_seed(const struct call *call, uint64_t seed, struct totals *totals)
{
	struct crew_options options = narrow;
	struct crew crew;

	options.seed = seed;
	options.backing = call->backing;
	options.backing_is_raw = call->backing_is_raw;
	options.content = call->is_full ? CREW_FILLED : CREW_EMPTY;
	options.compressed_one_in = call->is_packed ? 2 : 0;
	options.leaves_room = call->is_staying;
	if (call->is_staying)
		options.discard = IMAGE_DISCARD_NO_UNREF;
	if (call->is_resized) {
		options.resizes = RESIZES;
		options.growth = GROWTH;
	}
	if (call->has_no_snapshots)
		options.operations = 0;
	crew_create(&crew, &options, call->base);
	play(&crew);
	totals->refused += crew.keeper.refused;
	totals->done += crew.keeper.done;
	if (crew.failure[0]) {
		totals->failed++;
		printf("seed %llu: %s\n", (unsigned long long)seed,
		    crew.failure);
		if (call->count == 1)
			crew_print(&crew);
	}
	if (!strncmp(crew.failure, "deadlock", 8))
		exit(1);	/* its coroutines cannot be freed */
	if (call->keep_path && seed == call->first + call->count - 1)
		crew_must(file_sim_save(crew.disk, call->keep_path), "save");
	crew_free(&crew);
}

static void
usage(void)
{
	fprintf(stderr, "usage: snapshot_schedules [-cfnrs] [-b FILE] "
	    "[-o FILE] IMAGE FIRST-SEED COUNT\n");
	exit(64);
}

static struct file *
load(const char *path)
{
	struct file *file;

	if (!file_sim_create(NULL, "disk", 0, &file) &&
	    !file_sim_load(file, path))
		return file;
	fprintf(stderr, "cannot load %s\n", path);
	exit(1);
}

static void
read_options(int argc, char **argv, struct call *call)
{
	const char *dot;
	int letter;

	while ((letter = getopt(argc, argv, "b:cfno:rs")) != -1) {
		if (letter == 'b') {
			call->backing = load(optarg);
			dot = strrchr(optarg, '.');
			call->backing_is_raw = dot && !strcmp(dot, ".raw");
		} else if (letter == 'c') {
			call->is_packed = true;
		} else if (letter == 'f') {
			call->is_full = true;
		} else if (letter == 's') {
			call->is_staying = true;
		} else if (letter == 'n') {
			call->has_no_snapshots = true;
		} else if (letter == 'r') {
			call->is_resized = true;
		} else if (letter == 'o') {
			call->keep_path = optarg;
		} else {
			usage();
		}
	}
	if (argc - optind != 3)
		usage();
}

int
main(int argc, char **argv)
{
	struct call call = {0};
	struct totals totals = {0};

	read_options(argc, argv, &call);
	argv += optind;
	call.base = load(argv[0]);
	call.first = strtoull(argv[1], NULL, 10);
	call.count = strtoull(argv[2], NULL, 10);
	if (call.count != 1)
		log_set_level(LOG_LEVEL_ERROR);
	for (uint64_t i = 0; i < call.count && totals.failed < 10; i++)
		try_seed(&call, call.first + i, &totals);
	file_close(call.base);
	if (call.backing)
		file_close(call.backing);
	printf("%s: %llu schedules from seed %llu, %llu operations, %llu "
	    "refused, %llu failed\n", argv[0],
	    (unsigned long long)call.count, (unsigned long long)call.first,
	    (unsigned long long)totals.done,
	    (unsigned long long)totals.refused,
	    (unsigned long long)totals.failed);
	return totals.failed > 0;
}
