/* SPDX-License-Identifier: MIT */
/*
 * Crashes: what the disk may hold after a power loss at any moment of a random
 * workload, and what qnbd makes of it.
 *
 *	crash [-d DIRECTORY -n N] IMAGE WORKLOAD FIRST-SEED COUNT [STATE]
 *	crash IMAGE prepare
 *
 * IMAGE is a qcow2 file, empty or filled by "prepare" (and then, perhaps, with
 * a snapshot taken or compressed); WORKLOAD a name from the table below.  Each
 * seed is a run of clients on two simulated loops over a recorded disk, some
 * ("served", "leave") through the server and simulated sockets; from the record
 * all prefixes are built, and for each epoch every single write lost, every
 * single survivor, the order reversed, each write torn.  In every state the
 * check must find leaks at most, every sector must hold what the
 * oracle allows (flushes count for all clients), and writing must go on: new
 * data does not touch the old, and the check stays as good.
 *
 * With STATE only that one is visited, and everything is printed.  With -d one
 * state in N is written there, before anything is done to it, for other tools
 * to look at.
 *
 * Guards against: a missing or misplaced fdatasync of the barrier (O1 to O5),
 * reuse of clusters before their loss is stable (R4), zero fill skipped where
 * the disk may hold something, a flush that does not cover other clients.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "qcow2/check.h"
#include "runtime/log.h"
#include "tests/crash/crew.h"
#include "tests/crash/state.h"
#include "tests/schedule/server_crew.h"

struct workload {
	const char *name;
	struct crew_options options;
};

static const struct workload workloads[] = {
	/* Allocation, and flushes of others. */
	{"fill", {
		.loops = 2, .clients = 3, .requests = 8,
		.writes = 6, .flushes = 2, .fua_one_in = 6,
		.length_max = 8192, .places = 3, .place_bytes = 16384,
	}},
	/* Clusters come and go: copy-on-write, zeros, trims, reuse. */
	{"churn", {
		.loops = 2, .clients = 3, .requests = 10,
		.writes = 5, .zeros = 2, .trims = 2, .flushes = 3,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192,
	}},
	/* Much at once: new refcount blocks, larger tables, new reserves. */
	{"grow", {
		.loops = 2, .clients = 2, .requests = 10,
		.writes = 6, .zeros = 1, .trims = 1, .flushes = 3,
		.fua_one_in = 8, .length_max = 400000,
		.places = 8, .place_bytes = 65536,
	}},
	/* On content that is there: shared with a snapshot, compressed. */
	{"overwrite", {
		.loops = 2, .clients = 3, .requests = 8,
		.writes = 5, .zeros = 1, .trims = 1, .flushes = 4,
		.fua_one_in = 4, .length_max = 4096,
		.places = 4, .place_bytes = 8192, .prepared = true,
	}},
	/* The same few clusters, a flush after most writes. */
	{"flush", {
		.loops = 2, .clients = 4, .requests = 8,
		.writes = 4, .zeros = 1, .trims = 1, .flushes = 5,
		.fua_one_in = 2, .length_max = 4096,
		.places = 2, .place_bytes = 4096,
	}},
	/* The same through the server: what counts are its replies. */
	{"served", {
		.loops = 2, .clients = 3, .requests = 10,
		.reads = 1, .writes = 5, .zeros = 1, .trims = 1, .flushes = 4,
		.fua_one_in = 4, .length_max = 4096,
		.places = 2, .place_bytes = 4096, .served = true,
	}},
	/* One client that never flushes, but leaves, and comes again. */
	{"leave", {
		.loops = 2, .clients = 1, .requests = 12,
		.reads = 1, .writes = 6, .zeros = 1, .trims = 1,
		.length_max = 8192,
		.places = 2, .place_bytes = 8192, .served = true,
	}},
};

/* Where a sample of the states is kept, if anywhere. */
struct sample {
	const char *directory;
	uint64_t one_in;
	uint64_t seen;
};

/* One crash state under examination, in a small world of its own. */
struct trial {
	struct crew *crew;
	struct sim *sim;
	const struct crash_state *state;
	struct sample *sample;
	uint64_t leaks;
	bool verbose;
	char failure[1280];
};

static void
trial_fail(struct trial *trial, const char *what, const char *detail)
{
	if (!trial->failure[0])
		snprintf(trial->failure, sizeof(trial->failure), "%s: %s",
		    what, detail);
}

static void
print_line(void *arg, enum check_finding kind, const char *line)
{
	(void)arg;
	(void)kind;
	printf("\t%s\n", line);
}

/* ---- the verdict on one state ---- */

co_fn static void
check(struct trial *trial, const char *when)
{
	struct check_listener listener = {.report = print_line};
	struct check_result result;
	struct error error;
	char text[128];

	if (check_file_listen(trial->state->file, "disk",
	    trial->verbose ? &listener : NULL, &result, &error)) {
		trial_fail(trial, when, error.message);
		return;
	}
	if (result.corruptions || result.check_errors) {
		snprintf(text, sizeof(text), "%llu corruptions, %llu errors",
		    (unsigned long long)result.corruptions,
		    (unsigned long long)result.check_errors);
		trial_fail(trial, when, text);
	}
	trial->leaks = result.leaks;
}

co_fn static void
judge(struct trial *trial, struct image *image)
{
	uint64_t size = image_size_bytes(image) & ~511ull;
	size_t piece = 65536;
	uint8_t *data = malloc(piece);
	struct oracle_finding finding;
	char text[256];

	for (uint64_t offset = 0; data && offset < size; offset += piece) {
		size_t length = size - offset < piece ? size - offset : piece;
		int err = image_read(image, offset, data, length, NULL);

		if (err)
			trial_fail(trial, "read", strerror(-err));
		else if (oracle_judge_crash(trial->crew->oracle,
		    trial->state->point, offset, data, length, &finding) !=
		    ORACLE_GOOD)
			trial_fail(trial, "content", oracle_explain(&finding,
			    text, sizeof(text)));
	}
	free(data);
}

/* Writes over a part of the disk: what stands beside it must not change. */
co_fn static void
write_on(struct trial *trial, struct image *image)
{
	uint64_t size = image_size_bytes(image) & ~511ull;
	size_t length = size / 8 & ~(size_t)511;
	uint64_t offset = size / 2 & ~511ull;
	uint8_t *data = malloc(length), *back = malloc(length);
	int err;

	if (!data || !back)
		exit(1);
	memset(data, 0xdb, length);
	err = image_write(image, offset, data, length, 0);
	if (!err)
		err = image_flush(image);
	if (!err)
		err = image_read(image, offset, back, length, NULL);
	if (err)
		trial_fail(trial, "writing on", strerror(-err));
	else if (memcmp(data, back, length))
		trial_fail(trial, "writing on", "other data came back");
	free(data);
	free(back);
}

co_fn static void
examine(void *arg)
{
	struct trial *trial = arg;
	struct image_options options = {
		.format = IMAGE_QCOW2, .writable = true, .no_backing = true,
	};
	struct image *image;
	struct error error;
	struct file *handle;

	check(trial, "check");
	if (file_sim_open(trial->state->file, &handle))
		exit(1);
	if (image_open_file(handle, &options, &image, &error)) {
		trial_fail(trial, "open", error.message);
		return;
	}
	judge(trial, image);
	write_on(trial, image);
	if (image_close(image))
		trial_fail(trial, "close", "failed");
	check(trial, "check after writing on");
}

static void
keep_sample(struct trial *trial)
{
	struct sample *sample = trial->sample;
	char path[4096];
	int err;

	if (!sample->directory || sample->seen++ % sample->one_in)
		return;
	snprintf(path, sizeof(path), "%s/%llu-%llu.qcow2", sample->directory,
	    (unsigned long long)trial->crew->options.seed,
	    (unsigned long long)trial->state->number);
	err = file_sim_save(trial->state->file, path);
	if (err)
		trial_fail(trial, "saving the state", strerror(-err));
}

static int
visit(const struct crash_state *state, void *arg)
{
	struct trial *trial = arg;
	struct co_start start;

	trial->state = state;
	keep_sample(trial);
	sim_start(trial->sim, 0, &start, examine, trial);
	if (sim_run(trial->sim) != SIM_DONE)
		trial_fail(trial, "the world", "stopped");
	if (!trial->failure[0])
		return 0;
	printf("state %llu at %llu, %s: %s\n",
	    (unsigned long long)state->number,
	    (unsigned long long)state->point, state->text, trial->failure);
	return 1;
}

/* ---- seeds ---- */

struct totals {
	uint64_t states, distinct, failed;
};

static void
explore(struct crew *crew, struct file *base, const uint64_t *only,
    struct sample *sample, struct totals *totals)
{
	struct crash_options options = crash_defaults;
	struct trial trial = {
		.crew = crew, .verbose = only, .sample = sample,
	};
	struct crash_counts counts = {0};

	options.seed = crew->options.seed;
	if (only) {
		options.first = *only;
		options.count = 1;
	}
	if (sim_create(1, 1, &trial.sim))
		exit(1);
	if (crash_explore(crew->log, CREW_DISK, base, &options, visit,
	    &trial, &counts)) {
		totals->failed++;
		printf("\tof seed %llu\n",
		    (unsigned long long)crew->options.seed);
	}
	totals->states += counts.states;
	totals->distinct += counts.distinct;
	sim_free(trial.sim);
}

static void
try_seed(const struct workload *workload, struct file *base, uint64_t seed,
    const uint64_t *only, struct sample *sample, struct totals *totals)
{
	struct crew_options options = workload->options;
	struct crew crew;

	options.seed = seed;
	crew_create(&crew, &options, base);
	crew_open(&crew);
	if (options.served)
		server_crew_work(&crew);
	else
		crew_work(&crew);
	crew_close(&crew);
	if (crew.errors)
		crew_fail(&crew, "%u requests failed", crew.errors);
	if (only)
		crew_print(&crew);
	if (crew.failure[0]) {
		printf("seed %llu: %s\n", (unsigned long long)seed,
		    crew.failure);
		totals->failed++;
	} else {
		explore(&crew, base, only, sample, totals);
	}
	if (!strncmp(crew.failure, "deadlock", 8))
		exit(1);
	crew_free(&crew);
}

static const struct workload *
find_workload(const char *name)
{
	for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++)
		if (!strcmp(workloads[i].name, name))
			return &workloads[i];
	fprintf(stderr, "no workload is called %s\n", name);
	exit(64);
}

static int
prepare(const char *path, struct file *base)
{
	struct crew_options options = {.seed = 1, .loops = 1};
	struct crew crew;
	int err;

	crew_create(&crew, &options, base);
	crew_open(&crew);
	crew_prepare(&crew);
	crew_close(&crew);
	err = file_sim_save(crew.disk, path);
	if (err || crew.failure[0])
		fprintf(stderr, "%s: %s\n", path, err ? strerror(-err) :
		    crew.failure);
	crew_free(&crew);
	file_close(base);
	return err != 0;
}

static void
usage(void)
{
	fprintf(stderr, "usage: crash [-d DIRECTORY -n N] IMAGE WORKLOAD "
	    "FIRST-SEED COUNT [STATE]\n"
	    "       crash IMAGE prepare\n");
	exit(64);
}

static void
read_options(int argc, char **argv, struct sample *sample)
{
	int letter;

	while ((letter = getopt(argc, argv, "d:n:")) != -1) {
		if (letter == 'd')
			sample->directory = optarg;
		else if (letter == 'n')
			sample->one_in = strtoull(optarg, NULL, 10);
		else
			usage();
	}
	if (!sample->one_in)
		usage();
}

int
main(int argc, char **argv)
{
	struct sample sample = {.one_in = 1};
	const struct workload *workload;
	struct totals totals = {0};
	uint64_t first, count, state;
	struct file *base;

	log_set_level(LOG_LEVEL_NOTICE);
	read_options(argc, argv, &sample);
	argc -= optind;
	argv += optind;
	if (argc < 2)
		usage();
	if (file_sim_create(NULL, "disk", 0, &base) ||
	    file_sim_load(base, argv[0])) {
		fprintf(stderr, "%s cannot be loaded\n", argv[0]);
		return 1;
	}
	if (argc == 2 && !strcmp(argv[1], "prepare"))
		return prepare(argv[0], base);
	if (argc < 4)
		usage();
	workload = find_workload(argv[1]);
	first = strtoull(argv[2], NULL, 10);
	count = strtoull(argv[3], NULL, 10);
	state = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
	for (uint64_t i = 0; i < count && totals.failed < 5; i++)
		try_seed(workload, base, first + i, argc > 4 ? &state : NULL,
		    &sample, &totals);
	file_close(base);
	printf("%s %s: %llu states, %llu distinct, %llu failed\n", argv[0],
	    argv[1], (unsigned long long)totals.states,
	    (unsigned long long)totals.distinct,
	    (unsigned long long)totals.failed);
	return totals.failed > 0;
}
