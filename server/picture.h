/* SPDX-License-Identifier: MIT */
/*
 * A picture of an image: what the disk consists of, as the guest sees it, and
 * what the file is used for.
 */
#ifndef SERVER_PICTURE_H
#define SERVER_PICTURE_H

#include "qcow2/image.h"
#include "runtime/error.h"

struct progress;

/*
 * Draws image, which is of that format, into the file at path, as SVG; the
 * tables of a qcow2 file are read anew for that.  A file that is there already
 * is replaced if it is such a picture, else -EEXIST.
 */
co_fn int picture_draw(struct image *image, enum image_format format,
    const char *path, struct progress *progress, struct error *error);

#endif
