/* SPDX-License-Identifier: MIT */
/*
 * Raw images: the disk is the file, byte for byte.
 *
 * Holes of the file are holes of the disk.  The size is the file's when it is
 * opened.
 */
#include <errno.h>
#include <string.h>
#include "qcow2/internal.h"

#define RAW_CLUSTER_BYTES 65536

/* Writes that are worth a system call more for their room. */
#define ROOM_BYTES_MIN (64 * 1024)

/* Where the file cannot punch or zero a range, zeros are written like this. */
#define ZEROS_BYTES 65536
static const char zeros[ZEROS_BYTES];

co_fn static int
raw_read(struct image *image, struct reader *reader, uint64_t guest,
    uint64_t length)
{
	return file_pread(image->file, reader_target(reader, guest), length,
	    guest);
}

co_fn static int
raw_status(struct image *image, uint64_t guest, uint64_t length,
    struct image_extent *extent)
{
	int64_t data = file_seek_data(image->file, guest);
	int64_t end;

	*extent = (struct image_extent){
		.length = length, .present = true,
		.host_valid = true, .host = guest,
	};
	if (data == -ENXIO || (data >= 0 && (uint64_t)data > guest)) {
		extent->zero = true;
		if (data >= 0 && (uint64_t)data - guest < length)
			extent->length = (uint64_t)data - guest;
		return 0;
	}
	extent->allocated = true;
	end = file_seek_hole(image->file, guest);
	if (end >= 0 && (uint64_t)end > guest &&
	    (uint64_t)end - guest < length)
		extent->length = (uint64_t)end - guest;
	return 0;
}

/* ---- stable (O4, O6) ---- */

/*
 * One sync at a time: the kernel tells of a failed write-back only once, and
 * of two at once the other would take it for success.  Who had to wait is
 * covered by a sync that began after he came.
 */
co_fn static int
raw_flush(struct image *image)
{
	uint64_t syncs;
	int err = 0;

	monitor_enter(&image->monitor);
	syncs = image->syncs;
	co_mutex_lock(&image->syncing);
	if (image->failed) {
		err = -EIO;
	} else if (image->syncs == syncs) {
		image->syncs++;
		err = file_fdatasync(image->file);
		if (err)
			image_fail(image, "fdatasync failed", err);
	}
	co_mutex_unlock(&image->monitor, &image->syncing);
	monitor_leave(&image->monitor);
	return err;
}

/* By a stable write of its own if nobody else waits for the disk. */
co_fn static int
write_stable(struct image *image, uint64_t guest, const void *data,
    size_t length)
{
	int err;

	monitor_enter(&image->monitor);
	if (image->syncing.holder) {
		monitor_leave(&image->monitor);
		err = file_pwrite(image->file, data, length, guest, 0);
		return err ? err : raw_flush(image);
	}
	co_mutex_lock(&image->syncing);
	err = file_pwrite(image->file, data, length, guest, FILE_DSYNC);
	if (err && err != -ENOSPC)
		image_fail(image, "a stable write failed", err);
	co_mutex_unlock(&image->monitor, &image->syncing);
	monitor_leave(&image->monitor);
	return err;
}

/* ---- changing ---- */

co_fn static int
raw_write(struct image *image, uint64_t guest, const void *data,
    size_t length, unsigned flags)
{
	if (image->failed)
		return -EIO;
	if (flags & IMAGE_FUA)
		return write_stable(image, guest, data, length);
	/* If there is none, the write will find out. */
	if (length >= ROOM_BYTES_MIN)
		(void)file_make_room(image->file, guest, length);
	return file_pwrite(image->file, data, length, guest, 0);
}

int
raw_write_zeros(struct image *image, uint64_t guest, uint64_t length)
{
	int err = 0;

	while (length > 0 && !err) {
		size_t part = length < ZEROS_BYTES ? length : ZEROS_BYTES;

		err = file_pwrite(image->file, zeros, part, guest, 0);
		guest += part;
		length -= part;
	}
	return err;
}

co_fn static int
raw_zero(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	int err = -EOPNOTSUPP;

	if (length == 0)
		return 0;
	if (image->failed)
		return -EIO;
	if (!(flags & (IMAGE_NO_HOLE | IMAGE_LEAVE_ROOM)))
		err = file_fallocate(image->file, FILE_PUNCH, guest, length);
	if (err == -EOPNOTSUPP)
		err = file_fallocate(image->file, FILE_ZERO, guest, length);
	if (err == -EOPNOTSUPP && flags & IMAGE_FAST)
		return -ENOTSUP;
	if (err == -EOPNOTSUPP)
		err = raw_write_zeros(image, guest, length);
	if (!err && flags & IMAGE_FUA)
		err = raw_flush(image);
	return err;
}

co_fn static int
raw_discard(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	int err = image->failed ? -EIO : 0;

	if (length > 0 && !err)
		err = file_fallocate(image->file, FILE_PUNCH, guest, length);
	if (err == -EOPNOTSUPP)
		err = 0;
	if (!err && flags & IMAGE_FUA)
		err = raw_flush(image);
	return err;
}

static void
raw_resume(struct image *image)
{
	(void)image;
}

static void
raw_close(struct image *image)
{
	(void)image;
}

const struct image_ops raw_ops = {
	.read = raw_read,
	.plan = raw_plan,
	.status = raw_status,
	.write = raw_write,
	.zero = raw_zero,
	.discard = raw_discard,
	.flush = raw_flush,
	.finish = raw_flush,
	.resume = raw_resume,
	.close = raw_close,
};

int
raw_open(struct image *image, const struct image_options *options,
    struct error *error)
{
	int64_t size = file_size(image->file);

	if (options->snapshot)
		return error_set(error, -ENOTSUP, "%s is a raw image, which "
		    "has no snapshots", image->path);
	if (size < 0)
		return error_set(error, (int)size,
		    "cannot find the size of %s: %s", image->path,
		    strerror((int)-size));
	image->ops = &raw_ops;
	image->size_bytes = (uint64_t)size;
	image->usable_bytes = (uint64_t)size;
	image->cluster_bytes = RAW_CLUSTER_BYTES;
	return 0;
}
