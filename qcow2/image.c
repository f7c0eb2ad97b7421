/* SPDX-License-Identifier: MIT */
/*
 * Images of any format: opening the chain, and passing requests on.
 */
#include "qcow2/image.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/chain.h"
#include "qcow2/encrypted.h"
#include "qcow2/internal.h"
#include "qcow2/zeros_only.h"
#include "runtime/buf.h"
#include "runtime/file_holder.h"

/* A killed io_uring process holds its locks for some 50 ms more. */
#define LOCK_PATIENCE_MS 2000

#define PREFETCH_BYTES (1024 * 1024)

/* ---- reading, down the chain ---- */

static bool
note_hole(struct image_holes *holes, uint64_t offset, uint64_t length)
{
	struct image_hole *last;

	if (!holes)
		return false;
	last = holes->count ? &holes->list[holes->count - 1] : NULL;
	if (last && last->offset + last->length == offset) {
		last->length += (uint32_t)length;
		return true;
	}
	if (holes->count == holes->max)
		return false;
	holes->list[holes->count++] = (struct image_hole){
		.offset = (uint32_t)offset, .length = (uint32_t)length,
	};
	return true;
}

void
reader_zeros(struct reader *reader, uint64_t guest, uint64_t length)
{
	if (!note_hole(reader->holes, guest - reader->guest, length))
		memset(reader_target(reader, guest), 0, length);
}

int
image_read_layer(struct image *image, struct reader *reader, uint64_t guest,
    uint64_t length)
{
	uint64_t inside = 0;

	if (guest < image->size_bytes)
		inside = image->size_bytes - guest;
	if (inside > length)
		inside = length;
	if (inside > 0) {
		int err = image->ops->read(image, reader, guest, inside);

		if (err)
			return err;
	}
	if (inside < length)
		reader_zeros(reader, guest + inside, length - inside);
	return 0;
}

static bool
is_inside(uint64_t disk_bytes, uint64_t guest, uint64_t length)
{
	return guest <= disk_bytes && length <= disk_bytes - guest;
}

bool
image_has(const struct image *image, uint64_t guest, uint64_t length)
{
	bool is_operation = image->gate.operation.holder == co_self();

	return is_inside(is_operation || !image->writable ?
	    image->usable_bytes : image->size_bytes, guest, length);
}

bool
image_shows(const struct image *image, uint64_t guest, uint64_t length)
{
	return is_inside(image->size_bytes, guest, length) &&
	    is_inside(image->usable_bytes, guest, length);
}

int
image_read(struct image *image, uint64_t guest, void *data, size_t length,
    struct image_holes *holes)
{
	struct reader reader = {
		.data = data, .guest = guest, .holes = holes,
	};

	if (!image_shows(image, guest, length))
		return -EINVAL;
	return image->ops->read(image, &reader, guest, length);
}

int
image_prefetch(struct image *image, uint64_t guest, uint64_t length)
{
	void *scratch = buf_get(PREFETCH_BYTES);
	int err = 0;

	if (!scratch)
		return -ENOMEM;
	while (length > 0 && !err) {
		size_t part = length < PREFETCH_BYTES ? length :
		    PREFETCH_BYTES;

		err = image_read(image, guest, scratch, part, NULL);
		guest += part;
		length -= part;
	}
	buf_put(scratch, PREFETCH_BYTES);
	return err;
}

/* ---- changing ---- */

static int
may_change(const struct image *image, uint64_t guest, uint64_t length)
{
	assert(image->writable);
	if (!image_shows(image, guest, length))
		return -EINVAL;
	return file_is_cut(image->file) ? -EIO : 0;
}

int
image_write(struct image *image, uint64_t guest, const void *data,
    size_t length, unsigned flags)
{
	int err = may_change(image, guest, length);

	if (err)
		return err;
	if (image->detect_zeroes != IMAGE_DETECT_OFF &&
	    zeros_only(data, length))
		return image->ops->zero(image, guest, length, flags |
		    (image->detect_zeroes == IMAGE_DETECT_ON ?
		    IMAGE_LEAVE_ROOM : 0));
	return image->ops->write(image, guest, data, length, flags);
}

int
image_write_compressed(struct image *image, uint64_t guest, const void *data,
    size_t length)
{
	int err = may_change(image, guest, length);

	if (!err && !image->ops->write_compressed)
		err = -ENOTSUP;
	if (err)
		return err;
	return image->ops->write_compressed(image, guest, data, length);
}

int
image_zero(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	int err = may_change(image, guest, length);

	if (err)
		return err;
	return image->ops->zero(image, guest, length, flags);
}

int
image_discard(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	int err = may_change(image, guest, length);

	if (err)
		return err;
	if (image->discard == IMAGE_DISCARD_IGNORE)
		return flags & IMAGE_FUA ? image_flush(image) : 0;
	return image->ops->discard(image, guest, length, flags);
}

int
image_flush(struct image *image)
{
	return image->writable ? image->ops->flush(image) : 0;
}

/* ---- facts ---- */

uint64_t
image_size_bytes(const struct image *image)
{
	return image->size_bytes;
}

uint32_t
image_cluster_bytes(const struct image *image)
{
	return image->cluster_bytes;
}

bool
image_writable(const struct image *image)
{
	return image->writable;
}

const char *
image_path(const struct image *image)
{
	return image->path;
}

const struct image *
image_backing(const struct image *image)
{
	return image->backing;
}

/* ---- opening and closing ---- */

int
image_close(struct image *image)
{
	int err = 0;

	while (image) {
		struct image *backing = image->backing;
		int layer_err = image->ops ? image->ops->close(image) : 0;

		if (!err)
			err = layer_err;
		file_close(image->file);
		aes_free(image->aes);
		free(image->path);
		free(image);
		image = backing;
	}
	return err;
}

static int
lock(const struct image *image, struct error *error)
{
	enum file_lock kind = image->writable ? FILE_LOCK_WRITE :
	    image->force_share ? FILE_LOCK_SHARED : FILE_LOCK_READ;
	char holder[FILE_HOLDER_BYTES];
	int err = file_lock(image->file, kind, LOCK_PATIENCE_MS);

	if (!err)
		return 0;
	if (err != -EAGAIN)
		return error_set(error, err, "cannot lock %s: %s",
		    image->path, strerror(-err));
	file_holder(image->file, holder);
	error_set(error, err, "cannot open %s: it is locked by %s",
	    image->path, holder);
	error->exit_code = 75;
	if (image->writable)
		error_hint(error, "stop that program first, or serve "
		    "read-only beside it with: qnbd serve -r --force-share "
		    "%s", image->path);
	else
		error_hint(error, "stop that program first, or read beside "
		    "it with --force-share");
	return err;
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
	struct image *image = calloc(1, sizeof(*image));
	int err;

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
	image->path = strdup(path);
	err = image->path ? lock(image, error) :
	    error_set(error, -ENOMEM, "out of memory");
	file_expect_size(file);
	if (!err)
		err = format == IMAGE_QCOW2 ?
		    qcow2_open(image, options, error) :
		    raw_open(image, options, error);
	if (err) {
		image->ops = NULL;
		image_close(image);
		return err;
	}
	image->can_splice = file->can_splice && !writable &&
	    !image->force_share && !image->encrypted;
	*imagep = image;
	return 0;
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
image_open(const char *path, const struct image_options *options,
    struct image **imagep, struct error *error)
{
	struct image *image;
	struct chain *chain;
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
	if (!options->no_backing) {
		err = chain_create(path, image->file, options, &chain, error);
		if (err)
			goto close_image;
		err = open_backing(chain, image, options, error);
		chain_free(chain);
	}
	if (!err)
		err = encrypted_take_keys(image, options, error);
	for (struct image *layer = image; layer && !err;
	    layer = layer->backing)
		err = qcow2_begin_writing(layer, error);
	if (err)
		goto close_image;
	*imagep = image;
	return 0;
close_image:
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

	if (err)
		return err;
	err = encrypted_take_keys(image, options, error);
	if (!err)
		err = qcow2_begin_writing(image, error);
	if (err) {
		image_close(image);
		return err;
	}
	*imagep = image;
	return 0;
}
