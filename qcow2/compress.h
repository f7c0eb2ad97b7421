/* SPDX-License-Identifier: MIT */
/*
 * Compressing: the bytes of one cluster to one stream that inflate_cluster(),
 * and whoever else reads qcow2, takes.
 *
 * Any thread may call this; it computes for as long as a cluster takes and
 * never suspends, so its place is a worker.
 */
#ifndef QCOW2_COMPRESS_H
#define QCOW2_COMPRESS_H

#include <stddef.h>
#include "qcow2/inflate.h"

/*
 * Fills the start of target; *streamp is how many bytes of it, less than
 * cluster_bytes, which is the room of both buffers.  -E2BIG if the cluster does
 * not shrink, -ENOMEM; target's content is undefined then.
 */
int compress_cluster(enum compression compression, const void *source,
    size_t cluster_bytes, void *target, size_t *streamp);

#endif
