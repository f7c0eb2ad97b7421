/* SPDX-License-Identifier: MIT */
/*
 * L2 tables that the disk has stopped using, in the index of metadata for a
 * while.
 *
 * What was changed in such a table before may still have to be written, so it
 * stays in the index (guard.h) until the barrier is stable whose cut has that.
 * The disk's reference is counted as long at least, so the cluster is nothing
 * else before.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_RETIRED_H
#define QCOW2_RETIRED_H

#include <stddef.h>
#include <stdint.h>

struct image;

struct retired_table {
	uint32_t index;		/* its place in the L1 table */
	uint64_t host;
	uint64_t cut;		/* the barrier's that ends it */
};

/* Ascending by cut. */
struct retired {
	struct retired_table *list;
	size_t count, room;
	size_t reserved;	/* room that is kept for an operation's end */
};

/* Makes room for count more, so that adding cannot fail.  -ENOMEM. */
int retired_make_room(struct image *image, size_t count);

/* The disk does not use the table any more at that place of its L1. */
void retired_add(struct image *image, uint32_t index, uint64_t host);

/* For the barrier: those whose cut is stable leave the index of metadata, but
 * for tables that the disk has come back to, or is about to. */
void retired_forget(struct image *image);

void retired_free(struct retired *retired);

#endif
