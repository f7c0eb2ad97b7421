/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the check share: the counts, and who makes them.
 *
 *	check.c		the order of steps; header, snapshots, bitmaps
 *	check_count.c	the counts, and what may share a cluster
 *	check_table.c	L1 tables, L2 tables, the clusters of disks
 *	check_refcount.c	refcounts of the file, against the counts
 *	check_write.c	writing, for a repair
 *
 * Tables that belong to one user (header, L1 tables, refcount blocks, ...) are
 * all marked before the first L2 table, and an L2 table before what it maps.
 * So it shows in every order if one of them lies in another.
 */
#ifndef QCOW2_CHECK_INTERNAL_H
#define QCOW2_CHECK_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/check.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"

/* What is read at once, at most; a cluster fits in. */
#define CHECK_READ_BYTES_MAX (4u * 1024 * 1024)

/* How far behind the end of the file refcounts are looked at, and a repair
 * may put new ones. */
#define CHECK_CLUSTERS_PAST_END (1u << 20)

/* An L1 table: the disk's, or that of a snapshot. */
struct check_l1 {
	uint64_t offset;
	uint32_t entries;
	bool active;		/* of the disk */
};

struct check {
	struct file *file;
	const char *name;
	const struct check_listener *listener;	/* or NULL */
	struct error *error;
	struct check_result result;
	uint64_t reports[CHECK_ERROR + 1];
	uint64_t done, total;	/* steps: entries of L1 and refcount tables */
	uint8_t *buffer;
	uint32_t buffer_bytes;	/* some clusters */

	struct header header;
	bool extended_l2;	/* L2 entries of 16 bytes, with a bitmap */
	bool data_elsewhere;	/* clusters of disks are in another file */
	uint64_t crypto_offset, crypto_bytes;
	unsigned cluster_bits;
	uint32_t cluster_bytes;
	uint64_t file_bytes;
	uint64_t file_clusters;	/* the last one may be cut short */

	/*
	 * For file_clusters + 1 clusters, as something may begin in the last
	 * one and end in the next.
	 */
	void *counts;
	uint64_t counts_clusters;
	unsigned count_bytes;	/* of one: 1, 2 or 4 */
	uint32_t count_max;	/* past it, the file could not say it */
	uint32_t count_end;	/* no count goes past it */
	uint64_t *tables;	/* bit: in use as a table of one user */
	uint64_t *l2_tables;	/* bit: in use as an L2 table */
	uint64_t *own_tables;	/* bit: the same, of the L1 table at work */
	/* Clusters behind the file's end, which may have been cut off, too. */
	uint64_t *single;	/* bit: the refcount in the file is 1 */
	uint64_t single_clusters;

	struct check_l1 *snapshots;
	uint32_t snapshot_count;
	uint64_t *refcount_table;
	uint64_t refcount_table_entries;

	/* ---- for a repair ---- */
	/* Count as if they had no place in the file. */
	bool without_refcounts, without_snapshot_table;
	/* Take snapshots with too much extra data; do not count rooms that
	 * entries will lose. */
	bool for_repair;
	uint64_t snapshot_faults; /* entries that a new table would not have */
	bool fix_entries;	/* put L2 entries right that have one meaning */
	bool fix_copied;	/* and C flags; these are not reported then */
	uint64_t fixed;		/* entries that were put right */
	bool has_written;
	uint64_t repairable;	/* of the corruptions */
	uint64_t entry_faults;	/* what fix_entries would put right, */
	uint64_t copied_faults;	/* and fix_copied */
	bool points_past_end;	/* some user, to where a file might grow */
	/* Data that was not flushed, as its place has not come to be. */
	uint64_t unflushed;
	uint64_t unflushed_end;	/* how long the file was to be */
};

enum check_use {
	CHECK_TABLE,	/* shares its clusters with nobody */
	CHECK_L2,	/* with the same L2 table, seen from a snapshot */
	CHECK_DATA,	/* with other data */
};

static inline bool
check_bit(const uint64_t *bits, uint64_t index)
{
	return bits[index / 64] >> index % 64 & 1;
}

static inline void
check_set_bit(uint64_t *bits, uint64_t index)
{
	bits[index / 64] |= 1ull << index % 64;
}

static inline void
check_clear_bit(uint64_t *bits, uint64_t index)
{
	bits[index / 64] &= ~(1ull << index % 64);
}

static inline uint32_t
check_count(const struct check *check, uint64_t cluster)
{
	switch (check->count_bytes) {
	case 1:
		return ((const uint8_t *)check->counts)[cluster];
	case 2:
		return ((const uint16_t *)check->counts)[cluster];
	default:
		return ((const uint32_t *)check->counts)[cluster];
	}
}

static inline void
check_count_up(struct check *check, uint64_t cluster)
{
	switch (check->count_bytes) {
	case 1:
		((uint8_t *)check->counts)[cluster]++;
		return;
	case 2:
		((uint16_t *)check->counts)[cluster]++;
		return;
	default:
		((uint32_t *)check->counts)[cluster]++;
	}
}

/* How many users the file should tell of. */
static inline uint32_t
check_users(const struct check *check, uint64_t cluster)
{
	uint32_t count = check_count(check, cluster);

	return count < check->count_max ? count : check->count_max;
}

/* Clusters that one refcount block tells of. */
static inline uint64_t
check_block_clusters(const struct check *check)
{
	return (uint64_t)check->cluster_bytes * 8 >>
	    check->header.refcount_order;
}

/* ---- the steps, in their order ---- */

/*
 * Reads the header and makes room.  The caller has set the file, its name, the
 * listener, where errors go, and what to fix; all else is zeros.  Errors as
 * check_file()'s; check_close() in any case.
 */
co_fn int check_open(struct check *check);

/* Counts who uses what. */
co_fn int check_count_users(struct check *check);

/* Holds the refcounts of the file against the counts. */
co_fn int check_compare_refcounts(struct check *check);

void check_close(struct check *check);

/* ---- what they are made of ---- */

/* Makes room for the counts.  -ENOTSUP over the limit, -ENOMEM. */
int check_counts_init(struct check *check);

/* Makes room for so many counts, of which some are there.  -ENOMEM. */
int check_counts_extend(struct check *check, uint64_t clusters);

/*
 * Counts one more user of each cluster that bytes at host touch.  What is
 * wrong with that, in words that follow the user's name, or NULL.
 */
const char *check_mark(struct check *check, uint64_t host, uint64_t bytes,
    enum check_use use);

/* Marks a table of one user and reports if it may not be there: false. */
bool check_mark_table(struct check *check, uint64_t host, uint64_t bytes,
    const char *what);

/* Counts a finding and tells the listener. */
void check_report(struct check *check, enum check_finding kind,
    const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Tells the listener what the bytes at host are; if it listens to that. */
static inline bool
check_tells_content(const struct check *check)
{
	return check->listener && check->listener->content;
}

static inline void
check_tell(const struct check *check, enum check_content content,
    uint64_t host, uint64_t bytes)
{
	if (check_tells_content(check))
		check->listener->content(check->listener->arg, content, host,
		    bytes);
}

/* Tells the listener that so many more steps are done. */
void check_advance(struct check *check, uint64_t steps);

/* Counts a corruption that a repair ends, and tells the listener. */
#define check_report_repairable(check, ...) do { \
	(check)->repairable++; \
	check_report(check, CHECK_CORRUPTION, __VA_ARGS__); \
} while (0)

/* -EINTR, said in check->error, if the listener wants no more. */
int check_stop(struct check *check);

/* Reads, zeros past the end; says in check->error why it cannot. */
co_fn int check_read(struct check *check, void *data, size_t bytes,
    uint64_t host, const char *what);

/*
 * The same for writing, of which there is none but for a repair.  Before the
 * first write autoclear bits that mean nothing here are gone (O7).
 */
co_fn int check_write(struct check *check, const void *data, size_t bytes,
    uint64_t host, const char *what);
co_fn int check_sync(struct check *check);

/* Makes the file longer, stable at the return. */
co_fn int check_lengthen(struct check *check, uint64_t bytes);

/* Reads a table of 8-byte entries into the machine's order; free() it. */
co_fn int check_load_table(struct check *check, uint64_t host,
    uint64_t entries, const char *what, uint64_t **tablep);

/* Marks what an L1 table maps, not itself. */
co_fn int check_walk_l1(struct check *check, const struct check_l1 *l1);

/* Loads and marks the refcount table and blocks, and fills in single. */
co_fn int check_load_refcounts(struct check *check);

/*
 * Whether a flag that says whether the refcount of a cluster is 1 agrees with
 * the file; also if its refcount cannot be read.
 */
bool check_copied_is_right(const struct check *check, uint64_t entry);

/* Entries of the refcount table up to the one that tells of that cluster. */
uint64_t check_entries_up_to(const struct check *check, uint64_t cluster);

/* Where the block of an entry is; 0 if it cannot be read, so all are 0. */
uint64_t check_block_host(const struct check *check, uint64_t index);

/*
 * Reads into the buffer the blocks from index to before end that are read in
 * one go, at least one.
 */
co_fn int check_read_blocks(struct check *check, uint64_t index, uint64_t end,
    uint64_t *countp);

#endif
