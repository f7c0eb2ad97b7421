/* SPDX-License-Identifier: MIT */
/* What opening an image and opening it anew share. */
#ifndef QCOW2_IMAGE_OPEN_H
#define QCOW2_IMAGE_OPEN_H

#include "qcow2/internal.h"

/* A killed io_uring process holds its locks for some 50 ms more. */
#define IMAGE_LOCK_PATIENCE_MS 2000

static inline enum file_lock
image_lock_kind(const struct image *image)
{
	return image->writable ? FILE_LOCK_WRITE :
	    image->force_share ? FILE_LOCK_SHARED : FILE_LOCK_READ;
}

/* Says why the lock for such an opening could not be had; err. */
int image_explain_lock(const struct image *image, bool writable, int err,
    struct error *error);

/*
 * An image of an opened file, which is the image's from then on, also on
 * failure; it is not locked yet, nor is anything of it read.  -ENOMEM.
 */
int image_new_layer(struct file *file, const char *path,
    enum image_format format, bool writable,
    const struct image_options *options, struct image **imagep,
    struct error *error);

/* Reads and validates what is to be trusted.  After a failure: close it. */
co_fn int image_load_layer(struct image *image,
    const struct image_options *options, struct error *error);

/* Opens what lies below, by the names that stand in the images. */
co_fn int image_open_below(struct image *image,
    const struct image_options *options, struct error *error);

/* The first change of the files that are to be written, of all the chain. */
co_fn int image_begin_writing(struct image *image, struct error *error);

#endif
