/* SPDX-License-Identifier: MIT */
#include "qcow2/door.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "runtime/loop.h"

/* Leaving wakes nobody, so whoever waits for all to leave looks again. */
#define LOOK_NS 100000

struct door_counter {
	_Alignas(64) atomic_uint inside;
};

int
door_init(struct door *door, unsigned loops)
{
	struct door_counter *counters =
	    aligned_alloc(64, loops * sizeof(*counters));

	if (!counters)
		return -ENOMEM;
	for (unsigned i = 0; i < loops; i++)
		atomic_init(&counters[i].inside, 0);
	*door = (struct door){ .loops = loops, .counters = counters };
	monitor_init(&door->monitor);
	return 0;
}

void
door_free(struct door *door)
{
	if (!door->counters)
		return;
	monitor_destroy(&door->monitor);
	free(door->counters);
	door->counters = NULL;
}

/*
 * Whoever enters counts himself and then looks whether it is closed; whoever
 * closes says so and then looks who is inside: one of the two sees the other.
 */
atomic_uint *
door_enter(struct door *door)
{
	unsigned loop = loop_index(loop_self()) % door->loops;
	atomic_uint *inside = &door->counters[loop].inside;

	atomic_fetch_add(inside, 1);
	if (atomic_load(&door->closed)) {
		door_leave(inside);
		monitor_enter(&door->monitor);
		while (atomic_load(&door->closed))
			wait_queue_wait(&door->opened);
		atomic_fetch_add(inside, 1);
		monitor_leave(&door->monitor);
	}
	if (!atomic_load_explicit(&door->lost, memory_order_relaxed))
		return inside;
	door_leave(inside);
	return NULL;
}

void
door_close(struct door *door)
{
	monitor_enter(&door->monitor);
	assert(!door->closed);
	atomic_store(&door->closed, true);
	monitor_leave(&door->monitor);
}

bool
door_is_empty(const struct door *door)
{
	for (unsigned i = 0; i < door->loops; i++)
		if (atomic_load(&door->counters[i].inside))
			return false;
	return true;
}

void
door_wait_empty(const struct door *door)
{
	while (!door_is_empty(door))
		loop_sleep(LOOK_NS);
}

void
door_open(struct door *door)
{
	monitor_enter(&door->monitor);
	assert(door->closed);
	atomic_store(&door->closed, false);
	wait_queue_wake_all(&door->monitor, &door->opened);
	monitor_leave(&door->monitor);
}
