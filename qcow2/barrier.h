/* SPDX-License-Identifier: MIT */
/*
 * The barrier: makes everything that was changed stable, in order.
 *
 * One coroutine per image runs barriers as long as somebody wants one; it
 * takes no claim and no client's buffer.  Each makes a cut: it takes all dirty
 * tables as they are at that moment (later changes go to copies), and then
 *
 *	1. writes refcounts; fdatasync, if the cut has anything that needs
 *	   refcounts, data or new tables on disk before it (O1, O2, O5);
 *	2. hooks new refcount blocks, or switches the header to a moved
 *	   refcount table; fdatasync, if there were any (O5);
 *	3. writes L2 slices and L1 entries; fdatasync.
 *
 * Then the cut is stable: those who wait for it go on, and clusters that lost
 * a reference by it may leave the quarantine (O3).
 *
 * fdatasyncs: none if nothing was written since the last; 1 if no metadata is
 * dirty, or only such as needs no order (new clusters all from the stable
 * reserve); 2 otherwise; 3 where a refcount block or table must be hooked.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_BARRIER_H
#define QCOW2_BARRIER_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/changes.h"
#include "runtime/co.h"
#include "runtime/monitor.h"

struct image;

struct barrier_waiter;

struct barrier {
	uint64_t cuts;		/* made so far */
	uint64_t wanted;	/* the cut somebody wants, if above cuts */
	uint64_t stable_cut;	/* the last one that is on disk */
	bool running;
	bool needs_order;	/* something linked needs what 1. syncs */
	struct changes l1;	/* entries that changed */
	struct barrier_waiter *waiters;
	uint64_t ended_cut;	/* the last one after which all was let out */
	struct wait_queue ended;	/* for a barrier, or all, to end */
	bool lone_fua;	/* a stable write is under way by itself */
	struct co_start start;
	uint64_t syncs;		/* fdatasyncs so far, for tests */
};

/* Waits for the first cut to come, or for the last if nothing has changed. */
co_fn int barrier_flush(struct image *image);

/* Starts a barrier that nobody waits for. */
void barrier_request(struct image *image);

/*
 * For requests that will change metadata, before they claim anything: starts a
 * barrier where much is dirty or in quarantine, waits for it where too much is.
 */
co_fn int barrier_throttle(struct image *image);

/*
 * For operations that change much metadata: waits earlier, so that there is
 * room for what requests change.
 */
co_fn int barrier_pace(struct image *image);

/* Whether anything is not on disk yet. */
bool barrier_is_needed(const struct image *image);

/*
 * Runs a barrier and waits until it has let out what may leave the quarantine.
 * -EIO: it failed.
 */
co_fn int barrier_release(struct image *image);

/*
 * After a flush: waits until that barrier has let go of the tables that it has
 * written, so that they may be freed.
 */
co_fn void barrier_wait_ended(struct image *image);

/* Waits until no barrier is running or wanted. */
co_fn void barrier_wait_idle(struct image *image);

/* O6: after a failed sync nothing is accepted or called stable any more. */
void image_fail(struct image *image, const char *what, int err);

#endif
