/* SPDX-License-Identifier: MIT */
/*
 * Simulated worlds: the clock, the scheduler, and the engine of the loops.
 *
 * A step runs one task of one loop, or fires one event.  Cost: a look at every
 * loop and at the heap of events, so worlds are for a few loops.
 */
#include <assert.h>
#include <stdlib.h>
#include "runtime/sim_internal.h"

#define START_NS 1000000000ull
#define NEVER UINT64_MAX

/* The least time of a step; and what the seed draws the spreads from. */
#define STEP_NS 50
#define OPERATION_POWERS_MIN 4
#define OPERATION_POWERS_MAX 16
#define STEP_POWERS_MAX 12

#define POOLED_BUFFERS 4	/* few, so that receives starve now and then */

/* ---- the engine ---- */

static int
engine_init(struct loop *loop)
{
	(void)loop;
	return 0;
}

static void
engine_destroy(struct loop *loop)
{
	(void)loop;
}

static void
engine_submit(struct loop *loop, struct op *op)
{
	sim_socket_submit(sim_loop_of(loop), op);
}

static void
engine_wait(struct loop *loop, int64_t timeout_ns)
{
	(void)loop;
	(void)timeout_ns;
	assert(!"a simulated loop is run by sim_run(), not by loop_run()");
}

/* Whatever was posted is seen by the scheduler. */
static void
engine_nudge(struct loop *loop)
{
	(void)loop;
}

static void
engine_cancel(struct loop *loop, struct op *op)
{
	sim_socket_cancel(sim_loop_of(loop), op);
}

static void
engine_recv_put(struct loop *loop, struct op *op)
{
	sim_socket_recv_put(sim_loop_of(loop), op);
}

static uint64_t
engine_now_ns(struct loop *loop)
{
	return sim_loop_of(loop)->sim->now_ns;
}

static uint64_t
engine_random(struct loop *loop)
{
	return random_next(&sim_loop_of(loop)->sim->random);
}

/*
 * Nothing else of this loop runs before the coroutine continues: a real one
 * would block in the lock and hold its whole loop up.
 */
co_fn static void
engine_preempt(struct loop *loop)
{
	struct sim_loop *simulated = sim_loop_of(loop);
	struct sim *sim = simulated->sim;

	if (!random_one_in(&sim->random, sim->preempt_one_in))
		return;
	sim_log(sim, &(struct sim_log_entry){
		.kind = SIM_LOG_PREEMPT, .name = "preempted",
		.loop_index = simulated->index,
	});
	simulated->preempted = co_self();
	co_suspend();
}

static void
engine_shutdown_fd(struct loop *loop, int fd)
{
	sim_shutdown(sim_loop_of(loop)->sim, fd);
}

static void
engine_close_fd(struct loop *loop, int fd)
{
	sim_close(sim_loop_of(loop)->sim, fd);
}

static const struct loop_engine_ops loop_sim_ops = {
	.name = "sim",
	.init = engine_init,
	.destroy = engine_destroy,
	.submit = engine_submit,
	.wait = engine_wait,
	.wake = engine_nudge,
	.cancel = engine_cancel,
	.recv_put = engine_recv_put,
	.now_ns = engine_now_ns,
	.random = engine_random,
	.preempt = engine_preempt,
	.posted = engine_nudge,
	.shutdown_fd = engine_shutdown_fd,
	.close_fd = engine_close_fd,
};

/* ---- making and freeing ---- */

static void
free_loops(struct sim *sim, unsigned count)
{
	struct loop *saved = loop_self();

	for (unsigned i = 0; i < count; i++) {
		if (saved == sim->loops[i].loop)
			saved = NULL;
		loop_set_self(sim->loops[i].loop);
		loop_free(sim->loops[i].loop);
	}
	loop_set_self(saved);
}

int
sim_create(uint64_t seed, unsigned loops, struct sim **simp)
{
	struct sim *sim;

	assert(loops > 0 && loops <= SIM_LOOPS_MAX);
	sim = sim_calloc(1, sizeof(*sim) + loops * sizeof(sim->loops[0]));
	random_seed(&sim->random, seed);
	sim->hash = random_mix(seed);
	sim->now_ns = START_NS;
	sim->steps_max = SIM_STEPS_MAX;
	sim->preempt_one_in = 2u << random_below(&sim->random, 4);
	sim->operation_powers = OPERATION_POWERS_MIN + (unsigned)random_below(
	    &sim->random, OPERATION_POWERS_MAX - OPERATION_POWERS_MIN + 1);
	sim->step_powers = (unsigned)random_below(&sim->random,
	    STEP_POWERS_MAX + 1);
	sim->loops_count = loops;
	for (unsigned i = 0; i < loops; i++) {
		struct sim_loop *loop = &sim->loops[i];
		int err = loop_create_with(&loop_sim_ops, loops, &loop->loop);

		if (err) {
			free_loops(sim, i);
			free(sim);
			return err;
		}
		loop->sim = sim;
		loop->index = i;
		loop->pooled_free = POOLED_BUFFERS;
		loop->loop->engine = loop;
	}
	*simp = sim;
	return 0;
}

void
sim_free(struct sim *sim)
{
	if (!sim)
		return;
	assert(!sim->running && sim_alive(sim) == 0 && sim->held_count == 0);
	sim_sockets_free(sim);
	free_loops(sim, sim->loops_count);
	free(sim->events);
	free(sim);
}

/* ---- looking in ---- */

struct loop *
sim_loop(struct sim *sim, unsigned index)
{
	assert(index < sim->loops_count);
	return sim->loops[index].loop;
}

struct sim *
sim_self(void)
{
	struct loop *loop = loop_self();

	return loop && loop->ops == &loop_sim_ops ?
	    sim_loop_of(loop)->sim : NULL;
}

unsigned
sim_alive(const struct sim *sim)
{
	unsigned alive = 0;

	for (unsigned i = 0; i < sim->loops_count; i++) {
		const struct loop *loop = sim->loops[i].loop;

		alive += loop->co_alive;
		for (struct task *task = loop->co_waiting.first; task;
		    task = task->next)
			alive++;
	}
	return alive;
}

uint64_t
sim_now_ns(const struct sim *sim)
{
	return sim->now_ns;
}

uint64_t
sim_random(struct sim *sim)
{
	return random_next(&sim->random);
}

uint64_t
sim_below(struct sim *sim, uint64_t limit)
{
	return random_below(&sim->random, limit);
}

void
sim_set_preempt(struct sim *sim, unsigned one_in)
{
	sim->preempt_one_in = one_in;
}

void
sim_set_spread(struct sim *sim, unsigned powers)
{
	assert(powers <= 30);
	sim->operation_powers = powers;
}

void
sim_set_steps_max(struct sim *sim, uint64_t steps)
{
	sim->steps_max = steps;
}

uint64_t
sim_hash(const struct sim *sim)
{
	return sim->hash;
}

void
sim_set_trace(struct sim *sim, FILE *stream)
{
	sim->trace = stream;
}

/* ---- the scheduler ---- */

void
sim_start(struct sim *sim, unsigned loop_index, struct co_start *start,
    void (*fn)(void *arg), void *arg)
{
	struct loop *saved = loop_self();

	loop_set_self(sim_loop(sim, loop_index));
	co_start(start, fn, arg);
	loop_set_self(saved);
}

void
sim_stop(struct sim *sim)
{
	sim->stopping = true;
}

static bool
has_work(const struct sim_loop *simulated)
{
	struct loop *loop = simulated->loop;

	return simulated->preempted || loop->ready.first ||
	    loop->turn_end.first || simulated->completed.first ||
	    atomic_load(&loop->inbox_full);
}

/* When a loop would take its next step, or NEVER. */
static uint64_t
step_time_ns(struct sim_loop *simulated)
{
	const struct loop *loop = simulated->loop;
	uint64_t time_ns = simulated->sim->now_ns;

	if (!has_work(simulated)) {
		if (!loop->timers)
			return NEVER;
		if (loop->timers->deadline_ns > time_ns)
			time_ns = loop->timers->deadline_ns;
	}
	return time_ns > simulated->runs_at_ns ? time_ns :
	    simulated->runs_at_ns;
}

/* In the order of loop_run(): turn end, completions, inbox, timers. */
static void
begin_turn(struct sim_loop *simulated)
{
	struct loop *loop = simulated->loop;

	if (loop_run_turn_end(loop))
		return;
	task_list_join(&loop->ready, &simulated->completed);
	loop_take_inbox(loop);
	loop_run_timers(loop);
	loop->stats.turns++;
}

static void
step(struct sim_loop *simulated)
{
	struct sim *sim = simulated->sim;
	struct co *preempted = simulated->preempted;

	sim_log(sim, &(struct sim_log_entry){
		.kind = SIM_LOG_STEP, .name = "step",
		.loop_index = simulated->index,
	});
	loop_set_self(simulated->loop);
	simulated->runs_at_ns = sim->now_ns +
	    sim_draw_ns(sim, STEP_NS, sim->step_powers);
	if (preempted) {
		simulated->preempted = NULL;
		co_resume(preempted);
		return;
	}
	if (!simulated->loop->ready.first)
		begin_turn(simulated);
	loop_run_ready(simulated->loop, 1);
}

static void
fire(struct sim *sim, struct sim_event *event)
{
	sim_event_stop(sim, event);
	loop_set_self(NULL);
	event->fire(event);
}

/* Why nothing can happen any more. */
static enum sim_end
idle_reason(const struct sim *sim)
{
	if (sim->held_count > 0)
		return SIM_HELD;
	return sim_alive(sim) > 0 ? SIM_DEADLOCK : SIM_DONE;
}

static enum sim_end
run_until(struct sim *sim, uint64_t until_ns)
{
	for (uint64_t steps = 0; steps < sim->steps_max; steps++) {
		struct sim_event *event = NULL;
		struct sim_loop *next = NULL;
		uint64_t next_ns = NEVER;

		if (sim->events_count > 0) {
			event = sim->events[0];
			next_ns = event->due_ns;
		}
		for (unsigned i = 0; i < sim->loops_count; i++) {
			uint64_t time_ns = step_time_ns(&sim->loops[i]);

			if (time_ns >= next_ns)
				continue;
			next = &sim->loops[i];
			next_ns = time_ns;
		}
		if (!next && !event)
			return idle_reason(sim);
		if (next_ns >= until_ns) {
			sim->now_ns = until_ns;
			return SIM_TIME;
		}
		sim->now_ns = next_ns;
		if (next)
			step(next);
		else
			fire(sim, event);
		if (sim->stopping)
			return SIM_STOPPED;
	}
	return SIM_ENDLESS;
}

enum sim_end
sim_run_until(struct sim *sim, uint64_t time_ns)
{
	struct loop *saved = loop_self();
	enum sim_end end;

	assert(!sim->running && !co_self());
	assert(time_ns >= sim->now_ns);
	sim->running = true;
	sim->stopping = false;
	end = run_until(sim, time_ns);
	sim->running = false;
	loop_set_self(saved);
	return end;
}

enum sim_end
sim_run(struct sim *sim)
{
	return sim_run_until(sim, NEVER);
}
