/* SPDX-License-Identifier: MIT */
/*
 * The L1 table as a whole: it is in RAM, and gets longer by moving.
 *
 * In the image's monitor, by the one who holds gate.operation.
 */
#ifndef QCOW2_L1_H
#define QCOW2_L1_H

#include <stdint.h>
#include "runtime/co.h"

struct image;

/*
 * Takes clusters for a table of so many entries and notes them in the index of
 * metadata.  -ENOSPC, -EIO, -ENOMEM.
 */
co_fn int l1_take_place(struct image *image, uint32_t entries,
    uint64_t *hostp);

/* Gives the disk a longer one, stably; errors the same. */
co_fn int l1_grow(struct image *image, uint32_t entries);

#endif
