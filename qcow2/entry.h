/* SPDX-License-Identifier: MIT */
/*
 * Entries of the tables on disk: what their bits mean and which are wrong.
 *
 *	63   62   61..56  55..9        8..1   0
 *	C    0    0       host         0      0    L1: where the L2 table is
 *	C    0    0       host         0      Z    L2: a cluster
 *	0    1    sectors and host offset          L2: a compressed cluster
 *	host                           0      0    refcount table: a block
 *	0    0    0       host         0      1s   bitmap table: a cluster
 *
 * C (copied) says that the refcount of what host names is exactly one; Z that
 * the cluster reads as zeros whatever stands at host.  A host of 0 is nothing,
 * as cluster 0 holds the header.  (Specification: "Cluster mapping".)
 *
 * Entries here are in the machine's own order: entry_load() and entry_store()
 * convert.  The x_fault() functions say in words what is wrong with an entry
 * that was just read, NULL if nothing is; all the others take entries that
 * have passed.  Nothing here suspends.
 */
#ifndef QCOW2_ENTRY_H
#define QCOW2_ENTRY_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ENTRY_BYTES		8u

#define ENTRY_COPIED		(1ull << 63)
#define ENTRY_COMPRESSED	(1ull << 62)
#define ENTRY_ZERO		1ull
#define ENTRY_ONES		1ull	/* bitmap table: all bits are set */

#define ENTRY_HOST_MASK		0x00fffffffffffe00ull
#define ENTRY_L1_RESERVED	0x7f000000000001ffull
#define ENTRY_L2_RESERVED	0x3f000000000001feull
#define ENTRY_BITMAP_RESERVED	0xff000000000001feull
#define ENTRY_REFCOUNT_RESERVED	0x00000000000001ffull

/* No L1 or L2 entry can name a host offset from here on. */
#define ENTRY_HOST_END		(1ull << 56)

#define ENTRY_SECTOR_BYTES	512u

/* What the entries of one image are judged by. */
struct entry_limits {
	unsigned cluster_bits;
	bool zero_flag;		/* version 3: L2 entries may have Z */
	uint64_t host_end;	/* the file's length: nothing begins there */
	/* Was past the end when the file was opened, and stays bad. */
	uint64_t gap_begin, gap_end;
};

enum cluster_kind {
	CLUSTER_UNALLOCATED,	/* reads as the backing file */
	CLUSTER_ZERO,		/* reads as zeros, no room behind it */
	CLUSTER_ZERO_ALLOCATED,	/* reads as zeros, host is kept for it */
	CLUSTER_NORMAL,
	CLUSTER_COMPRESSED,
};

/* Compressed data in the file; its last sector may be past the file's end. */
struct entry_span {
	uint64_t host;
	uint32_t bytes;		/* 1 to two clusters; the stream may be less */
};

static inline uint64_t
entry_load(const void *table, size_t index)
{
	uint64_t value;

	memcpy(&value, (const char *)table + index * ENTRY_BYTES, ENTRY_BYTES);
	return be64toh(value);
}

static inline void
entry_store(void *table, size_t index, uint64_t entry)
{
	entry = htobe64(entry);
	memcpy((char *)table + index * ENTRY_BYTES, &entry, ENTRY_BYTES);
}

static inline bool
entry_copied(uint64_t entry)
{
	return entry & ENTRY_COPIED;
}

/* The host offset in an L1, uncompressed L2 or bitmap entry; 0: nothing. */
static inline uint64_t
entry_host(uint64_t entry)
{
	return entry & ENTRY_HOST_MASK;
}

/* The host offset of a refcount block; 0: all its refcounts are 0. */
static inline uint64_t
entry_refcount_block(uint64_t entry)
{
	return entry & ~ENTRY_REFCOUNT_RESERVED;
}

/*
 * What an L2 entry stands for.  C without a host means nothing, so go by the
 * kind first: only NORMAL and ZERO_ALLOCATED clusters can be copied ones.
 */
static inline enum cluster_kind
entry_kind(uint64_t entry)
{
	if (entry & ENTRY_COMPRESSED)
		return CLUSTER_COMPRESSED;
	if (entry & ENTRY_ZERO)
		return entry_host(entry) ? CLUSTER_ZERO_ALLOCATED :
		    CLUSTER_ZERO;
	return entry_host(entry) ? CLUSTER_NORMAL : CLUSTER_UNALLOCATED;
}

/*
 * Where a compressed cluster's data is.  The field that counts its sectors
 * beyond the first grows with the cluster, at the cost of the host offset's.
 */
static inline struct entry_span
entry_compressed(uint64_t entry, unsigned cluster_bits)
{
	unsigned sectors_bits = cluster_bits - 8;
	unsigned shift = 62 - sectors_bits;
	uint32_t sectors = (entry >> shift & ((1u << sectors_bits) - 1)) + 1;
	struct entry_span span;

	span.host = entry & ((1ull << shift) - 1);
	span.bytes = sectors * ENTRY_SECTOR_BYTES -
	    (uint32_t)(span.host % ENTRY_SECTOR_BYTES);
	return span;
}

/* Whether it has a host cluster that nobody else refers to. */
static inline bool
entry_owns_host(uint64_t entry)
{
	enum cluster_kind kind = entry_kind(entry);

	return (kind == CLUSTER_NORMAL || kind == CLUSTER_ZERO_ALLOCATED) &&
	    entry_copied(entry);
}

/*
 * The host clusters that an L2 entry refers to: how many, from *firstp on.
 * Each of them has one reference by it.
 */
static inline uint64_t
entry_clusters(uint64_t entry, unsigned cluster_bits, uint64_t *firstp)
{
	struct entry_span span;

	*firstp = entry_host(entry) >> cluster_bits;
	switch (entry_kind(entry)) {
	case CLUSTER_NORMAL:
	case CLUSTER_ZERO_ALLOCATED:
		return 1;
	case CLUSTER_COMPRESSED:
		span = entry_compressed(entry, cluster_bits);
		*firstp = span.host >> cluster_bits;
		return ((span.host + span.bytes - 1) >> cluster_bits) -
		    *firstp + 1;
	default:
		return 0;
	}
}

/* The entry of a stream of bytes, at most a cluster, at host. */
static inline uint64_t
entry_of_compressed(uint64_t host, uint32_t bytes, unsigned cluster_bits)
{
	unsigned shift = 62 - (cluster_bits - 8);
	uint64_t sectors = (host + bytes - 1) / ENTRY_SECTOR_BYTES -
	    host / ENTRY_SECTOR_BYTES;

	assert(bytes > 0 && bytes <= 1u << cluster_bits && host >> shift == 0);
	return ENTRY_COMPRESSED | sectors << shift | host;
}

/* The first host offset that a compressed L2 entry cannot name. */
static inline uint64_t
entry_compressed_host_end(unsigned cluster_bits)
{
	unsigned bits = 62 - (cluster_bits - 8);

	return bits < 56 ? 1ull << bits : ENTRY_HOST_END;
}

/* ---- faults ---- */

/* What is wrong with host, not 0, as the offset of a cluster. */
static inline const char *
entry_host_fault(uint64_t host, const struct entry_limits *limits)
{
	if (host & ((1ull << limits->cluster_bits) - 1))
		return "is not aligned to a cluster";
	if (host >= limits->host_end ||
	    (host >= limits->gap_begin && host < limits->gap_end))
		return "points past the end of the file";
	return NULL;
}

static inline const char *
entry_l1_fault(uint64_t entry, const struct entry_limits *limits)
{
	if (entry & ENTRY_L1_RESERVED)
		return "has reserved bits set";
	if (entry_host(entry))
		return entry_host_fault(entry_host(entry), limits);
	return entry ? "is marked as copied but points nowhere" : NULL;
}

static inline const char *
entry_compressed_fault(uint64_t entry, const struct entry_limits *limits)
{
	uint64_t cluster_bytes = 1ull << limits->cluster_bits;
	struct entry_span span = entry_compressed(entry, limits->cluster_bits);

	if (entry_copied(entry))
		return "is compressed and marked as copied";
	if (span.host >= ENTRY_HOST_END)
		return "has reserved bits set";
	if (span.host < cluster_bytes)
		return "points into the header";
	/* The file may end with the stream, inside the last cluster. */
	if (span.host >= limits->host_end ||
	    span.host + span.bytes >= limits->host_end + cluster_bytes)
		return "points past the end of the file";
	return NULL;
}

static inline const char *
entry_l2_fault(uint64_t entry, const struct entry_limits *limits)
{
	if (entry & ENTRY_COMPRESSED)
		return entry_compressed_fault(entry, limits);
	if (entry & ENTRY_L2_RESERVED)
		return "has reserved bits set";
	if (entry & ENTRY_ZERO && !limits->zero_flag)
		return "has the zero flag in a version 2 image";
	if (entry_host(entry))
		return entry_host_fault(entry_host(entry), limits);
	return NULL;
}

static inline const char *
entry_refcount_fault(uint64_t entry, const struct entry_limits *limits)
{
	if (entry & ENTRY_REFCOUNT_RESERVED)
		return "has reserved bits set";
	return entry ? entry_host_fault(entry, limits) : NULL;
}

static inline const char *
entry_bitmap_fault(uint64_t entry, const struct entry_limits *limits)
{
	if (entry & ENTRY_BITMAP_RESERVED)
		return "has reserved bits set";
	if (!entry_host(entry))
		return NULL;
	if (entry & ENTRY_ONES)
		return "has reserved bits set";
	return entry_host_fault(entry_host(entry), limits);
}

/* ---- refcounts: 1 << order bits each, order 0 to 6 ---- */

static inline uint64_t
entry_refcount_max(unsigned order)
{
	return order < 6 ? (1ull << (1u << order)) - 1 : UINT64_MAX;
}

/*
 * Refcount index of a block.  Those under a byte begin at the least
 * significant bit; the wider ones are big-endian like everything else.
 */
static inline uint64_t
entry_refcount_get(const void *block, unsigned order, size_t index)
{
	const uint8_t *byte = (const uint8_t *)block + (index << order) / 8;
	uint16_t value16;
	uint32_t value32;
	uint64_t value64;

	switch (order) {
	case 3:
		return *byte;
	case 4:
		memcpy(&value16, byte, sizeof(value16));
		return be16toh(value16);
	case 5:
		memcpy(&value32, byte, sizeof(value32));
		return be32toh(value32);
	case 6:
		memcpy(&value64, byte, sizeof(value64));
		return be64toh(value64);
	default:
		return *byte >> (index << order) % 8 &
		    entry_refcount_max(order);
	}
}

static inline void
entry_refcount_set(void *block, unsigned order, size_t index, uint64_t value)
{
	uint8_t *byte = (uint8_t *)block + (index << order) / 8;
	unsigned shift = (index << order) % 8;
	uint16_t value16 = htobe16((uint16_t)value);
	uint32_t value32 = htobe32((uint32_t)value);
	uint64_t value64 = htobe64(value);

	assert(value <= entry_refcount_max(order));
	switch (order) {
	case 3:
		*byte = (uint8_t)value;
		break;
	case 4:
		memcpy(byte, &value16, sizeof(value16));
		break;
	case 5:
		memcpy(byte, &value32, sizeof(value32));
		break;
	case 6:
		memcpy(byte, &value64, sizeof(value64));
		break;
	default:
		*byte = (uint8_t)((*byte & ~(entry_refcount_max(order) <<
		    shift)) | value << shift);
	}
}

#endif
