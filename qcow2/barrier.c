/* SPDX-License-Identifier: MIT */
#include "qcow2/barrier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/internal.h"
#include "qcow2/slice_write.h"
#include "runtime/log.h"

/* One who waits for a cut to be stable; on its own stack. */
struct barrier_waiter {
	struct barrier_waiter *next;
	uint64_t cut;
	int err;
	bool answered;
	struct waiter waiter;
};

/* What a cut took, beside the changes that are marked as taken. */
struct cut {
	uint64_t number;
	bool needs_order;
	bool links;		/* there are L2 slices or L1 entries */
	struct moves_cut moves;
	uint64_t reserve_end;
};

void
image_fail(struct image *image, const char *what, int err)
{
	if (!atomic_exchange(&image->failed, true))
		log_error("%s: %s; flushes fail and no writes are accepted "
		    "until it is opened again, and what was not flushed may "
		    "be lost file=%s", what, strerror(-err), image->path);
}

static bool
metadata_is_dirty(const struct image *image)
{
	return image->slices.dirty_count > 0 ||
	    changes_waiting(&image->barrier.l1) > 0 ||
	    changes_waiting(&image->refcounts.hooks) > 0 ||
	    moves_any(&image->moves);
}

bool
barrier_is_needed(const struct image *image)
{
	return atomic_load(&image->unsynced) || metadata_is_dirty(image);
}

/* ---- the steps ---- */

co_fn static int
sync_file(struct image *image)
{
	int err = file_fdatasync(image->file);

	image->barrier.syncs++;
	if (err)
		image_fail(image, "fdatasync failed", err);
	return err;
}

/* Writes the taken entries into the table at offset. */
co_fn static int
write_entries(struct image *image, enum metadata_kind kind,
    const struct changes *changes, uint64_t offset)
{
	for (size_t i = 0; i < changes->taken; i++) {
		int err = guard_table(image, kind, offset +
		    changes->list[i].index * ENTRY_BYTES, ENTRY_BYTES);

		if (err)
			return err;
	}
	return changes_write(changes, image->file, offset);
}

/* A table that has moved was written whole, with what changed in it. */
co_fn static int
hook(struct image *image, const struct cut *cut)
{
	int err = 0;

	if (!cut->moves.moves.refcount_table.wanted)
		err = write_entries(image, METADATA_REFCOUNT_TABLE,
		    &image->refcounts.hooks,
		    image->header.refcount_table_offset);
	return err ? err : moves_hook(image, &cut->moves);
}

co_fn static int
write_links(struct image *image, const struct cut *cut)
{
	int err = slice_write(image, SLICE_L2);

	if (!err && !cut->moves.moves.l1.wanted)
		err = write_entries(image, METADATA_L1, &image->barrier.l1,
		    image->header.l1_offset);
	return err;
}

co_fn static int
write_cut(struct image *image, const struct cut *cut)
{
	bool hooks = image->refcounts.hooks.taken > 0 ||
	    moves_any(&cut->moves.moves);
	int err;

	err = slice_write(image, SLICE_REFCOUNTS);
	if (!err)
		err = moves_write(image, &cut->moves);
	if (!err && (hooks || (cut->links && cut->needs_order)))
		err = sync_file(image);
	if (!err && hooks)
		err = hook(image, cut);
	if (!err && hooks)
		err = sync_file(image);
	if (err || (hooks && !cut->links))
		return err;
	err = write_links(image, cut);
	return err ? err : sync_file(image);
}

/* ---- cutting ---- */

/* Takes everything that is dirty.  -ENOMEM: nothing was taken. */
static int
make_cut(struct image *image, struct cut *cut)
{
	struct barrier *barrier = &image->barrier;
	struct refcounts *refcounts = &image->refcounts;

	*cut = (struct cut){.number = barrier->cuts + 1};
	if (moves_take(image, &cut->moves))
		return -ENOMEM;
	barrier->cuts++;
	cut->needs_order = barrier->needs_order;
	barrier->needs_order = false;
	changes_take(&refcounts->hooks);
	changes_take(&barrier->l1);
	cut->links = slice_any_dirty(image, SLICE_L2) || barrier->l1.taken > 0;
	slice_freeze(image);
	cut->reserve_end = image->allocator.reserve_end;
	/* Set again by whatever completes after this. */
	atomic_store(&image->unsynced, false);
	return 0;
}

/* What could not be written is dirty again, before what came later. */
static void
undo_cut(struct image *image, struct cut *cut)
{
	struct barrier *barrier = &image->barrier;

	atomic_store(&image->unsynced, true);
	barrier->needs_order |= cut->needs_order;
	moves_put_back(image, &cut->moves);
	changes_put_back(&barrier->l1);
	changes_put_back(&image->refcounts.hooks);
}

static void
answer(struct image *image, uint64_t cut, int err)
{
	struct barrier_waiter **link = &image->barrier.waiters;

	while (*link) {
		struct barrier_waiter *waiter = *link;

		if (waiter->cut > cut) {
			link = &waiter->next;
			continue;
		}
		*link = waiter->next;
		waiter->err = err;
		waiter->answered = true;
		monitor_wake(&image->monitor, &waiter->waiter);
	}
}

co_fn static void
run_barrier(struct image *image)
{
	struct barrier *barrier = &image->barrier;
	struct cut cut;
	int err;

	alloc_fill_reserve(image);
	co_mutex_lock(&image->header_writing);
	/* No table may be half way through its growth at the cut. */
	co_mutex_lock(&image->refcounts.growing);
	err = image->failed ? -EIO : make_cut(image, &cut);
	co_mutex_unlock(&image->monitor, &image->refcounts.growing);
	if (err) {
		co_mutex_unlock(&image->monitor, &image->header_writing);
		barrier->cuts++;
		answer(image, barrier->cuts, err);
		return;
	}
	err = write_cut(image, &cut);
	if (err) {
		undo_cut(image, &cut);
		slice_thaw(image, false);
	} else {
		barrier->stable_cut = cut.number;
		moves_finish(image, &cut.moves);
		retired_forget(image);
		image->allocator.reserve_stable_end = cut.reserve_end;
		changes_drop_taken(&barrier->l1);
		changes_drop_taken(&image->refcounts.hooks);
	}
	co_mutex_unlock(&image->monitor, &image->header_writing);
	answer(image, cut.number, err);
	if (!err) {
		slice_thaw(image, true);
		quarantine_release(image);
	}
}

co_fn static void
barrier_main(void *arg)
{
	struct image *image = arg;
	struct barrier *barrier = &image->barrier;

	monitor_enter(&image->monitor);
	while (barrier->wanted > barrier->cuts) {
		run_barrier(image);
		barrier->ended_cut = barrier->cuts;
		wait_queue_wake_all(&image->monitor, &barrier->ended);
	}
	barrier->running = false;
	wait_queue_wake_all(&image->monitor, &barrier->ended);
	if (image->quarantine.count > 0)
		quarantine_watch(image);
	monitor_leave(&image->monitor);
}

/* ---- asking for one ---- */

static void
want(struct image *image, uint64_t cut)
{
	struct barrier *barrier = &image->barrier;

	if (barrier->wanted < cut)
		barrier->wanted = cut;
	if (barrier->running)
		return;
	barrier->running = true;
	co_start_beyond_limit(&barrier->start, barrier_main, image);
}

void
barrier_request(struct image *image)
{
	want(image, image->barrier.cuts + 1);
}

/*
 * A cut that is being written covers what completed before it was made; if
 * nothing has changed since, it is the one to wait for.
 */
int
barrier_flush(struct image *image)
{
	struct barrier *barrier = &image->barrier;
	struct barrier_waiter waiter = {.waiter.co = co_self()};

	assert(monitor_entered(&image->monitor));
	if (image->failed)
		return -EIO;
	waiter.cut = barrier->cuts;
	if (barrier_is_needed(image)) {
		waiter.cut++;
		want(image, waiter.cut);
	} else if (barrier->stable_cut == barrier->cuts) {
		return 0;
	}
	waiter.next = barrier->waiters;
	barrier->waiters = &waiter;
	co_suspend();
	assert(waiter.answered);
	return waiter.err;
}

int
barrier_throttle(struct image *image)
{
	const struct slice_cache *cache = &image->slices;
	int err = 0;

	if (quarantine_wants_barrier(image) ||
	    cache->dirty_count > cache->count_max / 4)
		barrier_request(image);
	while (!err && cache->dirty_count > cache->count_max / 4 * 3)
		err = barrier_flush(image);
	return err;
}

int
barrier_pace(struct image *image)
{
	const struct slice_cache *cache = &image->slices;

	return cache->dirty_count > cache->count_max / 4 ?
	    barrier_flush(image) : 0;
}

void
barrier_wait_idle(struct image *image)
{
	while (image->barrier.running)
		wait_queue_wait(&image->barrier.ended);
}

void
barrier_wait_ended(struct image *image)
{
	struct barrier *barrier = &image->barrier;
	uint64_t cut = barrier->stable_cut;

	while (barrier->running && barrier->ended_cut < cut)
		wait_queue_wait(&barrier->ended);
}

int
barrier_release(struct image *image)
{
	struct barrier *barrier = &image->barrier;
	uint64_t cut = barrier->cuts + 1;

	want(image, cut);
	while (barrier->running && barrier->ended_cut < cut)
		wait_queue_wait(&barrier->ended);
	return barrier->stable_cut >= cut ? 0 : -EIO;
}
