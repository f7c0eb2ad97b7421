/* SPDX-License-Identifier: MIT */
/*
 * Every operation on the disk fails once, and from then on.
 *
 * A scenario is a handful of requests.  It is run without trouble to count its
 * operations of each kind, and then again for each of them, which returns an
 * error, is short or is interrupted; under two orders of completion.  After
 * each: requests have failed with that error or worked, all of the disk reads
 * as they say, and when the trouble is over writing goes on as if nothing had
 * been, except after a sync that failed (O6): then nothing is accepted until
 * the image is opened again.  The file has leaks at most.
 *
 * Guards against: errors that are swallowed or turned into others, requests
 * that never end, tables in memory that a failed write left wrong, clusters
 * given out twice, a failed sync that is tried again into success, a full disk
 * that needs a restart.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "tests/schedule/world.h"

#define SECTOR 512u
#define CLUSTER 1024u
#define DISK_BYTES (512u << 10)
#define SECTORS (DISK_BYTES / SECTOR)

/* The third L2 table's. */
#define FAR (256u << 10)

#define STEPS_MAX 8

struct step {
	enum action action;
	uint64_t guest;
	size_t length;
	unsigned flags;
};

struct scenario {
	const char *name;
	uint64_t cluster_bytes;
	bool opening;		/* the trouble begins before it is opened */
	bool closing;		/* or only when it is closed */
	unsigned count;
	struct step steps[STEPS_MAX];
};

#define CLUSTERS(n) ((n) * CLUSTER)

/*
 * Of the disk the first eight clusters are written, the second is compressed,
 * the third is also the ninth, tenth and eleventh; those two nobody touches.
 */
static const struct scenario scenarios[] = {
	{"an allocating write", CLUSTER, false, false, 3, {
		{ACTION_WRITE, CLUSTERS(16) + 512, CLUSTERS(3), 0},
		{ACTION_FLUSH, 0, 0, 0},
		{ACTION_WRITE, CLUSTERS(24), 512, 0},
	}},
	{"a new L2 table", CLUSTER, false, false, 2, {
		{ACTION_WRITE, FAR + 512, 1024, 0},
		{ACTION_FLUSH, 0, 0, 0},
	}},
	{"copies", CLUSTER, false, false, 4, {
		{ACTION_WRITE, CLUSTERS(2) + 512, 512, 0},
		{ACTION_WRITE, CLUSTERS(1) + 512, 512, 0},
		{ACTION_WRITE, CLUSTERS(8), 512, 0},
		{ACTION_FLUSH, 0, 0, 0},
	}},
	{"zeros", CLUSTER, false, false, 4, {
		{ACTION_ZERO, 512, CLUSTERS(3), 0},
		{ACTION_ZERO, CLUSTERS(5), CLUSTERS(2), IMAGE_NO_HOLE},
		{ACTION_ZERO, CLUSTERS(20), CLUSTERS(2), IMAGE_NO_HOLE},
		{ACTION_FLUSH, 0, 0, 0},
	}},
	{"discards", CLUSTER, false, false, 5, {
		{ACTION_DISCARD, 0, CLUSTERS(4), 0},
		{ACTION_FLUSH, 0, 0, 0},
		{ACTION_WRITE, CLUSTERS(30), CLUSTERS(2), 0},
		{ACTION_DISCARD, CLUSTERS(5), CLUSTERS(2), IMAGE_FUA},
		{ACTION_WRITE, CLUSTERS(5), CLUSTERS(1), 0},
	}},
	{"flushes", CLUSTER, false, false, 5, {
		{ACTION_WRITE, 0, CLUSTERS(1), 0},
		{ACTION_FLUSH, 0, 0, 0},
		{ACTION_WRITE, 512, 512, 0},
		{ACTION_FLUSH, 0, 0, 0},
		{ACTION_FLUSH, 0, 0, 0},
	}},
	{"FUA", CLUSTER, false, false, 4, {
		{ACTION_WRITE, 0, 1024, IMAGE_FUA},
		{ACTION_WRITE, CLUSTERS(3), CLUSTERS(2), IMAGE_FUA},
		{ACTION_WRITE, CLUSTERS(40), 512, IMAGE_FUA},
		{ACTION_ZERO, CLUSTERS(5), CLUSTERS(1), IMAGE_FUA},
	}},
	{"tables that grow", SECTOR, false, false, 6, {
		{ACTION_WRITE, 65536, 131072, 0},
		{ACTION_FLUSH, 0, 0, 0},
		{ACTION_DISCARD, 65536, 65536, 0},
		{ACTION_WRITE, 262144, 131072, 0},
		{ACTION_FLUSH, 0, 0, 0},
		{ACTION_WRITE, 409600, 65536, 0},
	}},
	{"opening", CLUSTER, true, false, 2, {
		{ACTION_WRITE, 0, CLUSTERS(1), 0},
		{ACTION_FLUSH, 0, 0, 0},
	}},
	{"closing", CLUSTER, false, true, 3, {
		{ACTION_WRITE, CLUSTERS(16), CLUSTERS(3), 0},
		{ACTION_DISCARD, CLUSTERS(4), CLUSTERS(2), 0},
		{ACTION_WRITE, 0, 1024, 0},
	}},
};

#define SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

struct trouble {
	unsigned kind;		/* of operations */
	uint64_t nth;
	bool for_good;
	int result;
	uint64_t seed;
};

/*
 * What each sector may hold, as sets of values: now; and if what was not
 * flushed may be lost.
 */
struct model {
	uint32_t now[SECTORS];
	uint32_t kept[SECTORS];
};

#define BASE_VALUE 1

struct run {
	const struct scenario *scenario;
	struct trouble trouble;
	struct model *model;
	struct world world;
	uint8_t value;		/* written last */
	bool failed;		/* a sync failed: O6 */
	bool struck;		/* the trouble came */
	uint64_t operations;	/* of trouble's kind while it lasted */
};

/* ---- telling the case that went wrong ---- */

/*
 * A test ends where an assertion fails, in a process of its own; what it was
 * about stands in memory that is shared with the parent, which tells.
 */
#define CASES_MAX 64
#define CASE_BYTES 160

static char (*cases)[CASE_BYTES];
static unsigned cases_used;

static const char *
kind_name(unsigned kind)
{
	switch (kind) {
	case FILE_SIM_READ:
		return "read";
	case FILE_SIM_WRITE:
		return "write";
	case FILE_SIM_SYNC:
		return "sync";
	case FILE_SIM_PUNCH:
		return "punch";
	case FILE_SIM_ALLOCATE:
		return "allocate";
	default:
		return "truncate";
	}
}

static void
note_case(const struct scenario *scenario, const struct trouble *trouble)
{
	snprintf(cases[cases_used], CASE_BYTES, "in \"%s\": %s %llu returns "
	    "%d%s, seed %llu", scenario->name, kind_name(trouble->kind),
	    (unsigned long long)trouble->nth, trouble->result,
	    trouble->for_good ? " from then on" : "",
	    (unsigned long long)trouble->seed);
}

static void
forget_case(void)
{
	cases[cases_used][0] = '\0';
}

static void
tell_cases(void)
{
	for (unsigned i = 0; i < CASES_MAX; i++)
		if (cases[i][0])
			fprintf(stderr, "failed %s\n", cases[i]);
}

/* ---- the model ---- */

static void
model_add(struct model *model, uint64_t guest, size_t length, uint8_t value,
    bool certain)
{
	for (uint64_t i = guest / SECTOR; i < (guest + length) / SECTOR; i++) {
		if (certain)
			model->now[i] = 0;
		model->now[i] |= 1u << value;
		model->kept[i] |= 1u << value;
	}
}

static void
model_keep(struct model *model, uint64_t guest, size_t length)
{
	for (uint64_t i = guest / SECTOR; i < (guest + length) / SECTOR; i++)
		model->kept[i] = model->now[i];
}

static bool
is_value_of(uint8_t value, uint32_t set)
{
	return value < 32 && set & 1u << value;
}

/* Of a failed write any bytes may be there, also of a sector. */
static bool
is_in(const uint8_t *sector, uint32_t set)
{
	if (is_all(sector, SECTOR, sector[0]))
		return is_value_of(sector[0], set);
	for (unsigned i = 0; i < SECTOR; i++)
		if (!is_value_of(sector[i], set))
			return false;
	return true;
}

/*
 * Reads all of the disk; what a sector holds now it holds for good, and what
 * is in doubt is settled by that.
 */
co_fn static void
read_all(struct world *world)
{
	struct run *run = world->arg;
	struct model *model = run->model;
	static uint8_t data[DISK_BYTES];

	ck_assert_int_eq(image_read(world->image, 0, data, DISK_BYTES, NULL),
	    0);
	for (uint64_t i = 0; i < SECTORS; i++) {
		const uint8_t *sector = data + i * SECTOR;

		if (!is_in(sector, model->now[i]))
			ck_abort_msg("0x%02x at 0x%llx, but the values may "
			    "be 0x%x", sector[0], (unsigned long long)i *
			    SECTOR, model->now[i]);
		if (is_all(sector, SECTOR, sector[0]))
			model->now[i] = 1u << sector[0];
	}
}

/* ---- requests ---- */

/* A request as the model sees it: done, or old and new are both right. */
co_fn static int
take_step(struct run *run, const struct step *step)
{
	struct request request = request_of(step->action, step->guest,
	    step->length, 0, step->flags);
	uint8_t value = 0;
	bool changes = step->action != ACTION_FLUSH;
	int err;

	if (step->action == ACTION_WRITE)
		value = request.value = ++run->value;
	ck_assert_uint_lt(value, 32);
	request_start(&run->world, run->value % 2, &request);
	err = request_wait(&request);
	if (changes)
		model_add(run->model, step->guest, step->length, value,
		    !err && step->action != ACTION_DISCARD);
	if (err)
		return err;
	if (!changes)
		model_keep(run->model, 0, DISK_BYTES);
	else if (step->flags & IMAGE_FUA)
		model_keep(run->model, step->guest, step->length);
	return 0;
}

/* The error of the disk, or EIO once a sync has failed. */
static void
judge_error(struct run *run, int err)
{
	const struct trouble *trouble = &run->trouble;

	if (!err)
		return;
	ck_assert_msg(trouble->result < 0 && trouble->result != -EINTR,
	    "%d, but nothing is wrong", err);
	ck_assert_msg(err == trouble->result ||
	    (trouble->kind == FILE_SIM_SYNC && err == -EIO),
	    "%d instead of %d", err, trouble->result);
}

co_fn static void
take_steps(struct world *world)
{
	struct run *run = world->arg;
	const struct scenario *scenario = run->scenario;

	for (unsigned i = 0; i < scenario->count; i++)
		judge_error(run, take_step(run, &scenario->steps[i]));
}

/* Of each kind one, also where the trouble was. */
static const struct step later_steps[] = {
	{ACTION_WRITE, 512, 512, 0},
	{ACTION_WRITE, CLUSTERS(16), CLUSTERS(4), 0},
	{ACTION_WRITE, CLUSTERS(1), CLUSTERS(3), IMAGE_FUA},
	{ACTION_ZERO, CLUSTERS(5) + 512, CLUSTERS(3), 0},
	{ACTION_DISCARD, CLUSTERS(17), CLUSTERS(1), 0},
	{ACTION_WRITE, FAR, CLUSTERS(1), 0},
	{ACTION_FLUSH, 0, 0, 0},
	{ACTION_WRITE, CLUSTERS(60), CLUSTERS(2), IMAGE_FUA},
};

#define LATER_STEPS (sizeof(later_steps) / sizeof(later_steps[0]))

co_fn static void
write_on(struct world *world)
{
	struct run *run = world->arg;

	for (unsigned i = 0; i < LATER_STEPS; i++) {
		int err = take_step(run, &later_steps[i]);

		ck_assert_msg(!err, "%d from step %u after the trouble", err,
		    i);
	}
}

/* O6: nothing is stable and nothing is taken, whatever the disk says now. */
co_fn static void
write_on_failed(struct world *world)
{
	struct run *run = world->arg;

	for (unsigned i = 0; i < LATER_STEPS; i++)
		ck_assert_msg(take_step(run, &later_steps[i]) == -EIO,
		    "step %u is accepted after a failed sync", i);
}

/* ---- a run ---- */

static void
set_trouble(struct run *run)
{
	struct file_sim_fault fault = {
		.kinds = run->trouble.kind, .nth = run->trouble.nth,
		.from_then_on = run->trouble.for_good,
		.result = run->trouble.result,
	};

	run->operations = file_sim_count(run->world.disk, fault.kinds);
	if (run->trouble.result)
		file_sim_fail(run->world.disk, &fault);
}

static void
end_trouble(struct run *run)
{
	run->operations = file_sim_count(run->world.disk,
	    run->trouble.kind) - run->operations;
	run->struck = file_sim_failed(run->world.disk) > 0;
	file_sim_heal(run->world.disk);
}

co_fn static void
try_flush(struct world *world)
{
	world->result = image_flush(world->image);
}

/*
 * A failed sync must have consequences, and so must a failed write that was to
 * be stable by itself, which the first of the scenario "FUA" is; but nothing
 * else may.
 */
static void
find_out_if_failed(struct run *run)
{
	const struct trouble *trouble = &run->trouble;
	bool is_sync = trouble->kind == FILE_SIM_SYNC;
	bool is_stable_write = trouble->kind == FILE_SIM_WRITE &&
	    trouble->result == -EIO && !strcmp(run->scenario->name, "FUA");
	bool must_fail = run->struck && trouble->result != -EINTR &&
	    (is_sync || (is_stable_write && trouble->nth == 1));

	world_run(&run->world, try_flush);
	run->failed = run->world.result != 0;
	ck_assert_msg(run->failed || !must_fail, "the failure is forgotten");
	ck_assert_msg(!run->failed || must_fail || is_stable_write,
	    "flush: %d after the trouble", run->world.result);
	if (!run->failed)
		model_keep(run->model, 0, DISK_BYTES);
}

static void
assert_leaks_at_most(struct run *run)
{
	struct check_result result = world_check(&run->world);

	ck_assert_uint_eq(result.check_errors, 0);
	ck_assert_uint_eq(result.corruptions, 0);
	if (!run->struck)
		ck_assert_uint_eq(result.leaks, 0);
}

/* Opened again, everything is there that has to be, and it goes on. */
static void
look_again(struct run *run)
{
	assert_leaks_at_most(run);
	ck_assert_int_eq(world_open(&run->world), 0);
	if (run->failed)
		memcpy(run->model->now, run->model->kept,
		    sizeof(run->model->now));
	world_run(&run->world, read_all);
	world_run(&run->world, write_on);
	world_run(&run->world, read_all);
	ck_assert_int_eq(world_close(&run->world), 0);
	assert_leaks_at_most(run);
}

static void
run_opened(struct run *run)
{
	const struct scenario *scenario = run->scenario;
	int err;

	if (!scenario->opening && !scenario->closing)
		set_trouble(run);
	world_run(&run->world, take_steps);
	if (scenario->closing) {
		set_trouble(run);
		err = world_close(&run->world);
		judge_error(run, err);
		run->failed = err;
		end_trouble(run);
		return;
	}
	end_trouble(run);
	find_out_if_failed(run);
	world_run(&run->world, read_all);
	world_run(&run->world, run->failed ? write_on_failed : write_on);
	world_run(&run->world, read_all);
	err = world_close(&run->world);
	ck_assert_int_eq(err != 0, run->failed);
}

/* How many operations of its kind trouble could have struck; result 0: none. */
static uint64_t
run_scenario(const struct scenario *scenario, struct file *base,
    const struct model *model, const struct trouble *trouble)
{
	struct run *run = calloc(1, sizeof(*run));
	struct world_options options = {
		.seed = trouble->seed,
		.cluster_bytes = scenario->cluster_bytes,
	};
	uint64_t operations;

	ck_assert_ptr_nonnull(run);
	run->model = malloc(sizeof(*model));
	ck_assert_ptr_nonnull(run->model);
	*run->model = *model;
	run->scenario = scenario;
	run->trouble = *trouble;
	run->value = BASE_VALUE;
	note_case(scenario, trouble);
	world_clone(&run->world, &options, base);
	run->world.arg = run;
	if (scenario->opening)
		set_trouble(run);
	judge_error(run, world_open(&run->world));
	if (run->world.image)
		run_opened(run);
	else
		end_trouble(run);
	operations = run->operations;
	look_again(run);
	world_free(&run->world);
	forget_case();
	free(run->model);
	free(run);
	return operations;
}

/* ---- all the trouble there is ---- */

static void
add_kinds(const struct scenario *scenario, struct file *base,
    const struct model *model, uint64_t seed, unsigned kinds, int result,
    bool for_good)
{
	for (unsigned kind = 1; kind <= FILE_SIM_ANY; kind *= 2) {
		struct trouble trouble = {
			.kind = kind, .seed = seed, .for_good = for_good,
		};
		uint64_t count;

		if (!(kinds & kind))
			continue;
		count = run_scenario(scenario, base, model, &trouble);
		trouble.result = result;
		for (trouble.nth = 1; trouble.nth <= count; trouble.nth++)
			run_scenario(scenario, base, model, &trouble);
	}
}

co_fn static void
prepare(struct world *world)
{
	world_write(world, 0, CLUSTERS(8), BASE_VALUE);
}

static void
make_base(const struct scenario *scenario, struct file **basep,
    struct model *model)
{
	struct world_options options = {
		.seed = 1, .cluster_bytes = scenario->cluster_bytes,
		.disk_bytes = DISK_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, prepare);
	for (uint64_t i = 0; i < SECTORS; i++)
		model->now[i] = 1;
	model_add(model, 0, CLUSTERS(8), BASE_VALUE, true);
	if (scenario->cluster_bytes == CLUSTER) {
		world_compress(&world, CLUSTER, BASE_VALUE);
		for (unsigned i = 8; i < 11; i++)
			world_share(&world, CLUSTERS(2), CLUSTERS(i));
		model_add(model, CLUSTERS(8), CLUSTERS(3), BASE_VALUE, true);
	}
	model_keep(model, 0, DISK_BYTES);
	ck_assert_int_eq(file_sim_clone(world.disk, NULL, basep), 0);
	world_free(&world);
}

static void
try_scenario(unsigned index, int result, unsigned kinds, bool for_good_too)
{
	const struct scenario *scenario = &scenarios[index];
	struct model *model = calloc(1, sizeof(*model));
	struct file *base;

	ck_assert_ptr_nonnull(model);
	/* Each test its own line: four kinds of trouble. */
	cases_used = index + SCENARIOS * (result == -EIO ? 0 :
	    result == -ENOSPC ? 1 : result > 0 ? 2 : 3);
	make_base(scenario, &base, model);
	for (uint64_t seed = 0; seed < 4; seed++) {
		add_kinds(scenario, base, model, seed, kinds, result, false);
		if (for_good_too)
			add_kinds(scenario, base, model, seed, kinds, result,
			    true);
	}
	file_close(base);
	free(model);
}

START_TEST(io_errors)
{
	try_scenario(_i, -EIO, FILE_SIM_ANY, true);
}
END_TEST

START_TEST(no_space)
{
	try_scenario(_i, -ENOSPC, FILE_SIM_WRITE |
	    FILE_SIM_ALLOCATE | FILE_SIM_SYNC, true);
}
END_TEST

START_TEST(short_results)
{
	try_scenario(_i, 700, FILE_SIM_READ | FILE_SIM_WRITE,
	    true);
}
END_TEST

START_TEST(interrupted)
{
	try_scenario(_i, -EINTR, FILE_SIM_ANY, false);
}
END_TEST

/* ---- a full disk ---- */

#define FULL_DISK (4u << 20)
#define FULL_PIECES 16
#define FULL_PIECE 65536u

/* As much as goes in; how many pieces. */
co_fn static void
write_until_full(struct world *world)
{
	unsigned *written = world->arg;

	for (*written = 0; *written < FULL_PIECES; ++*written) {
		struct request request = request_of(ACTION_WRITE,
		    *written * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(*written + 1), 0);
		int err;

		request_start(world, 1, &request);
		err = request_wait(&request);
		if (!err)
			err = image_flush(world->image);
		if (!err)
			continue;
		ck_assert_int_eq(err, -ENOSPC);
		break;
	}
	for (unsigned i = 0; i < *written; i++)
		world_expect(world, i * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(i + 1));
}

co_fn static void
write_the_rest(struct world *world)
{
	unsigned written = *(unsigned *)world->arg;

	for (unsigned i = written; i < FULL_PIECES; i++)
		world_write(world, i * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(i + 1));
	world_flush(world);
	for (unsigned i = 0; i < FULL_PIECES; i++)
		world_expect(world, i * FULL_PIECE, FULL_PIECE,
		    (uint8_t)(i + 1));
}

/* Whatever room there is; when there is more, it goes on without a restart. */
static void
fill_up(uint64_t seed, uint64_t cluster_bytes)
{
	for (uint64_t budget = 16384; budget < 1200000;
	    budget += 4096 * (1 + budget / 65536)) {
		struct world_options options = {
			.seed = seed, .cluster_bytes = cluster_bytes,
			.disk_bytes = FULL_DISK,
		};
		unsigned written;
		struct world world;

		world_create(&world, &options);
		world.arg = &written;
		file_sim_set_budget(world.disk, budget +
		    file_sim_allocated_bytes(world.disk));
		ck_assert_int_eq(world_open(&world), 0);
		world_run(&world, write_until_full);
		ck_assert_uint_ge((written + 2) * FULL_PIECE, budget <
		    FULL_PIECES * FULL_PIECE ? budget : 0);
		file_sim_set_budget(world.disk, UINT64_MAX);
		world_run(&world, write_the_rest);
		world_finish(&world);
	}
}

START_TEST(disk_full_then_freed)
{
	fill_up(_i, _i % 2 ? 4096 : 512);
}
END_TEST

/*
 * What was discarded and is in quarantine counts as room: the write that finds
 * none waits for it.
 */
co_fn static void
trade_room(struct world *world)
{
	for (unsigned i = 0; i < FULL_PIECES; i++)
		world_write(world, i * FULL_PIECE, FULL_PIECE, 0x11);
	world_flush(world);
	file_sim_set_budget(world->disk,
	    file_sim_allocated_bytes(world->disk));
	for (unsigned i = 0; i < FULL_PIECES; i++) {
		world_discard(world, i * FULL_PIECE, FULL_PIECE);
		world_write(world, (FULL_PIECES + i) * FULL_PIECE, FULL_PIECE,
		    0x22);
	}
	file_sim_set_budget(world->disk, UINT64_MAX);
	world_expect(world, 0, FULL_PIECES * FULL_PIECE, 0);
	world_expect(world, FULL_PIECES * FULL_PIECE,
	    FULL_PIECES * FULL_PIECE, 0x22);
}

START_TEST(room_in_quarantine_is_room)
{
	world_play(&(struct world_options){
		.seed = _i, .disk_bytes = FULL_DISK,
	}, trade_room);
}
END_TEST

/*
 * A device is full but for a part in the middle, which was given back: every
 * write that fits must work, and at the first attempt.
 */
#define DEVICE_BYTES (4u << 20)
#define DEVICE_FREED (512u * 1024)

co_fn static void
fill_device(struct world *world)
{
	uint64_t guest = 0;
	int err = 0;

	for (; !err; guest += 16384) {
		struct request request = request_of(ACTION_WRITE, guest,
		    16384, 0x11, 0);

		request_start(world, 0, &request);
		err = request_wait(&request);
	}
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_gt(guest, DEVICE_BYTES * 3 / 4);
	world_discard(world, guest / 2, DEVICE_FREED);
	world_flush(world);
}

co_fn static void
use_room_in_the_middle(struct world *world)
{
	for (uint64_t done = 0; done < DEVICE_FREED * 3 / 4; done += 16384)
		world_write(world, DEVICE_BYTES + done, 16384, 0x22);
	world_expect(world, 0, 16384, 0x11);
	world_expect(world, DEVICE_BYTES, DEVICE_FREED * 3 / 4, 0x22);
}

START_TEST(device_with_room_in_the_middle)
{
	struct world_options options = {
		.seed = _i, .cluster_bytes = 512, .device_bytes = DEVICE_BYTES,
		.disk_bytes = 2 * DEVICE_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, fill_device);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, use_room_in_the_middle);
	world_finish(&world);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("faults");
	TCase *tests = tcase_create("faults");
	int failed;

	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, io_errors, 0, SCENARIOS);
	tcase_add_loop_test(tests, no_space, 0, SCENARIOS);
	tcase_add_loop_test(tests, short_results, 0, SCENARIOS);
	tcase_add_loop_test(tests, interrupted, 0, SCENARIOS);
	tcase_add_loop_test(tests, disk_full_then_freed, 0, 4);
	tcase_add_loop_test(tests, room_in_quarantine_is_room, 0, 4);
	tcase_add_loop_test(tests, device_with_room_in_the_middle, 0, 4);
	suite_add_tcase(suite, tests);
	cases = mmap(NULL, CASES_MAX * CASE_BYTES, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (cases == MAP_FAILED)
		return 1;
	failed = world_main(suite);
	tell_cases();
	return failed;
}
