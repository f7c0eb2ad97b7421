/* SPDX-License-Identifier: MIT */
/*
 * The dirty bit: refcounts and C flags on disk may not be right.
 *
 * Whoever is about to let them be wrong for a while, in a way that a crash
 * would leave behind, holds it; it stands on disk, stably, from before that
 * until after.  An image that is found with it is repaired before anybody
 * writes to it.  Version 2 has no such bit.
 *
 * An image with lazy refcounts holds it from before its first allocation until
 * it is closed.  Its refcounts need no order before what they count, so that
 * new clusters that are virgin cost one fdatasync, not two, wherever they are.
 * (Specification: "Header", incompatible feature bit 0; O7.)
 *
 * In the image's monitor.
 */
#ifndef QCOW2_DIRTY_H
#define QCOW2_DIRTY_H

#include <stdbool.h>
#include "runtime/co.h"
#include "runtime/monitor.h"

struct image;

struct dirty {
	unsigned holders;
	bool lazy;		/* the image has lazy refcounts */
	bool lazy_held;		/* and something was allocated */
	bool leaks;		/* see dirty_note_leak() */
	struct co_mutex changing;
};

/* Sets the bit, stably, unless it is.  -EIO, -ENOSPC. */
co_fn int dirty_hold(struct image *image);

/*
 * Makes everything stable and clears the bit, if nobody else holds it.  On
 * failure it stays, till the image is closed or it is held and released again.
 */
co_fn int dirty_release(struct image *image);

/* Before clusters are allocated: holds it till the end, if that is lazy. */
co_fn int dirty_allocate(struct image *image);

/*
 * A cluster may have a reference too many: the bit stays when the image is
 * closed, so that the next who opens it repairs that.  Until then the cluster
 * seems shared, and its C flag cannot be right.
 */
void dirty_note_leak(struct image *image);

/* For closing, with nobody holding it and all else stable. */
co_fn int dirty_clear(struct image *image);

#endif
