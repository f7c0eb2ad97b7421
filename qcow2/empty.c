/* SPDX-License-Identifier: MIT */
/*
 * Emptying: all L2 tables go, as with a disk that becomes shorter (tree.h).
 *
 * An emptied file is cut when it is closed, behind the last cluster in use.
 * Refcount blocks that count nothing any more, and would stand in the way, are
 * taken out of their table before.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "qcow2/image_chain.h"
#include "qcow2/internal.h"
#include "qcow2/open_internal.h"
#include "qcow2/tree.h"

int
image_empty(struct image *image, const struct image_progress *progress,
    struct error *error)
{
	int err;

	assert(image->format == IMAGE_QCOW2);
	monitor_enter(&image->monitor);
	co_mutex_lock(&image->gate.operation);
	err = gate_refuses(image);
	if (!err) {
		gate_close(image);
		err = tree_drop_from(image, 0, progress);
		image->cuts_file = true;
		gate_open(image);
	}
	co_mutex_unlock(&image->monitor, &image->gate.operation);
	monitor_leave(&image->monitor);
	if (err == -ECANCELED)
		error_set(error, err, "stopped; %s is emptied in part, reads "
		    "the same, and the same command goes on", image->path);
	else if (err)
		error_set(error, err, "cannot empty %s: %s", image->path,
		    strerror(-err));
	return err;
}

/* ---- the end of the file ---- */

/* Whether the block counts no cluster, or none but itself. */
co_fn static int
is_idle(struct image *image, uint64_t index, bool *idlep)
{
	unsigned bits = image->refcounts.block_bits;
	uint64_t cluster = index << bits, end = cluster + (1ull << bits);
	uint64_t self = entry_refcount_block(image->refcount_table[index]) >>
	    image->cluster_bits;

	*idlep = false;
	while (cluster < end) {
		uint64_t run;
		bool is_free;
		int err = refcount_scan(image, cluster, end - cluster, &run,
		    &is_free);

		if (err)
			return err;
		if (!is_free && (cluster != self || run != 1))
			return 0;
		cluster += run;
	}
	*idlep = true;
	return 0;
}

/*
 * A block that counts itself is free without another step, since there is no
 * count of it any more.
 */
static int
drop_block(struct image *image, uint64_t index)
{
	struct refcounts *refcounts = &image->refcounts;
	uint64_t host = entry_refcount_block(image->refcount_table[index]);
	uint64_t cluster = host >> image->cluster_bits;
	int err;

	err = changes_make_room(&refcounts->hooks, 1);
	if (!err)
		err = quarantine_make_room(image, 1);
	if (err)
		return err;
	image->refcount_table[index] = 0;
	changes_add(&refcounts->hooks, index, 0);
	metadata_remove_cluster(&image->metadata, host);
	slice_forget(image, host, image->cluster_bytes);
	if (cluster >> refcounts->block_bits != index)
		quarantine_add(image, cluster, 1);
	return 0;
}

co_fn static int
drop_idle_blocks(struct image *image)
{
	uint64_t index = image->refcount_table_entries;

	/* The first counts the header. */
	while (--index > 0) {
		bool idle;
		int err;

		if (!image->refcount_table[index])
			continue;
		err = is_idle(image, index, &idle);
		if (!err && idle)
			err = drop_block(image, index);
		if (err)
			return err;
		co_yield();
	}
	return 0;
}

/* Everything is stable, and so are the blocks that are gone, in two turns. */
int
empty_cut_file(struct image *image)
{
	uint64_t end;
	int err;

	err = drop_idle_blocks(image);
	if (!err)
		err = open_settle(image);
	if (!err)
		err = open_find_end(image, 1, &end);
	if (err == -EFBIG)
		return 0;
	if (err || !image->file->is_regular)
		return err;
	end <<= image->cluster_bits;
	if (file_size(image->file) <= (int64_t)end)
		return 0;
	return file_truncate(image->file, end);
}
