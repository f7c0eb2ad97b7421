/* SPDX-License-Identifier: MIT */
/*
 * Images of any format: passing requests on.
 */
#include "qcow2/image.h"

#include <errno.h>
#include <string.h>
#include "qcow2/internal.h"
#include "qcow2/zeros_only.h"
#include "runtime/buf.h"

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
	return is_inside(image->size_bytes, guest, length);
}

int
image_read(struct image *image, uint64_t guest, void *data, size_t length,
    struct image_holes *holes)
{
	struct reader reader = {
		.data = data, .guest = guest, .holes = holes,
	};
	atomic_uint *ticket = door_enter(&image->door);
	int err;

	if (!ticket)
		return -EIO;
	err = image_shows(image, guest, length) ?
	    image->ops->read(image, &reader, guest, length) : -EINVAL;
	door_leave(ticket);
	return err;
}

int
image_prefetch(struct image *image, uint64_t guest, uint64_t length)
{
	void *scratch = buf_get(PREFETCH_BYTES);
	uint64_t left = IMAGE_PREFETCH_BYTES_MAX;
	int err = 0;

	if (!scratch)
		return -ENOMEM;
	while (length > 0 && left > 0) {
		struct image_extent extent;
		uint64_t part;
		unsigned count;

		err = image_status(image, guest, length, &extent, 1, &count);
		if (err)
			break;
		part = extent.length;
		if (!extent.zero) {
			part = part < PREFETCH_BYTES ? part : PREFETCH_BYTES;
			part = part < left ? part : left;
			err = image_read(image, guest, scratch, part, NULL);
			left -= part;
		}
		if (err)
			break;
		guest += part;
		length -= part;
		co_yield();
	}
	buf_put(scratch, PREFETCH_BYTES);
	return err;
}

/* ---- changing ---- */

/* Enters, if the range may be changed. */
co_fn static int
begin_change(struct image *image, uint64_t guest, uint64_t length,
    atomic_uint **ticketp)
{
	atomic_uint *ticket = door_enter(&image->door);
	int err = 0;

	if (!ticket)
		return -EIO;
	if (!image->writable)
		err = -EROFS;
	else if (!image_shows(image, guest, length))
		err = -EINVAL;
	else if (file_is_cut(image->file))
		err = -EIO;
	if (err)
		door_leave(ticket);
	else
		*ticketp = ticket;
	return err;
}

int
image_write(struct image *image, uint64_t guest, const void *data,
    size_t length, unsigned flags)
{
	atomic_uint *ticket;
	int err = begin_change(image, guest, length, &ticket);

	if (err)
		return err;
	if (image->detect_zeroes != IMAGE_DETECT_OFF &&
	    zeros_only(data, length))
		err = image->ops->zero(image, guest, length, flags |
		    (image->detect_zeroes == IMAGE_DETECT_ON ?
		    IMAGE_LEAVE_ROOM : 0));
	else
		err = image->ops->write(image, guest, data, length, flags);
	door_leave(ticket);
	return err;
}

int
image_write_compressed(struct image *image, uint64_t guest, const void *data,
    size_t length)
{
	atomic_uint *ticket;
	int err = begin_change(image, guest, length, &ticket);

	if (err)
		return err;
	err = image->ops->write_compressed ? image->ops->write_compressed(
	    image, guest, data, length) : -ENOTSUP;
	door_leave(ticket);
	return err;
}

int
image_zero(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	atomic_uint *ticket;
	int err = begin_change(image, guest, length, &ticket);

	if (err)
		return err;
	err = image->ops->zero(image, guest, length, flags);
	door_leave(ticket);
	return err;
}

int
image_discard(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	atomic_uint *ticket;
	int err = begin_change(image, guest, length, &ticket);

	if (err)
		return err;
	if (image->discard != IMAGE_DISCARD_IGNORE)
		err = image->ops->discard(image, guest, length, flags);
	else if (flags & IMAGE_FUA)
		err = image->ops->flush(image);
	door_leave(ticket);
	return err;
}

int
image_flush(struct image *image)
{
	atomic_uint *ticket = door_enter(&image->door);
	int err;

	if (!ticket)
		return -EIO;
	err = image->writable ? image->ops->flush(image) : 0;
	door_leave(ticket);
	return err;
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
