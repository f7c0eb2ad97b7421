/* SPDX-License-Identifier: MIT */
/*
 * Copying a disk from one image to another, which holds as little as it can:
 * what reads as zeros is not written, nor what is there already.
 */
#ifndef SERVER_COPY_H
#define SERVER_COPY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qcow2/image.h"
#include "server/walk.h"

/* Loops that copy. */
#define COPY_LOOPS_MAX 64

struct copy {
	struct image *source;
	struct image *target;
	enum image_format target_format;
	uint64_t size_bytes;	/* how much; zeros where the source ends */
	bool holds_other;	/* the target may not be all zeros */
	bool compares;		/* write only what the target does not hold */
	bool compresses;	/* the target's clusters, all of them new */
	/* Whether to stop; asked for each piece.  Or NULL. */
	bool (*stop)(void);
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *progress_arg;

	/* Private. */
	struct walk walk;
	size_t granule;		/* zeros are found in units of this */
	size_t piece_bytes;
	uint64_t data_end;	/* look(): up to here there is data */
	atomic_bool failed;
	struct error *error;
};

/*
 * Copies.  On failure *error says where; -EINTR: stopped.
 */
co_fn int copy_run(struct copy *copy, struct loop *const *loops,
    unsigned loops_count, struct error *error);

#endif
