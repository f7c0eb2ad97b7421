/* SPDX-License-Identifier: MIT */
#include "qcow2/metadata.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SET_ROOM_MIN 64

void
metadata_init(struct metadata *metadata, unsigned cluster_bits)
{
	*metadata = (struct metadata){.cluster_bits = cluster_bits};
}

void
metadata_free(struct metadata *metadata)
{
	free(metadata->set);
	free(metadata->ranges);
	metadata_init(metadata, metadata->cluster_bits);
}

const char *
metadata_name(enum metadata_kind kind)
{
	static const char *const names[] = {
		[METADATA_L2] = "an L2 table",
		[METADATA_REFCOUNT_BLOCK] = "a refcount block",
		[METADATA_HEADER] = "the header",
		[METADATA_L1] = "the L1 table",
		[METADATA_REFCOUNT_TABLE] = "the refcount table",
		[METADATA_SNAPSHOTS] = "the snapshot table",
		[METADATA_SNAPSHOT_L1] = "the L1 table of a snapshot",
		[METADATA_BITMAPS] = "the bitmap directory",
	};

	return names[kind];
}

/* ---- the set: linear probing, at most three quarters full ---- */

static size_t
slot_of(const struct metadata *metadata, uint64_t cluster)
{
	return (cluster * 0x9e3779b97f4a7c15ull >> 20) &
	    (metadata->set_room - 1);
}

/* The slot that holds cluster, or the free one where it would go. */
static size_t
set_find(const struct metadata *metadata, uint64_t cluster)
{
	size_t slot = slot_of(metadata, cluster);

	while (metadata->set[slot] && metadata->set[slot] >> 1 != cluster)
		slot = (slot + 1) & (metadata->set_room - 1);
	return slot;
}

/* What is in the set about cluster; 0: nothing. */
static uint64_t
set_get(const struct metadata *metadata, uint64_t cluster)
{
	return metadata->set_count > 0 ?
	    metadata->set[set_find(metadata, cluster)] : 0;
}

int
metadata_make_room(struct metadata *metadata, size_t more)
{
	struct metadata grown = *metadata;
	size_t wanted = metadata->set_count + more;

	if (grown.set_room == 0)
		grown.set_room = SET_ROOM_MIN;
	while (wanted > grown.set_room / 4 * 3)
		grown.set_room *= 2;
	if (grown.set_room == metadata->set_room)
		return 0;
	grown.set = calloc(grown.set_room, sizeof(*grown.set));
	if (!grown.set)
		return -ENOMEM;
	for (size_t i = 0; i < metadata->set_room; i++) {
		uint64_t value = metadata->set[i];

		if (value)
			grown.set[set_find(&grown, value >> 1)] = value;
	}
	free(metadata->set);
	*metadata = grown;
	return 0;
}

int
metadata_add_cluster(struct metadata *metadata, enum metadata_kind kind,
    uint64_t host)
{
	uint64_t cluster = host >> metadata->cluster_bits;
	int err;

	assert(cluster > 0 && kind <= METADATA_REFCOUNT_BLOCK);
	if (metadata_find(metadata, host, 1ull << metadata->cluster_bits))
		return -EEXIST;
	err = metadata_make_room(metadata, 1);
	if (err)
		return err;
	metadata->set[set_find(metadata, cluster)] = cluster << 1 | kind;
	metadata->set_count++;
	return 0;
}

/* Moves back whoever was displaced by the one that goes. */
void
metadata_remove_cluster(struct metadata *metadata, uint64_t host)
{
	uint64_t cluster = host >> metadata->cluster_bits;
	size_t mask = metadata->set_room - 1;
	size_t hole, slot;

	assert(set_get(metadata, cluster));
	hole = set_find(metadata, cluster);
	metadata->set[hole] = 0;
	metadata->set_count--;
	for (slot = (hole + 1) & mask; metadata->set[slot];
	    slot = (slot + 1) & mask) {
		uint64_t moved = metadata->set[slot];

		metadata->set[slot] = 0;
		metadata->set[set_find(metadata, moved >> 1)] = moved;
	}
}

/* ---- the ranges ---- */

/* The index of the first range that begins after host. */
static size_t
range_after(const struct metadata *metadata, uint64_t host)
{
	size_t low = 0, high = metadata->ranges_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (metadata->ranges[middle].host <= host)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct metadata_range *
range_find(const struct metadata *metadata, uint64_t host, uint64_t bytes)
{
	size_t after = range_after(metadata, host);
	const struct metadata_range *range;

	if (after > 0) {
		range = &metadata->ranges[after - 1];
		if (host - range->host < range->bytes)
			return range;
	}
	if (after < metadata->ranges_count) {
		range = &metadata->ranges[after];
		if (range->host - host < bytes)
			return range;
	}
	return NULL;
}

/* What is in the set about the first of the clusters that has a table. */
static uint64_t
find_table(const struct metadata *metadata, uint64_t host, uint64_t bytes)
{
	uint64_t first = host >> metadata->cluster_bits;
	uint64_t last = (host + bytes - 1) >> metadata->cluster_bits;

	if (metadata->set_count == 0)
		return 0;
	for (uint64_t cluster = first; cluster <= last; cluster++) {
		uint64_t value = set_get(metadata, cluster);

		if (value)
			return value;
	}
	return 0;
}

int
metadata_add_range(struct metadata *metadata, enum metadata_kind kind,
    uint64_t host, uint64_t bytes)
{
	size_t index = range_after(metadata, host);

	if (bytes == 0)
		return 0;
	if (metadata_find(metadata, host, bytes))
		return -EEXIST;
	if (metadata->ranges_count == metadata->ranges_room) {
		size_t room = metadata->ranges_room ?
		    2 * metadata->ranges_room : 8;
		struct metadata_range *ranges = realloc(metadata->ranges,
		    room * sizeof(*ranges));

		if (!ranges)
			return -ENOMEM;
		metadata->ranges = ranges;
		metadata->ranges_room = room;
	}
	memmove(&metadata->ranges[index + 1], &metadata->ranges[index],
	    (metadata->ranges_count - index) * sizeof(*metadata->ranges));
	metadata->ranges[index] = (struct metadata_range){host, bytes, kind};
	metadata->ranges_count++;
	return 0;
}

void
metadata_remove_range(struct metadata *metadata, uint64_t host)
{
	size_t index = range_after(metadata, host) - 1;

	assert(index < metadata->ranges_count &&
	    metadata->ranges[index].host == host);
	metadata->ranges_count--;
	memmove(&metadata->ranges[index], &metadata->ranges[index + 1],
	    (metadata->ranges_count - index) * sizeof(*metadata->ranges));
}

const char *
metadata_find(const struct metadata *metadata, uint64_t host, uint64_t bytes)
{
	const struct metadata_range *range = range_find(metadata, host, bytes);
	uint64_t table;

	if (range)
		return metadata_name(range->kind);
	table = find_table(metadata, host, bytes);
	return table ? metadata_name(table & 1) : NULL;
}

bool
metadata_is(const struct metadata *metadata, enum metadata_kind kind,
    uint64_t host, uint64_t bytes)
{
	const struct metadata_range *range;
	uint64_t cluster = host >> metadata->cluster_bits;

	if (kind <= METADATA_REFCOUNT_BLOCK)
		return bytes <= (1ull << metadata->cluster_bits) - (host &
		    ((1ull << metadata->cluster_bits) - 1)) &&
		    set_get(metadata, cluster) == (cluster << 1 | kind);
	range = range_find(metadata, host, bytes);
	return range && range->kind == kind && range->host <= host &&
	    bytes <= range->bytes - (host - range->host);
}
