/* SPDX-License-Identifier: MIT */
/*
 * What making, applying and deleting snapshots have in common.
 *
 * In the image's monitor, by the one who holds gate.operation.
 */
#ifndef QCOW2_SNAPSHOT_CHANGE_H
#define QCOW2_SNAPSHOT_CHANGE_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/snapshot.h"
#include "runtime/co.h"

struct image;

/*
 * Adds a snapshot, whose memory the table then owns, or removes the one with
 * that index, or both (added NULL, removed negative: neither).  First makes
 * everything else stable, then switches the header to the new table and makes
 * that stable.  *switchedp: the change was made and cannot be undone; a failure
 * after that means only that it may not survive a crash.  -ENOTSUP: there are
 * too many; -ENOSPC, -EIO, -ENOMEM.
 */
co_fn int snapshot_table_change(struct image *image,
    const struct snapshot *added, int removed, bool *switchedp);

/*
 * Reads the L1 table of a snapshot into entries entries of the machine's order;
 * zeros behind those it has.  free() it.  -EIO: it is damaged, which is logged.
 */
co_fn int snapshot_load_l1(struct image *image,
    const struct snapshot *snapshot, uint32_t entries, uint64_t **l1p);

struct image_progress;
struct vmstate_source;

/*
 * Writes a state behind the end of the disk, where no older one is left; not
 * into a snapshot yet.  -EFBIG, -ENOSPC, -EIO, -ENOMEM, and the source's.
 */
co_fn int vmstate_write(struct image *image,
    const struct vmstate_source *source,
    const struct image_progress *progress);

/* Takes it away from the disk again, whether it was written or not. */
co_fn int vmstate_drop(struct image *image);

/* The disk becomes what the snapshot has.  Errors as image_snapshot_apply(). */
co_fn int snapshot_apply(struct image *image,
    const struct snapshot *snapshot, const struct image_progress *progress);

#endif
