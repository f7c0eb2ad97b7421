/* SPDX-License-Identifier: MIT */
/*
 * The index of metadata: which host clusters hold tables.
 *
 * Every entry that is loaded from disk is held against it, so that no guest
 * data is read from or written over a table, whatever the image says; and so
 * is every write to a new cluster or to a table (guard.h).  Tables of one
 * cluster (L2 tables, refcount blocks) are in a hash set, longer ones (header,
 * L1 tables, refcount table, snapshot table, ...) are few and in a sorted
 * list.  L2 tables of snapshots are not in it: finding them would mean reading
 * all of them.
 *
 * Guarded by the image's monitor.  Nothing suspends.
 */
#ifndef QCOW2_METADATA_H
#define QCOW2_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum metadata_kind {
	/* Of one cluster. */
	METADATA_L2,
	METADATA_REFCOUNT_BLOCK,
	/* Longer ones. */
	METADATA_HEADER,
	METADATA_L1,
	METADATA_REFCOUNT_TABLE,
	METADATA_SNAPSHOTS,
	METADATA_SNAPSHOT_L1,
	METADATA_BITMAPS,
};

struct metadata_range {
	uint64_t host;
	uint64_t bytes;
	enum metadata_kind kind;
};

struct metadata {
	unsigned cluster_bits;
	uint64_t *set;		/* cluster << 1 | kind, 0: free */
	size_t set_count;
	size_t set_room;	/* a power of two */
	struct metadata_range *ranges;	/* ascending by host */
	size_t ranges_count;
	size_t ranges_room;
	/* How often tables came to clusters that had been something else. */
	uint64_t reused;
};

void metadata_init(struct metadata *metadata, unsigned cluster_bits);
void metadata_free(struct metadata *metadata);

/* Makes room for so many more tables of one cluster at once.  -ENOMEM. */
int metadata_make_room(struct metadata *metadata, size_t more);

/* Adds a table of one cluster.  -EEXIST if it is in already, -ENOMEM. */
int metadata_add_cluster(struct metadata *metadata, enum metadata_kind kind,
    uint64_t host);
void metadata_remove_cluster(struct metadata *metadata, uint64_t host);

/*
 * Adds a longer table; -EEXIST if it overlaps another table, of whatever
 * kind, -ENOMEM.  0 bytes are fine.
 */
int metadata_add_range(struct metadata *metadata, enum metadata_kind kind,
    uint64_t host, uint64_t bytes);
/* Removes the range that begins at host. */
void metadata_remove_range(struct metadata *metadata, uint64_t host);

/* What table lies in the bytes from host on, or NULL. */
const char *metadata_find(const struct metadata *metadata, uint64_t host,
    uint64_t bytes);

/* Whether all the bytes from host on lie in one table of that kind. */
bool metadata_is(const struct metadata *metadata, enum metadata_kind kind,
    uint64_t host, uint64_t bytes);

/* "the L1 table" */
const char *metadata_name(enum metadata_kind kind);

#endif
