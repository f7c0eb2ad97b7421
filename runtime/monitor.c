/* SPDX-License-Identifier: MIT */
#include "runtime/monitor.h"

#include <assert.h>
#include "runtime/loop_internal.h"

void
monitor_init(struct monitor *monitor)
{
	int err = pthread_mutex_init(&monitor->lock, NULL);

	assert(!err);
	monitor->woken = (struct wait_queue){0};
}

void
monitor_destroy(struct monitor *monitor)
{
	assert(wait_queue_empty(&monitor->woken));
	pthread_mutex_destroy(&monitor->lock);
}

void
monitor_lock(struct monitor *monitor)
{
	int err = pthread_mutex_lock(&monitor->lock);

	assert(!err);
}

/*
 * The woken are posted after the unlock, so that they do not run into it.  A
 * waiter stands on the stack of its coroutine and is gone once that is woken.
 */
void
monitor_unlock(struct monitor *monitor)
{
	struct waiter *waiter = monitor->woken.first;

	monitor->woken.first = NULL;
	pthread_mutex_unlock(&monitor->lock);
	while (waiter) {
		struct waiter *next = waiter->next;

		co_wake(waiter->co);
		waiter = next;
	}
}

void
monitor_enter(struct monitor *monitor)
{
	struct loop *loop = loop_self();

	assert(!co_monitor());
	if (loop->ops->preempt)
		loop->ops->preempt(loop);
	monitor_lock(monitor);
	co_set_monitor(monitor);
}

void
monitor_leave(struct monitor *monitor)
{
	assert(co_monitor() == monitor);
	co_set_monitor(NULL);
	monitor_unlock(monitor);
}

bool
monitor_entered(const struct monitor *monitor)
{
	return co_monitor() == monitor;
}

static void
append(struct wait_queue *queue, struct waiter *waiter)
{
	waiter->next = NULL;
	if (queue->first)
		queue->last->next = waiter;
	else
		queue->first = waiter;
	queue->last = waiter;
}

void
monitor_wake(struct monitor *monitor, struct waiter *waiter)
{
	assert(monitor_entered(monitor));
	append(&monitor->woken, waiter);
}

void
wait_queue_wait(struct wait_queue *queue)
{
	struct waiter waiter = {.co = co_self()};

	assert(co_monitor());
	append(queue, &waiter);
	co_suspend();
}

void
wait_queue_wake_one(struct monitor *monitor, struct wait_queue *queue)
{
	struct waiter *waiter = queue->first;

	if (!waiter)
		return;
	queue->first = waiter->next;
	monitor_wake(monitor, waiter);
}

void
wait_queue_wake_all(struct monitor *monitor, struct wait_queue *queue)
{
	while (queue->first)
		wait_queue_wake_one(monitor, queue);
}

/* An unlock hands over to the first waiter, so nobody can overtake it. */
void
co_mutex_lock(struct co_mutex *mutex)
{
	struct co *self = co_self();

	assert(mutex->holder != self);
	if (!mutex->holder) {
		mutex->holder = self;
		return;
	}
	wait_queue_wait(&mutex->waiters);
	assert(mutex->holder == self);
}

void
co_mutex_unlock(struct monitor *monitor, struct co_mutex *mutex)
{
	assert(mutex->holder == co_self());
	mutex->holder = mutex->waiters.first ? mutex->waiters.first->co : NULL;
	wait_queue_wake_one(monitor, &mutex->waiters);
}

void
group_enter(struct group *group)
{
	group->running++;
}

void
group_leave(struct group *group)
{
	struct co *waiter = group->waiter;

	assert(group->running > 0);
	if (--group->running > 0 || !waiter)
		return;
	group->waiter = NULL;
	co_wake(waiter);
}

void
group_wait(struct group *group)
{
	if (group->running == 0)
		return;
	assert(!group->waiter);
	group->waiter = co_self();
	co_suspend();
}
