/* SPDX-License-Identifier: MIT */
/*
 * The guard: no write of the engine lands in a table that it is not for.
 *
 * It holds newly allocated clusters, and every write to a table, against the
 * index of metadata.  What does not agree with it is either a damaged image or
 * a mistake of our own; both stop all writes, and the image is marked as
 * corrupt.  A write in place is not held against anything: its entry was, when
 * the slice was loaded or when the last table came to where others had been.
 *
 * In the image's monitor.
 */
#ifndef QCOW2_GUARD_H
#define QCOW2_GUARD_H

#include <stdint.h>
#include "qcow2/header.h"
#include "qcow2/metadata.h"
#include "runtime/co.h"

struct image;

/* Before new clusters are written, or old ones punched: no table is there. */
co_fn int guard_new(struct image *image, uint64_t host, uint64_t bytes);

/*
 * Before a write to a table: all the bytes lie in one table of that kind.
 * 0 or -EIO, also if writes have been stopped meanwhile.
 */
co_fn int guard_table(struct image *image, enum metadata_kind kind,
    uint64_t host, uint64_t bytes);

/* Writes a patch of the header, as a table; it is not stable yet. */
co_fn int guard_write_header(struct image *image, struct header_patch patch);

/*
 * Sets and clears incompatible features in the header, stably; those that
 * others change meanwhile are not lost.  For version 3.  -EIO, -ENOSPC.
 */
co_fn int guard_write_features(struct image *image, uint64_t set,
    uint64_t clear);

/*
 * Stops all writes, logs why and sets the corrupt bit, stably, before it
 * returns -EIO (O7); later calls only return it.  Reads go on.  A version 2
 * image has no such bit, and one that is only read is left as it is.
 */
co_fn int guard_corrupt(struct image *image, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
