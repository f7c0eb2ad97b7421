/* SPDX-License-Identifier: MIT */
/*
 * Timers: a pairing heap through the timers themselves, so that none can fail
 * to start for want of memory.
 *
 * A timer that is due later hangs below one that is due earlier, as one of its
 * children, which are a list through next; previous is the child before it, or
 * of the first child the parent.  To start one costs a comparison, to stop one
 * or to take the first the logarithm of their number on average.
 */
#include <assert.h>
#include "runtime/loop_internal.h"

/* Of two heaps one; either may be NULL. */
static struct timer *
merge(struct timer *a, struct timer *b)
{
	struct timer *child;

	if (!a || !b)
		return a ? a : b;
	if (b->deadline_ns < a->deadline_ns) {
		child = a;
		a = b;
	} else {
		child = b;
	}
	child->previous = a;
	child->next = a->child;
	if (child->next)
		child->next->previous = child;
	a->child = child;
	return a;
}

/* The first of a list and its neighbour, merged; *restp is what follows. */
static struct timer *
merge_pair(struct timer *first, struct timer **restp)
{
	struct timer *second = first->next;

	*restp = second ? second->next : NULL;
	first->next = first->previous = NULL;
	if (second)
		second->next = second->previous = NULL;
	return merge(first, second);
}

/* All children of one that goes: in pairs first, then these from the last. */
static struct timer *
merge_children(struct timer *children)
{
	struct timer *pairs = NULL, *heap = NULL;

	while (children) {
		struct timer *pair = merge_pair(children, &children);

		pair->next = pairs;
		pairs = pair;
	}
	while (pairs) {
		struct timer *pair = pairs;

		pairs = pair->next;
		pair->next = NULL;
		heap = merge(heap, pair);
	}
	return heap;
}

/* Takes one that is not the first out of the children of its parent. */
static void
unhang(struct timer *timer)
{
	if (timer->previous->child == timer)
		timer->previous->child = timer->next;
	else
		timer->previous->next = timer->next;
	if (timer->next)
		timer->next->previous = timer->previous;
	timer->next = timer->previous = NULL;
}

void
timer_start(struct loop *loop, struct timer *timer, uint64_t deadline_ns)
{
	assert(loop == loop_self());
	timer_stop(loop, timer);
	timer->deadline_ns = deadline_ns;
	timer->running = true;
	loop->timers = merge(loop->timers, timer);
}

void
timer_stop(struct loop *loop, struct timer *timer)
{
	struct timer *children = timer->child;

	assert(loop == loop_self());
	if (!timer->running)
		return;
	timer->running = false;
	timer->child = NULL;
	if (loop->timers == timer) {
		loop->timers = merge_children(children);
		return;
	}
	unhang(timer);
	loop->timers = merge(loop->timers, merge_children(children));
}

int64_t
loop_timeout_ns(struct loop *loop)
{
	uint64_t now_ns;

	if (!loop->timers)
		return -1;
	now_ns = loop_now_ns(loop);
	if (loop->timers->deadline_ns <= now_ns)
		return 0;
	return (int64_t)(loop->timers->deadline_ns - now_ns);
}

void
loop_run_timers(struct loop *loop)
{
	uint64_t now_ns;

	if (!loop->timers)
		return;
	now_ns = loop_now_ns(loop);
	while (loop->timers && loop->timers->deadline_ns <= now_ns) {
		struct timer *timer = loop->timers;

		timer_stop(loop, timer);
		task_list_append(&loop->ready, &timer->task);
	}
}
