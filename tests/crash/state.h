/* SPDX-License-Identifier: MIT */
/*
 * What a disk may hold after a crash: states built from a record.
 *
 * A crash at number c: what is numbered below c has happened.  Stable is every
 * operation that completed before an fdatasync was submitted which completed
 * without an error before c, and every write with DSYNC that completed before
 * c.  Everything else submitted before c is pending: it may have reached the
 * disk, or not, or in part.  A state is all that is stable and some of what is
 * pending, in order of completion.
 *
 * A sector (or what tear_bytes says) is old or new; punches and zeros tear at
 * 4,096 bytes.  The file's size is a thing of its own: data may be lost where
 * the size was not, and the size where the data was not.  Failed operations
 * are pending for ever.
 */
#ifndef TESTS_CRASH_STATE_H
#define TESTS_CRASH_STATE_H

#include <stdint.h>
#include "runtime/file_sim.h"
#include "runtime/record.h"
#include "tests/crash/seen.h"

/*
 * Which states to build.  An epoch ends where something becomes stable (just
 * before) and at the end of the log.
 */
#define CRASH_PREFIX	1u	/* each c: all done, and all submitted */
#define CRASH_TORN	2u	/* each write torn, on top of its prefix */
#define CRASH_SIZES	4u	/* size without data; data cut at the size */
#define CRASH_LOST	8u	/* epoch: all but one */
#define CRASH_SURVIVOR	16u	/* epoch: just one */
#define CRASH_REVERSED	32u	/* epoch: the last ones without the first, and
				 * what overlaps at a time the other way */
#define CRASH_SUBSETS	64u	/* epoch: all subsets of few, else some */
#define CRASH_ALL	127u

#define CRASH_TEAR_WAYS 5	/* half, first, all but last, two at random */

struct crash_options {
	unsigned kinds;			/* CRASH_..., or-ed */
	unsigned tear_ways;		/* the first so many of them */
	uint32_t tear_bytes;		/* 512 or 4096 */
	unsigned subset_operations;	/* all subsets of at most so many */
	unsigned random_subsets;	/* of epochs with more */
	uint64_t seed;			/* of what is drawn */
	uint64_t first;			/* only states from this number on, */
	uint64_t count;			/* and so many, 0: all; for replay */
	/* What explorations have in common so that no state comes twice. */
	struct seen *seen;		/* NULL: each for itself */
	uint64_t (*context)(uint64_t point, void *arg);	/* see below, or NULL */
	void *context_arg;
};

/* CRASH_ALL, one tear, 512 bytes, 8 operations, 64 subsets. */
extern const struct crash_options crash_defaults;

struct crash_state {
	uint64_t number;	/* from 0; equal options, equal numbers */
	uint64_t point;		/* c, for the oracle */
	uint64_t hash;		/* of the content */
	struct file *file;	/* plain mode; closed after the visit */
	const char *text;	/* what was lost, for people */
};

struct crash_counts {
	uint64_t states;	/* enumerated */
	uint64_t distinct;	/* visited */
};

/*
 * Builds the states of the disk that source's entries in log are about, and
 * hands each to visit: 0 to go on, anything else ends the exploration and is
 * returned.  base is a file of file_sim.h with the content before the log's
 * first entry; if it is a device, new space reads as its fill and the size
 * never changes.  counts may be NULL.
 *
 * States are visited once if they are equal in content and in their context:
 * a number that says all else that the verdict depends on.  Without
 * options->context that is how many requests came and were replied to.
 *
 * visit may write to state->file, or open more handles of it.
 */
int crash_explore(const struct record_log *log, unsigned source,
    struct file *base, const struct crash_options *options,
    int (*visit)(const struct crash_state *state, void *arg), void *arg,
    struct crash_counts *counts);

#endif
