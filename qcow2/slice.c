/* SPDX-License-Identifier: MIT */
/*
 * Cost of a hit: one hash probe and a move to the end of the list of last use.
 */
#include "qcow2/slice.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "qcow2/l2_fault.h"
#include "runtime/log.h"

int
slice_cache_init(struct slice_cache *cache, uint32_t cluster_bytes,
    uint64_t cache_bytes)
{
	uint32_t slice_bytes = cluster_bytes < SLICE_BYTES_MAX ?
	    cluster_bytes : SLICE_BYTES_MAX;

	if (cache_bytes == 0)
		cache_bytes = SLICE_CACHE_BYTES_DEFAULT;
	*cache = (struct slice_cache){
		.slice_bytes = slice_bytes,
		.count_max = cache_bytes / slice_bytes + 1,
		.bucket_count = 1024,
	};
	while (cache->bucket_count < cache->count_max)
		cache->bucket_count *= 2;
	cache->buckets = calloc(cache->bucket_count, sizeof(*cache->buckets));
	return cache->buckets ? 0 : -ENOMEM;
}

static void
slice_free(struct slice *slice)
{
	free(slice->data);
	free(slice);
}

void
slice_cache_free(struct slice_cache *cache)
{
	struct slice *slice = cache->oldest;

	while (slice) {
		struct slice *newer = slice->newer;

		assert(slice->pins == 0 && !slice->frozen);
		slice_free(slice);
		slice = newer;
	}
	free(cache->buckets);
	cache->buckets = NULL;
}

/* ---- the hash, and the list of last use ---- */

static struct slice **
bucket_of(struct slice_cache *cache, uint64_t host)
{
	uint64_t index = host / cache->slice_bytes * 0x9e3779b97f4a7c15ull;

	return &cache->buckets[index >> 24 & (cache->bucket_count - 1)];
}

static struct slice *
find(struct slice_cache *cache, uint64_t host)
{
	struct slice *slice = *bucket_of(cache, host);

	while (slice && slice->host != host)
		slice = slice->hash_next;
	return slice;
}

static void
unlink_use(struct slice_cache *cache, struct slice *slice)
{
	if (slice->older)
		slice->older->newer = slice->newer;
	else
		cache->oldest = slice->newer;
	if (slice->newer)
		slice->newer->older = slice->older;
	else
		cache->newest = slice->older;
}

static void
link_newest(struct slice_cache *cache, struct slice *slice)
{
	slice->older = cache->newest;
	slice->newer = NULL;
	if (cache->newest)
		cache->newest->newer = slice;
	else
		cache->oldest = slice;
	cache->newest = slice;
}

static void
insert(struct slice_cache *cache, struct slice *slice)
{
	struct slice **bucket = bucket_of(cache, slice->host);

	slice->hash_next = *bucket;
	*bucket = slice;
	link_newest(cache, slice);
	cache->count++;
}

static void
take_out(struct slice_cache *cache, struct slice *slice)
{
	struct slice **link = bucket_of(cache, slice->host);

	while (*link != slice)
		link = &(*link)->hash_next;
	*link = slice->hash_next;
	unlink_use(cache, slice);
	cache->count--;
}

/*
 * Looks at a bounded number of the oldest, so that a lookup stays short.  What
 * cannot go is no longer among the oldest, or it would hide the others.
 */
static void
evict(struct slice_cache *cache)
{
	for (int looks = 0; looks < 16; looks++) {
		struct slice *slice = cache->oldest;

		if (cache->count < cache->count_max)
			return;
		if (slice->pins > 0 || slice_is_dirty(slice)) {
			unlink_use(cache, slice);
			link_newest(cache, slice);
		} else {
			take_out(cache, slice);
			slice_free(slice);
		}
	}
}

/* ---- loading ---- */

/* Suspends only if the image turns out to be corrupt. */
co_fn static void
validate(struct image *image, struct slice *slice)
{
	uint64_t proof;

	slice->reused = image->metadata.reused;
	if (slice->kind != SLICE_L2)
		return;
	proof = l2_fault_find(image, slice);
	if (proof)
		guard_corrupt(image, "the L2 table at 0x%llx has the entry "
		    "0x%llx", (unsigned long long)slice->host,
		    (unsigned long long)proof);
}

/* Reads a new slice, alone; the others that want it wait in loaded. */
co_fn static int
load(struct image *image, struct slice *slice)
{
	struct slice_cache *cache = &image->slices;
	int err;

	slice->loading = true;
	insert(cache, slice);
	err = file_pread(image->file, slice->data, cache->slice_bytes,
	    slice->host);
	if (image->force_share && !err)
		image->limits.host_end = (uint64_t)file_size(image->file);
	slice->loading = false;
	wait_queue_wake_all(&image->monitor, &slice->loaded);
	if (!err) {
		validate(image, slice);
		return 0;
	}
	log_error("cannot read the table at 0x%llx: error %d file=%s",
	    (unsigned long long)slice->host, -err, image->file->name);
	slice->load_error = err;
	take_out(cache, slice);
	return err;
}

static struct slice *
slice_create(struct image *image, enum slice_kind kind, uint64_t host)
{
	struct slice *slice = calloc(1, sizeof(*slice));

	if (!slice)
		return NULL;
	slice->host = host;
	slice->kind = kind;
	slice->data = malloc(image->slices.slice_bytes);
	if (slice->data)
		return slice;
	free(slice);
	return NULL;
}

/* A slice that failed to load lives until its last waiter has seen it. */
static void
drop_failed(struct slice *slice)
{
	if (--slice->pins == 0)
		slice_free(slice);
}

int
slice_pin(struct image *image, enum slice_kind kind, uint64_t host,
    struct slice **slicep)
{
	struct slice_cache *cache = &image->slices;
	struct slice *slice = find(cache, host);
	int err;

	assert(monitor_entered(&image->monitor));
	assert(host % cache->slice_bytes == 0);
	if (slice && slice->kind != kind)
		return -EIO;	/* one table used as two kinds */
	if (!slice) {
		cache->misses++;
		evict(cache);
		slice = slice_create(image, kind, host);
		if (!slice)
			return -ENOMEM;
		slice->pins++;
		load(image, slice);
	} else if (slice->loading) {
		slice->pins++;
		wait_queue_wait(&slice->loaded);
	} else {
		cache->hits++;
		if (slice->newer) {
			unlink_use(cache, slice);
			link_newest(cache, slice);
		}
		slice->pins++;
	}
	err = slice->load_error;
	if (err) {
		drop_failed(slice);
		return err;
	}
	if (slice->reused != image->metadata.reused)
		validate(image, slice);
	*slicep = slice;
	return 0;
}

void
slice_unpin(struct image *image, struct slice *slice)
{
	assert(monitor_entered(&image->monitor) && slice->pins > 0);
	slice->pins--;
}

void
slice_forget(struct image *image, uint64_t host, uint64_t bytes)
{
	struct slice_cache *cache = &image->slices;

	for (uint64_t end = host + bytes; host < end;
	    host += cache->slice_bytes) {
		struct slice *slice = find(cache, host);

		if (!slice)
			continue;
		assert(slice->pins == 0 && !slice_is_dirty(slice));
		take_out(cache, slice);
		slice_free(slice);
	}
}
