/* SPDX-License-Identifier: MIT */
/* What the two parts of opening a qcow2 image share. */
#ifndef QCOW2_OPEN_INTERNAL_H
#define QCOW2_OPEN_INTERNAL_H

#include "qcow2/internal.h"

/* Counts and logs the bad entries of the tables that are loaded as a whole. */
void open_judge_tables(struct image *image);

/*
 * Refuses an image that is too damaged to be written and finds out where new
 * clusters may go; changes nothing.  Everything is loaded.
 */
co_fn int open_for_writing(struct image *image,
    const struct image_options *options, struct error *error);

/*
 * Repairs an image that is dirty, and loads its header anew.  -EROFS if faults
 * are left; errors as repair_file()'s.
 */
co_fn int open_repair(struct image *image,
    const struct image_options *options, struct error *error);

/*
 * The cluster behind the last one that has a refcount, if that is past from;
 * else from.  -EFBIG if there is too much to look through.  In the monitor.
 */
co_fn int open_find_end(struct image *image, uint64_t from, uint64_t *endp);

/*
 * For closing: barriers until the disk has it all, since each may let clusters
 * out of quarantine that lower refcounts for the next.  In the monitor.
 */
co_fn int open_settle(struct image *image);

/* For closing an image that was emptied: cuts its file.  In the monitor. */
co_fn int empty_cut_file(struct image *image);

#endif
