/* SPDX-License-Identifier: MIT */
/*
 * A new refcount block is written as zeros at once, outside the monitor; its
 * counts are slices like any other.  Until the barrier has hooked it, nothing
 * on disk depends on it.  It stands at the end of the file, where everything
 * is unused, so it never needs the allocator.
 */
#include "qcow2/refcount.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/internal.h"
#include "runtime/log.h"

static uint64_t
block_index(const struct image *image, uint64_t cluster)
{
	return cluster >> image->refcounts.block_bits;
}

/* Refcounts in one slice of a block. */
static uint64_t
slice_counts(const struct image *image)
{
	return ((uint64_t)image->slices.slice_bytes * 8) >>
	    image->refcounts.order;
}

static bool
has_block(const struct image *image, uint64_t cluster)
{
	uint64_t index = block_index(image, cluster);

	return index < image->refcount_table_entries &&
	    image->refcount_table[index];
}

/* The slice with the count of cluster, whose block exists. */
co_fn static int
pin(struct image *image, uint64_t cluster, struct slice **slicep)
{
	uint64_t entry = image->refcount_table[block_index(image, cluster)];
	uint64_t in_block = cluster &
	    ((1ull << image->refcounts.block_bits) - 1);
	uint64_t slice = in_block / slice_counts(image);

	/* It was logged when the table was loaded. */
	if (entry_refcount_fault(entry, &image->limits))
		return -EIO;
	return slice_pin(image, SLICE_REFCOUNTS, entry_refcount_block(entry) +
	    slice * image->slices.slice_bytes, slicep);
}

static uint64_t
count_of(const struct image *image, const struct slice *slice,
    uint64_t cluster)
{
	return entry_refcount_get(slice->data, image->refcounts.order,
	    cluster % slice_counts(image));
}

int
refcount_get(struct image *image, uint64_t cluster, uint64_t *valuep)
{
	struct slice *slice;
	int err;

	if (!has_block(image, cluster)) {
		*valuep = 0;
		return 0;
	}
	err = pin(image, cluster, &slice);
	if (err)
		return err;
	*valuep = count_of(image, slice, cluster);
	slice_unpin(image, slice);
	return 0;
}

static uint64_t
part_in_slice(const struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t counts = slice_counts(image);
	uint64_t room = counts - cluster % counts;

	return count < room ? count : room;
}

/*
 * How many clusters from cluster on, whose block exists, at most max and inside
 * one slice, have just this count, or others.
 */
co_fn static int
scan(struct image *image, uint64_t cluster, uint64_t max, uint64_t value,
    uint64_t *runp, bool *equalp)
{
	struct slice *slice;
	uint64_t run = 1;
	int err;

	err = pin(image, cluster, &slice);
	if (err)
		return err;
	max = part_in_slice(image, cluster, max);
	*equalp = count_of(image, slice, cluster) == value;
	while (run < max &&
	    (count_of(image, slice, cluster + run) == value) == *equalp)
		run++;
	slice_unpin(image, slice);
	*runp = run;
	return 0;
}

int
refcount_scan(struct image *image, uint64_t cluster, uint64_t max,
    uint64_t *runp, bool *freep)
{
	if (has_block(image, cluster))
		return scan(image, cluster, max, 0, runp, freep);
	*runp = part_in_slice(image, cluster, max);
	*freep = true;
	return 0;
}

static int
log_unreferenced(const struct image *image, uint64_t cluster)
{
	log_error("cluster 0x%llx is in use but its refcount is 0 file=%s",
	    (unsigned long long)cluster << image->cluster_bits,
	    image->file->name);
	return -EIO;
}

int
refcount_scan_last(struct image *image, uint64_t cluster, uint64_t max,
    uint64_t *runp, bool *lastp)
{
	if (!has_block(image, cluster))
		return log_unreferenced(image, cluster);
	return scan(image, cluster, max, 1, runp, lastp);
}

/* ---- changes ---- */

enum counting {
	COUNT_FIRST,		/* from 0 to 1 */
	COUNT_UP,
	COUNT_DOWN,
	COUNT_OUT,		/* and what has none left is free */
};

/* Whether a count can be changed so. */
static int
check_counting(const struct image *image, enum counting counting, uint64_t cluster,
    uint64_t count)
{
	if (counting == COUNT_FIRST)
		return count == 0 ? 0 : -EEXIST;
	if (count == 0)
		return log_unreferenced(image, cluster);
	if (counting == COUNT_UP &&
	    count == entry_refcount_max(image->refcounts.order))
		return -ERANGE;
	return 0;
}

static uint64_t
recount(const struct image *image, enum counting counting, uint8_t *data,
    uint64_t cluster)
{
	unsigned order = image->refcounts.order;
	size_t index = cluster % slice_counts(image);
	uint64_t count = entry_refcount_get(data, order, index);

	if (counting == COUNT_DOWN || counting == COUNT_OUT)
		count--;
	else
		count++;
	entry_refcount_set(data, order, index, count);
	return count;
}

/*
 * Changes the counts of all clusters, which lie in one slice, or of none;
 * *leftp is what the last has then.
 */
co_fn static int
count_in_slice(struct image *image, enum counting counting, uint64_t cluster,
    uint64_t clusters, uint64_t *leftp)
{
	struct slice *slice;
	uint8_t *data;
	int err;

	if (!has_block(image, cluster))
		return log_unreferenced(image, cluster);
	err = pin(image, cluster, &slice);
	if (err)
		return err;
	for (uint64_t i = 0; i < clusters && !err; i++)
		err = check_counting(image, counting, cluster + i,
		    count_of(image, slice, cluster + i));
	data = err ? NULL : slice_modify(image, slice);
	if (!err && !data)
		err = -ENOMEM;
	for (uint64_t i = 0; i < clusters && !err; i++) {
		*leftp = recount(image, counting, data, cluster + i);
		if (counting == COUNT_OUT && *leftp == 0)
			alloc_add_free(image, cluster + i, 1);
	}
	slice_unpin(image, slice);
	return err;
}

int
refcount_take(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t done = 0, left;

	while (done < count) {
		uint64_t part = part_in_slice(image, cluster + done,
		    count - done);
		int err = refcount_ensure_block(image, cluster + done);

		if (!err)
			err = count_in_slice(image, COUNT_FIRST,
			    cluster + done, part, &left);
		if (err) {
			/* What cannot be undone is a leak, no worse. */
			while (done > 0)
				refcount_drop(image, cluster + --done, &left);
			return err;
		}
		done += part;
	}
	return 0;
}

int
refcount_add(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t done = 0, left;

	while (done < count) {
		uint64_t part = part_in_slice(image, cluster + done,
		    count - done);
		int err = count_in_slice(image, COUNT_UP, cluster + done,
		    part, &left);

		if (err) {
			refcount_take_back(image, cluster, done);
			return err;
		}
		done += part;
	}
	return 0;
}

int
refcount_drop(struct image *image, uint64_t cluster, uint64_t *valuep)
{
	return count_in_slice(image, COUNT_DOWN, cluster, 1, valuep);
}

void
refcount_take_back(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t left;

	while (count > 0)
		if (refcount_drop(image, cluster + --count, &left))
			dirty_note_leak(image);
}

int
refcount_drop_run(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t left;

	return count_in_slice(image, COUNT_OUT, cluster, count, &left);
}

/* ---- new blocks, larger tables ---- */

/*
 * Writes the first content of a block that will stand in cluster: zeros, and
 * if it covers itself, a count of 1 for it.
 */
co_fn static int
write_block(struct image *image, uint64_t index, uint64_t cluster)
{
	uint64_t mask = (1ull << image->refcounts.block_bits) - 1;
	void *block = calloc(1, image->cluster_bytes);
	int err;

	if (!block)
		return -ENOMEM;
	if (block_index(image, cluster) == index)
		entry_refcount_set(block, image->refcounts.order,
		    cluster & mask, 1);
	err = file_pwrite(image->file, block, image->cluster_bytes,
	    cluster << image->cluster_bits, 0);
	atomic_store(&image->unsynced, true);
	free(block);
	return err;
}

/*
 * A place at the end of the file that came to nothing, unless it was because
 * the allocator's scan found it unused and took of it.
 */
static void
give_end_back(struct image *image, uint64_t cluster, uint64_t count, int err)
{
	if (err != -EEXIST && image->end_cluster == cluster + count)
		image->end_cluster = cluster;
}

/*
 * Puts the block for index into the cluster at the end of the file.  Its own
 * count comes first, in itself or in a block that is there; once it is
 * published, nothing can fail any more.
 */
co_fn static int
make_block(struct image *image, uint64_t index)
{
	struct refcounts *refcounts = &image->refcounts;
	uint64_t cluster = image->end_cluster;
	uint64_t host = cluster << image->cluster_bits;
	bool counts_itself = block_index(image, cluster) == index;
	uint64_t left;
	int err;

	err = changes_make_room(&refcounts->hooks, 1);
	if (err)
		return err;
	/* Nobody else may take it while the block is on its way. */
	image->end_cluster++;
	err = guard_new(image, host, image->cluster_bytes);
	if (!err && !counts_itself)
		err = count_in_slice(image, COUNT_FIRST, cluster, 1,
		    &left);
	if (err)
		goto give_end_back;
	err = metadata_add_cluster(&image->metadata, METADATA_REFCOUNT_BLOCK,
	    host);
	if (err)
		goto drop_count;
	err = write_block(image, index, cluster);
	if (err)
		goto remove_block;
	slice_forget(image, host, image->cluster_bytes);
	image_extend(image);
	changes_add(&refcounts->hooks, index, host);
	image->refcount_table[index] = host;
	return 0;
remove_block:
	metadata_remove_cluster(&image->metadata, host);
drop_count:
	if (!counts_itself)
		refcount_drop(image, cluster, &left);
give_end_back:
	give_end_back(image, cluster, 1, err);
	return err;
}

/* How many clusters a table has that can tell of one more than cluster. */
static uint64_t
grown_clusters(const struct image *image, uint64_t cluster)
{
	uint64_t old = image->refcount_table_entries * ENTRY_BYTES >>
	    image->cluster_bits;
	uint64_t entries = block_index(image, cluster) + 2;
	uint64_t needed = (entries * ENTRY_BYTES + image->cluster_bytes - 1) >>
	    image->cluster_bits;

	needed += needed / 2 + 1;
	return needed > 2 * old ? needed : 2 * old;
}

co_fn static int ensure_block(struct image *image, uint64_t cluster);

/*
 * Undoes a growth that failed half way: the table on disk has no room for the
 * blocks behind its end, so they must never be hooked.  They leak.
 */
static void
forget_growth(struct image *image, uint64_t entries)
{
	image->refcount_table_entries = entries;
	changes_drop_from(&image->refcounts.hooks, entries);
}

/*
 * The place before this one.  A barrier that failed may have got as far as the
 * header, so it is not free before the next has switched that.
 */
static void
drop_moved(struct image *image)
{
	struct move *move = &image->moves.refcount_table;

	if (!move->wanted)
		return;
	metadata_remove_range(&image->metadata, move->host);
	if (!quarantine_make_room(image, 1))
		quarantine_add(image, move->host >> image->cluster_bits,
		    move->count);
	move->wanted = false;
}

/*
 * Makes the table larger in RAM and finds it a new place; the barrier writes
 * it there and switches the header.
 */
co_fn static int
grow_table(struct image *image, uint64_t cluster)
{
	uint64_t old_entries = image->refcount_table_entries;
	uint64_t clusters = grown_clusters(image, cluster);
	uint64_t entries = (clusters << image->cluster_bits) / ENTRY_BYTES;
	uint64_t place, left;
	uint64_t *table;
	int err;

	if (clusters << image->cluster_bits > HEADER_REFCOUNT_TABLE_BYTES_MAX)
		return -ENOSPC;
	table = realloc(image->refcount_table, entries * ENTRY_BYTES);
	if (!table)
		return -ENOMEM;
	memset(table + old_entries, 0,
	    (entries - old_entries) * ENTRY_BYTES);
	image->refcount_table = table;
	image->refcount_table_entries = entries;
	place = image->end_cluster;
	image->end_cluster += clusters;
	err = guard_new(image, place << image->cluster_bits,
	    clusters << image->cluster_bits);
	for (uint64_t i = 0; i < clusters && !err; i++)
		err = ensure_block(image, place + i);
	for (uint64_t i = 0; i < clusters && !err; i++)
		err = count_in_slice(image, COUNT_FIRST, place + i,
		    1, &left);
	if (!err)
		err = metadata_add_range(&image->metadata,
		    METADATA_REFCOUNT_TABLE, place << image->cluster_bits,
		    clusters << image->cluster_bits);
	if (err) {
		forget_growth(image, old_entries);
		give_end_back(image, place, clusters, err);
		return err;
	}
	image_extend(image);
	drop_moved(image);
	image->moves.refcount_table = (struct move){
		.wanted = true, .host = place << image->cluster_bits,
		.count = (uint32_t)clusters,
	};
	return 0;
}

/* The caller holds the mutex. */
co_fn static int
ensure_block(struct image *image, uint64_t cluster)
{
	int err;

	while (block_index(image, cluster) >= image->refcount_table_entries) {
		err = grow_table(image, cluster);
		if (err && err != -EEXIST)
			return err;
	}
	if (has_block(image, cluster))
		return 0;
	/* The block's own count must have a place, too: in itself, or in the
	 * block of the cluster it will stand in. */
	do {
		while (block_index(image, image->end_cluster) !=
		    block_index(image, cluster) &&
		    !has_block(image, image->end_cluster)) {
			err = ensure_block(image, image->end_cluster);
			if (err)
				return err;
		}
		err = make_block(image, block_index(image, cluster));
	} while (err == -EEXIST);
	return err;
}

int
refcount_ensure_block(struct image *image, uint64_t cluster)
{
	struct co_mutex *growing = &image->refcounts.growing;
	int err;

	if (has_block(image, cluster))
		return 0;
	co_mutex_lock(growing);
	err = ensure_block(image, cluster);
	co_mutex_unlock(&image->monitor, growing);
	return err;
}
