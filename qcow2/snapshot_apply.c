/* SPDX-License-Identifier: MIT */
/*
 * Applying a snapshot: the disk becomes what the snapshot has.
 *
 * With requests going on, every tree of the snapshot gets one reference more,
 * for the disk.  Then, behind the closed gate, the disk takes an L1 table that
 * leads there, and its length.  The next barrier writes that table and switches
 * the header; once that is stable, the references of what the disk had before
 * are taken off.
 */
#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "qcow2/l1.h"
#include "qcow2/snapshot_change.h"
#include "qcow2/tree.h"

/* The L1 table that the disk gets, or had. */
struct l1_table {
	uint64_t *list;
	uint32_t entries;
};

/* Whether the disk has that table now, at that place of its L1. */
static bool
has_table(const struct image *image, uint32_t index, uint64_t host)
{
	return index < image->l1_entries &&
	    entry_host(image->l1[index]) == host;
}

/* ---- the second references ---- */

/* Without memory, tables could not be undone: they would stay in the index. */
static int
reserve_undoing(struct image *image, const struct l1_table *l1)
{
	size_t tables = 0;
	int err;

	for (uint32_t i = 0; i < l1->entries; i++)
		tables += l1->list[i] != 0;
	err = retired_make_room(image, tables);
	if (!err)
		image->retired.reserved = tables;
	return err;
}

/*
 * For the disk, which will have the table: in the index of metadata with it.
 * If the disk has it already, the index knows it.
 */
co_fn static int
share_table(struct image *image, uint32_t index, uint64_t host)
{
	int err = 0;

	co_mutex_lock(&image->l2_making);
	/* What is shared cannot be the disk's alone. */
	if (has_table(image, index, host) && entry_copied(image->l1[index]))
		err = -EIO;
	else if (!metadata_is(&image->metadata, METADATA_L2, host,
	    image->cluster_bytes))
		err = metadata_add_cluster(&image->metadata, METADATA_L2,
		    host);
	if (err == -EEXIST)
		err = -EIO;
	if (err)
		goto unlock;
	/* In a damaged image somebody may point there. */
	image->metadata.reused++;
	err = tree_share(image, host);
unlock:
	co_mutex_unlock(&image->monitor, &image->l2_making);
	return err;
}

/*
 * Takes off the references of the first count trees; the next table may have
 * come into the index, too.  What could not be undone is left to be repaired.
 */
co_fn static void
unshare_tables(struct image *image, const struct l1_table *l1, uint32_t count)
{
	int first_err = 0;

	image->adopted = NULL;
	image->retired.reserved = 0;
	for (uint32_t i = 0; i <= count && i < l1->entries &&
	    !image->failed; i++)
		if (l1->list[i])
			retired_add(image, i, entry_host(l1->list[i]));
	for (uint32_t i = 0; i < count && !image->failed; i++) {
		int err = 0;

		if (l1->list[i])
			err = tree_drop(image, entry_host(l1->list[i]));
		if (l1->list[i] && i < image->l1_entries && !err)
			err = tree_set_copied(image, i);
		if (err && !first_err)
			first_err = err;
	}
	if (first_err)
		dirty_note_leak(image);
}

/* Its three parts as one: tables that are shared, dropped and looked at. */
struct apply_progress {
	const struct image_progress *image;	/* or NULL */
	uint64_t total;
};

co_fn static bool
is_stopped(struct image *image, const struct apply_progress *progress,
    uint64_t done)
{
	return progress_stops(image, progress->image, done, progress->total);
}

co_fn static int
share_tables(struct image *image, const struct l1_table *l1,
    const struct apply_progress *progress)
{
	for (uint32_t i = 0; i < l1->entries; i++) {
		int err;

		if (!l1->list[i])
			continue;
		/* Not those to come: should it fail, nobody would forget
		 * them. */
		image->adopted_entries = i + 1;
		if (is_stopped(image, progress, i))
			err = -ECANCELED;
		else
			err = image->failed ? -EIO : barrier_pace(image);
		if (!err)
			err = share_table(image, i, entry_host(l1->list[i]));
		if (err) {
			unshare_tables(image, l1, i);
			return err;
		}
	}
	return 0;
}

/* ---- the moment ---- */

/* Behind the closed gate, with no barrier running.  -EIO, -ENOMEM. */
static int
switch_l1(struct image *image, struct l1_table *l1, uint64_t host,
    uint64_t disk_bytes)
{
	struct l1_table old = {image->l1, image->l1_entries};

	if (image->failed)
		return -EIO;
	if (retired_make_room(image, old.entries))
		return -ENOMEM;
	for (uint32_t i = 0; i < old.entries; i++)
		if (entry_host(old.list[i]))
			retired_add(image, i, entry_host(old.list[i]));
	changes_drop_from(&image->barrier.l1, 0);
	image->adopted = NULL;
	image->retired.reserved = 0;
	image->l1 = l1->list;
	image->l1_entries = l1->entries;
	image->size_bytes = disk_bytes;
	image->usable_bytes = disk_bytes;
	image->moves.l1 = (struct move){
		.wanted = true, .host = host, .count = l1->entries,
	};
	*l1 = old;
	return 0;
}

/*
 * The references of what the disk had, now that it is stably gone.  It is too
 * late to stop.
 */
co_fn static int
drop_old(struct image *image, const struct l1_table *old,
    const struct apply_progress *progress)
{
	uint64_t done = image->l1_entries;
	int first_err = 0;

	barrier_wait_ended(image);
	for (uint32_t i = 0; i < old->entries && !image->failed; i++) {
		uint64_t host = entry_host(old->list[i]);
		int err = 0;

		is_stopped(image, progress, done++);
		if (host)
			err = tree_drop(image, host);
		/* That it fails is told by the flush at the end. */
		barrier_pace(image);
		if (err && !first_err)
			first_err = err;
	}
	for (uint32_t i = 0; i < image->l1_entries && !image->failed; i++) {
		int err;

		is_stopped(image, progress, done++);
		err = tree_set_copied(image, i);
		barrier_pace(image);
		if (err && !first_err)
			first_err = err;
	}
	return image->failed ? -EIO : first_err;
}

/* l1 becomes what the disk had, and is freed by the caller. */
co_fn static int
become(struct image *image, struct l1_table *l1, uint64_t disk_bytes,
    const struct image_progress *image_progress)
{
	struct apply_progress progress = {
		image_progress, 2 * (uint64_t)l1->entries + image->l1_entries,
	};
	uint32_t entries = l1->entries;
	uint64_t host;
	int err;

	err = reserve_undoing(image, l1);
	if (err)
		return err;
	image->adopted = l1->list;
	image->adopted_entries = 0;
	err = share_tables(image, l1, &progress);
	if (err)
		return err;
	err = l1_take_place(image, entries, &host);
	if (err)
		goto unshare;
	gate_close(image);
	err = switch_l1(image, l1, host, disk_bytes);
	gate_open(image);
	if (err)
		goto give_place_back;
	err = barrier_flush(image);
	if (!err)
		err = drop_old(image, l1, &progress);
	/* What was not dropped is repaired by the next who opens it. */
	if (err)
		dirty_note_leak(image);
	return err;
give_place_back:
	metadata_remove_range(&image->metadata, host);
	alloc_give_back(image, host, table_clusters(image,
	    (uint64_t)entries * ENTRY_BYTES));
unshare:
	unshare_tables(image, l1, entries);
	return err;
}

int
snapshot_apply(struct image *image, const struct snapshot *snapshot,
    const struct image_progress *progress)
{
	uint64_t disk_bytes = snapshot->disk_bytes;
	uint32_t needed = l1_entries_for(image, disk_bytes);
	struct l1_table l1;
	int err;

	if (needed == 0)
		return -EIO;
	l1.entries = needed < snapshot->l1_entries ? snapshot->l1_entries :
	    needed;
	err = snapshot_load_l1(image, snapshot, l1.entries, &l1.list);
	if (err)
		return err;
	err = become(image, &l1, disk_bytes, progress);
	free(l1.list);
	return err;
}
