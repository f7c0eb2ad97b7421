/* SPDX-License-Identifier: MIT */
/*
 * Epochs: until when a host cluster may still be met by I/O in flight.
 *
 * A request enters under the lock it takes for its lookup and leaves, without
 * a lock, when its I/O has ended.  What was unlinked in an epoch may be reused
 * once every request that entered in it has left: those that enter later
 * cannot see it any more.  Two sets of counters are enough, since the epoch
 * only advances when the set it will use is empty.
 *
 * Each loop counts in a line of its own.
 */
#ifndef QCOW2_EPOCH_H
#define QCOW2_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct epoch_counter {
	_Alignas(64) atomic_uint in_flight[2];
};

struct epochs {
	uint64_t now;		/* from 1 on */
	unsigned loops;
	struct epoch_counter *counters;
};

/* -ENOMEM. */
int epochs_init(struct epochs *epochs, unsigned loops);
void epochs_free(struct epochs *epochs);

/* In the monitor.  What it returns goes to epoch_leave(). */
atomic_uint *epoch_enter(struct epochs *epochs);

/* Anywhere; ticket NULL is fine. */
static inline void
epoch_leave(atomic_uint *ticket)
{
	if (ticket)
		atomic_fetch_sub_explicit(ticket, 1, memory_order_release);
}

/* Whether no request is inside.  In the monitor. */
bool epochs_are_empty(const struct epochs *epochs);

/*
 * Whether all requests that entered in epoch have left; starts a new epoch if
 * that brings the answer nearer.  In the monitor.
 */
bool epoch_drained(struct epochs *epochs, uint64_t epoch);

#endif
