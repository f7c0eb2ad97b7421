/* SPDX-License-Identifier: MIT */
/*
 * Metadata contexts: what a client may ask about ranges of an export.
 *
 * Each has a name, as clients select it, and a function that describes a
 * range.  An export has a list of them; the index in it, plus one, is the id
 * on the wire, and its place in the sets of selected ones (struct nbd_terms).
 */
#ifndef SERVER_CONTEXT_H
#define SERVER_CONTEXT_H

#include <stdint.h>
#include "proto/reply.h"
#include "runtime/co.h"

struct export;

/* Extents that one call describes at most. */
#define CONTEXT_EXTENTS_MAX 64u

struct context {
	const char *name;
	/*
	 * Describes the range from guest on, extent by extent, until length is
	 * covered, CONTEXT_EXTENTS_MAX are used, or it has been enough work;
	 * there is at least one, and none overruns the range.  Neighbours may
	 * be in the same state.  -EIO, -EINVAL, -ENOMEM.
	 */
	int (*describe)(const struct context *context,
	    const struct export *export, uint64_t guest, uint64_t length,
	    struct nbd_extent *extents, unsigned *countp);
};

/* What every image can tell; *countp is how many. */
const struct context *context_standard(unsigned *countp);

/* The wrapper of a co_fn that is called by a pointer, which is not checked. */
co_fn int context_describe(const struct context *context,
    const struct export *export, uint64_t guest, uint64_t length,
    struct nbd_extent *extents, unsigned *countp);

#endif
