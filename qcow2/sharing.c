/* SPDX-License-Identifier: MIT */
#include "qcow2/sharing.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "qcow2/tree.h"

static bool
is_counted(const struct sharing *sharing, uint64_t index)
{
	return sharing->counted[index / 64] >> index % 64 & 1;
}

int
sharing_init(struct sharing *sharing, uint32_t entries)
{
	*sharing = (struct sharing){
		.entries = entries,
		.l1 = calloc((size_t)entries + 1, sizeof(uint64_t)),
		.counted = calloc(entries / 64 + 1, sizeof(uint64_t)),
	};
	if (sharing->l1 && sharing->counted)
		return 0;
	sharing_free(sharing);
	return -ENOMEM;
}

void
sharing_free(struct sharing *sharing)
{
	free(sharing->l1);
	free(sharing->counted);
	*sharing = (struct sharing){0};
}

int
sharing_begin(struct image *image, struct sharing *sharing)
{
	struct changes *changes = &image->barrier.l1;

	assert(image->gate.closed && !image->sharing &&
	    sharing->entries == image->l1_entries);
	if (changes_make_room(changes, sharing->entries))
		return -ENOMEM;
	for (uint32_t i = 0; i < sharing->entries; i++) {
		uint64_t entry = image->l1[i] & ~ENTRY_COPIED;

		sharing->l1[i] = entry;
		if (image->l1[i] == entry)
			continue;
		image->l1[i] = entry;
		changes_add(changes, i, entry);
	}
	image->sharing = sharing;
	return 0;
}

int
sharing_settle(struct image *image, uint64_t index)
{
	struct sharing *sharing = image->sharing;
	int err;

	assert(image->l2_making.holder == co_self());
	if (!sharing || index >= sharing->entries || !sharing->l1[index])
		return 0;
	if (sharing->err)
		return -ECANCELED;
	if (is_counted(sharing, index))
		return 0;
	err = tree_share(image, entry_host(sharing->l1[index]));
	if (err) {
		sharing->err = err;
		return -ECANCELED;
	}
	sharing->counted[index / 64] |= 1ull << index % 64;
	return 0;
}

int
sharing_wait_undone(struct image *image)
{
	struct sharing *sharing = image->sharing;

	if (sharing && sharing->err)
		wait_queue_wait(&sharing->undone);
	return 0;
}

co_fn static int
settle(struct image *image, uint32_t index)
{
	int err;

	co_mutex_lock(&image->l2_making);
	err = sharing_settle(image, index);
	co_mutex_unlock(&image->monitor, &image->l2_making);
	return err;
}

int
sharing_finish(struct image *image, const struct image_progress *progress)
{
	struct sharing *sharing = image->sharing;
	int err = 0;

	for (uint32_t i = 0; i < sharing->entries && !err; i++) {
		if (!sharing->l1[i])
			continue;
		if (progress_stops(image, progress, i, sharing->entries))
			err = -ECANCELED;
		else
			err = image->failed ? -EIO : barrier_pace(image);
		if (!err)
			err = settle(image, i);
	}
	if (!err)
		return 0;
	if (!sharing->err)
		sharing->err = err;
	err = sharing->err;
	sharing_undo(image);
	return err;
}

/* The references first, and the C flags of the tables where one is left. */
co_fn static int
unshare_all(struct image *image)
{
	struct sharing *sharing = image->sharing;
	int first_err = 0;

	for (uint32_t i = 0; i < sharing->entries && !image->failed; i++) {
		int err = 0;

		if (is_counted(sharing, i))
			err = tree_drop(image, entry_host(sharing->l1[i]));
		if (sharing->l1[i] && !err)
			err = tree_set_table_copied(image, i);
		if (err && !first_err)
			first_err = err;
	}
	return first_err;
}

/*
 * A table that was copied meanwhile is freed only when a barrier has written
 * what was changed in it before: until then the disk's reference is in
 * quarantine.
 */
void
sharing_undo(struct image *image)
{
	struct sharing *sharing = image->sharing;
	int first_err;

	if (!sharing->err)
		sharing->err = -ECANCELED;
	/* Nobody begins to copy one now; who had begun ends first. */
	co_mutex_lock(&image->l2_making);
	co_mutex_unlock(&image->monitor, &image->l2_making);
	first_err = unshare_all(image);
	image->sharing = NULL;
	wait_queue_wake_all(&image->monitor, &sharing->undone);
	/* Not before: who waits for this holds claims. */
	for (uint32_t i = 0; i < sharing->entries && !image->failed; i++) {
		int err = sharing->l1[i] ? tree_set_copied(image, i) : 0;

		if (err && !first_err)
			first_err = err;
	}
	if (first_err)
		dirty_note_leak(image);
}

void
sharing_end(struct image *image)
{
	image->sharing = NULL;
}
