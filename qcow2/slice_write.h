/* SPDX-License-Identifier: MIT */
/*
 * Changed slices, and their way to the disk.
 *
 * A slice that is changed goes to a list.  The barrier freezes what the list
 * has, in a moment, and writes that; what is changed from then on goes to
 * another list, and if the same slice is, to a copy of it.
 *
 * All of it is guarded by the image's monitor.
 */
#ifndef QCOW2_SLICE_WRITE_H
#define QCOW2_SLICE_WRITE_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/slice.h"
#include "runtime/co.h"

/*
 * The entries of a pinned slice, to be changed before the next suspension; the
 * slice is dirty from then on.  NULL: no memory, and nothing has changed.
 */
uint8_t *slice_modify(struct image *image, struct slice *slice);

/* ---- for the barrier ---- */

/* Whether a freeze would find slices of that kind. */
bool slice_any_dirty(const struct image *image, enum slice_kind kind);

/*
 * Freezes all dirty slices as they are now, in a moment however many there
 * are: later changes go to copies.  All of the last freeze have been thawed.
 */
void slice_freeze(struct image *image);

/* Writes the frozen slices of a kind, neighbours at once.  The first error. */
co_fn int slice_write(struct image *image, enum slice_kind kind);

/*
 * Ends a freeze; what was not written is dirty again.  Others get a turn in
 * between, and find a slice frozen or thawed.
 */
co_fn void slice_thaw(struct image *image, bool written);

#endif
