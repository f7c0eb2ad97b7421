/* SPDX-License-Identifier: MIT */
/*
 * L2 tables: which host cluster holds a guest cluster.
 *
 * A pinned slice stays in memory until l2_unpin(), but its entries may change
 * whenever the caller suspends.  So: pin first, then look and decide without
 * suspending, or hold a claim on the guest cluster while you wait.
 *
 * All of it in the image's monitor.
 */
#ifndef QCOW2_L2_H
#define QCOW2_L2_H

#include <stdint.h>
#include "qcow2/internal.h"

/* A run of guest bytes inside one L2 slice that are the same kind of thing. */
struct l2_run {
	enum cluster_kind kind;
	uint64_t length;	/* bytes, from the guest offset asked for */
	uint64_t host;		/* NORMAL, ZERO_ALLOCATED: of that byte */
	uint64_t entry;		/* of the first cluster */
};

/*
 * Pins the slice that maps guest, reading it if needed; *slicep is NULL where
 * no L2 table stands.  -EIO, -ENOMEM.
 */
co_fn int l2_pin(struct image *image, uint64_t guest, struct slice **slicep);

/* NULL is fine. */
void l2_unpin(struct image *image, struct slice *slice);

/*
 * Makes sure that the L2 table that maps guest is there and this image's own:
 * a table shared with a snapshot is copied, never changed.  -ENOSPC, -EIO,
 * -ENOMEM.
 */
co_fn int l2_own(struct image *image, uint64_t guest);

/* The index of guest's entry in the slice that maps it. */
size_t l2_slice_index(const struct image *image, uint64_t guest);

/* Whether the mapping of guest, in slice, is on disk as it is, and the header
 * leads there. */
bool l2_is_stable(const struct image *image, const struct slice *slice);

/*
 * What begins at guest, at most length bytes (at least 1): with host clusters
 * it is contiguous on the host and either all copied or none, compressed it is
 * one cluster.  slice is what
 * l2_pin() gave for guest.  -EIO if the first entry is a bad one.
 */
int l2_run(const struct image *image, const struct slice *slice,
    uint64_t guest, uint64_t length, struct l2_run *run);

/*
 * Lets clusters of one slice from guest on lead to host clusters that stand
 * side by side; entry is the first's.  What they led to goes to quarantine,
 * unless it is what they lead to now (is_new: it is not).  The caller knows
 * whether this needs order.  -EIO, -ENOMEM: nothing has changed.
 */
co_fn int l2_link(struct image *image, uint64_t guest, uint64_t clusters,
    uint64_t entry, bool is_new);

/*
 * Where, from guest on, the first table is that is there, guest itself perhaps;
 * length further at most, and so many tables.
 */
uint64_t l2_absent_end(const struct image *image, uint64_t guest,
    uint64_t length, unsigned tables_max);

/*
 * Takes the C flag off count entries of clusters.  Those of other kinds that
 * have it are bad ones, and stay so.
 */
void l2_clear_copied(uint8_t *entries, size_t count);

/* The first guest offset behind the slice, or the table, that maps guest. */
uint64_t l2_slice_end(const struct image *image, const struct slice *slice,
    uint64_t guest);

#endif
