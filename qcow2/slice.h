/* SPDX-License-Identifier: MIT */
/*
 * The cache of table slices: L2 tables and refcount blocks, a piece at a time.
 *
 * A slice is min(cluster, 4 KiB) of a table.  While it is read from disk it
 * has one reader and any number of waiters; requests that need different
 * slices never wait for each other.  A pinned slice stays in memory, but its
 * entries may change whenever the caller suspends: pin first, then look and
 * decide without suspending.
 *
 * Entries are held as they stand on disk.  A slice is validated when it is
 * loaded, and again when a table has come to where something else had been;
 * one with a bad entry is logged and remembered as faulty, and only the use of
 * a bad entry fails, unless it proves that the image is corrupt (guard.h).
 *
 * Only clean slices nobody pins are evicted, least recently used first.  The
 * limit is soft: a load never waits for room.
 *
 * All of it is guarded by the image's monitor.
 */
#ifndef QCOW2_SLICE_H
#define QCOW2_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/monitor.h"

#define SLICE_BYTES_MAX 4096
#define SLICE_CACHE_BYTES_DEFAULT (64ull * 1024 * 1024)
#define SLICE_KINDS 2

struct image;

enum slice_kind {
	SLICE_L2,
	SLICE_REFCOUNTS,
};

struct slice {
	uint64_t host;		/* where it stands in the file; the key */
	uint8_t *data;
	enum slice_kind kind;
	unsigned pins;
	bool loading;
	bool faulty;		/* has entries that are wrong */
	uint64_t reused;	/* of the metadata, when that was found out */
	/*
	 * Two lists of changed slices take turns: one gathers, one is being
	 * written.  A slice may be in both.
	 */
	bool listed[2];
	struct slice *listed_next[2];
	uint8_t *frozen;	/* what is written, if data has moved on */
	int load_error;
	struct wait_queue loaded;
	struct slice *hash_next;
	struct slice *older, *newer;	/* by last use */
};

struct slice_cache {
	uint32_t slice_bytes;
	size_t count;
	size_t count_max;
	struct slice **buckets;
	size_t bucket_count;	/* a power of two */
	struct slice *oldest, *newest;
	unsigned gathering;	/* 0 or 1: the list changed slices go to */
	struct slice *lists[2][SLICE_KINDS];
	size_t dirty_count;	/* in the gathering lists */
	uint64_t hits, misses;
};

/* cache_bytes is the limit, 0 the default.  -ENOMEM. */
int slice_cache_init(struct slice_cache *cache, uint32_t cluster_bytes,
    uint64_t cache_bytes);
/* Nothing is pinned or loading. */
void slice_cache_free(struct slice_cache *cache);

/*
 * Pins the slice at host, a multiple of slice_bytes inside a table of that
 * kind, reading it if needed.  -EIO, -ENOMEM.
 */
co_fn int slice_pin(struct image *image, enum slice_kind kind, uint64_t host,
    struct slice **slicep);
void slice_unpin(struct image *image, struct slice *slice);

/* Whether something of it is not on disk yet. */
static inline bool
slice_is_dirty(const struct slice *slice)
{
	return slice->listed[0] || slice->listed[1];
}

/* Forgets clean slices of the bytes at host, which become another table. */
void slice_forget(struct image *image, uint64_t host, uint64_t bytes);

#endif
