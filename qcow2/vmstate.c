/* SPDX-License-Identifier: MIT */
#include "qcow2/image_vmstate.h"

#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "qcow2/l1.h"
#include "qcow2/snapshot_change.h"
#include "qcow2/tree.h"

#define PIECE_BYTES (1024u * 1024)

/* Where the state of a disk of that length begins. */
static uint64_t
state_offset(const struct image *image, uint64_t disk_bytes)
{
	return (uint64_t)l1_entries_for(image, disk_bytes) <<
	    (image->cluster_bits + image->l2_bits);
}

/* Not in the monitor: these are requests, and wait as such. */
co_fn static int
copy_state(struct image *image, uint64_t guest,
    const struct vmstate_source *source,
    const struct image_progress *progress)
{
	uint64_t left = source->bytes;
	char *data = malloc(PIECE_BYTES);
	int err = data ? 0 : -ENOMEM;

	while (left > 0 && !err) {
		size_t part = left < PIECE_BYTES ? left : PIECE_BYTES;

		if (progress && progress->report(progress->arg,
		    source->bytes - left, source->bytes))
			err = -ECANCELED;
		else
			err = source->read(source->arg, data, part);
		if (!err)
			err = qcow2_write(image, guest, data, part, 0);
		guest += part;
		left -= part;
	}
	free(data);
	return err;
}

int
vmstate_write(struct image *image, const struct vmstate_source *source,
    const struct image_progress *progress)
{
	uint64_t begin = state_offset(image, image->size_bytes);
	uint32_t entries;
	int err;

	if (source->bytes > INT64_MAX - begin)
		return -EFBIG;
	entries = l1_entries_for(image, begin + source->bytes);
	if (entries == 0)
		return -EFBIG;
	/* An older state may be there. */
	err = tree_drop_from(image, begin, NULL);
	if (!err && entries > image->l1_entries)
		err = l1_grow(image, entries);
	if (err)
		return err;
	image->usable_bytes = begin + source->bytes;
	monitor_leave(&image->monitor);
	err = copy_state(image, begin, source, progress);
	monitor_enter(&image->monitor);
	return err;
}

int
vmstate_drop(struct image *image)
{
	image->usable_bytes = image->size_bytes;
	return tree_drop_from(image, state_offset(image, image->size_bytes),
	    NULL);
}

uint64_t
image_vmstate_bytes(const struct image *image)
{
	return image->vm_state_bytes;
}

int
image_vmstate_read(struct image *image, uint64_t offset, void *data,
    size_t length)
{
	struct reader reader = {.data = data};
	atomic_uint *ticket = door_enter(&image->door);
	int err = -EINVAL;

	if (!ticket)
		return -EIO;
	reader.guest = state_offset(image, image->size_bytes) + offset;
	if (offset <= image->vm_state_bytes &&
	    length <= image->vm_state_bytes - offset)
		err = qcow2_read(image, &reader, reader.guest, length);
	door_leave(ticket);
	return err;
}
