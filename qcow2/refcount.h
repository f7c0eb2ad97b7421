/* SPDX-License-Identifier: MIT */
/*
 * Refcounts: how many references each host cluster has.
 *
 * In RAM they are always those of now; the barrier writes them in the order
 * that O1 and O3 want.  What they are found by is in refcount_table.h.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_REFCOUNT_H
#define QCOW2_REFCOUNT_H

#include <stdint.h>
#include "qcow2/changes.h"
#include "runtime/co.h"
#include "runtime/monitor.h"

struct image;

struct refcounts {
	unsigned order;
	unsigned block_bits;	/* log2 of the refcounts in a block */
	struct co_mutex growing;
	struct changes hooks;	/* table entries of new blocks */
};

/* The refcount of a cluster.  -EIO, -ENOMEM. */
co_fn int refcount_get(struct image *image, uint64_t cluster,
    uint64_t *valuep);

/*
 * How many clusters from cluster on, at most max and inside one slice, have
 * the refcount 0 (free) or another (not free).  -EIO, -ENOMEM.
 */
co_fn int refcount_scan(struct image *image, uint64_t cluster, uint64_t max,
    uint64_t *runp, bool *freep);

/*
 * Sets the refcounts of clusters that have none to 1; makes blocks as needed.
 * On failure none is set; -EEXIST if one has a refcount.
 */
co_fn int refcount_take(struct image *image, uint64_t cluster,
    uint64_t count);

/*
 * Adds one reference to each of clusters that have some.  On failure none is
 * added, or the image is left to be repaired: -ERANGE if one has as many as its
 * width can tell; -EIO if one has none, which is logged.
 */
co_fn int refcount_add(struct image *image, uint64_t cluster,
    uint64_t count);

/*
 * Takes one reference off; *valuep is what is left.  -EIO if it has none,
 * which is logged.
 */
co_fn int refcount_drop(struct image *image, uint64_t cluster,
    uint64_t *valuep);

/*
 * Takes one reference off each of clusters that were just given it, and that
 * nothing points to because of it.  dirty_note_leak() if it cannot be.
 */
co_fn void refcount_take_back(struct image *image, uint64_t cluster,
    uint64_t count);

/*
 * How many clusters from cluster on, at most max and inside one slice, have
 * just this reference left (last), or others (not last).  -EIO, -ENOMEM.
 */
co_fn int refcount_scan_last(struct image *image, uint64_t cluster,
    uint64_t max, uint64_t *runp, bool *lastp);

/*
 * Takes one reference off each of clusters that lie in one slice, whose block
 * exists; those that have none left then are free.  -EIO if one has none, which
 * is logged, -ENOMEM: none was taken off.
 */
co_fn int refcount_drop_run(struct image *image, uint64_t cluster,
    uint64_t count);

#endif
