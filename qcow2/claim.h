/* SPDX-License-Identifier: MIT */
/*
 * Claims: who may change the mapping of which guest clusters.
 *
 * A request that changes the mapping of guest clusters (allocating write,
 * copy-on-write, zero, discard) claims them first and releases them when the
 * L2 entries stand.  Overlapping claims are granted in order of arrival;
 * others do not meet.  No request holds two claims or enlarges one: it
 * releases and starts again.  Writes in place and reads need no claim.
 *
 * In an encrypted image these claim the sectors they touch (encrypted.h), in
 * lists apart, readers beside each other.  Such a claim is held for the I/O
 * alone: who holds one waits for no other claim.
 *
 * Guarded by the image's monitor.
 */
#ifndef QCOW2_CLAIM_H
#define QCOW2_CLAIM_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/monitor.h"

struct image;

/* On the stack of the request that holds it. */
struct claim {
	struct claim_list *list;
	uint64_t begin, end;	/* guest: whole clusters, or sectors */
	bool shared;		/* with others that are shared */
	bool waiting;
	struct waiter waiter;
	struct claim *earlier, *later;
};

/* All claims, granted or waiting, oldest first. */
struct claim_list {
	struct claim *first, *last;
};

/* Claims the clusters that length bytes at guest touch.  What the caller knew
 * of the mapping before is outdated. */
co_fn void claim_take(struct image *image, struct claim *claim,
    uint64_t guest, uint64_t length);

/*
 * As all reads of such an image claim, there are many lists, each for some
 * parts of the disk; a claim lies in one part.
 */
#define CLAIM_PART_BYTES	(2u * 1024 * 1024)
#define CLAIM_PART_LISTS	64u

/*
 * The same of sectors, in an encrypted image; the range crosses no multiple of
 * CLAIM_PART_BYTES.
 */
co_fn void claim_take_sectors(struct image *image, struct claim *claim,
    uint64_t guest, uint64_t length, bool shared);

void claim_release(struct image *image, struct claim *claim);

#endif
