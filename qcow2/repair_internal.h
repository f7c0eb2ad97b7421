/* SPDX-License-Identifier: MIT */
/*
 * What the parts of a repair share.
 *
 *	repair.c		the order of steps
 *	repair_refcount.c	refcounts that are changed in their place
 *	repair_rebuild.c	refcounts that get a new place
 *	repair_snapshots.c	a snapshot table that all can read
 */
#ifndef QCOW2_REPAIR_INTERNAL_H
#define QCOW2_REPAIR_INTERNAL_H

#include "qcow2/check_internal.h"
#include "qcow2/repair.h"

/* Faults that no repair ends. */
static inline bool
repair_is_hopeless(const struct check *check)
{
	return check->result.corruptions > check->repairable;
}

enum repair_direction {
	REPAIR_RAISE,
	REPAIR_LOWER,
};

/*
 * Makes refcounts of the file what was counted, stable at the return, and adds
 * to *countp how many.
 */
co_fn int repair_refcounts(struct check *check,
    enum repair_direction direction, uint64_t *countp);

/*
 * Whether the refcounts cannot be repaired in their place: their table or a
 * block of it is in none, shares it, or there is no block where there must be.
 */
bool repair_needs_rebuild(const struct check *check);

/*
 * Writes refcounts and their table anew, and also the snapshot table if it has
 * faults and nothing else speaks against it; switches to them, and the old ones
 * are free then.  check has seen the whole file.  *didp stays as it is if an
 * entry points past the end, so that nothing was done; *hopelessp: faults are
 * left, so old refcounts that are higher were kept.
 */
co_fn int repair_rebuild(struct check *check, bool *didp, bool *hopelessp);

/*
 * What the snapshot table of the file should be, which the caller free()s.
 * -EFBIG if it is too long.
 */
co_fn int repair_snapshot_table(struct check *check, uint8_t **tablep,
    size_t *bytesp);

#endif
