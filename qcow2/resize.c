/* SPDX-License-Identifier: MIT */
/*
 * Longer: what lies beyond the old end is given up first (the state of a
 * virtual machine, or what an interrupted shrinking left), then the L1 table
 * grows, what is new is made to read as zeros, and only then the header says
 * the new length.  Shorter: the header says so first.
 */
#include "qcow2/image_resize.h"

#include <errno.h>
#include <string.h>
#include "qcow2/internal.h"
#include "qcow2/l1.h"
#include "qcow2/tree.h"

/* What is filled, or set aside, before it is asked whether to stop. */
#define PIECE_BYTES (16u << 20)

static uint64_t
wanted_bytes(const struct image_resize *how)
{
	return (how->size_bytes + 511) & ~511ull;
}

/* ---- the header ---- */

/* Lets the disk be so long, for everybody. */
co_fn static int
switch_size(struct image *image, uint64_t size_bytes)
{
	gate_close(image);
	image->size_bytes = size_bytes;
	image->usable_bytes = size_bytes;
	image->moves.size = true;
	gate_open(image);
	return barrier_flush(image);
}

/* ---- what is new ---- */

/* begin is a cluster's start, or the end. */
co_fn static int
preallocate(struct image *image, uint64_t begin, uint64_t end,
    enum create_preallocation mode)
{
	if (mode == CREATE_OFF)
		return 0;
	if (mode == CREATE_FULL || image->header.version < 3)
		return qcow2_write_zeros(image, begin, end - begin, true);
	return qcow2_set_aside(image, begin, end - begin,
	    mode == CREATE_FALLOC);
}

/* Of whole clusters, or up to the end; a backing file would show through. */
co_fn static int
fill_piece(struct image *image, uint64_t begin, uint64_t end,
    enum create_preallocation mode)
{
	uint64_t below = image->backing ? image->backing->size_bytes : 0;
	int err = 0;

	if (below > begin)
		err = qcow2_zero(image, begin, (end < below ? end : below) -
		    begin, 0);
	return err ? err : preallocate(image, begin, end, mode);
}

/* Up to where there is something to be done. */
static uint64_t
fill_end(const struct image *image, const struct image_resize *how,
    uint64_t end)
{
	uint64_t below = image->backing ? image->backing->size_bytes : 0;

	if (how->preallocation != CREATE_OFF || below > end)
		return end;
	return below;
}

/* Not in the monitor: these are requests, and wait as such. */
co_fn static int
fill_new(struct image *image, uint64_t begin, uint64_t end,
    const struct image_resize *how)
{
	uint64_t mask = image->cluster_bytes - 1;
	uint64_t border = (begin + mask) & ~mask, next;
	int err;

	if (border > end)
		border = end;
	/* What is behind the old end in its cluster. */
	err = qcow2_write_zeros(image, begin, border - begin, false);
	end = fill_end(image, how, end);
	for (; border < end && !err; border = next) {
		if (how->progress && how->progress->report(
		    how->progress->arg, border - begin, end - begin))
			return -ECANCELED;
		next = (border + PIECE_BYTES) & ~mask;
		if (next > end)
			next = end;
		err = fill_piece(image, border, next, how->preallocation);
	}
	return err;
}

/* ---- in the monitor, with gate.operation ---- */

co_fn static int
grow(struct image *image, uint64_t size_bytes, const struct image_resize *how)
{
	uint64_t old_bytes = image->size_bytes;
	uint32_t entries = l1_entries_for(image, size_bytes);
	int err;

	if (entries == 0)
		return -EFBIG;
	err = tree_drop_from(image, old_bytes, NULL);
	if (!err && entries > image->l1_entries)
		err = l1_grow(image, entries);
	if (err)
		return err;
	image->usable_bytes = size_bytes;
	monitor_leave(&image->monitor);
	err = fill_new(image, old_bytes, size_bytes, how);
	monitor_enter(&image->monitor);
	if (!err)
		err = barrier_flush(image);
	if (!err)
		return switch_size(image, size_bytes);
	image->usable_bytes = old_bytes;
	tree_drop_from(image, old_bytes, NULL);
	return err;
}

co_fn static int
shrink(struct image *image, uint64_t size_bytes,
    const struct image_resize *how)
{
	int err = 0;

	if (size_bytes < image->size_bytes)
		err = switch_size(image, size_bytes);
	return err ? err : tree_drop_from(image, size_bytes, how->progress);
}

static bool
knows_disk_bytes(const struct image *image)
{
	for (unsigned i = 0; i < image->snapshots.count; i++)
		if (image->snapshots.list[i].extra_bytes < 16)
			return false;
	return image->header.version >= 3 || image->snapshots.count == 0;
}

co_fn static int
resize_alone(struct image *image, const struct image_resize *how)
{
	uint64_t size_bytes = wanted_bytes(how);
	int err;

	monitor_enter(&image->monitor);
	co_mutex_lock(&image->gate.operation);
	err = gate_refuses(image);
	if (!err)
		err = barrier_flush(image);
	if (!err && size_bytes < image->size_bytes && !how->shrink)
		err = -EINVAL;
	if (!err && size_bytes != image->size_bytes &&
	    !knows_disk_bytes(image))
		err = -ENOTSUP;
	if (!err && size_bytes > image->size_bytes)
		err = grow(image, size_bytes, how);
	else if (!err && how->shrink)
		err = shrink(image, size_bytes, how);
	co_mutex_unlock(&image->monitor, &image->gate.operation);
	monitor_leave(&image->monitor);
	return err;
}

/* ---- raw ---- */

co_fn static int
fill_raw(struct image *image, uint64_t begin, uint64_t end,
    const struct image_resize *how)
{
	uint64_t next;
	int err = 0;

	if (how->preallocation >= CREATE_FALLOC)
		err = file_fallocate(image->file, FILE_ALLOCATE, begin,
		    end - begin);
	if (how->preallocation != CREATE_FULL)
		return err;
	for (uint64_t guest = begin; guest < end && !err; guest = next) {
		if (how->progress && how->progress->report(
		    how->progress->arg, guest - begin, end - begin))
			return -ECANCELED;
		next = end - guest > PIECE_BYTES ? guest + PIECE_BYTES : end;
		err = raw_write_zeros(image, guest, next - guest);
	}
	return err;
}

co_fn static int
grow_raw(struct image *image, uint64_t size_bytes,
    const struct image_resize *how)
{
	uint64_t old_bytes = image->size_bytes;
	int err;

	err = file_truncate(image->file, size_bytes);
	if (!err)
		err = fill_raw(image, old_bytes, size_bytes, how);
	if (!err)
		err = image_flush(image);
	if (err) {
		file_truncate(image->file, old_bytes);
		return err;
	}
	image->size_bytes = size_bytes;
	image->usable_bytes = size_bytes;
	return 0;
}

/*
 * A write that lands after the cut would make the file longer again.  Where
 * there is no gate, the door keeps such away.
 */
co_fn static int
shrink_raw(struct image *image, uint64_t size_bytes)
{
	int err;

	door_close(&image->door);
	door_wait_empty(&image->door);
	err = file_truncate(image->file, size_bytes);
	if (!err) {
		image->size_bytes = size_bytes;
		image->usable_bytes = size_bytes;
	}
	door_open(&image->door);
	return err ? err : image_flush(image);
}

co_fn static int
resize_raw(struct image *image, const struct image_resize *how)
{
	uint64_t size_bytes = wanted_bytes(how);

	if (size_bytes > image->size_bytes)
		return grow_raw(image, size_bytes, how);
	if (size_bytes == image->size_bytes)
		return 0;
	return how->shrink ? shrink_raw(image, size_bytes) : -EINVAL;
}

co_fn static int
resize_raw_alone(struct image *image, const struct image_resize *how)
{
	int err;

	monitor_enter(&image->monitor);
	co_mutex_lock(&image->gate.operation);
	err = gate_refuses(image);
	if (!err && !image->file->is_regular)
		err = -ENOTSUP;
	if (!err && image->failed)
		err = -EIO;
	monitor_leave(&image->monitor);
	if (!err)
		err = resize_raw(image, how);
	monitor_enter(&image->monitor);
	co_mutex_unlock(&image->monitor, &image->gate.operation);
	monitor_leave(&image->monitor);
	return err;
}

/* ---- for everybody ---- */

static int
explain(const struct image *image, const struct image_resize *how, int err,
    struct error *error)
{
	const char *why = strerror(-err);

	if (err == -EINVAL)
		why = "it would become shorter, and lose what lies there";
	else if (err == -ECANCELED && image->size_bytes >= how->size_bytes)
		why = "stopped; it has its new length, and the same command "
		    "goes on giving back what was cut off";
	else if (err == -ECANCELED)
		why = "stopped; it has its old length";
	else if (err == -EFBIG)
		why = "its clusters are too small for a disk that long";
	else if (err == -ENOTSUP)
		why = "it has snapshots that do not say how long their disk "
		    "is (compat=0.10)";
	error_set(error, err, "cannot resize %s: %s", image->path, why);
	if (err == -EINVAL)
		error_hint(error, "if that is meant: --shrink");
	return err;
}

int
image_resize(struct image *image, const struct image_resize *how,
    struct error *error)
{
	int err;

	if (how->size_bytes > INT64_MAX - 511)
		err = -EFBIG;
	else if (image->format == IMAGE_RAW)
		err = resize_raw_alone(image, how);
	else
		err = resize_alone(image, how);
	if (err == -ENOTSUP && image->format == IMAGE_RAW)
		return error_set(error, err, "cannot resize %s: a block "
		    "device is as long as it is", image->path);
	return err ? explain(image, how, err, error) : 0;
}
