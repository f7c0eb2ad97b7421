/* SPDX-License-Identifier: MIT */
#include "qcow2/l2.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/l2_fault.h"
#include "qcow2/slice_write.h"

/* What is copied of a table before others get a turn. */
#define COPY_BYTES (64u * 1024)

static uint64_t
l1_index(const struct image *image, uint64_t guest)
{
	return guest >> (image->cluster_bits + image->l2_bits);
}

/* The index of guest's entry in its L2 table. */
static uint64_t
l2_index(const struct image *image, uint64_t guest)
{
	return guest >> image->cluster_bits & ((1ull << image->l2_bits) - 1);
}

static uint64_t
slice_entries(const struct image *image)
{
	return image->slices.slice_bytes / ENTRY_BYTES;
}

int
l2_pin(struct image *image, uint64_t guest, struct slice **slicep)
{
	uint64_t l1_entry = image->l1[l1_index(image, guest)];
	uint64_t offset = l2_index(image, guest) * ENTRY_BYTES;

	assert(monitor_entered(&image->monitor));
	if (!l1_entry) {
		*slicep = NULL;
		return 0;
	}
	/* It was logged when the table was loaded. */
	if (entry_l1_fault(l1_entry, &image->limits))
		return -EIO;
	offset -= offset % image->slices.slice_bytes;
	return slice_pin(image, SLICE_L2, entry_host(l1_entry) + offset,
	    slicep);
}

void
l2_unpin(struct image *image, struct slice *slice)
{
	if (slice)
		slice_unpin(image, slice);
}

uint64_t
l2_slice_end(const struct image *image, const struct slice *slice,
    uint64_t guest)
{
	uint64_t span = slice ?
	    slice_entries(image) << image->cluster_bits :
	    1ull << (image->cluster_bits + image->l2_bits);

	return guest - guest % span + span;
}

/*
 * Whether the cluster with entry goes on where one like first ends; host is
 * where it would have to stand.
 */
static bool
goes_on(uint64_t first, uint64_t host, uint64_t entry)
{
	enum cluster_kind kind = entry_kind(first);

	if (entry_kind(entry) != kind)
		return false;
	switch (kind) {
	case CLUSTER_NORMAL:
	case CLUSTER_ZERO_ALLOCATED:
		return entry_host(entry) == host &&
		    entry_copied(entry) == entry_copied(first);
	case CLUSTER_COMPRESSED:
		return false;
	default:
		return true;
	}
}

size_t
l2_slice_index(const struct image *image, uint64_t guest)
{
	return l2_index(image, guest) % slice_entries(image);
}

bool
l2_is_stable(const struct image *image, const struct slice *slice)
{
	return !slice_is_dirty(slice) &&
	    changes_waiting(&image->barrier.l1) == 0 &&
	    !moves_any(&image->moves) && !image->barrier.running;
}

/* ---- new and copied tables ---- */

void
l2_clear_copied(uint8_t *entries, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t entry = entry_load(entries, i);

		if (entry_copied(entry) && !(entry & ENTRY_COMPRESSED))
			entry_store(entries, i, entry & ~ENTRY_COPIED);
	}
}

/* Reads a table that is shared; changes may still be in the cache alone. */
co_fn static int
read_shared(struct image *image, uint64_t host, uint8_t *table)
{
	uint32_t bytes = image->slices.slice_bytes;

	for (uint32_t done = 0; done < image->cluster_bytes; done += bytes) {
		struct slice *slice;
		int err = slice_pin(image, SLICE_L2, host + done, &slice);

		if (err)
			return err;
		memcpy(table + done, slice->data, bytes);
		slice_unpin(image, slice);
		if ((done + bytes) % COPY_BYTES == 0)
			co_yield();
	}
	return 0;
}

/*
 * Fills the cluster at host with what the old table holds, or zeros.  Straight
 * to the file: the barrier syncs it before it writes the L1 entry (O5).
 */
co_fn static int
write_table(struct image *image, uint64_t old_entry, uint64_t host)
{
	void *table = calloc(1, image->cluster_bytes);
	int err = 0;

	if (!table)
		return -ENOMEM;
	if (old_entry)
		err = read_shared(image, entry_host(old_entry), table);
	if (!err)
		err = file_pwrite(image->file, table, image->cluster_bytes,
		    host, 0);
	atomic_store(&image->unsynced, true);
	free(table);
	return err;
}

/* Lets the L1 entry point to the new table; nothing here suspends. */
static int
switch_table(struct image *image, uint32_t index,
    const struct allocation *table)
{
	uint64_t old_entry = image->l1[index];
	uint64_t entry = table->host | ENTRY_COPIED;
	int err;

	err = changes_make_room(&image->barrier.l1, 1);
	if (!err)
		err = quarantine_make_room(image, 1);
	if (!err)
		err = retired_make_room(image, 1);
	if (!err)
		err = metadata_add_cluster(&image->metadata, METADATA_L2,
		    table->host);
	if (err)
		return err;
	/* In a damaged image somebody may still point there. */
	if (!table->virgin)
		image->metadata.reused++;
	slice_forget(image, table->host, image->cluster_bytes);
	if (old_entry) {
		retired_add(image, index, entry_host(old_entry));
		quarantine_add(image, entry_host(old_entry) >>
		    image->cluster_bits, 1);
	}
	image->l1[index] = entry;
	changes_add(&image->barrier.l1, index, entry);
	image->barrier.needs_order = true;
	return 0;
}

co_fn static int
make_table(struct image *image, uint32_t index)
{
	uint64_t old_entry = image->l1[index];
	struct allocation table;
	int err;

	if (entry_l1_fault(old_entry, &image->limits))
		return -EIO;
	err = alloc_clusters(image, 1, &table);
	if (err)
		return err;
	err = write_table(image, old_entry, table.host);
	if (!err)
		err = switch_table(image, index, &table);
	if (err)
		alloc_give_back(image, table.host, 1);
	return err;
}

int
l2_own(struct image *image, uint64_t guest)
{
	uint32_t index = (uint32_t)l1_index(image, guest);
	int err = 0;

	while (!err && !entry_copied(image->l1[index])) {
		co_mutex_lock(&image->l2_making);
		if (!entry_copied(image->l1[index]))
			err = sharing_settle(image, index);
		if (!err && !entry_copied(image->l1[index]))
			err = make_table(image, index);
		co_mutex_unlock(&image->monitor, &image->l2_making);
		/* The snapshot that shares it cannot be, and is undone. */
		if (err == -ECANCELED)
			err = sharing_wait_undone(image);
	}
	return err;
}

/* No suspension between the look and the change. */
int
l2_link(struct image *image, uint64_t guest, uint64_t clusters,
    uint64_t entry, bool is_new)
{
	size_t index = l2_slice_index(image, guest);
	struct slice *slice;
	uint8_t *entries;
	int err;

	err = l2_pin(image, guest, &slice);
	if (err)
		return err;
	err = quarantine_make_room(image, clusters);
	entries = err ? NULL : slice_modify(image, slice);
	if (!err && !entries)
		err = -ENOMEM;
	for (uint64_t i = 0; i < clusters && !err; i++) {
		uint64_t old = entry_load(entries, index + i);

		entry_store(entries, index + i, entry);
		entry += image->cluster_bytes;
		if (is_new)
			quarantine_add_entry(image, old);
	}
	l2_unpin(image, slice);
	return err;
}

int
l2_run(const struct image *image, const struct slice *slice, uint64_t guest,
    uint64_t length, struct l2_run *run)
{
	uint64_t in_cluster = guest & (image->cluster_bytes - 1);
	uint64_t end = l2_slice_end(image, slice, guest);
	uint64_t index, entry, host;

	if (length > end - guest)
		length = end - guest;
	if (!slice) {
		*run = (struct l2_run){CLUSTER_UNALLOCATED, length, 0, 0};
		return 0;
	}
	index = l2_slice_index(image, guest);
	entry = entry_load(slice->data, index);
	if (l2_fault_in(image, slice, entry))
		return -EIO;
	run->kind = entry_kind(entry);
	run->entry = entry;
	run->host = entry_host(entry) + in_cluster;
	run->length = image->cluster_bytes - in_cluster;
	host = entry_host(entry);
	while (run->length < length) {
		index++;
		host += image->cluster_bytes;
		entry = entry_load(slice->data, index);
		if (!goes_on(run->entry, host, entry) ||
		    l2_fault_in(image, slice, entry))
			break;
		run->length += image->cluster_bytes;
	}
	if (run->length > length)
		run->length = length;
	/* Whatever a shared table maps is shared. */
	if (!entry_copied(image->l1[l1_index(image, guest)]))
		run->entry &= ~ENTRY_COPIED;
	return 0;
}

uint64_t
l2_absent_end(const struct image *image, uint64_t guest, uint64_t length,
    unsigned tables_max)
{
	uint64_t end = guest;

	for (unsigned tables = 0; tables < tables_max &&
	    end < guest + length && !image->l1[l1_index(image, end)]; tables++)
		end = l2_slice_end(image, NULL, end);
	return end < guest + length ? end : guest + length;
}
