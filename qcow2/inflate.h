/* SPDX-License-Identifier: MIT */
/*
 * Inflating: a compressed cluster back to its bytes.
 *
 * The length of the input is known only to the sector, so junk may follow the
 * compressed data; the output is exactly one cluster.  Deflate data has no
 * zlib header; zstd data is one or more frames.
 *
 * Any thread may call this.  Each keeps its decompressors until it ends.  It
 * computes for as long as a cluster takes and never suspends, so it has no
 * place in a monitor.
 */
#ifndef QCOW2_INFLATE_H
#define QCOW2_INFLATE_H

#include <stddef.h>

/* As the header's compression_type says. */
enum compression {
	COMPRESSION_DEFLATE = 0,
	COMPRESSION_ZSTD = 1,
};

/*
 * Fills target with cluster_bytes bytes.  -EIO if source does not yield that
 * many, -ENOMEM; target's content is undefined then.
 */
int inflate_cluster(enum compression compression, const void *source,
    size_t source_bytes, void *target, size_t cluster_bytes);

#endif
