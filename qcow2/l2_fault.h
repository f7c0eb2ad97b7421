/* SPDX-License-Identifier: MIT */
/*
 * What is wrong with L2 entries, and what of it proves that the image is
 * corrupt (guard.h).
 *
 * In the image's monitor.
 */
#ifndef QCOW2_L2_FAULT_H
#define QCOW2_L2_FAULT_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/internal.h"

/* What is wrong with an entry; NULL: nothing. */
const char *l2_fault(const struct image *image, uint64_t entry);

/* Whether an entry of the slice is a bad one. */
static inline bool
l2_fault_in(const struct image *image, const struct slice *slice,
    uint64_t entry)
{
	return slice->faulty && l2_fault(image, entry);
}

/*
 * Looks at all entries; the slice is found faulty or not.  Logs the first bad
 * one if none was found before.  One that proves the image corrupt, or 0.
 */
uint64_t l2_fault_find(struct image *image, struct slice *slice);

#endif
