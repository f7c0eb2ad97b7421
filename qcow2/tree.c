/* SPDX-License-Identifier: MIT */
/*
 * A slice at a time.  Clusters that stand side by side, which most do, are
 * counted up and down in one go.
 */
#include "qcow2/tree.h"

#include <errno.h>
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/l2_fault.h"
#include "qcow2/slice_write.h"

#define RUNS_MAX (SLICE_BYTES_MAX / ENTRY_BYTES)

struct tree_run {
	uint64_t cluster;
	uint64_t count;
};

/* What one slice maps; a cluster may be in several runs. */
struct tree_runs {
	unsigned count;
	struct tree_run list[RUNS_MAX];
};

static void
add_entry(const struct image *image, struct tree_runs *runs, uint64_t entry)
{
	struct tree_run *last = runs->count > 0 ?
	    &runs->list[runs->count - 1] : NULL;
	uint64_t first;
	uint64_t count = entry_clusters(entry, image->cluster_bits, &first);

	if (count == 0)
		return;
	if (last && last->cluster + last->count == first)
		last->count += count;
	else
		runs->list[runs->count++] = (struct tree_run){first, count};
}

/* Notes what the slice at host maps.  -EIO: not all of it can be believed. */
co_fn static int
load_runs(struct image *image, uint64_t host, struct tree_runs *runs)
{
	struct slice *slice;
	int err;

	runs->count = 0;
	err = slice_pin(image, SLICE_L2, host, &slice);
	if (err)
		return err;
	if (slice->faulty)
		err = -EIO;
	for (size_t i = 0; i < image->slices.slice_bytes / ENTRY_BYTES && !err;
	    i++)
		add_entry(image, runs, entry_load(slice->data, i));
	slice_unpin(image, slice);
	return err;
}

/* ---- sharing ---- */

co_fn static void
take_back_runs(struct image *image, const struct tree_runs *runs,
    unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		refcount_take_back(image, runs->list[i].cluster,
		    runs->list[i].count);
}

co_fn static int
share_slice(struct image *image, uint64_t host)
{
	struct tree_runs runs;
	int err = load_runs(image, host, &runs);

	for (unsigned i = 0; i < runs.count && !err; i++) {
		err = refcount_add(image, runs.list[i].cluster,
		    runs.list[i].count);
		if (err)
			take_back_runs(image, &runs, i);
	}
	return err;
}

/* The references that share_slice() gave; nothing points there because of
 * them yet. */
co_fn static void
unshare_slice(struct image *image, uint64_t host)
{
	struct tree_runs runs;

	if (load_runs(image, host, &runs))
		dirty_note_leak(image);
	else
		take_back_runs(image, &runs, runs.count);
}

co_fn static int
clear_slice(struct image *image, uint64_t host)
{
	struct slice *slice;
	uint8_t *entries;
	int err = slice_pin(image, SLICE_L2, host, &slice);

	if (err)
		return err;
	entries = slice_modify(image, slice);
	if (entries)
		l2_clear_copied(entries, image->slices.slice_bytes /
		    ENTRY_BYTES);
	slice_unpin(image, slice);
	return entries ? 0 : -ENOMEM;
}

/* Counts first: a C flag too few is corrected by any check. */
int
tree_share(struct image *image, uint64_t host)
{
	uint32_t bytes = image->slices.slice_bytes;
	uint64_t end = host + image->cluster_bytes, shared = host, cleared;
	int err = 0;

	for (; shared < end && !err; shared += err ? 0 : bytes) {
		err = share_slice(image, shared);
		co_yield();
	}
	if (!err)
		err = refcount_add(image, host >> image->cluster_bits, 1);
	if (err)
		goto unshare;
	for (cleared = host; cleared < end && !err; cleared += bytes)
		err = clear_slice(image, cleared);
	image->barrier.needs_order = true;
	if (!err)
		return 0;
	refcount_take_back(image, host >> image->cluster_bits, 1);
unshare:
	while (shared > host) {
		shared -= bytes;
		unshare_slice(image, shared);
	}
	return err;
}

/* ---- dropping ---- */

int
tree_drop(struct image *image, uint64_t host)
{
	uint32_t bytes = image->slices.slice_bytes;
	uint64_t end = host + image->cluster_bytes;
	int first_err = 0;

	for (uint64_t slice = host; slice < end; slice += bytes) {
		struct tree_runs runs;
		int err = load_runs(image, slice, &runs);

		if (err && !first_err)
			first_err = err;
		for (unsigned i = 0; i < runs.count; i++)
			quarantine_let_out(image, runs.list[i].cluster,
			    runs.list[i].count);
		co_yield();
	}
	quarantine_let_out(image, host >> image->cluster_bits, 1);
	return first_err;
}

/* ---- C flags ---- */

/*
 * Sets the flag of one entry, if its cluster has one reference.  The count may
 * have to be read: the entry may be another by then.
 */
co_fn static int
set_entry(struct image *image, struct slice *slice, size_t index)
{
	uint64_t entry = entry_load(slice->data, index), count;
	uint8_t *entries;
	int err;

	if (entry_copied(entry) || entry & ENTRY_COMPRESSED ||
	    !entry_host(entry) ||
	    l2_fault_in(image, slice, entry))
		return 0;
	err = refcount_get(image, entry_host(entry) >> image->cluster_bits,
	    &count);
	if (err || count != 1 || entry_load(slice->data, index) != entry)
		return err;
	entries = slice_modify(image, slice);
	if (!entries)
		return -ENOMEM;
	entry_store(entries, index, entry | ENTRY_COPIED);
	image->barrier.needs_order = true;
	return 0;
}

/* The slice that maps the clusters from guest on; the table is the disk's. */
co_fn static int
set_slice(struct image *image, uint64_t guest)
{
	size_t count = image->slices.slice_bytes / ENTRY_BYTES;
	struct claim claim;
	struct slice *slice;
	int err;

	claim_take(image, &claim, guest, (uint64_t)count <<
	    image->cluster_bits);
	err = l2_pin(image, guest, &slice);
	if (err)
		goto release;
	for (size_t i = 0; i < count && !err; i++)
		err = set_entry(image, slice, i);
	l2_unpin(image, slice);
release:
	claim_release(image, &claim);
	return err;
}

co_fn static int
set_table(struct image *image, uint64_t index)
{
	uint64_t entry = image->l1[index], count;
	int err;

	if (!entry || entry_copied(entry) ||
	    entry_l1_fault(entry, &image->limits))
		return 0;
	err = refcount_get(image, entry_host(entry) >> image->cluster_bits,
	    &count);
	if (!err && count == 1)
		err = changes_make_room(&image->barrier.l1, 1);
	if (err || count != 1)
		return err;
	image->l1[index] = entry | ENTRY_COPIED;
	changes_add(&image->barrier.l1, index, entry | ENTRY_COPIED);
	image->barrier.needs_order = true;
	return 0;
}

int
tree_set_table_copied(struct image *image, uint64_t index)
{
	int err;

	co_mutex_lock(&image->l2_making);
	err = set_table(image, index);
	co_mutex_unlock(&image->monitor, &image->l2_making);
	return err;
}

/* What a table that is still shared maps has more than one reference. */
int
tree_set_copied(struct image *image, uint64_t index)
{
	unsigned span_bits = image->cluster_bits + image->l2_bits;
	uint64_t guest = index << span_bits, end = guest;
	int err = tree_set_table_copied(image, index);

	if (entry_copied(image->l1[index]))
		end += 1ull << span_bits;
	while (guest < end && !err) {
		err = set_slice(image, guest);
		guest += (uint64_t)image->slices.slice_bytes / ENTRY_BYTES <<
		    image->cluster_bits;
		co_yield();
	}
	return err;
}
