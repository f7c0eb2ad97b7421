/* SPDX-License-Identifier: MIT */
/*
 * The gate: how an operation has an image to itself for a moment.
 *
 * Every step of a request passes the gate as it enters its epoch, and is
 * inside until it leaves that.  An operation that changes what all requests
 * rely on (where the L1 table is, who shares it, how long the disk is) closes
 * the gate, waits until nobody is inside, changes what it must in memory, and
 * opens it again.  Its work on disk goes on behind the open gate.
 *
 * Barriers do not pass the gate, so whoever is inside may wait for one.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_GATE_H
#define QCOW2_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include "runtime/co.h"
#include "runtime/monitor.h"

struct image;

struct gate {
	bool closed;
	struct wait_queue opened;
	/* Snapshots, resizing, ...: one at a time, for as long as it takes. */
	struct co_mutex operation;
};

/*
 * Enters the image for one step of a request; waits while the gate is closed.
 * What it returns goes to epoch_leave().
 */
co_fn atomic_uint *gate_enter(struct image *image);

/*
 * Closes the gate and waits until nobody is inside and no barrier is running.
 * The caller holds operation and may change anything until it suspends.
 */
co_fn void gate_close(struct image *image);

/*
 * Once operation is held: whether the image may still be changed.  -EROFS: it
 * was opened anew meanwhile, for reading alone; -EIO: it is lost, or closing.
 */
int gate_refuses(const struct image *image);

void gate_open(struct image *image);

#endif
