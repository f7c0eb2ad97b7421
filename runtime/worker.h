/* SPDX-License-Identifier: MIT */
/*
 * Workers: threads for work that would hold a loop up for over about 100 us
 * (inflating, compressing, key derivation, blocking system calls).
 *
 * One pool per process, as many threads as CPUs, started with the first job.
 * The queue is bounded by the coroutines that wait in it.
 */
#ifndef RUNTIME_WORKER_H
#define RUNTIME_WORKER_H

#include "runtime/co.h"

struct worker_job {
	struct task task;	/* runs on the submitter's loop afterwards */
	void (*fn)(void *arg);
	void *arg;
	struct loop *loop;	/* set by worker_submit() */
	struct worker_job *next;
};

/* Runs fn(arg) on a worker thread, then job->task on the calling loop. */
void worker_submit(struct worker_job *job);

/* Runs fn(arg) on a worker thread and suspends until it is done. */
co_fn void worker_run(void (*fn)(void *arg), void *arg);

/* Ends the threads; nothing is queued any more. */
void worker_stop(void);

#endif
