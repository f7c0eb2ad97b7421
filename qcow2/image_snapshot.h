/* SPDX-License-Identifier: MIT */
/*
 * Making, applying and deleting internal snapshots of an image that is open
 * for writing, while requests go on.
 *
 * One operation of this kind, or of resizing, runs at a time;
 * others wait.  What is asked for either happens as a whole or not at all:
 * after an error it has not, but for one that comes as the change is being made
 * stable (-EIO, -ENOSPC), and after a crash either may be.  The dirty bit
 * stands on disk meanwhile, so that the next who opens the image counts its
 * references anew (version 2 has no such bit; there, references may leak).
 * (Specification: "Snapshots".)
 *
 * progress may be NULL.  Until the change is made, it may stop it, after which
 * the image is as it was (-ECANCELED); what is left to be done after that takes
 * its time.
 *
 * NAME means the snapshot with that id or, if there is none, that name.
 */
#ifndef QCOW2_IMAGE_SNAPSHOT_H
#define QCOW2_IMAGE_SNAPSHOT_H

#include <time.h>
#include "runtime/co.h"
#include "runtime/error.h"

struct image;
struct image_progress;

/* Bytes of an id or a name. */
#define SNAPSHOT_NAME_BYTES_MAX 255

/*
 * Keeps, under the date given, what every completed write has left, and none
 * of those that come after the return.  Requests wait while those in flight
 * end, no longer.  -EEXIST: the name is taken; -ENOTSUP: raw, or too many;
 * -EINVAL: no name; -ERANGE: the refcounts of the image are too narrow; -EROFS,
 * -ENOSPC, -EIO, -ENOMEM.  *error says it in words.
 */
co_fn int image_snapshot_create(struct image *image, const char *name,
    const struct timespec *date, const struct image_progress *progress,
    struct error *error);

/*
 * The disk becomes what the snapshot has, its length included; the snapshot
 * stays.  Errors the same; -ENOENT: there is none of that name.
 */
co_fn int image_snapshot_apply(struct image *image, const char *name,
    const struct image_progress *progress, struct error *error);

/* Errors the same.  After -EIO it may be gone and its clusters leaked. */
co_fn int image_snapshot_delete(struct image *image, const char *name,
    const struct image_progress *progress, struct error *error);

#endif
