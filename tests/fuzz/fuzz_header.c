/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes what is parsed when an image is opened: header.h, snapshot.h, entry.h.
 *
 * The first four bytes of the input, times 512, are how long the file is said
 * to be; the rest is how it begins.  Its first cluster is the header, and the
 * whole of it is taken for table entries, and its bytes from 104 on for a
 * snapshot's entry, too.
 *
 * Beyond not crashing: what the parser accepts lies inside the file, and what
 * the builder makes of it means the same when it is parsed again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "qcow2/snapshot.h"

#define LENGTH_BYTES	4u
/* Table entries that one input may have. */
#define ENTRIES_MAX	512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_table(const struct header *header, uint64_t offset, uint64_t bytes,
    uint64_t file_bytes)
{
	uint64_t cluster_bytes = header_cluster_bytes(header);

	assert(offset % cluster_bytes == 0 && offset >= cluster_bytes);
	assert(bytes <= file_bytes + cluster_bytes);
	assert(offset < file_bytes + cluster_bytes - bytes);
}

/* What callers may rely on. */
static void
check_header(const struct header *header, uint64_t file_bytes)
{
	unsigned l2_bits = header->cluster_bits - 3;
	uint64_t l1_bytes = (uint64_t)header->l1_entries * ENTRY_BYTES;

	assert(header->version == 2 || header->version == 3);
	assert(header->cluster_bits >= 9 && header->cluster_bits <= 21);
	assert(header->size_bytes <= INT64_MAX);
	assert(l1_bytes <= HEADER_L1_BYTES_MAX);
	assert(header->size_bytes == 0 || header->l1_entries >
	    (header->size_bytes - 1) >> (header->cluster_bits + l2_bits));
	if (header->l1_entries > 0)
		check_table(header, header->l1_offset, l1_bytes, file_bytes);
	assert(header->refcount_table_clusters > 0);
	check_table(header, header->refcount_table_offset,
	    (uint64_t)header->refcount_table_clusters << header->cluster_bits,
	    file_bytes);
	assert(header->refcount_order <= 6);
	assert(header->snapshot_count <= HEADER_SNAPSHOTS_MAX);
	if (header->bitmaps.present && !header->bitmaps.fault)
		check_table(header, header->bitmaps.directory_offset,
		    header->bitmaps.directory_bytes, file_bytes);
	assert(!(header->incompatible & ~(HEADER_DIRTY | HEADER_CORRUPT |
	    HEADER_COMPRESSION)));
	assert(header->backing == (header->backing_name[0] != '\0'));
}

static void
check_same(const struct header *one, const struct header *other)
{
	unsigned i;

	assert(one->version == other->version);
	assert(one->size_bytes == other->size_bytes);
	assert(one->l1_entries == other->l1_entries);
	assert(one->l1_offset == other->l1_offset);
	assert(one->incompatible == other->incompatible);
	assert(one->compatible == other->compatible);
	assert(one->autoclear == other->autoclear);
	assert(one->compression == other->compression);
	assert(one->additional_bytes == other->additional_bytes);
	assert(one->additional_bytes == 0 || memcmp(one->additional,
	    other->additional, one->additional_bytes) == 0);
	assert(strcmp(one->backing_name, other->backing_name) == 0);
	assert(strcmp(one->backing_format, other->backing_format) == 0);
	assert(one->extension_count == other->extension_count);
	for (i = 0; i < one->extension_count; i++) {
		assert(one->extensions[i].type == other->extensions[i].type);
		assert(one->extensions[i].bytes == other->extensions[i].bytes);
		assert(memcmp(one->extensions[i].data,
		    other->extensions[i].data, one->extensions[i].bytes) == 0);
	}
}

static void
try_rewrite(const struct header *header, uint64_t file_bytes)
{
	uint32_t cluster_bytes = header_cluster_bytes(header);
	uint8_t *built = malloc(cluster_bytes);
	struct header again;
	struct error error;

	assert(built);
	/* Only an end mark that was left out can be too much. */
	if (header_build(header, built, cluster_bytes) == 0) {
		assert(header_parse("x", built, file_bytes, &again, &error) ==
		    0);
		check_same(header, &again);
		header_free(&again);
	}
	free(built);
}

static void
try_snapshot(const uint8_t *data, size_t size, const struct header *header)
{
	struct snapshot snapshot;
	size_t bytes;

	if (size < SNAPSHOT_HEAD_BYTES || snapshot_entry_bytes(data, &bytes))
		return;
	assert(bytes >= SNAPSHOT_HEAD_BYTES && bytes % 8 == 0);
	if (bytes > size || snapshot_parse(data, header, &snapshot))
		return;
	assert(SNAPSHOT_HEAD_BYTES + snapshot.extra_bytes +
	    strlen(snapshot.id) + strlen(snapshot.name) <= bytes);
	free(snapshot.memory);
}

static void
try_entries(const uint8_t *data, size_t size, const struct header *header,
    uint64_t file_bytes)
{
	struct entry_limits limits = {
		.cluster_bits = header->cluster_bits,
		.zero_flag = header->version == 3,
		.host_end = file_bytes,
	};
	struct entry_span span;
	uint64_t entry;
	size_t i;

	for (i = 0; i < size / ENTRY_BYTES && i < ENTRIES_MAX; i++) {
		entry = entry_load(data, i);
		if (!entry_l1_fault(entry, &limits))
			assert(entry_host(entry) < file_bytes);
		if (!entry_refcount_fault(entry, &limits))
			assert(entry_refcount_block(entry) < file_bytes);
		if (entry_l2_fault(entry, &limits))
			continue;
		if (entry_kind(entry) != CLUSTER_COMPRESSED) {
			assert(entry_host(entry) < file_bytes);
			continue;
		}
		span = entry_compressed(entry, header->cluster_bits);
		assert(span.host < file_bytes);
		assert(span.bytes > 0 && span.bytes <=
		    2 * header_cluster_bytes(header));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t start[HEADER_V3_BYTES] = { 0 };
	uint32_t cluster_bytes;
	struct header header;
	struct error error;
	uint64_t file_bytes;
	uint8_t *cluster;

	if (size < LENGTH_BYTES)
		return 0;
	file_bytes = (uint64_t)bytes_get32(data) * 512;
	data += LENGTH_BYTES;
	size -= LENGTH_BYTES;
	memcpy(start, data, size < sizeof(start) ? size : sizeof(start));
	if (header_parse_start("x", start, &cluster_bytes, &error))
		return 0;
	cluster = calloc(1, cluster_bytes);
	assert(cluster);
	memcpy(cluster, data, size < cluster_bytes ? size : cluster_bytes);
	if (header_parse("x", cluster, file_bytes, &header, &error) == 0) {
		check_header(&header, file_bytes);
		try_rewrite(&header, file_bytes);
		header_check_policy("x", &header, true, &error);
		if (size > HEADER_V3_BYTES)
			try_snapshot(data + HEADER_V3_BYTES,
			    size - HEADER_V3_BYTES, &header);
		try_entries(data, size, &header, file_bytes);
		header_free(&header);
	}
	free(cluster);
	return 0;
}
