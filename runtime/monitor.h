/* SPDX-License-Identifier: MIT */
/*
 * A monitor: a lock that every suspension of its holder gives up.
 *
 * State guarded by a monitor is touched by one coroutine at a time, on any
 * number of loops.  Code between two suspension points is atomic; across one,
 * everything may have changed.  The lock is a plain mutex held for
 * microseconds: never across I/O (which suspends), compression, logging or
 * an allocation that may block.  A coroutine is in at most one monitor.
 *
 * Wait queues, mutexes and groups below are guarded by the monitor of what
 * they wait for, so a wake between the look and the wait cannot be lost:
 * enqueueing and leaving the monitor are one step for everybody else.  Wakes
 * are posted after the lock is released.
 */
#ifndef RUNTIME_MONITOR_H
#define RUNTIME_MONITOR_H

#include <pthread.h>
#include <stdbool.h>
#include "runtime/co.h"

/* Coroutines that wait, oldest first; all zeros is an empty queue. */
struct waiter {
	struct waiter *next;
	struct co *co;
};

struct wait_queue {
	struct waiter *first;
	struct waiter *last;
};

struct monitor {
	pthread_mutex_t lock;
	struct wait_queue woken;	/* woken once the lock is released */
};

void monitor_init(struct monitor *monitor);
void monitor_destroy(struct monitor *monitor);

/* Only the simulator's monitor_enter() suspends (it may switch loops here). */
co_fn void monitor_enter(struct monitor *monitor);
void monitor_leave(struct monitor *monitor);

/* Whether the running coroutine is in monitor; for assertions. */
bool monitor_entered(const struct monitor *monitor);

/* Used by co_suspend() alone. */
void monitor_unlock(struct monitor *monitor);
void monitor_lock(struct monitor *monitor);

/*
 * For waiting of other shapes: wakes waiter->co once the monitor, in which the
 * caller is, is left.  The coroutine has set up waiter and suspended.
 */
void monitor_wake(struct monitor *monitor, struct waiter *waiter);

/* Suspends until woken.  The caller is in the monitor that guards queue. */
co_fn void wait_queue_wait(struct wait_queue *queue);

/* Called in the monitor that guards queue; the woken run after it is left. */
void wait_queue_wake_one(struct monitor *monitor, struct wait_queue *queue);
void wait_queue_wake_all(struct monitor *monitor, struct wait_queue *queue);

static inline bool
wait_queue_empty(const struct wait_queue *queue)
{
	return !queue->first;
}

/*
 * A mutex that is kept across suspensions, handed over in order of arrival;
 * all zeros is a free one.  Guarded by a monitor, which its callers are in.
 */
struct co_mutex {
	struct co *holder;
	struct wait_queue waiters;
};

co_fn void co_mutex_lock(struct co_mutex *mutex);
void co_mutex_unlock(struct monitor *monitor, struct co_mutex *mutex);

/*
 * A group: a parent that does not end before its children.  All its
 * coroutines live on one loop, so it needs no monitor.  All zeros is empty.
 */
struct group {
	unsigned running;
	struct co *waiter;
};

/* A child announces itself before it starts and leaves as its last act. */
void group_enter(struct group *group);
void group_leave(struct group *group);

/* Suspends until no child is left.  One waiter at a time. */
co_fn void group_wait(struct group *group);

#endif
