/* SPDX-License-Identifier: MIT */
/*
 * A new refcount block is written as zeros at once, outside the monitor; its
 * counts are slices like any other.  Until the barrier has hooked it, nothing
 * on disk depends on it.  It stands at the end of the file, where everything
 * is unused, so it never needs the allocator.
 */
#include "qcow2/refcount_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/internal.h"

uint64_t
refcount_table_index(const struct image *image, uint64_t cluster)
{
	return cluster >> image->refcounts.block_bits;
}

bool
refcount_table_has(const struct image *image, uint64_t cluster)
{
	uint64_t index = refcount_table_index(image, cluster);

	return index < image->refcount_table_entries &&
	    image->refcount_table[index];
}

/* ---- blocks ---- */

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
	if (refcount_table_index(image, cluster) == index)
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
	bool counts_itself = refcount_table_index(image, cluster) == index;
	uint64_t left;
	int err;

	err = changes_make_room(&refcounts->hooks, 1);
	if (err)
		return err;
	/* Nobody else may take it while the block is on its way. */
	image->end_cluster++;
	err = guard_new(image, host, image->cluster_bytes);
	if (!err && !counts_itself)
		err = refcount_take(image, cluster, 1);
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

/* ---- the table ---- */

/* How many clusters a table has that can tell of one more than cluster. */
static uint64_t
grown_clusters(const struct image *image, uint64_t cluster)
{
	uint64_t old = image->refcount_table_entries * ENTRY_BYTES >>
	    image->cluster_bits;
	uint64_t entries = refcount_table_index(image, cluster) + 2;
	uint64_t needed = table_clusters(image, entries * ENTRY_BYTES);

	needed += needed / 2 + 1;
	return needed > 2 * old ? needed : 2 * old;
}

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
	moves_leave_place(image, move->host,
	    (uint64_t)move->count << image->cluster_bits);
	move->wanted = false;
}

/* The table needs blocks, and they a table. */
co_fn static int ensure_block(struct image *image, uint64_t cluster);

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
	uint64_t place;
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
	if (!err)
		err = refcount_take(image, place, clusters);
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

	while (refcount_table_index(image, cluster) >=
	    image->refcount_table_entries) {
		err = grow_table(image, cluster);
		if (err && err != -EEXIST)
			return err;
	}
	if (refcount_table_has(image, cluster))
		return 0;
	/* The block's own count must have a place, too: in itself, or in the
	 * block of the cluster it will stand in. */
	do {
		while (refcount_table_index(image, image->end_cluster) !=
		    refcount_table_index(image, cluster) &&
		    !refcount_table_has(image, image->end_cluster)) {
			err = ensure_block(image, image->end_cluster);
			if (err)
				return err;
		}
		err = make_block(image, refcount_table_index(image, cluster));
	} while (err == -EEXIST);
	return err;
}

int
refcount_table_ensure(struct image *image, uint64_t cluster)
{
	struct co_mutex *growing = &image->refcounts.growing;
	int err;

	if (refcount_table_has(image, cluster))
		return 0;
	co_mutex_lock(growing);
	err = ensure_block(image, cluster);
	co_mutex_unlock(&image->monitor, growing);
	return err;
}
