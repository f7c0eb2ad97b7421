/* SPDX-License-Identifier: MIT */
/*
 * Trees: an L2 table with all the clusters it maps, as a snapshot and the disk
 * may have it in common.
 *
 * Every L1 table that leads to a cluster counts as one reference to it and to
 * the L2 table on the way.  The C flags tell the truth for the disk's own
 * tables only.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_TREE_H
#define QCOW2_TREE_H

#include <stdint.h>
#include "runtime/co.h"

struct image;
struct image_progress;

/*
 * Adds a reference to the L2 table at host, which is in the index of metadata,
 * and to each cluster it maps, and takes off their C flags.  Nobody changes
 * the table meanwhile.  On failure nothing has changed: -ERANGE if a refcount
 * cannot tell of more; -EIO if the table has bad entries; -ENOMEM.
 */
co_fn int tree_share(struct image *image, uint64_t host);

/*
 * Takes these references off again, and frees what has none left.  The last
 * pointer to the table is stably gone, and nobody is in what it maps.  Goes on
 * after a failure, and leaks what it could not reach; the first error.
 */
co_fn int tree_drop(struct image *image, uint64_t host);

/*
 * Sets the C flag of the disk's L2 table with that index in the L1 table, if
 * references have gone and one is left.
 */
co_fn int tree_set_table_copied(struct image *image, uint64_t index);

/*
 * The same, and of the clusters it maps.  Claims them, a slice at a time: who
 * is copying a cluster that was shared must not be overtaken by a write in
 * place, which would be lost.
 */
co_fn int tree_set_copied(struct image *image, uint64_t index);

/*
 * Gives up all that the disk maps from guest on, to the end of its L1 table,
 * stably; no request is there.  Afterwards it reads as what is below.  progress
 * may be NULL; when it stops, with -ECANCELED, a part has been given up.
 */
co_fn int tree_drop_from(struct image *image, uint64_t guest,
    const struct image_progress *progress);

#endif
