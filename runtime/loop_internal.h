/* SPDX-License-Identifier: MIT */
/*
 * What the loop and its engines share.
 *
 * Sleeping and waking across loops: a poster appends to the inbox and then
 * looks at asleep; a loop sets asleep, fences, looks at the inbox again and
 * only then blocks.  One of the two sees the other, so no wake is lost and an
 * eventfd is written only to a loop that announced its sleep.
 */
#ifndef RUNTIME_LOOP_INTERNAL_H
#define RUNTIME_LOOP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include "runtime/loop.h"
#include "runtime/op_list.h"

struct loop_engine_ops {
	const char *name;

	/* Called by the loop's own thread; sets loop->engine. */
	int (*init)(struct loop *loop);
	void (*destroy)(struct loop *loop);

	/* Queues or starts op; never completes it inside the call's caller:
	 * completion is always a later loop_complete() on the loop's thread or
	 * a loop_post() of op->task with op->result set. */
	void (*submit)(struct loop *loop, struct op *op);

	/* Hands over what is queued and completes what is done; blocks until
	 * something is, a wake, or timeout_ns (0: never block, < 0: ever). */
	void (*wait)(struct loop *loop, int64_t timeout_ns);

	/* From any thread: makes a blocked wait return. */
	void (*wake)(struct loop *loop);

	void (*cancel)(struct loop *loop, struct op *op);
	void (*recv_put)(struct loop *loop, struct op *op);
	uint64_t (*now_ns)(struct loop *loop);
	uint64_t (*random)(struct loop *loop);

	/* Sim only (else NULL): may let other loops run before a monitor. */
	void (*preempt)(struct loop *loop);
	/* Sim only (else NULL): called after every post, instead of waking. */
	void (*posted)(struct loop *loop);
	/* Sim only (else NULL): its descriptors are none of the kernel's. */
	void (*shutdown_fd)(struct loop *loop, int fd);
	void (*close_fd)(struct loop *loop, int fd);
};

struct loop {
	const struct loop_engine_ops *ops;
	unsigned index;
	void *engine;			/* the engine's own state */
	struct task_list ready;
	struct task_list turn_end;
	struct task_list next_turn;	/* ready after the next wait */
	struct timer *timers;		/* the earliest; see timer.c */
	unsigned elsewhere;		/* what other threads do for it */
	struct op_list writes;		/* of this turn, for writers */
	struct task writes_task;
	struct loop_stats stats;
	bool queued;			/* submitted since the last wait */

	/* Coroutines; see co.c. */
	void *context;			/* the loop's own while one runs */
	unsigned co_alive;
	unsigned co_alive_max;
	struct task_list co_waiting;	/* struct co_start past the limit */
	struct timer co_retry;		/* for want of memory, not of limit */

	/* Written by other threads; a line of their own. */
	_Alignas(64) pthread_mutex_t inbox_lock;
	struct task_list inbox;
	uint64_t wakes;			/* for the statistics */
	atomic_bool inbox_full;		/* a hint that needs no lock */
	atomic_bool asleep;
	atomic_bool stopping;
};

extern const struct loop_engine_ops loop_uring_ops;
extern const struct loop_engine_ops loop_threads_ops;

/* Hands a finished op back; only on the loop's own thread. */
static inline void
loop_complete(struct loop *loop, struct op *op, int64_t result)
{
	op->result = result;
	task_list_append(&loop->ready, &op->task);
}

/* Makes a loop for any engine; loop_create() and the simulator use it. */
int loop_create_with(const struct loop_engine_ops *ops, unsigned loops_max,
    struct loop **loopp);

/* Looks at co_waiting again soon even if no coroutine ends meanwhile. */
void loop_retry_starts(struct loop *loop);

/* Sets what loop_self() returns on this thread. */
void loop_set_self(struct loop *loop);

/* Runs at most tasks_max ready tasks; how many it ran. */
unsigned loop_run_ready(struct loop *loop, unsigned tasks_max);
/* Runs the end-of-turn tasks; whether there were any. */
bool loop_run_turn_end(struct loop *loop);
/* Make due timers, and the inbox, ready. */
void loop_run_timers(struct loop *loop);
void loop_take_inbox(struct loop *loop);
/* Nanoseconds until the first timer, 0 if due, -1 if there is none. */
int64_t loop_timeout_ns(struct loop *loop);

/* Whether loop is a simulator's (its jobs run inline). */
static inline bool
loop_is_simulated(const struct loop *loop)
{
	return loop->ops->posted != NULL;
}

uint64_t loop_clock_ns(struct loop *loop);	/* CLOCK_MONOTONIC */
uint64_t loop_system_random(struct loop *loop);

#endif
