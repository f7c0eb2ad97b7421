/* SPDX-License-Identifier: MIT */
/*
 * Another backing file in the header, which is written anew as a whole.
 *
 * The header cluster is longer than a sector, so a power failure may leave a
 * write of it torn: some sectors old, some new.  Only the first, which has all
 * fixed fields, is written in one piece whatever happens.  So nothing that the
 * old first sector leads to may change before it does: the new name goes to
 * where neither the old name nor the old extensions are, all that the new first
 * sector leads to is made stable, then the first sector is written and made
 * stable, and what the old one led to is wiped last.
 *
 * Extensions cannot be moved, since they follow the fixed fields.  Where those
 * beyond the first sector would have to change under the old one, the way goes
 * through a header without the names of features, a convenience, so that the
 * rest fits into the first sector.  They are also left out where there is no
 * room for them.
 */
#ifndef QCOW2_HEADER_UPDATE_H
#define QCOW2_HEADER_UPDATE_H

#include <stdint.h>
#include "runtime/co.h"
#include "runtime/error.h"

struct header;
struct image;

/* What is written in one piece. */
#define HEADER_SECTOR_BYTES 512u

/* What the backing file is to be; name is NULL for none, format too then. */
struct header_backing {
	const char *name;
	const char *format;
};

/* The header clusters to go through, each from the one before. */
struct header_plan {
	unsigned count;		/* 1 or 2 */
	uint8_t *clusters[2];	/* of a cluster each */
};

/*
 * Plans the change of cluster, of which header is the content; pure.  Other
 * fields, known or not, stay as they are and extensions keep their order, a new
 * one coming last.  -ENOSPC: there is no room to do it safely; -ENOMEM.
 */
int header_plan(const uint8_t *cluster, const struct header *header,
    const struct header_backing *backing, struct header_plan *plan);
void header_plan_free(struct header_plan *plan);

/*
 * Carries it out in an image that is open for writing, and in its header in
 * RAM, behind the closed gate; the caller has gate.operation.  On failure
 * nothing has changed, unless writing the first sector failed: then nobody
 * knows, and the image takes no more writes (O6).  -ENOSPC, -EIO, -ENOMEM or
 * what the disk says.
 */
co_fn int header_update(struct image *image,
    const struct header_backing *backing, struct error *error);

#endif
