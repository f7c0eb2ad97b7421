/* SPDX-License-Identifier: MIT */
/*
 * Repairing a qcow2 file, as far as what it should say can be known.
 *
 * Who uses which cluster is what the L1 and L2 tables, the snapshots and the
 * bitmaps say; refcounts and C flags only repeat it.  So these are made to
 * agree with them, and if the refcounts have no usable place they are written
 * anew in another one.  Of the tables themselves nothing is guessed: an entry
 * is changed only where it can mean one thing.  While other faults are left,
 * nothing is freed and no table is written to, since what looks like a leak
 * may be what a bad entry has lost.
 *
 * The order of writes (DESIGN.md, O1 to O7): refcounts are raised, stable,
 * then lowered, stable, and then the flags follow; a new structure is stable
 * before the one write to the header that switches to it; the dirty and the
 * corrupt bit go last.  A crash at any point, or -EINTR, leaves what the next
 * repair ends, and no data is lost.  A sound file is not written to.
 *
 * The file is locked for writing by the caller, and no image has it open.
 */
#ifndef QCOW2_REPAIR_H
#define QCOW2_REPAIR_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/check.h"
#include "runtime/co.h"
#include "runtime/error.h"

struct file;

enum repair_extent {
	REPAIR_LEAKS,	/* lowers refcounts; C flags if nothing else is wrong */
	REPAIR_ALL,
};

struct repair_result {
	struct check_result found;	/* before */
	struct check_result left;	/* by a check at the end */
	uint64_t corruptions_fixed;
	uint64_t leaks_fixed;
	bool rebuilt;			/* the refcounts have a new place */
};

/*
 * Repairs file, which messages call name.  The listener, which may be NULL,
 * hears what was found, and then what is left, with "after the repair" before
 * it.  0 also if something is left.  Errors as check_file()'s, and those of
 * writing: -EFBIG if new refcounts are more than there may be.
 */
co_fn int repair_file(struct file *file, const char *name,
    enum repair_extent extent, const struct check_listener *listener,
    struct repair_result *result, struct error *error);

#endif
