/* SPDX-License-Identifier: MIT */
/*
 * Checking a qcow2 file: do its refcounts tell the truth?
 *
 * The check counts in memory who uses each cluster of the file (header, L1 and
 * L2 tables and clusters of the disk and of every snapshot, snapshot table,
 * refcount table and blocks, bitmaps, encryption header) and compares that
 * with the refcounts in the file.  It reads this one file and changes nothing,
 * uses neither the image nor its caches, and takes no lock: the caller does.
 * So a file of any back end may be checked, dirty and corrupt images too.
 *
 * Memory: for each cluster of the file a count of 8, 16 or 32 bits (as wide as
 * the refcounts, if they are) and four bits, and the L1 table, the refcount
 * table and at most 4 MiB of buffer.  43 MiB for 1 TiB of clusters of 64 KiB.
 * Files of more than CHECK_CLUSTERS_MAX clusters are refused.
 *
 * Time: each table is read once for the disk and once for each snapshot that
 * has it, however often their L1 tables name it; a table that stands where
 * another one does is not looked into.
 *
 * (Specification: "Host cluster management", "Cluster mapping".)
 */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/error.h"

struct file;

/* Also the limit of qemu-img: 128 TiB of clusters of 64 KiB. */
#define CHECK_CLUSTERS_MAX	0x7fffffffull

/* What was found, in the terms of qemu-img. */
struct check_result {
	uint64_t corruptions;
	uint64_t leaks;		/* clusters that nobody uses any more */
	uint64_t check_errors;	/* what could not be checked */
	uint64_t total_clusters;	/* of the disk */
	uint64_t allocated_clusters;	/* of the disk, compressed included */
	uint64_t compressed_clusters;
	uint64_t fragmented_clusters;	/* not where the one before ends */
	uint64_t image_end_offset;	/* behind the last cluster in use */
};

enum check_finding {
	CHECK_CORRUPTION,
	CHECK_LEAK,
	CHECK_ERROR,
};

/* What a part of the file holds; what comes later is more peculiar. */
enum check_content {
	CHECK_CONTENT_LEAKED,	/* nothing, and does not say so */
	CHECK_CONTENT_SNAPSHOT,	/* data of snapshots */
	CHECK_CONTENT_ROOM,	/* nothing yet: room of zero clusters */
	CHECK_CONTENT_DATA,	/* of the disk */
	CHECK_CONTENT_COMPRESSED,
	CHECK_CONTENT_BITMAPS,	/* and their tables */
	CHECK_CONTENT_SNAPSHOT_TABLE,
	CHECK_CONTENT_L2,	/* tables of snapshots, too; and so below */
	CHECK_CONTENT_L1,
	CHECK_CONTENT_REFCOUNTS,
	CHECK_CONTENT_HEADER,	/* or the encryption header */
	CHECK_CONTENTS,		/* how many there are */
};

/* Who wants to hear more than numbers; each may be NULL.  None suspends. */
struct check_listener {
	/* One line about each finding, until CHECK_REPORTS_MAX of a kind. */
	void (*report)(void *arg, enum check_finding kind, const char *line);
	/* Called often: how many of total steps are done, total of them > 0. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	/* Whether to give up: asked before each thing that is read or written;
	 * the call then ends with -EINTR.  May be NULL, too. */
	bool (*stop)(void *arg);
	/*
	 * Called for each user of a part of the file, however many it has; a
	 * faulty one may lie anywhere.
	 */
	void (*content)(void *arg, enum check_content content, uint64_t host,
	    uint64_t bytes);
	void *arg;
};

#define CHECK_REPORTS_MAX 1000

/*
 * Checks file, which messages call name.  0 if the check ran to its end,
 * whatever it found; -ENOTSUP for what cannot be checked (features, limits),
 * -EINVAL if the header or the snapshot table is too damaged to begin with,
 * -EIO, -ENOMEM, -EINTR: then *error says more, and *result is untouched.
 */
co_fn int check_file(struct file *file, const char *name,
    struct check_result *result, struct error *error);

/* The same with a listener, which may be NULL. */
co_fn int check_file_listen(struct file *file, const char *name,
    const struct check_listener *listener, struct check_result *result,
    struct error *error);

#endif
