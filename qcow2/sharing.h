/* SPDX-License-Identifier: MIT */
/*
 * Sharing: a snapshot on its way, while requests go on.
 *
 * When a snapshot is made, every L2 table of the disk becomes shared in one
 * moment: the C flags of the L1 table are taken off.  The second reference of
 * the tables and of what they map is counted afterwards, table by table, by
 * the snapshot's maker, or by the first request that wants a table of its own
 * back, before it copies it.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_SHARING_H
#define QCOW2_SHARING_H

#include <stdint.h>
#include "runtime/co.h"
#include "runtime/monitor.h"

struct image;
struct image_progress;

struct sharing {
	uint64_t *l1;		/* the tables in common, without C flags */
	uint32_t entries;
	uint64_t *counted;	/* bit: the table has its second reference */
	int err;		/* it cannot be, and is being undone */
	struct wait_queue undone;
};

/* Makes room for sharing an L1 table of so many entries.  -ENOMEM. */
int sharing_init(struct sharing *sharing, uint32_t entries);
void sharing_free(struct sharing *sharing);

/*
 * From now on everything the disk has is shared.  The gate is closed and no
 * barrier runs.  -ENOMEM: nothing has changed.
 */
int sharing_begin(struct image *image, struct sharing *sharing);

/*
 * Counts the second reference of the table with that index, if it waits for
 * it.  The caller holds l2_making.  -ECANCELED: the snapshot cannot be; wait
 * with sharing_wait_undone() and look again.
 */
co_fn int sharing_settle(struct image *image, uint64_t index);

/* Waits until the tables are the disk's own again; 0. */
co_fn int sharing_wait_undone(struct image *image);

/*
 * Counts all that is left; if that cannot be, or progress (which may be NULL)
 * stops it, undoes all of it, ends it, and says why: -ERANGE, -EIO, -ENOMEM,
 * -ECANCELED.  Requests go on meanwhile.
 */
co_fn int sharing_finish(struct image *image,
    const struct image_progress *progress);

/*
 * Undoes it, and ends it: takes the second references off again and gives the
 * disk its C flags back.  What could not be undone is left to be repaired by
 * the next who opens the image.
 */
co_fn void sharing_undo(struct image *image);

/* Ends it: all is counted. */
void sharing_end(struct image *image);

#endif
