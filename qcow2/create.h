/* SPDX-License-Identifier: MIT */
/*
 * Making an image: an empty disk, or one whose clusters all have their place.
 *
 * The tables stand at the front of the file in the order header, refcount
 * table, L1 table, refcount blocks, L2 tables; what the disk has room for
 * beforehand follows.  All refcounts are one.
 *
 * (Specification: "Header", "Host cluster management", "Cluster mapping".)
 */
#ifndef QCOW2_CREATE_H
#define QCOW2_CREATE_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/inflate.h"
#include "runtime/co.h"
#include "runtime/error.h"

struct file;

/*
 * Over a backing file it is done for what the disk has past the end of that:
 * before it, a cluster that has its place hides what is below.
 */
enum create_preallocation {
	CREATE_OFF,		/* clusters come with the first write */
	CREATE_METADATA,	/* every cluster has its place in the file */
	CREATE_FALLOC,		/* and the file has the room on disk */
	CREATE_FULL,		/* and zeros are written there */
};

struct create_options {
	uint64_t size_bytes;	/* of the disk; rounded up to 512 */
	unsigned version;	/* 2 or 3 */
	uint64_t cluster_bytes;
	uint64_t refcount_bits;
	bool lazy_refcounts;
	enum compression compression;
	bool encrypted;		/* with AES; the key is not needed for it */
	enum create_preallocation preallocation;
	const char *backing_name;	/* as it shall stand there, or NULL */
	const char *backing_format;
	uint64_t backing_bytes;	/* of the disk below; for preallocation */
};

#define CREATE_CLUSTER_BYTES_DEFAULT	65536u
#define CREATE_REFCOUNT_BITS_DEFAULT	16u

/*
 * Whether there can be such an image; if not, *error says why.  Does not
 * suspend.  -EINVAL; -EFBIG if the disk is too long for its clusters.
 */
int create_check(const struct create_options *options, struct error *error);

/*
 * How long the file is when every cluster of the disk has its place, whatever
 * is to be preallocated.  -EINVAL, -EFBIG.
 */
int create_measure(const struct create_options *options, uint64_t *bytesp,
    struct error *error);

/*
 * Writes the image into an empty file, which messages call name.  It is
 * complete after the next file_fdatasync().  -EINVAL and -EFBIG as above,
 * -ENOSPC, -EIO, -ENOMEM; -EOPNOTSUPP for CREATE_FALLOC where the file system
 * cannot.
 */
co_fn int create_image(struct file *file, const char *name,
    const struct create_options *options, struct error *error);

#endif
