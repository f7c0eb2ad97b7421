/* SPDX-License-Identifier: MIT */
/*
 * Images of any format: opening the chain, and closing it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/chain.h"
#include "qcow2/encrypted.h"
#include "qcow2/image_open.h"
#include "runtime/file_holder.h"

/* ---- closing ---- */

static void
free_layer(struct image *image)
{
	if (image->ops)
		image->ops->close(image);
	file_close(image->file);
	aes_free(image->aes);
	door_free(&image->door);
	monitor_destroy(&image->monitor);
	free(image->path);
	free(image);
}

int
image_close(struct image *image)
{
	int err = 0;

	while (image) {
		struct image *backing = image->backing;
		int layer_err = image->ops && image->writable ?
		    image->ops->finish(image) : 0;

		if (!err)
			err = layer_err;
		free_layer(image);
		image = backing;
	}
	return err;
}

/* ---- opening ---- */

int
image_explain_lock(const struct image *image, bool writable, int err,
    struct error *error)
{
	char holder[FILE_HOLDER_BYTES];

	if (err != -EAGAIN)
		return error_set(error, err, "cannot lock %s: %s",
		    image->path, strerror(-err));
	file_holder(image->file, holder);
	error_set(error, err, "cannot open %s: it is locked by %s",
	    image->path, holder);
	error->exit_code = 75;
	if (writable)
		error_hint(error, "stop that program first, or serve "
		    "read-only beside it with: qnbd serve -r --force-share "
		    "%s", image->path);
	else
		error_hint(error, "stop that program first, or read beside "
		    "it with --force-share");
	return err;
}

static int
lock(const struct image *image, struct error *error)
{
	int err = file_lock(image->file, image_lock_kind(image),
	    IMAGE_LOCK_PATIENCE_MS);

	return err ? image_explain_lock(image, image->writable, err, error) :
	    0;
}

int
image_new_layer(struct file *file, const char *path, enum image_format format,
    bool writable, const struct image_options *options,
    struct image **imagep, struct error *error)
{
	struct image *image = calloc(1, sizeof(*image));

	if (!image) {
		file_close(file);
		return error_set(error, -ENOMEM, "out of memory");
	}
	image->file = file;
	image->format = format;
	image->writable = writable;
	image->force_share = options->force_share && !writable;
	image->discard = options->discard;
	image->detect_zeroes = options->detect_zeroes;
	image->loops = options->loops ? options->loops : 1;
	monitor_init(&image->monitor);
	image->path = strdup(path);
	if (!image->path || door_init(&image->door, image->loops)) {
		free_layer(image);
		return error_set(error, -ENOMEM, "out of memory");
	}
	*imagep = image;
	return 0;
}

int
image_load_layer(struct image *image, const struct image_options *options,
    struct error *error)
{
	struct file *file = image->file;
	int err;

	file_expect_size(file);
	err = image->format == IMAGE_QCOW2 ?
	    qcow2_open(image, options, error) :
	    raw_open(image, options, error);
	if (err)
		return err;
	image->can_splice = file->can_splice && !image->writable &&
	    !image->force_share && !image->encrypted;
	return 0;
}

/*
 * Makes an image of an opened file, which is the image's from then on, also
 * on failure.
 */
co_fn static int
open_layer(struct file *file, const char *path, enum image_format format,
    bool writable, const struct image_options *options,
    struct image **imagep, struct error *error)
{
	struct image *image;
	int err;

	err = image_new_layer(file, path, format, writable, options, &image,
	    error);
	if (err)
		return err;
	err = lock(image, error);
	if (!err)
		err = image_load_layer(image, options, error);
	if (err)
		free_layer(image);
	else
		*imagep = image;
	return err;
}

/* Opens what lies below top, which is open, down to the end of the chain. */
co_fn static int
open_backing(struct chain *chain, struct image *top,
    const struct image_options *options, struct error *error)
{
	struct image *image = top;
	struct image_options below = *options;
	unsigned depth = 1;

	below.snapshot = NULL;
	for (; image->format == IMAGE_QCOW2 && image->header.backing;
	    depth++) {
		enum image_format format;
		struct file *file;
		int err;

		err = chain_open_next(chain, &image->header, &file, &format,
		    error);
		if (err)
			return err;
		err = open_layer(file, file->name, format,
		    depth == options->writable_depth, &below,
		    &image->backing, error);
		if (err)
			return err;
		image = image->backing;
	}
	return 0;
}

int
image_open_below(struct image *image, const struct image_options *options,
    struct error *error)
{
	struct chain *chain;
	int err = chain_create(image->path, image->file, options, &chain,
	    error);

	if (err)
		return err;
	err = open_backing(chain, image, options, error);
	chain_free(chain);
	return err;
}

int
image_begin_writing(struct image *image, struct error *error)
{
	int err = 0;

	for (; image && !err; image = image->backing)
		err = qcow2_begin_writing(image, error);
	return err;
}

/* All files are open; the image is gone after a failure. */
co_fn static int
end_opening(struct image *image, const struct image_options *options,
    struct image **imagep, struct error *error)
{
	int err;

	err = encrypted_take_keys(image, options, error);
	if (!err)
		err = image_begin_writing(image, error);
	if (err)
		image_close(image);
	else
		*imagep = image;
	return err;
}

int
image_open(const char *path, const struct image_options *options,
    struct image **imagep, struct error *error)
{
	struct image *image;
	struct file *file;
	int err;

	err = file_open(AT_FDCWD, path, options->writable ? FILE_WRITE : 0, 0,
	    &file);
	if (err == -EINVAL)
		return error_set(error, err, "cannot open %s: it is neither "
		    "a regular file nor a block device", path);
	if (err) {
		error_set(error, err, "cannot open %s: %s", path,
		    strerror(-err));
		if (options->writable && (err == -EACCES || err == -EROFS))
			error_hint(error, "if reading is all that is wanted: "
			    "qnbd serve -r %s", path);
		return err;
	}
	if (options->draft)
		file_make_draft(file);
	err = open_layer(file, path, options->format, options->writable,
	    options, &image, error);
	if (err)
		return err;
	if (!options->no_backing)
		err = image_open_below(image, options, error);
	if (!err)
		return end_opening(image, options, imagep, error);
	image_close(image);
	return err;
}

int
image_open_file(struct file *file, const struct image_options *options,
    struct image **imagep, struct error *error)
{
	struct image *image;
	int err = open_layer(file, file->name, options->format,
	    options->writable, options, &image, error);

	return err ? err : end_opening(image, options, imagep, error);
}
