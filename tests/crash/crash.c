/* SPDX-License-Identifier: MIT */
/*
 * Crashes: what the disk may hold after a power loss at any moment of a
 * workload, and what qnbd makes of it.
 *
 *	crash [OPTIONS] IMAGE WORKLOAD FIRST-SEED COUNT [STATE]
 *	crash IMAGE prepare|prepare-places
 *
 *	-b FILE		what stands below IMAGE; raw if its name ends so
 *	-D BYTES	a block device so long with IMAGE on it, full of 0xa5
 *	-s STEP		from one seed to the next (1)
 *	-d DIRECTORY	keep states there, for other tools to look at
 *	-n N		one in so many of them (1)
 *
 * The workload "repair" is no crew's: IMAGE is damaged and repaired, and so is
 * what a crash leaves of that; repairing.h has the rest.
 *
 * IMAGE is a qcow2 file, empty or filled by "prepare" (and then, perhaps, with
 * a snapshot taken or compressed); WORKLOAD a name from workload.c.  Each seed
 * is a run of clients on simulated loops over a recorded disk, some ("served",
 * "leave") through the server and simulated sockets, from the opening to the
 * closing.  From the record all prefixes are built, and for
 * each epoch every single write lost, every single survivor, the order
 * reversed, subsets, lost sizes, each write torn; states that are equal, and
 * of which the oracle asks the same, are visited once in all seeds.  trial.h
 * says what happens there.  With STATE only that one is visited, and
 * everything is printed.
 *
 * What the workloads of a full crash test are called here:
 *
 *	W1	sequential fill			sequential
 *	W2	random 4 KiB			random
 *	W3	copy on write over a backing file	cover, with -b
 *	W4	overwrite after a snapshot	overwrite, sequences, bursts
 *	W5	writes, discards and zeros at once	collide, bursts, churn
 *	W6	write zeroes, unmap		zero
 *	W7	growing tables			grow, fill; the L1 table: resize
 *	W8	resizing		resize, resize-full, resize-snapshots,
 *						resize-tight, resize-close,
 *						resize-sequences,
 *						resize-bursts
 *	W9	snapshots			snapshots, snapshots-full,
 *						snapshot-sequences,
 *						snapshot-bursts
 *	W10	clean shutdown			close; the end of all others;
 *						reopen, reopen-full
 *	W11	compressed overwrite		overwrite, on compressed images
 *	W12	encryption			fill, churn, collide, overwrite,
 *						cover, on such images
 *	W14	ENOSPC, then a crash		full; fill, on a short device
 *	W15	autoclear bits			flush, on an image with bitmaps
 *	W16	4 connections with 16 requests	crowd
 *	W17	create				creation.c
 *	W18	repair				repair
 *	W19	commit				chains.c; also rebase, flatten
 *	all short sequences			sequences, bursts
 *
 * Not yet: W13 extended L2 entries.
 *
 * Guards against: a missing or misplaced fdatasync of the barrier (O1 to O5),
 * reuse of clusters before their loss is stable (R4), zero fill skipped where
 * the disk may hold something, a flush that does not cover other clients.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "runtime/log.h"
#include "tests/crash/repairing.h"
#include "tests/crash/trial.h"
#include "tests/crash/workload.h"

/* Failures until nobody reads on. */
#define FAILURES_MAX 5

/* The command line. */
struct call {
	const char *image;
	const char *workload_name;
	const struct workload *workload;	/* NULL: repair */
	const char *backing_path;
	uint64_t device_bytes;
	uint64_t first, count, step;
	const char *keep_directory;	/* or NULL */
	uint64_t keep_one_in;
	bool has_state;
	uint64_t state;
	struct file *base;
	struct file *backing;
};

/* What comes out. */
struct totals {
	uint64_t states, distinct;
	uint64_t clean, leaking, failed;
};

/* One seed, on its way through its states. */
struct run {
	const struct call *call;
	uint64_t seed;
	struct crew crew;
	struct repairing repairing;
	struct trial trial;
	struct seen *seen;
	struct totals *totals;
};

static void
tell_how_to_replay(const struct run *run, uint64_t state)
{
	const struct call *call = run->call;

	printf("\treplay: tests/crash/test-crash.sh --replay %s %s %llu %llu\n",
	    call->image, call->workload_name, (unsigned long long)run->seed,
	    (unsigned long long)state);
}

static void
keep(struct run *run, const struct crash_state *state)
{
	const struct call *call = run->call;
	char path[4096];
	int err;

	if (!call->keep_directory ||
	    run->totals->distinct % call->keep_one_in)
		return;
	snprintf(path, sizeof(path), "%s/%llu-%llu%s.qcow2",
	    call->keep_directory, (unsigned long long)run->seed,
	    (unsigned long long)state->number, call->workload &&
	    keeper_is_busy(&run->crew, state->point) ? "-busy" : "");
	err = file_sim_save(state->file, path);
	if (err)
		trial_fail(&run->trial, "saving the state", strerror(-err));
}

static int
visit(const struct crash_state *state, void *arg)
{
	struct run *run = arg;
	struct trial *trial = &run->trial;

	if (run->call->workload) {
		keep(run, state);
		trial_run(trial, state);
	} else {
		repairing_judge(&run->repairing, trial, state);
		keep(run, state);
	}
	run->totals->distinct++;
	if (!trial->failure[0]) {
		run->totals->clean += trial->leaks == 0;
		run->totals->leaking += trial->leaks > 0;
		return 0;
	}
	run->totals->failed++;
	printf("state %llu at %llu, %s: %s\n",
	    (unsigned long long)state->number,
	    (unsigned long long)state->point, state->text, trial->failure);
	tell_how_to_replay(run, state->number);
	return 1;
}

static uint64_t
context(uint64_t point, void *arg)
{
	struct run *run = arg;

	return oracle_allowed(run->crew.oracle, point) ^
	    keeper_allowed(&run->crew, point);
}

/* All else that a verdict on a repair depends on: the image and its damage. */
static uint64_t
repair_context(uint64_t point, void *arg)
{
	const struct run *run = arg;

	(void)point;
	return run->seed;
}

static void
explore(struct run *run, const struct record_log *log, unsigned source,
    struct file *base)
{
	const struct call *call = run->call;
	struct crash_options options = crash_defaults;
	struct crash_counts counts = {0};

	options.seed = run->seed;
	options.tear_ways = CRASH_TEAR_WAYS;
	options.seen = run->seen;
	options.context = call->workload ? context : repair_context;
	options.context_arg = run;
	if (call->has_state) {
		options.first = call->state;
		options.count = 1;
	}
	run->trial = (struct trial){
		.crew = &run->crew, .verbose = call->has_state,
		.base_hash = file_sim_hash(base),
	};
	if (sim_create(1, 1, &run->trial.sim))
		exit(1);
	crash_explore(log, source, base, &options, visit, run, &counts);
	run->totals->states += counts.states;
	sim_free(run->trial.sim);
}

/* By its name, which may be NULL. */
static bool
is_raw(const char *path)
{
	const char *dot = path ? strrchr(path, '.') : NULL;

	return dot && !strcmp(dot, ".raw");
}

static void
try_seed(const struct call *call, uint64_t seed, struct seen *seen,
    struct totals *totals)
{
	struct run run = {
		.call = call, .seed = seed, .seen = seen, .totals = totals,
	};
	struct crew *crew = &run.crew;

	workload_run(call->workload, seed, call->base, call->backing,
	    is_raw(call->backing_path), crew);
	if (call->has_state)
		crew_print(crew);
	if (!crew->failure[0]) {
		explore(&run, crew->log, CREW_DISK, call->base);
	} else {
		totals->failed++;
		printf("seed %llu: %s\n", (unsigned long long)seed,
		    crew->failure);
		tell_how_to_replay(&run, 0);
	}
	/* Coroutines that wait for ever cannot be freed. */
	if (!strncmp(crew->failure, "deadlock", 8))
		exit(1);
	crew_free(crew);
}

static void
try_repair(const struct call *call, uint64_t seed, struct seen *seen,
    struct totals *totals)
{
	struct run run = {
		.call = call, .seed = seed, .seen = seen, .totals = totals,
		.repairing = {.verbose = call->has_state},
	};
	struct repairing *repairing = &run.repairing;

	repairing_run(repairing, call->base, seed);
	if (call->has_state)
		printf("damage:%s\n", repairing->damage);
	if (!repairing->failure[0]) {
		explore(&run, repairing->log, REPAIRING_DISK,
		    repairing->damaged);
	} else {
		totals->failed++;
		printf("seed %llu:%s %s\n", (unsigned long long)seed,
		    repairing->damage, repairing->failure);
		tell_how_to_replay(&run, 0);
	}
	repairing_free(repairing);
}

static int
try_all(const struct call *call)
{
	struct totals totals = {0};
	struct seen seen = {0};
	double seconds;

	for (uint64_t i = 0; i < call->count &&
	    totals.failed < FAILURES_MAX; i++)
		(call->workload ? try_seed : try_repair)(call,
		    call->first + i * call->step, &seen, &totals);
	seen_free(&seen);
	seconds = (double)clock() / CLOCKS_PER_SEC;
	printf("%s %s: %llu states, %llu distinct: %llu clean, %llu with "
	    "leaks, %llu failed; %.0f states/s\n", call->image,
	    call->workload_name, (unsigned long long)totals.states,
	    (unsigned long long)totals.distinct,
	    (unsigned long long)totals.clean,
	    (unsigned long long)totals.leaking,
	    (unsigned long long)totals.failed,
	    (double)totals.distinct / (seconds > 0.01 ? seconds : 0.01));
	return totals.failed > 0;
}

static int
prepare(const struct call *call, enum crew_content content)
{
	struct crew_options options = {
		.seed = 1, .loops = 1, .content = content,
		.backing = call->backing,
		.backing_is_raw = is_raw(call->backing_path),
	};
	struct crew crew;
	int err;

	crew_create(&crew, &options, call->base);
	crew_open(&crew);
	crew_prepare(&crew);
	crew_close(&crew);
	err = file_sim_save(crew.disk, call->image);
	if (err || crew.failure[0])
		fprintf(stderr, "%s: %s\n", call->image,
		    err ? strerror(-err) : crew.failure);
	crew_free(&crew);
	return err != 0;
}

static void
usage(void)
{
	fprintf(stderr, "usage: crash [-b FILE] [-D BYTES] [-s STEP] "
	    "[-d DIRECTORY [-n N]]\n"
	    "           IMAGE WORKLOAD FIRST-SEED COUNT [STATE]\n"
	    "       crash IMAGE prepare|prepare-places\n");
	exit(64);
}

static struct file *
load(const char *path, uint64_t device_bytes)
{
	struct file *file;
	int err;

	if (device_bytes)
		err = file_sim_create_device(NULL, "disk", device_bytes, 0xa5,
		    &file);
	else
		err = file_sim_create(NULL, "disk", 0, &file);
	if (!err)
		err = file_sim_load(file, path);
	if (!err)
		return file;
	fprintf(stderr, "cannot load %s: %s\n", path, strerror(-err));
	exit(1);
}

static uint64_t
number_of(const char *text)
{
	char *end;
	uint64_t number = strtoull(text, &end, 10);

	if (end == text || *end)
		usage();
	return number;
}

static void
read_options(int argc, char **argv, struct call *call)
{
	int letter;

	while ((letter = getopt(argc, argv, "b:D:d:n:s:")) != -1) {
		if (letter == 'b')
			call->backing_path = optarg;
		else if (letter == 'D')
			call->device_bytes = number_of(optarg);
		else if (letter == 'd')
			call->keep_directory = optarg;
		else if (letter == 'n')
			call->keep_one_in = number_of(optarg);
		else if (letter == 's')
			call->step = number_of(optarg);
		else
			usage();
	}
	if (call->keep_one_in == 0 || argc - optind < 2)
		usage();
}

static void
read_words(int argc, char **argv, struct call *call)
{
	if (argc < 4 || argc > 5)
		usage();
	call->workload = workload_find(call->workload_name);
	if (!call->workload && strcmp(call->workload_name, "repair")) {
		fprintf(stderr, "no workload is called %s\n",
		    call->workload_name);
		exit(64);
	}
	call->first = number_of(argv[2]);
	call->count = number_of(argv[3]);
	call->has_state = argc == 5;
	if (call->has_state)
		call->state = number_of(argv[4]);
}

int
main(int argc, char **argv)
{
	struct call call = {.keep_one_in = 1, .step = 1};
	int status;

	read_options(argc, argv, &call);
	argc -= optind;
	argv += optind;
	call.image = argv[0];
	call.workload_name = argv[1];
	call.base = load(call.image, call.device_bytes);
	if (call.backing_path)
		call.backing = load(call.backing_path, 0);
	if (!strcmp(argv[1], "prepare")) {
		status = prepare(&call, CREW_FILLED);
	} else if (!strcmp(argv[1], "prepare-places")) {
		status = prepare(&call, CREW_PLACES);
	} else {
		read_words(argc, argv, &call);
		if (!call.has_state)
			log_set_level(LOG_LEVEL_ERROR);
		status = try_all(&call);
	}
	file_close(call.base);
	if (call.backing)
		file_close(call.backing);
	return status;
}
