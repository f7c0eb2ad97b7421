/* SPDX-License-Identifier: MIT */
/*
 * The refcount table: which refcount block has the count of a cluster.
 *
 * A new block may need a larger table, and the table clusters that are counted
 * in new blocks.  Both are made under one mutex, at the end of the file, and
 * hooked by the next barrier (O1, O5).
 *
 * In the image's monitor.
 */
#ifndef QCOW2_REFCOUNT_TABLE_H
#define QCOW2_REFCOUNT_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/co.h"

struct image;

/* The index of the entry that leads to the block for cluster. */
uint64_t refcount_table_index(const struct image *image, uint64_t cluster);

/* Whether there is that block.  Without one all its counts are 0. */
bool refcount_table_has(const struct image *image, uint64_t cluster);

/*
 * Makes sure that there is.  -ENOSPC: the file or the table cannot grow so far;
 * -EIO, -ENOMEM.
 */
co_fn int refcount_table_ensure(struct image *image, uint64_t cluster);

#endif
