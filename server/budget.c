/* SPDX-License-Identifier: MIT */
/*
 * Who begins to wait says so before a last try to take; who puts looks for
 * those that wait after having put.  So one of the two sees the other.
 */
#include "server/budget.h"

#include <assert.h>

void
budget_init(struct budget *budget, uint64_t limit_bytes)
{
	assert(limit_bytes >= BUDGET_BYTES_MIN);
	*budget = (struct budget){.limit_bytes = limit_bytes};
	pthread_mutex_init(&budget->lock, NULL);
}

void
budget_destroy(struct budget *budget)
{
	assert(!budget->first && atomic_load(&budget->taken_bytes) == 0);
	pthread_mutex_destroy(&budget->lock);
}

static bool
try_take(struct budget *budget, uint64_t bytes)
{
	uint64_t taken = atomic_fetch_add(&budget->taken_bytes, bytes);

	if (taken + bytes <= budget->limit_bytes)
		return true;
	atomic_fetch_sub(&budget->taken_bytes, bytes);
	return false;
}

/* Serves those that wait, in their order, as far as it goes. */
static void
serve_waiters(struct budget *budget)
{
	pthread_mutex_lock(&budget->lock);
	while (budget->first && try_take(budget, budget->first->bytes)) {
		struct budget_waiter *waiter = budget->first;

		budget->first = waiter->next;
		atomic_fetch_sub(&budget->waiters_count, 1);
		loop_post(waiter->loop, &waiter->task);
	}
	pthread_mutex_unlock(&budget->lock);
}

bool
budget_take(struct budget *budget, uint64_t bytes)
{
	if (budget_is_short(budget))
		return false;
	if (try_take(budget, bytes))
		return true;
	/* For a moment it looked to others as if there were less than is. */
	if (budget_is_short(budget))
		serve_waiters(budget);
	return false;
}

void
budget_wait(struct budget *budget, struct budget_waiter *waiter,
    uint64_t bytes)
{
	assert(!waiter->waiting && bytes <= budget->limit_bytes);
	waiter->next = NULL;
	waiter->loop = loop_self();
	waiter->bytes = bytes;
	waiter->waiting = true;
	pthread_mutex_lock(&budget->lock);
	if (budget->first)
		budget->last->next = waiter;
	else
		budget->first = waiter;
	budget->last = waiter;
	atomic_fetch_add(&budget->waiters_count, 1);
	pthread_mutex_unlock(&budget->lock);
	serve_waiters(budget);
}

bool
budget_cancel(struct budget *budget, struct budget_waiter *waiter)
{
	struct budget_waiter *before = NULL, *here;
	bool found = false;

	pthread_mutex_lock(&budget->lock);
	for (here = budget->first; here && here != waiter; here = here->next)
		before = here;
	if (here) {
		found = true;
		if (before)
			before->next = here->next;
		else
			budget->first = here->next;
		if (budget->last == here)
			budget->last = before;
		atomic_fetch_sub(&budget->waiters_count, 1);
		waiter->waiting = false;
	}
	pthread_mutex_unlock(&budget->lock);
	/* Whoever stood behind it may need less. */
	if (found)
		serve_waiters(budget);
	return found;
}

void
budget_put(struct budget *budget, uint64_t bytes)
{
	assert(atomic_load(&budget->taken_bytes) >= bytes);
	atomic_fetch_sub(&budget->taken_bytes, bytes);
	if (budget_is_short(budget))
		serve_waiters(budget);
}
