/* SPDX-License-Identifier: MIT */
/*
 * Packing: room for compressed streams, one right behind the other.
 *
 * The refcount of a host cluster counts the streams that touch it.  The last
 * cluster, as long as it has room for more, has one reference besides, which
 * the packer holds: so it can be neither punched nor reused while streams are
 * still to come, even if all that it has are overwritten meanwhile.  The last
 * stream that comes to a cluster gets that reference for its own.
 *
 * Nothing on disk points to what is only held: a crash leaks the cluster.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_PACK_H
#define QCOW2_PACK_H

#include <stdint.h>
#include "runtime/co.h"
#include "runtime/monitor.h"

struct image;

struct packer {
	struct co_mutex taking;
	uint64_t next;		/* host offset of the next stream; 0: anywhere,
				 * and no cluster is held */
};

/*
 * Takes room for a stream of 1 to cluster_bytes - 1 bytes; each cluster that
 * it touches has a reference for it.  -EFBIG where an entry of a compressed
 * cluster cannot point to; -ENOSPC, -EIO, -ENOMEM.
 */
co_fn int pack_take(struct image *image, uint32_t bytes, uint64_t *hostp);

/* Gives back the references of a stream that nothing on disk points to. */
co_fn void pack_give_back(struct image *image, uint64_t host,
    uint32_t bytes);

/* Lets go of the last cluster. */
co_fn void pack_let_go(struct image *image);

#endif
