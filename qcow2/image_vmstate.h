/* SPDX-License-Identifier: MIT */
/*
 * The state of a virtual machine, kept in a snapshot behind the end of its
 * disk.  What is in it is for the program that made it.
 *
 * It stands where the first L2 table that the disk does not need would be.
 */
#ifndef QCOW2_IMAGE_VMSTATE_H
#define QCOW2_IMAGE_VMSTATE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include "runtime/co.h"
#include "runtime/error.h"

struct image;
struct image_progress;

/* Where a state comes from, piece by piece, front to back. */
struct vmstate_source {
	/* Fills data with length bytes; may suspend.  0 or -errno. */
	int (*read)(void *arg, void *data, size_t length);
	void *arg;
	uint64_t bytes;		/* of all of it, not 0 */
};

/*
 * Makes a snapshot, as image_snapshot_create() does, that holds a state as
 * well.  Errors the same, and those of the source; -EFBIG: it is too long.
 */
co_fn int image_vmstate_save(struct image *image, const char *name,
    const struct timespec *date, const struct vmstate_source *source,
    const struct image_progress *progress, struct error *error);

/*
 * Of an image that was opened as a snapshot: how long its state is, 0 if it
 * has none; and a part of it, which is inside.
 */
uint64_t image_vmstate_bytes(const struct image *image);
co_fn int image_vmstate_read(struct image *image, uint64_t offset,
    void *data, size_t length);

#endif
