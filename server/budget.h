/* SPDX-License-Identifier: MIT */
/*
 * The memory for payloads that all clients share.
 *
 * Each connection may hold BUDGET_RESERVE_BYTES that nobody counts, which is
 * enough to go on with, however much others take; what it holds beyond comes
 * from here.  Where there is not enough it waits, and stops reading its socket
 * meanwhile.  First come, first served: a large need is not overtaken for ever.
 *
 * Taking and putting are one atomic addition each while nobody waits, and
 * nothing at all within the reserve.  Any thread may call.
 */
#ifndef SERVER_BUDGET_H
#define SERVER_BUDGET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "runtime/loop.h"

#define BUDGET_RESERVE_BYTES (UINT64_C(256) << 10)

/* One client gets this part of all at most. */
#define BUDGET_CLIENTS_MIN 8

/* So that a longest request fits. */
#define BUDGET_BYTES_MIN (UINT64_C(64) << 20)

/* Whoever waits; the task runs on loop once bytes are taken for it. */
struct budget_waiter {
	struct budget_waiter *next;
	struct loop *loop;
	struct task task;
	uint64_t bytes;
	bool waiting;		/* from budget_wait() until the task */
};

struct budget {
	uint64_t limit_bytes;
	atomic_uint_least64_t taken_bytes;
	atomic_uint waiters_count;
	pthread_mutex_t lock;	/* of the list */
	struct budget_waiter *first;
	struct budget_waiter *last;
};

void budget_init(struct budget *budget, uint64_t limit_bytes);
void budget_destroy(struct budget *budget);

/* False, and nothing is taken, if there is not so much, or others wait. */
bool budget_take(struct budget *budget, uint64_t bytes);

/*
 * Takes bytes as soon as there are so many; waiter->task, whose run the caller
 * has set, is posted to the calling loop then.
 */
void budget_wait(struct budget *budget, struct budget_waiter *waiter,
    uint64_t bytes);

/*
 * Gives the place in the queue up.  False: it is too late, the bytes are taken
 * and the task is on its way.
 */
bool budget_cancel(struct budget *budget, struct budget_waiter *waiter);

/* Gives back, which may serve those who wait. */
void budget_put(struct budget *budget, uint64_t bytes);

/* Whether anybody waits. */
static inline bool
budget_is_short(struct budget *budget)
{
	return atomic_load(&budget->waiters_count) > 0;
}

#endif
