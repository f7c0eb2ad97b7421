/* SPDX-License-Identifier: MIT */
#include "server/walk.h"

#include <errno.h>
#include <stdlib.h>

struct worker {
	struct co_start start;
	struct walk *walk;
	bool tells_progress;
};

/*
 * The next piece, if there is one; in the monitor.  A mutex would be handed to
 * who came first, whose loop may be busy with another piece for long.
 */
co_fn static bool
take(struct walk *walk, struct walk_piece *piece)
{
	int err;

	while (walk->looking)
		wait_queue_wait(&walk->looked);
	if (walk->err || walk->next >= walk->end)
		return false;
	walk->looking = true;
	*piece = (struct walk_piece){ .guest = walk->next };
	monitor_leave(&walk->monitor);
	err = walk->look(walk->arg, piece);
	monitor_enter(&walk->monitor);
	walk->looking = false;
	wait_queue_wake_all(&walk->monitor, &walk->looked);
	if (!err)
		walk->next += piece->length;
	else if (!walk->err)
		walk->err = err;
	return !err;
}

static co_fn void
worker_main(void *arg)
{
	struct worker *worker = arg;
	struct walk *walk = worker->walk;
	struct walk_piece piece;

	monitor_enter(&walk->monitor);
	while (take(walk, &piece)) {
		uint64_t done;
		int err;

		monitor_leave(&walk->monitor);
		err = walk->work(walk->arg, &piece);
		/* What is in memory is read without a suspension. */
		co_yield();
		monitor_enter(&walk->monitor);
		if (err && !walk->err)
			walk->err = err;
		walk->done += piece.length;
		done = walk->done;
		if (worker->tells_progress && walk->progress) {
			monitor_leave(&walk->monitor);
			walk->progress(walk->arg, done, walk->size_bytes);
			monitor_enter(&walk->monitor);
		}
	}
	if (--walk->running == 0)
		wait_queue_wake_all(&walk->monitor, &walk->ended);
	monitor_leave(&walk->monitor);
}

static void
start_worker(void *arg)
{
	struct worker *worker = arg;

	co_start(&worker->start, worker_main, worker);
}

co_fn int
walk_run(struct walk *walk, struct loop *const *loops, unsigned loops_count)
{
	unsigned count = loops_count * walk->coroutines;
	struct worker *workers = calloc(count, sizeof(*workers));

	if (!workers)
		return -ENOMEM;
	monitor_init(&walk->monitor);
	walk->looking = false;
	walk->looked = (struct wait_queue){0};
	walk->ended = (struct wait_queue){0};
	walk->next = walk->done = 0;
	walk->end = walk->size_bytes;
	walk->running = count;
	walk->err = 0;
	/* This loop's come last: once they work, it has no time for others. */
	for (unsigned i = 0; i < count; i++) {
		unsigned loop = loops_count - 1 - i / walk->coroutines;

		workers[i].walk = walk;
		workers[i].tells_progress = loop == 0;
		loop_call(loops[loop], start_worker, &workers[i]);
	}
	monitor_enter(&walk->monitor);
	while (walk->running > 0)
		wait_queue_wait(&walk->ended);
	monitor_leave(&walk->monitor);
	monitor_destroy(&walk->monitor);
	free(workers);
	if (!walk->err && walk->progress && walk->size_bytes > 0)
		walk->progress(walk->arg, walk->size_bytes, walk->size_bytes);
	return walk->err;
}

co_fn void
walk_end_at(struct walk *walk, uint64_t guest)
{
	monitor_enter(&walk->monitor);
	if (walk->end > guest)
		walk->end = guest;
	monitor_leave(&walk->monitor);
}
