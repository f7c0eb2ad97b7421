/* SPDX-License-Identifier: MIT */
/*
 * The snapshot table: the internal snapshots of an image.
 *
 * Loading validates the table itself.  Where a snapshot's L1 table lies is not
 * judged then, so that a bad snapshot does not keep anybody from the disk: ask
 * snapshot_l1_fault() before using one.  Extra data of the future is kept.
 * (Specification: "Snapshots".)
 */
#ifndef QCOW2_SNAPSHOT_H
#define QCOW2_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/error.h"

struct file;
struct header;

#define SNAPSHOT_TABLE_BYTES_MAX	(64u * 1024 * 1024)
#define SNAPSHOT_EXTRA_BYTES_MAX	1024u

/* The extra data whose meaning is known. */
#define SNAPSHOT_EXTRA_BYTES	24u

/* icount of a snapshot that was taken without counting instructions. */
#define SNAPSHOT_NO_ICOUNT		UINT64_MAX

struct snapshot {
	/* As they stand in the image: quote them before printing. */
	const char *id;
	const char *name;
	uint64_t l1_offset;
	uint32_t l1_entries;
	uint32_t date_seconds;		/* since the epoch */
	uint32_t date_nanoseconds;
	uint64_t vm_clock_ns;		/* how long the guest had run */
	uint64_t vm_state_bytes;	/* 0: none */
	uint64_t disk_bytes;
	uint64_t icount;
	const uint8_t *extra;		/* raw; the fields above included */
	uint32_t extra_bytes;
	void *memory;			/* holds id, name and extra */
};

struct snapshot_table {
	struct snapshot *list;
	unsigned count;
	uint64_t bytes;			/* in the file */
};

/*
 * Loads the table that header tells of; an empty one if there are no
 * snapshots.  -EINVAL, -EIO, -ENOMEM; *table is empty then.
 */
co_fn int snapshot_table_load(struct file *file, const struct header *header,
    struct snapshot_table *table, struct error *error);

/* Frees what table points to and makes it empty. */
void snapshot_table_free(struct snapshot_table *table);

/* The one with that id or, if none has it, that name; NULL: there is none. */
const struct snapshot *snapshot_find(const struct snapshot_table *table,
    const char *name);

/* What is wrong with the place of a snapshot's L1 table; NULL: nothing. */
const char *snapshot_l1_fault(const struct snapshot *snapshot,
    const struct header *header, uint64_t file_bytes);

/* ---- one entry, pure ---- */

#define SNAPSHOT_HEAD_BYTES	40u

/*
 * The length of an entry, padding included, from its first SNAPSHOT_HEAD_BYTES
 * bytes: 40 to some 132,000.  -EINVAL if its extra data is too long.
 */
int snapshot_entry_bytes(const void *head, size_t *bytesp);

/* How long the entry of a snapshot is. */
size_t snapshot_bytes(const struct snapshot *snapshot);

/*
 * Writes the entry of a snapshot, snapshot_bytes() of it: what is known of the
 * extra data as the fields say, what is not as it was.
 */
void snapshot_build(const struct snapshot *snapshot, void *entry);

/* Decodes the entry that begins with that head.  -EINVAL, -ENOMEM. */
int snapshot_parse(const void *entry, const struct header *header,
    struct snapshot *snapshot);

#endif
