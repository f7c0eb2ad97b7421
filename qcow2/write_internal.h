/* SPDX-License-Identifier: MIT */
/*
 * One step of a write, as write.c makes it and write_new.c carries it out where
 * it needs host clusters.
 */
#ifndef QCOW2_WRITE_INTERNAL_H
#define QCOW2_WRITE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qcow2/entry.h"
#include "runtime/co.h"

struct image;

/* One step of a write: part of one L2 slice. */
struct write {
	struct image *image;
	uint64_t guest;
	const char *data;
	size_t length;		/* shortened by what the step can do */
	bool fua;
	atomic_uint *epoch;	/* what it entered, or NULL: the caller did */
	bool is_stable;		/* out: no flush is needed for FUA */
};

/* Whether entry leads to a host cluster that is this image's own. */
static inline bool
write_fits_in_place(uint64_t entry)
{
	return entry_kind(entry) == CLUSTER_NORMAL && entry_copied(entry);
}

/*
 * Writes to clusters that have no host clusters of their own yet, or only such
 * as are kept for zeros, and shortens the step to what it has written.  In the
 * monitor, with a claim.  -EAGAIN: nothing was written, since it can be written
 * in place by now.
 */
co_fn int write_new(struct write *write);

#endif
