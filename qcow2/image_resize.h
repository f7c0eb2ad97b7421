/* SPDX-License-Identifier: MIT */
/*
 * Making a disk longer or shorter, while requests go on.
 *
 * Nobody gets behind the old end before all that is there is stable and reads
 * as zeros, whatever a backing file has there.  Of a disk that became shorter
 * nobody is in what is cut off when that is given back, and requests beyond its
 * end get -EINVAL.
 *
 * For requests the length changes a moment before the header says so (qcow2).
 * What is written in that moment is kept by a flush or FUA as anything else is:
 * these cover the header, too.  After a crash the disk may have either length
 * until one of them, or image_resize(), has returned.
 */
#ifndef QCOW2_IMAGE_RESIZE_H
#define QCOW2_IMAGE_RESIZE_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/create.h"
#include "runtime/co.h"
#include "runtime/error.h"

struct image;
struct image_progress;

struct image_resize {
	uint64_t size_bytes;	/* rounded up to 512 */
	bool shrink;		/* it may become shorter */
	/* Of what is new; version 2 cannot but write zeros. */
	enum create_preallocation preallocation;
	const struct image_progress *progress;	/* or NULL */
};

/*
 * Shorter by nothing, it gives back what an earlier one has left behind its
 * end.
 *
 * -EINVAL: it would become shorter, or need what there is not; -EFBIG: too
 * long for its clusters; -ENOTSUP: its snapshots do not say how long their
 * disk is (version 2); -ECANCELED: progress stopped it; -EROFS, -ENOSPC, -EIO,
 * -ENOMEM.  After an error the disk has its old length, or if that had been
 * switched already, its new one.
 */
co_fn int image_resize(struct image *image, const struct image_resize *how,
    struct error *error);

#endif
