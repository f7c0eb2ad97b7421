/* SPDX-License-Identifier: MIT */
#include "tests/fault/run.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include "qcow2/internal.h"
#include "qcow2/repair.h"
#include "tests/key.h"

/* ---- telling ---- */

#define CASES_MAX 1024
#define CASE_BYTES 256

struct telling {
	atomic_ulong runs;
	atomic_ulong struck;
	atomic_uint cases_used;
	char cases[CASES_MAX][CASE_BYTES];
};

static struct telling *telling;
static char *this_case;
static struct timespec began;

static bool
tell_begin(void)
{
	clock_gettime(CLOCK_MONOTONIC, &began);
	telling = mmap(NULL, sizeof(*telling), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return telling != MAP_FAILED;
}

static void
tell_end(void)
{
	struct timespec now;

	for (unsigned i = 0; i < CASES_MAX; i++)
		if (telling->cases[i][0])
			fprintf(stderr, "failed %s\n", telling->cases[i]);
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%u scenarios, %lu runs, %lu with a fault that struck, %ld s\n",
	    scenarios_count, telling->runs, telling->struck,
	    now.tv_sec - began.tv_sec);
}

int
run_main(Suite *suite)
{
	int failed;

	if (!tell_begin())
		return 1;
	failed = world_main(suite);
	tell_end();
	return failed;
}

/* A process runs one case at a time, and each its own line. */
static void
note_case(const struct scenario *scenario, const struct trouble *trouble)
{
	if (!this_case)
		this_case = telling->cases[atomic_fetch_add(
		    &telling->cases_used, 1) % CASES_MAX];
	snprintf(this_case, CASE_BYTES, "in \"%s\": %s %llu of layer %u "
	    "returns %d%s, seed %llu", scenario->name,
	    trouble->kind ? file_sim_kind_name(trouble->kind) :
	    "allocation", (unsigned long long)trouble->nth,
	    trouble->layer, trouble->result,
	    trouble->for_good ? " from then on" : "",
	    (unsigned long long)trouble->seed);
	atomic_fetch_add(&telling->runs, 1);
}

static void
forget_case(const struct run *run)
{
	this_case[0] = '\0';
	if (run->struck)
		atomic_fetch_add(&telling->struck, 1);
}

/* ---- the chain ---- */

/* Enough for all tables there are; the default costs time to allocate. */
#define CACHE_BYTES (1u << 20)

co_fn static void
open_chain(struct world *world)
{
	struct run *run = world->arg;
	const struct layout *layout = &run->scenario->layout;
	struct image **imagep = &world->image;

	world->image = NULL;
	world->result = 0;
	for (unsigned i = 0; i < run->base->layers && !world->result; i++) {
		struct image_options options = {
			.format = base_format(layout, i), .writable = i == 0,
			.no_backing = true, .loops = world->options.loops,
			.metadata_cache_bytes = layout->cache_bytes ?
			    layout->cache_bytes : CACHE_BYTES,
			.keys = &test_key, .keys_count = i == 0 &&
			    layout->flags & LAYOUT_ENCRYPTED,
		};
		struct file *handle;

		ck_assert_int_eq(file_sim_open(i == 0 ? world->disk :
		    run->lower[i], &handle), 0);
		world->result = image_open_file(handle, &options, imagep,
		    &world->error);
		if (!world->result)
			imagep = &(*imagep)->backing;
	}
	if (world->result && world->image)
		image_close(world->image);
	if (world->result)
		world->image = NULL;
}

co_fn static void
close_chain(struct world *world)
{
	world->result = image_close(world->image);
	world->image = NULL;
}

static int
close_image(struct run *run)
{
	world_run(&run->world, close_chain);
	ck_assert_msg(sim_run(run->world.sim) == SIM_DONE,
	    "the image is closed, but something goes on");
	return run->world.result;
}

static int
open_image(struct run *run)
{
	world_run(&run->world, open_chain);
	return run->world.result;
}

/* ---- the trouble ---- */

static struct file *
troubled_disk(struct run *run)
{
	unsigned layer = run->trouble.layer;

	return layer == 0 ? run->world.disk : run->lower[layer];
}

static void
begin_trouble(struct run *run)
{
	struct file_sim_fault fault = {
		.kinds = run->trouble.kind, .nth = run->trouble.nth,
		.from_then_on = run->trouble.for_good,
		.result = run->trouble.result,
	};

	if (run->hooks) {
		run->hooks->begin(run->hooks->arg);
		return;
	}
	run->operations = file_sim_count(troubled_disk(run), fault.kinds);
	if (run->trouble.result)
		file_sim_fail(troubled_disk(run), &fault);
}

static void
end_trouble(struct run *run)
{
	if (run->hooks) {
		run->struck = run->hooks->end(run->hooks->arg);
		return;
	}
	run->operations = file_sim_count(troubled_disk(run),
	    run->trouble.kind) - run->operations;
	run->struck = file_sim_failed(troubled_disk(run)) > 0;
	file_sim_heal(troubled_disk(run));
}

static bool
is_transient(int result)
{
	return result == -EINTR || result == -EAGAIN || result == -ECANCELED;
}

/* Whether trouble of this kind may be told to anybody. */
static bool
is_an_error(const struct trouble *trouble)
{
	return trouble->result < 0 && !is_transient(trouble->result);
}

static bool
uses_fua(const struct scenario *scenario)
{
	for (unsigned i = 0; i < scenario->count; i++)
		if (scenario->steps[i].flags & IMAGE_FUA)
			return true;
	return false;
}

/* Whether a write that was to be stable by itself may have failed. */
static bool
hits_stable_write(const struct run *run)
{
	return run->trouble.kind == FILE_SIM_WRITE &&
	    run->trouble.result == -EIO && uses_fua(run->scenario);
}

/* The error of the disk, or EIO once a sync has failed. */
static void
judge_error(const struct run *run, int err, unsigned flags)
{
	const struct trouble *trouble = &run->trouble;

	if (!err || (err == -ENOTSUP && flags & IMAGE_FAST))
		return;
	/* What one bit cannot count. */
	if (err == -ERANGE && run->scenario->layout.refcount_bits == 1)
		return;
	ck_assert_msg(is_an_error(trouble), "%d, but nothing is wrong", err);
	ck_assert_msg(err == trouble->result ||
	    (trouble->kind == FILE_SIM_SYNC && err == -EIO),
	    "%d instead of %d", err, trouble->result);
}

/* ---- steps ---- */

struct play {
	struct step step;
	struct request request;
	bool beside;		/* the step before is under way */
};

co_fn static void
start_step(struct run *run, const struct step *step, unsigned loop,
    struct play *play)
{
	bool writes = step->action == ACTION_WRITE ||
	    step->action == ACTION_COMPRESS;

	play->step = *step;
	play->request = request_of(step->action, step->guest, step->length,
	    writes ? ++run->value : 0, step->flags & ~STEP_FLAGS);
	if (step->action == ACTION_RESIZE) {
		play->request.length = 0;
		play->request.value = (uint8_t)step->length;
	}
	ck_assert_uint_lt(run->value, VALUES);
	if (kept_is_about(step->action))
		kept_begin(&run->kept, &run->model, &play->request);
	if (step->flags & STEP_PREFETCH)
		play->request.err = image_prefetch(run->world.image,
		    step->guest, step->length);
	else
		request_start(&run->world, loop, &play->request);
}

/* As the model sees it: done, or old and new are both right. */
static void
account(struct run *run, const struct play *play)
{
	const struct request *request = &play->request;
	struct model *model = &run->model;
	bool done = !request->err;

	switch (request->action) {
	case ACTION_WRITE:
	case ACTION_COMPRESS:
	case ACTION_ZERO:
	case ACTION_DISCARD:
		model_add(model, request->guest, request->length,
		    request->value, done && request->action != ACTION_DISCARD);
		if (done && request->flags & IMAGE_FUA)
			model_keep(model, request->guest, request->length);
		break;
	case ACTION_FLUSH:
		if (done)
			model_keep(model, 0, model->sectors * SECTOR);
		if (done)
			length_keep(&run->length);
		break;
	case ACTION_READ:
		if (done && request->data)
			model_judge(model, request->guest, request->data,
			    request->length);
		break;
	case ACTION_STATUS:
		break;
	case ACTION_RESIZE:
		length_end(&run->length, model, request,
		    image_size_bytes(run->world.image));
		break;
	default:
		kept_end(&run->kept, model, request, play->beside);
		if (request->action == ACTION_SNAPSHOT_APPLY)
			length_apply(&run->length,
			    image_size_bytes(run->world.image), done);
		break;
	}
}

co_fn static int
end_step(struct run *run, struct play *play)
{
	if (!(play->step.flags & STEP_PREFETCH))
		request_wait(&play->request);
	account(run, play);
	free(play->request.data);
	return play->request.err;
}

co_fn static int
take_step(struct run *run, const struct step *step)
{
	struct play play = {.beside = false};

	start_step(run, step, run->value % 2, &play);
	return end_step(run, &play);
}

/* Whether it failed because one before it had failed. */
static bool
misses_snapshot(const struct run *run, const struct play *play, int err)
{
	return kept_is_about(play->step.action) && err == -ENOENT &&
	    run->kept.states[play->step.guest] != KEPT_THERE;
}

/* Whether it lies where the disk has ended, or ends. */
static bool
misses_disk(const struct run *run, const struct step *step, int err)
{
	return err == -EINVAL && step->action < ACTION_FLUSH &&
	    length_excuses(&run->length, step->guest, step->length);
}

co_fn static void
take_steps(struct world *world)
{
	struct run *run = world->arg;
	const struct scenario *scenario = run->scenario;
	struct play plays[STEPS_MAX];
	unsigned ended = 0;

	for (unsigned i = 0; i < scenario->count; i++) {
		plays[i].beside = ended < i;
		start_step(run, &scenario->steps[i], i % 2, &plays[i]);
		if (scenario->steps[i].flags & STEP_TOGETHER)
			continue;
		for (; ended <= i; ended++) {
			int err = end_step(run, &plays[ended]);

			if (!misses_snapshot(run, &plays[ended], err) &&
			    !misses_disk(run, &plays[ended].step, err))
				judge_error(run, err,
				    plays[ended].step.flags);
		}
	}
	ck_assert_uint_eq(ended, scenario->count);
}

/* ---- afterwards ---- */

/*
 * Of each kind one, also where the trouble was.  Places and lengths are in
 * parts of the disk, of which there are 512, and in sectors.
 */
static const struct {
	enum action action;
	unsigned part, sector;
	unsigned parts, sectors;
	unsigned flags;
} later_steps[] = {
	{ACTION_WRITE, 0, 1, 0, 1, 0},
	{ACTION_WRITE, 16, 0, 4, 0, 0},
	{ACTION_WRITE, 1, 0, 3, 0, IMAGE_FUA},
	{ACTION_ZERO, 5, 1, 3, 0, 0},
	{ACTION_DISCARD, 17, 0, 1, 0, 0},
	{ACTION_WRITE, 256, 0, 1, 0, 0},
	{ACTION_FLUSH, 0, 0, 0, 0, 0},
	{ACTION_WRITE, 60, 0, 2, 0, IMAGE_FUA},
};

#define LATER_STEPS (sizeof(later_steps) / sizeof(later_steps[0]))

static struct step
later_step(const struct run *run, unsigned i)
{
	uint64_t part = run->scenario->layout.disk_bytes / 512;

	return (struct step){
		.action = later_steps[i].action,
		.guest = later_steps[i].part * part +
		    later_steps[i].sector * SECTOR,
		.length = later_steps[i].parts * part +
		    later_steps[i].sectors * SECTOR,
		.flags = later_steps[i].flags,
	};
}

static bool
uses_resizes(const struct scenario *scenario)
{
	for (unsigned i = 0; i < scenario->count; i++)
		if (scenario->steps[i].action == ACTION_RESIZE)
			return true;
	return false;
}

static bool
uses_snapshots(const struct scenario *scenario)
{
	for (unsigned i = 0; i < scenario->count; i++)
		if (kept_is_about(scenario->steps[i].action))
			return true;
	return false;
}

co_fn static void
take_later_step(struct run *run, enum action action, unsigned number)
{
	struct step step = {action, number, 0, 0};
	int err;

	if (action == ACTION_WRITE)
		step.length = SECTOR;
	else if (action != ACTION_SNAPSHOT_CREATE &&
	    run->kept.states[number] == KEPT_GONE)
		return;
	err = take_step(run, &step);
	if (err == -ENOENT && run->kept.states[number] == KEPT_MAYBE)
		return;
	ck_assert_msg(!err || (err == -ERANGE &&
	    run->scenario->layout.refcount_bits == 1),
	    "%d from operation %d after the trouble", err, (int)action);
}

/* As long as all that comes later needs it. */
co_fn static void
resize_on(struct run *run)
{
	struct step step = {ACTION_RESIZE, length_max(run->scenario), 0, 0};
	int err;

	if (!uses_resizes(run->scenario))
		return;
	err = take_step(run, &step);
	ck_assert_msg(!err, "%d from the resize after the trouble", err);
}

/* Of some runs those that were there are used up before it is closed. */
co_fn static void
change_snapshots_on(struct run *run)
{
	if (!uses_snapshots(run->scenario))
		return;
	take_later_step(run, ACTION_SNAPSHOT_CREATE, 3);
	take_later_step(run, ACTION_WRITE, 0);
	if (run->trouble.nth % 2 || run->reopened) {
		take_later_step(run, ACTION_SNAPSHOT_APPLY, 1);
		take_later_step(run, ACTION_WRITE, 0);
		take_later_step(run, ACTION_SNAPSHOT_DELETE, 2);
		take_later_step(run, ACTION_SNAPSHOT_DELETE, 1);
	}
	take_later_step(run, ACTION_SNAPSHOT_DELETE, 3);
}

co_fn static void
write_on(struct world *world)
{
	struct run *run = world->arg;

	resize_on(run);
	for (unsigned i = 0; i < LATER_STEPS; i++) {
		struct step step = later_step(run, i);
		int err = take_step(run, &step);

		ck_assert_msg(!err, "%d from step %u after the trouble", err,
		    i);
	}
	change_snapshots_on(run);
}

/*
 * O6: nothing is stable and nothing is taken, whatever the disk says now; but
 * zeros may be zeroed, and less than a cluster be discarded.
 */
co_fn static void
write_on_failed(struct world *world)
{
	struct run *run = world->arg;

	for (unsigned i = 0; i < LATER_STEPS; i++) {
		struct step step = later_step(run, i);
		int err = take_step(run, &step);
		bool may_be_nothing = step.action == ACTION_ZERO ||
		    step.action == ACTION_DISCARD;

		ck_assert_msg(err == -EIO || (may_be_nothing && !err) ||
		    misses_disk(run, &step, err),
		    "step %u is accepted after a failed sync", i);
	}
}

co_fn static void
read_all(struct world *world)
{
	struct run *run = world->arg;
	uint64_t length = image_size_bytes(world->image);
	uint8_t *data = malloc(length);

	ck_assert_uint_eq(length, run->length.bytes);
	ck_assert_ptr_nonnull(data);
	ck_assert_int_eq(image_read(world->image, 0, data, length, NULL), 0);
	model_judge(&run->model, 0, data, length);
	free(data);
}

co_fn static void
try_flush(struct world *world)
{
	world->result = image_flush(world->image);
}

/*
 * A failed sync must have consequences, and so must a failed write that was to
 * be stable by itself; but nothing else may.
 */
static void
find_out_if_failed(struct run *run)
{
	const struct trouble *trouble = &run->trouble;
	bool may_fail = hits_stable_write(run);
	bool must_fail = run->struck && is_an_error(trouble) &&
	    (trouble->kind == FILE_SIM_SYNC || (may_fail &&
	    run->scenario->lone_fua && trouble->nth == 1));

	world_run(&run->world, try_flush);
	run->failed = run->world.result != 0;
	ck_assert_msg(run->failed || !must_fail, "the failure is forgotten");
	ck_assert_msg(!run->failed || must_fail || may_fail,
	    "flush: %d after the trouble", run->world.result);
	if (run->failed)
		return;
	model_keep(&run->model, 0, run->model.sectors * SECTOR);
	length_keep(&run->length);
}

/* Whether what is wrong with the disk will be repaired by the opening. */
static bool
is_dirty(struct run *run)
{
	return run->world.image == NULL &&
	    world_peek32(&run->world, 4) >= 3 &&
	    world_peek64(&run->world, 72) & HEADER_DIRTY;
}

/* By hand, after a failed operation on an image of version 2. */
co_fn static void
repair(struct world *world)
{
	struct repair_result result;
	struct error error;
	struct file *handle;

	ck_assert_int_eq(file_sim_open(world->disk, &handle), 0);
	if (repair_file(handle, "disk", REPAIR_ALL, NULL, &result, &error))
		ck_abort_msg("repair: %s", error.message);
	file_close(handle);
}

static void
assert_leaks_at_most(struct run *run)
{
	const struct layout *layout = &run->scenario->layout;
	struct check_result result;

	if (layout->flags & LAYOUT_RAW)
		return;
	if (run->kept.failed && layout->version == 2)
		world_run(&run->world, repair);
	result = world_check(&run->world);
	ck_assert_uint_eq(result.check_errors, 0);
	ck_assert(result.corruptions == 0 || (is_dirty(run) &&
	    !run->reopened));
	if (!run->struck)
		ck_assert_uint_eq(result.leaks,
		    layout->flags & LAYOUT_BITMAP ? 2 : 0);
	if (layout->flags & LAYOUT_SNAPSHOT)
		base_judge_snapshot(&run->world);
	if (layout->flags & LAYOUT_ENCRYPTED)
		base_judge_encrypted(&run->world);
}

co_fn static void
judge_snapshots(struct world *world)
{
	struct run *run = world->arg;

	if (uses_snapshots(run->scenario))
		kept_judge(&run->kept, world);
}

/* Opened again, everything is there that has to be, and it goes on. */
static void
look_again(struct run *run)
{
	assert_leaks_at_most(run);
	world_run(&run->world, judge_snapshots);
	ck_assert_int_eq(open_image(run), 0);
	run->reopened = true;
	length_open(&run->length, image_size_bytes(run->world.image));
	if (run->failed)
		model_lose(&run->model);
	world_run(&run->world, read_all);
	world_run(&run->world, write_on);
	world_run(&run->world, read_all);
	ck_assert_int_eq(close_image(run), 0);
	assert_leaks_at_most(run);
	world_run(&run->world, judge_snapshots);
}

/* ---- a run ---- */

static void
play_closing(struct run *run)
{
	int err;

	begin_trouble(run);
	err = close_image(run);
	judge_error(run, err, 0);
	run->failed = err;
	end_trouble(run);
}

static void
play_opened(struct run *run)
{
	enum moment moment = run->scenario->moment;

	if (moment == RUNNING)
		begin_trouble(run);
	world_run(&run->world, take_steps);
	if (moment == CLOSING) {
		play_closing(run);
		return;
	}
	end_trouble(run);
	find_out_if_failed(run);
	world_run(&run->world, read_all);
	world_run(&run->world, run->failed ? write_on_failed : write_on);
	world_run(&run->world, read_all);
	ck_assert_int_eq(close_image(run) != 0, run->failed);
}

static void
play(struct run *run)
{
	if (run->scenario->moment == OPENING)
		begin_trouble(run);
	judge_error(run, open_image(run), 0);
	if (run->world.image)
		play_opened(run);
	else
		end_trouble(run);
}

uint64_t
run_scenario(const struct scenario *scenario, const struct base *base,
    const struct trouble *trouble, const struct run_hooks *hooks)
{
	struct run run = {
		.scenario = scenario, .base = base, .trouble = *trouble,
		.hooks = hooks, .value = FIRST_VALUE - 1,
	};
	struct world_options options = {
		.seed = trouble->seed,
		.cluster_bytes = scenario->layout.cluster_bytes,
	};

	note_case(scenario, trouble);
	model_copy(&run.model, &base->model);
	model_extend(&run.model, length_max(scenario));
	kept_create(&run.kept, &run.model);
	length_begin(&run.length, scenario->layout.disk_bytes);
	world_clone(&run.world, &options, base->disks[0]);
	for (unsigned i = 1; i < base->layers; i++)
		ck_assert_int_eq(file_sim_clone(base->disks[i],
		    run.world.sim, &run.lower[i]), 0);
	run.world.arg = &run;
	play(&run);
	look_again(&run);
	for (unsigned i = 1; i < base->layers; i++)
		file_close(run.lower[i]);
	world_free(&run.world);
	model_free(&run.model);
	kept_free(&run.kept);
	forget_case(&run);
	return run.operations;
}
