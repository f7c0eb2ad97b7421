/* SPDX-License-Identifier: MIT */
/*
 * Workers: threads for work that would hold a loop up for over about 100 us
 * (inflating, compressing, key derivation, blocking system calls).
 *
 * One pool per process, as many threads as CPUs, started with the first job.
 * The queues are bounded by the coroutines that wait in them.
 *
 * There are two.  Whoever is let in asks for disk work; a handshake anybody can
 * ask for, as often as he likes.  So such humble jobs have at most half of the
 * threads at a time (one, if there is but one), and where both kinds wait they
 * take turns: a flood of them holds other work up by one such job, and is not
 * held up for ever either.
 */
#ifndef RUNTIME_WORKER_H
#define RUNTIME_WORKER_H

#include <stdbool.h>
#include "runtime/co.h"

struct worker_job {
	struct task task;	/* runs on the submitter's loop afterwards */
	void (*fn)(void *arg);
	void *arg;
	bool humble;		/* see above */
	struct loop *loop;	/* set by worker_submit() */
	struct worker_job *next;
};

/* Runs fn(arg) on a worker thread, then job->task on the calling loop. */
void worker_submit(struct worker_job *job);

/* Runs fn(arg) on a worker thread and suspends until it is done. */
co_fn void worker_run(void (*fn)(void *arg), void *arg);

/* The same as a humble job. */
co_fn void worker_run_humbly(void (*fn)(void *arg), void *arg);

/* Ends the threads; nothing is queued any more. */
void worker_stop(void);

#endif
