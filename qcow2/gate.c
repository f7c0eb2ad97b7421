/* SPDX-License-Identifier: MIT */
/*
 * Cost for a request: one look at a flag.
 */
#include "qcow2/gate.h"

#include <assert.h>
#include <errno.h>
#include "qcow2/internal.h"
#include "runtime/loop.h"

/*
 * Leaving takes no lock and wakes nobody, so whoever waits for all to leave
 * looks again: soon, as most are in the middle of one read or write.
 */
#define DRAIN_LOOK_NS 100000

atomic_uint *
gate_enter(struct image *image)
{
	assert(monitor_entered(&image->monitor));
	while (image->gate.closed)
		wait_queue_wait(&image->gate.opened);
	return epoch_enter(&image->epochs);
}

void
gate_close(struct image *image)
{
	assert(monitor_entered(&image->monitor) && !image->gate.closed);
	assert(image->gate.operation.holder == co_self());
	image->gate.closed = true;
	for (;;) {
		if (!epochs_are_empty(&image->epochs))
			loop_sleep(DRAIN_LOOK_NS);
		else if (image->barrier.running)
			barrier_wait_idle(image);
		else
			return;
	}
}

int
gate_refuses(const struct image *image)
{
	assert(image->gate.operation.holder == co_self());
	if (image->closing || image->door.lost)
		return -EIO;
	return image->writable ? 0 : -EROFS;
}

void
gate_open(struct image *image)
{
	assert(monitor_entered(&image->monitor) && image->gate.closed);
	image->gate.closed = false;
	wait_queue_wake_all(&image->monitor, &image->gate.opened);
}
