/* SPDX-License-Identifier: MIT */
/*
 * The door: who is inside an image, so that all of it can be exchanged.
 *
 * A request passes the door before it looks at anything that reopening changes,
 * and leaves by it when it has its answer.  (The gate, gate.h, stands behind
 * it: that is for one step of a request, and for operations that change only
 * what they know of.)  While the door is closed requests wait in front of it;
 * nobody who is inside waits for it.
 *
 * Cost for a request: a count up and one down, in a line of its loop.
 */
#ifndef QCOW2_DOOR_H
#define QCOW2_DOOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include "runtime/co.h"
#include "runtime/monitor.h"

struct door_counter;

struct door {
	unsigned loops;
	struct door_counter *counters;	/* of who is inside, by loop */
	atomic_bool closed;
	atomic_bool lost;	/* nobody is let in: -EIO */
	struct monitor monitor;
	struct wait_queue opened;	/* guarded by the monitor */
};

/* -ENOMEM. */
int door_init(struct door *door, unsigned loops);
void door_free(struct door *door);

/*
 * Waits until the door is open.  What it returns goes to door_leave(); NULL:
 * the image is lost.  Not in a monitor.
 */
co_fn atomic_uint *door_enter(struct door *door);

static inline void
door_leave(atomic_uint *ticket)
{
	atomic_fetch_sub_explicit(ticket, 1, memory_order_release);
}

/* Lets nobody in from now on; one caller at a time. */
co_fn void door_close(struct door *door);

/* Whether nobody is inside; once true it stays so while the door is closed. */
bool door_is_empty(const struct door *door);

/* Waits for that. */
co_fn void door_wait_empty(const struct door *door);

co_fn void door_open(struct door *door);

#endif
