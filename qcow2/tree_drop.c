/* SPDX-License-Identifier: MIT */
/*
 * Giving up the end of a disk, or all of it: the L2 table that the border is
 * in loses its entries, those behind it go as a whole.
 */
#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/l2_fault.h"
#include "qcow2/slice_write.h"
#include "qcow2/tree.h"

/* What tables map that are dropped at once, more or less. */
#define DROP_CLUSTERS (1u << 20)

/* Clears the entries of one slice from guest on; the table is the disk's. */
co_fn static int
clear_rest(struct image *image, uint64_t guest)
{
	size_t count = image->slices.slice_bytes / ENTRY_BYTES;
	size_t first = l2_slice_index(image, guest);
	struct slice *slice;
	uint8_t *entries;
	int err = l2_pin(image, guest, &slice);

	if (err)
		return err;
	err = quarantine_make_room(image, count);
	entries = err ? NULL : slice_modify(image, slice);
	if (!err && !entries)
		err = -ENOMEM;
	for (size_t i = first; i < count && !err; i++) {
		uint64_t entry = entry_load(entries, i);

		/* What cannot be believed leaks. */
		if (l2_fault_in(image, slice, entry))
			dirty_note_leak(image);
		else
			quarantine_add_entry(image, entry);
		entry_store(entries, i, 0);
	}
	l2_unpin(image, slice);
	return err;
}

/* The part of the table that maps guest, unless that is its start. */
co_fn static int
clear_table_rest(struct image *image, uint64_t guest, uint64_t end)
{
	uint64_t slice_span = (uint64_t)image->slices.slice_bytes /
	    ENTRY_BYTES << image->cluster_bits;
	int err = l2_own(image, guest);

	while (guest < end && !err) {
		err = clear_rest(image, guest);
		guest += slice_span - guest % slice_span;
		co_yield();
	}
	return err;
}

/*
 * Takes the tables from begin to end out of the L1 table; *hosts are theirs, 0
 * where none was.
 */
static int
unlink_tables(struct image *image, uint32_t begin, uint32_t end,
    uint64_t *hosts)
{
	struct changes *changes = &image->barrier.l1;

	if (changes_make_room(changes, end - begin) ||
	    retired_make_room(image, end - begin))
		return -ENOMEM;
	for (uint32_t i = begin; i < end; i++) {
		uint64_t entry = image->l1[i];

		hosts[i - begin] = 0;
		if (!entry)
			continue;
		if (!entry_l1_fault(entry, &image->limits)) {
			hosts[i - begin] = entry_host(entry);
			retired_add(image, i, entry_host(entry));
		}
		image->l1[i] = 0;
		changes_add(changes, i, 0);
	}
	return 0;
}

/* References go when nothing points there any more, stably. */
co_fn static int
drop_unlinked(struct image *image, const uint64_t *hosts, uint32_t count)
{
	int first_err = barrier_flush(image);
	bool unlinked = !first_err;

	barrier_wait_ended(image);
	for (uint32_t i = 0; i < count && unlinked; i++) {
		int err = hosts[i] ? tree_drop(image, hosts[i]) : 0;

		if (err && !first_err)
			first_err = err;
	}
	if (first_err)
		dirty_note_leak(image);
	return first_err;
}

co_fn static int
drop_some_tables(struct image *image, uint32_t begin, uint32_t end)
{
	uint64_t *hosts = calloc(end - begin, sizeof(*hosts));
	int err;

	if (!hosts)
		return -ENOMEM;
	err = unlink_tables(image, begin, end, hosts);
	if (!err)
		err = drop_unlinked(image, hosts, end - begin);
	free(hosts);
	return err;
}

/* Whole tables, from the last one down. */
co_fn static int
drop_tables(struct image *image, uint32_t first,
    const struct image_progress *progress)
{
	uint32_t at_once = (DROP_CLUSTERS >> image->l2_bits) + 1;
	uint32_t last = image->l1_entries;
	int err = 0;

	while (last > first && !image->l1[last - 1])
		last--;
	for (uint32_t begin, end = last; end > first && !err; end = begin) {
		if (progress_stops(image, progress, last - end, last - first))
			return -ECANCELED;
		begin = end - first > at_once ? end - at_once : first;
		err = drop_some_tables(image, begin, end);
	}
	return err;
}

int
tree_drop_from(struct image *image, uint64_t guest,
    const struct image_progress *progress)
{
	unsigned span_bits = image->cluster_bits + image->l2_bits;
	uint64_t mask = image->cluster_bytes - 1;
	uint64_t begin = (guest + mask) & ~mask;
	uint64_t table_end = ((begin >> span_bits) + 1) << span_bits;
	uint32_t index = (uint32_t)(begin >> span_bits);
	bool is_start = (begin & ((1ull << span_bits) - 1)) == 0;
	int err = 0;

	if (begin >> span_bits >= image->l1_entries)
		return 0;
	if (!is_start && image->l1[index])
		err = clear_table_rest(image, begin, table_end);
	return err ? err : drop_tables(image, index + !is_start, progress);
}
