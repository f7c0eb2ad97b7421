/* SPDX-License-Identifier: MIT */
/*
 * Zeroing that keeps the room: afterwards every cluster has a host cluster of
 * its own, with room on the disk behind it, and the zero flag.
 */
#include <errno.h>
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/l2_fault.h"
#include "qcow2/slice_write.h"

/*
 * Sets the zero flag of the clusters from guest on that have host clusters of
 * their own; how many, at most count.  Writes in place may be under way to
 * them: see kept_room_usable() in write_new.c.
 */
static int
flag_own(struct image *image, struct slice *slice, uint64_t guest,
    uint64_t count, uint64_t *flaggedp)
{
	size_t index = l2_slice_index(image, guest);
	uint8_t *entries = slice_modify(image, slice);
	uint64_t flagged = 0;

	if (!entries)
		return -ENOMEM;
	while (flagged < count) {
		uint64_t entry = entry_load(entries, index + flagged);

		if (!entry_owns_host(entry) ||
		    l2_fault_in(image, slice, entry))
			break;
		entry_store(entries, index + flagged, entry | ENTRY_ZERO);
		flagged++;
	}
	image->zeroed_epoch = image->epochs.now;
	*flaggedp = flagged;
	return 0;
}

/* How many clusters from guest on have no host cluster of their own. */
static int
count_without_host(const struct image *image, const struct slice *slice,
    uint64_t guest, uint64_t count, uint64_t *withoutp)
{
	size_t index = l2_slice_index(image, guest);
	uint64_t without = 0;

	for (; without < count; without++) {
		uint64_t entry = entry_load(slice->data, index + without);

		if (l2_fault_in(image, slice, entry))
			return -EIO;
		if (entry_owns_host(entry))
			break;
	}
	*withoutp = without;
	return 0;
}

/* Links new host clusters, whose content does not matter. */
co_fn static int
link_room(struct image *image, uint64_t guest,
    const struct allocation *place)
{
	int err = l2_link(image, guest, place->clusters,
	    place->host | ENTRY_COPIED | ENTRY_ZERO, true);

	if (!err && !place->stable)
		image->barrier.needs_order = true;
	return err;
}

/* Takes host clusters for up to count guest clusters, with room on disk. */
co_fn static int
make_room(struct image *image, uint64_t guest, uint64_t count, bool on_disk,
    uint64_t *madep)
{
	struct allocation place;
	uint64_t bytes;
	int err;

	err = alloc_clusters(image, count, &place);
	if (err)
		return err;
	bytes = place.clusters << image->cluster_bits;
	if (image->file->is_regular && on_disk)
		err = file_fallocate(image->file, FILE_ALLOCATE, place.host,
		    bytes);
	if (!err || err == -EOPNOTSUPP)
		err = alloc_lengthen_file(image, place.host + bytes);
	atomic_store(&image->unsynced, true);
	if (!err)
		err = link_room(image, guest, &place);
	if (err)
		alloc_give_back(image, place.host, place.clusters);
	*madep = place.clusters;
	return err;
}

/* Zeros count clusters of one slice and leaves none without room. */
int
room_keep(struct image *image, uint64_t guest, uint64_t count, bool on_disk)
{
	int err = l2_own(image, guest);

	while (count > 0 && !err) {
		uint64_t done = 0, without = 0;
		struct slice *slice;

		err = l2_pin(image, guest, &slice);
		if (err)
			return err;
		err = count_without_host(image, slice, guest, count,
		    &without);
		if (!err && without == 0)
			err = flag_own(image, slice, guest, count, &done);
		l2_unpin(image, slice);
		if (!err && without > 0)
			err = make_room(image, guest, without, on_disk,
			    &done);
		guest += done << image->cluster_bits;
		count -= done;
	}
	return err;
}
