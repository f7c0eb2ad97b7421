/* SPDX-License-Identifier: MIT */
/*
 * Cost: from the reserve, a few additions; from a free run, a change of its
 * refcounts, whose slice is mostly cached.
 */
#include "qcow2/alloc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "qcow2/refcount_table.h"
#include "runtime/log.h"

/* Slices of refcounts that are searched for unused clusters at a time. */
#define SCAN_SLICES 4

/* The reserve takes one in so many clusters that a device has left. */
#define DEVICE_RESERVE_PART 8

/* What is not remembered is found again by the scan. */
static void
scan_again(struct allocator *allocator, uint64_t cluster, uint64_t count)
{
	if (allocator->scan_next > cluster)
		allocator->scan_next = cluster;
	if (allocator->scan_end < cluster + count)
		allocator->scan_end = cluster + count;
}

void
alloc_add_free(struct image *image, uint64_t cluster, uint64_t count)
{
	struct allocator *allocator = &image->allocator;
	struct alloc_run *last = allocator->free_count ?
	    &allocator->free[allocator->free_count - 1] : NULL;

	if (last && last->cluster + last->count == cluster) {
		last->count += count;
		return;
	}
	if (allocator->free_count == allocator->free_room) {
		size_t room = allocator->free_room ?
		    2 * allocator->free_room : 64;
		struct alloc_run *free_runs;

		if (room > ALLOC_RUNS_MAX) {
			scan_again(allocator, cluster, count);
			return;
		}
		free_runs = realloc(allocator->free,
		    room * sizeof(*free_runs));
		if (!free_runs) {
			scan_again(allocator, cluster, count);
			return;
		}
		allocator->free = free_runs;
		allocator->free_room = room;
	}
	allocator->free[allocator->free_count++] =
	    (struct alloc_run){cluster, count};
}

void
alloc_free(struct allocator *allocator)
{
	free(allocator->free);
	allocator->free = NULL;
}

/* ---- free runs ---- */

/* Looks for unused clusters in a part of what is yet to be searched. */
co_fn static void
scan(struct image *image)
{
	struct allocator *allocator = &image->allocator;

	for (int i = 0; i < SCAN_SLICES &&
	    allocator->scan_next < allocator->scan_end; i++) {
		uint64_t cluster = allocator->scan_next, run;
		bool is_free;

		if (refcount_scan(image, cluster,
		    allocator->scan_end - cluster, &run, &is_free)) {
			/* A bad block: whatever it covers is not for us. */
			allocator->scan_next = allocator->scan_end;
			return;
		}
		/* Somebody else may have scanned on meanwhile. */
		if (allocator->scan_next != cluster)
			continue;
		allocator->scan_next += run;
		if (is_free)
			alloc_add_free(image, cluster, run);
	}
}

/*
 * Takes from the last free run, which leaves the list until it is known what
 * becomes of it.  -EAGAIN: nothing was taken, try again.  The scan may have
 * found what was freed meanwhile and is in use again, and a damaged image may
 * count tables as unused.
 */
co_fn static int
take_free(struct image *image, uint64_t want, struct allocation *allocation)
{
	struct allocator *allocator = &image->allocator;
	struct alloc_run run = allocator->free[--allocator->free_count];
	uint64_t count = run.count < want ? run.count : want;
	bool is_free;
	int err;

	/* Where refcounts cannot be read, nothing is for us. */
	if (refcount_scan(image, run.cluster, count, &count, &is_free))
		is_free = false;
	if (run.count > count)
		alloc_add_free(image, run.cluster + count, run.count - count);
	if (!is_free)
		return -EAGAIN;
	err = guard_new(image, run.cluster << image->cluster_bits,
	    count << image->cluster_bits);
	if (err)
		return err;
	err = refcount_take(image, run.cluster, count);
	if (err == -EEXIST)
		return -EAGAIN;
	if (err) {
		alloc_add_free(image, run.cluster, count);
		return err;
	}
	*allocation = (struct allocation){
		.host = run.cluster << image->cluster_bits, .clusters = count,
		.stable = image->dirty.lazy_held,
	};
	return 0;
}

/* ---- the reserve ---- */

/* The first cluster that the device or the format does not have. */
static uint64_t
cluster_limit(const struct image *image)
{
	uint64_t limit = ENTRY_HOST_END >> image->cluster_bits;

	if (!image->file->is_regular)
		limit = image->device_bytes >> image->cluster_bits;
	return limit;
}

/*
 * How long a run of the reserve shall be.  A crash leaks it, so of a device,
 * which does not grow, it is only a part of what is left.
 */
static uint64_t
reserve_clusters(const struct image *image)
{
	const struct allocator *allocator = &image->allocator;
	uint64_t clusters = ALLOC_RESERVE_BYTES >> image->cluster_bits;
	uint64_t used = image->end_cluster -
	    (allocator->reserve_end - allocator->reserve_next);
	uint64_t limit = cluster_limit(image);

	if (clusters > ALLOC_RESERVE_CLUSTERS_MAX)
		clusters = ALLOC_RESERVE_CLUSTERS_MAX;
	if (image->file->is_regular || used >= limit ||
	    clusters < (limit - used) / DEVICE_RESERVE_PART)
		return clusters;
	return (limit - used) / DEVICE_RESERVE_PART + 1;
}

/* By a write past the end: nobody else has what is there. */
int
alloc_lengthen_file(struct image *image, uint64_t end)
{
	static const char zeros[512];
	int64_t file_end = file_size(image->file);

	if (file_end < 0)
		return (int)file_end;
	if (!image->file->is_regular || file_end >= (int64_t)end)
		return 0;
	atomic_store(&image->unsynced, true);
	return file_pwrite(image->file, zeros, sizeof(zeros),
	    end - sizeof(zeros), 0);
}

/*
 * Makes the file as long as the reserve, so that entries that point into it
 * may become stable together with the data there.
 */
co_fn static int
extend_file(struct image *image, uint64_t start, uint64_t end)
{
	int64_t file_end = file_size(image->file);
	int err = -EOPNOTSUPP;

	if (image->file->is_regular && file_end >= 0 &&
	    file_end < (int64_t)end)
		err = file_make_room(image->file, start, end - start);
	if (err == -EOPNOTSUPP)
		err = alloc_lengthen_file(image, end);
	atomic_store(&image->unsynced, true);
	return err;
}

/* Adds a run at the end of the file; the caller holds the mutex. */
co_fn static int
extend_reserve(struct image *image)
{
	struct allocator *allocator = &image->allocator;
	uint64_t want = reserve_clusters(image), start, run;
	bool is_free;
	int err;

	for (;;) {
		err = refcount_table_ensure(image, image->end_cluster);
		if (err)
			return err;
		start = image->end_cluster;
		if (start >= cluster_limit(image))
			return -ENOSPC;
		if (want > cluster_limit(image) - start)
			want = cluster_limit(image) - start;
		err = refcount_scan(image, start, want, &run, &is_free);
		if (err)
			return err;
		/* Unless a table was put there meanwhile. */
		if (start != image->end_cluster)
			continue;
		image->end_cluster += run;
		if (is_free)
			break;
	}
	err = guard_new(image, start << image->cluster_bits,
	    run << image->cluster_bits);
	if (!err)
		err = refcount_take(image, start, run);
	/* The scan was here first: then further on. */
	if (err == -EEXIST)
		return -EAGAIN;
	if (err) {
		if (image->end_cluster == start + run)
			image->end_cluster = start;
		return err;
	}
	image_extend(image);
	err = extend_file(image, start << image->cluster_bits,
	    (start + run) << image->cluster_bits);
	if (err) {
		alloc_give_back(image, start << image->cluster_bits, run);
		return err;
	}
	if (allocator->reserve_end == start) {
		allocator->reserve_end += run;
		return 0;
	}
	if (allocator->reserve_next == allocator->reserve_end) {
		allocator->reserve_next = start;
		allocator->reserve_end = start + run;
		allocator->reserve_stable_end = start;
		return 0;
	}
	/* A table stands between: for later, as a free run. */
	alloc_give_back(image, start << image->cluster_bits, run);
	return 0;
}

co_fn static int
make_reserve(struct image *image)
{
	struct allocator *allocator = &image->allocator;
	int err = 0;

	co_mutex_lock(&allocator->reserve_mutex);
	if (allocator->reserve_next == allocator->reserve_end) {
		do
			err = extend_reserve(image);
		while (err == -EAGAIN);
	}
	co_mutex_unlock(&image->monitor, &allocator->reserve_mutex);
	return err;
}

void
alloc_fill_reserve(struct image *image)
{
	struct allocator *allocator = &image->allocator;

	/* Free runs are used up first. */
	if (!allocator->used || allocator->free_count > 0)
		return;
	allocator->used = false;
	co_mutex_lock(&allocator->reserve_mutex);
	if (allocator->reserve_end - allocator->reserve_next <
	    reserve_clusters(image) / 2 + 1)
		extend_reserve(image);
	co_mutex_unlock(&image->monitor, &allocator->reserve_mutex);
}

static void
take_reserve(struct image *image, uint64_t want,
    struct allocation *allocation)
{
	struct allocator *allocator = &image->allocator;
	uint64_t cluster = allocator->reserve_next;
	uint64_t count = allocator->reserve_end - cluster;

	if (count > want)
		count = want;
	allocator->reserve_next += count;
	*allocation = (struct allocation){
		.host = cluster << image->cluster_bits, .clusters = count,
		.virgin = image->file->is_regular,
		.stable = cluster + count <= allocator->reserve_stable_end ||
		    image->dirty.lazy_held,
	};
}

/* The clusters go back one by one, the file is cut by the caller. */
int
alloc_return_reserve(struct image *image)
{
	struct allocator *allocator = &image->allocator;

	while (allocator->reserve_end > allocator->reserve_next) {
		uint64_t left;
		int err = refcount_drop(image, allocator->reserve_end - 1,
		    &left);

		if (err)
			return err;
		allocator->reserve_end--;
		/* What is taken there later is not stable as this was. */
		if (allocator->reserve_stable_end > allocator->reserve_end)
			allocator->reserve_stable_end = allocator->reserve_end;
	}
	return 0;
}

int
alloc_clusters(struct image *image, uint64_t want,
    struct allocation *allocation)
{
	struct allocator *allocator = &image->allocator;
	int err;

	assert(monitor_entered(&image->monitor) && want > 0);
	err = dirty_allocate(image);
	if (err)
		return err;
	allocator->used = true;
	for (;;) {
		if (image->failed)
			return -EIO;
		if (allocator->free_count > 0) {
			err = take_free(image, want, allocation);
			if (err != -EAGAIN)
				return err;
			continue;
		}
		if (allocator->reserve_next < allocator->reserve_end) {
			take_reserve(image, want, allocation);
			return guard_new(image, allocation->host,
			    allocation->clusters << image->cluster_bits);
		}
		scan(image);
		if (allocator->free_count > 0)
			continue;
		err = make_reserve(image);
		/*
		 * A full device may have room that was not found yet.  A file
		 * may become longer, but not by a reserve, whose clusters are
		 * among the free runs by now.
		 */
		if (err == -ENOSPC && (allocator->free_count > 0 ||
		    allocator->scan_next < allocator->scan_end))
			continue;
		if (err)
			return err;
	}
}

/* ---- tables ---- */

/* Makes a run of at least count clusters the last of the free ones. */
static bool
bring_up_run(struct allocator *allocator, uint64_t count)
{
	for (size_t i = 0; i < allocator->free_count; i++) {
		struct alloc_run run = allocator->free[i];

		if (run.count < count)
			continue;
		allocator->free[i] =
		    allocator->free[allocator->free_count - 1];
		allocator->free[allocator->free_count - 1] = run;
		return true;
	}
	return false;
}

co_fn static int
take_end(struct image *image, uint64_t count, uint64_t *hostp)
{
	for (;;) {
		uint64_t start = image->end_cluster;
		int err;

		if (start > cluster_limit(image) ||
		    count > cluster_limit(image) - start)
			return -ENOSPC;
		/* Nobody else may take them meanwhile. */
		image->end_cluster += count;
		err = guard_new(image, start << image->cluster_bits,
		    count << image->cluster_bits);
		if (!err)
			err = refcount_take(image, start, count);
		if (err == -EEXIST)
			continue;
		if (err) {
			if (image->end_cluster == start + count)
				image->end_cluster = start;
			return err;
		}
		image_extend(image);
		*hostp = start << image->cluster_bits;
		return 0;
	}
}

int
alloc_table(struct image *image, uint64_t clusters, uint64_t *hostp)
{
	struct allocation allocation;
	int err = -EAGAIN;

	assert(monitor_entered(&image->monitor) && clusters > 0);
	if (image->failed)
		return -EIO;
	if (clusters == 1)
		err = alloc_clusters(image, 1, &allocation);
	else if (bring_up_run(&image->allocator, clusters))
		err = take_free(image, clusters, &allocation);
	if (!err && allocation.clusters < clusters) {
		alloc_give_back(image, allocation.host, allocation.clusters);
		err = -EAGAIN;
	}
	if (err == -EAGAIN)
		return take_end(image, clusters, hostp);
	if (!err)
		*hostp = allocation.host;
	return err;
}

void
alloc_give_back(struct image *image, uint64_t host, uint64_t clusters)
{
	uint64_t cluster = host >> image->cluster_bits;

	for (uint64_t i = 0; i < clusters; i++) {
		uint64_t left;

		if (refcount_drop(image, cluster + i, &left))
			dirty_note_leak(image);
		else if (left == 0)
			alloc_add_free(image, cluster + i, 1);
	}
}
