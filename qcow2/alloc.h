/* SPDX-License-Identifier: MIT */
/*
 * The allocator: host clusters for guest data and new tables.
 *
 * Two sources.  Free runs: clusters that were in use and are not any more, or
 * that were found unused in the file.  The reserve: a run at the end of the
 * file whose refcounts are 1 ahead of need, so that a crash leaks what is left
 * of it and a clean close gives it back.  Clusters of the reserve are virgin:
 * nobody ever wrote to them, so they read as zeros, in every crash state too.
 * The part of the reserve that an earlier barrier made stable together with
 * the file's length needs no order any more between data and L2 entry.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_ALLOC_H
#define QCOW2_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/monitor.h"

struct image;

/* How far the reserve is filled up, as far as clusters of any size go. */
#define ALLOC_RESERVE_BYTES (16u * 1024 * 1024)
#define ALLOC_RESERVE_CLUSTERS_MAX 1024u

/* Free runs remembered; more are found again by the scan. */
#define ALLOC_RUNS_MAX (64u * 1024)

struct alloc_run {
	uint64_t cluster;
	uint64_t count;
};

struct allocator {
	struct alloc_run *free;		/* refcount 0 */
	size_t free_count, free_room;
	uint64_t reserve_next, reserve_end;	/* refcount 1, unused */
	uint64_t reserve_stable_end;
	struct co_mutex reserve_mutex;
	/* What is yet to be searched: the file as it was opened, and what
	 * was not remembered. */
	uint64_t scan_next, scan_end;
	bool used;		/* something was taken since the last barrier */
};

/* What alloc_clusters() gives. */
struct allocation {
	uint64_t host;
	uint64_t clusters;
	bool virgin;		/* reads as zeros, in every crash state */
	bool stable;		/* its refcounts are on disk, or may be late */
};

/*
 * Takes 1 to want contiguous clusters; their refcounts are 1.  -ENOSPC where
 * the format or the device ends, -EIO, -ENOMEM.
 */
co_fn int alloc_clusters(struct image *image, uint64_t want,
    struct allocation *allocation);

/* Takes exactly so many contiguous clusters, for a table; errors the same. */
co_fn int alloc_table(struct image *image, uint64_t clusters,
    uint64_t *hostp);

/*
 * Makes the file reach end, that of a cluster which was just taken and which
 * nobody writes to: no entry may lead past the end of the file.  Those taken
 * may lie there, after a full disk.  -ENOSPC, -EIO.
 */
co_fn int alloc_lengthen_file(struct image *image, uint64_t end);

/* Gives back what nothing on disk ever pointed to. */
co_fn void alloc_give_back(struct image *image, uint64_t host,
    uint64_t clusters);

/* Notes clusters whose refcount is 0 and which nothing meets any more. */
void alloc_add_free(struct image *image, uint64_t cluster, uint64_t count);

/* Fills the reserve up if it was used; an error only means less reserve. */
co_fn void alloc_fill_reserve(struct image *image);

/* Gives the reserve back, for closing. */
co_fn int alloc_return_reserve(struct image *image);

void alloc_free(struct allocator *allocator);

#endif
