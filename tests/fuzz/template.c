/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/template.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include "qcow2/bytes.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "qcow2/snapshot.h"
#include "runtime/file_sim.h"

#define CLUSTERS_MAX 512u
#define BLOCKS 2u
#define COMPRESSED_BYTES 512u

struct recipe {
	unsigned version;
	unsigned cluster_bits;
	unsigned refcount_order;
	unsigned guest_clusters;
	bool zstd;
	bool snapshot;		/* shares the first L2 table with the disk */
};

static const struct recipe recipes[TEMPLATE_COUNT] = {
	{3, 9, 4, 200, false, false},
	{3, 9, 4, 150, false, true},
	{3, 9, 4, 50, true, false},
	{3, 10, 5, 300, true, true},
	{2, 9, 4, 100, false, false},
	{2, 9, 4, 100, false, true},
	{3, 9, 6, 60, true, false},
	{3, 9, 0, 100, false, false},
	{3, 9, 3, 70, false, true},
	/* Tables of two slices. */
	{3, 13, 6, 600, false, false},
};

struct maker {
	const struct recipe *recipe;
	struct template *template;
	uint64_t counts[CLUSTERS_MAX];
};

/* ---- clusters of the file ---- */

/* The next cluster, with so many references. */
static uint64_t
take(struct maker *maker, uint64_t references)
{
	struct template *template = maker->template;

	assert(template->clusters < CLUSTERS_MAX);
	maker->counts[template->clusters] = references;
	return template->clusters++ * template->cluster_bytes;
}

static void
put_entry(struct maker *maker, uint64_t table, uint64_t index, uint64_t entry)
{
	entry = htobe64(entry);
	file_sim_poke(maker->template->file, &entry, sizeof(entry),
	    table + index * ENTRY_BYTES);
}

static void
fill(struct maker *maker, uint64_t host, uint8_t value)
{
	uint32_t bytes = maker->template->cluster_bytes;
	void *data = malloc(bytes);

	assert(data);
	memset(data, value, bytes);
	file_sim_poke(maker->template->file, data, bytes, host);
	free(data);
}

static void
compress_deflate(const void *plain, uint32_t bytes, void *packed)
{
	z_stream stream = {
		.next_in = (void *)(uintptr_t)plain, .avail_in = bytes,
		.next_out = packed, .avail_out = COMPRESSED_BYTES,
	};

	assert(deflateInit2(&stream, 9, Z_DEFLATED, -12, 9,
	    Z_DEFAULT_STRATEGY) == Z_OK);
	assert(deflate(&stream, Z_FINISH) == Z_STREAM_END);
	deflateEnd(&stream);
}

/* A compressed cluster of one sector, all value; its entry. */
static uint64_t
put_compressed(struct maker *maker, uint64_t host, uint8_t value)
{
	uint32_t bytes = maker->template->cluster_bytes;
	uint8_t packed[COMPRESSED_BYTES] = {0};
	void *plain = malloc(bytes);

	assert(plain);
	memset(plain, value, bytes);
	if (maker->recipe->zstd)
		assert(!ZSTD_isError(ZSTD_compress(packed, sizeof(packed),
		    plain, bytes, 3)));
	else
		compress_deflate(plain, bytes, packed);
	free(plain);
	file_sim_poke(maker->template->file, packed, sizeof(packed), host);
	return ENTRY_COMPRESSED | host;
}

/* ---- the disk ---- */

/* The entry of a guest cluster; of each eight, two have nothing. */
static uint64_t
make_cluster(struct maker *maker, unsigned index, uint64_t references)
{
	bool is_v3 = maker->recipe->version == 3;
	uint64_t copied = references == 1 ? ENTRY_COPIED : 0;
	uint8_t value = (uint8_t)(index * 7 + 1);
	uint64_t host;

	switch (index % 8) {
	case 2:
	case 6:
		return 0;
	case 3:
		return is_v3 ? ENTRY_ZERO : 0;
	case 5:
		host = take(maker, references);
		maker->template->host[TEMPLATE_COMPRESSED] = host;
		return put_compressed(maker, host, value);
	default:
		host = take(maker, references);
		fill(maker, host, value);
		if (index % 8 == 4 && is_v3)
			copied |= ENTRY_ZERO;
		return host | copied;
	}
}

/* Makes the table at index of the L1 table, and all that it maps. */
static void
make_l2(struct maker *maker, unsigned index, bool shared)
{
	struct template *template = maker->template;
	unsigned entries = template->cluster_bytes / ENTRY_BYTES;
	uint64_t references = shared ? 2 : 1;
	uint64_t host = take(maker, references);
	unsigned first = index * entries;

	fill(maker, host, 0);
	put_entry(maker, template->host[TEMPLATE_L1], index,
	    host | (shared ? 0 : ENTRY_COPIED));
	if (shared)
		put_entry(maker, template->host[TEMPLATE_SNAPSHOT_L1], index,
		    host);
	if (index == 0)
		template->host[TEMPLATE_L2] = host;
	template->host[TEMPLATE_L2_LAST] = host;
	/* A long disk need not be full. */
	for (unsigned i = 0; i < entries && i < 48 &&
	    first + i < maker->recipe->guest_clusters; i++)
		put_entry(maker, host, i,
		    make_cluster(maker, first + i, references));
}

static void
make_snapshot_table(struct maker *maker, uint64_t l1_host, uint32_t entries,
    uint64_t disk_bytes)
{
	struct template *template = maker->template;
	uint8_t entry[SNAPSHOT_HEAD_BYTES + 16 + 8] = {0};

	bytes_put64(entry, l1_host);
	bytes_put32(entry + 8, entries);
	bytes_put16(entry + 12, 1);
	bytes_put16(entry + 14, 3);
	bytes_put32(entry + 36, 16);
	bytes_put64(entry + SNAPSHOT_HEAD_BYTES + 8, disk_bytes);
	memcpy(entry + SNAPSHOT_HEAD_BYTES + 16, "1one", 4);
	file_sim_poke(template->file, entry, sizeof(entry),
	    template->host[TEMPLATE_SNAPSHOTS]);
}

/* ---- the rest ---- */

static void
make_header(struct maker *maker, uint32_t l1_entries)
{
	const struct recipe *recipe = maker->recipe;
	struct template *template = maker->template;
	static uint8_t additional[8];
	struct header header = {
		.version = recipe->version,
		.cluster_bits = recipe->cluster_bits,
		.size_bytes = (uint64_t)recipe->guest_clusters <<
		    recipe->cluster_bits,
		.l1_entries = l1_entries,
		.l1_offset = template->host[TEMPLATE_L1],
		.refcount_table_offset =
		    template->host[TEMPLATE_REFCOUNT_TABLE],
		.refcount_table_clusters = 1,
		.snapshot_count = recipe->snapshot,
		.snapshots_offset = template->host[TEMPLATE_SNAPSHOTS],
		.incompatible = recipe->zstd ? HEADER_COMPRESSION : 0,
		.refcount_order = recipe->refcount_order,
		.compression = recipe->zstd ? COMPRESSION_ZSTD :
		    COMPRESSION_DEFLATE,
		.additional = additional,
		.additional_bytes = recipe->version == 3 ?
		    sizeof(additional) : 0,
	};
	uint8_t built[512];

	assert(!header_build(&header, built, sizeof(built)));
	file_sim_poke(template->file, built, sizeof(built), 0);
}

static void
make_refcounts(struct maker *maker)
{
	struct template *template = maker->template;
	unsigned order = maker->recipe->refcount_order;
	uint64_t per_block = (uint64_t)template->cluster_bytes * 8 >> order;
	uint8_t *block = malloc(template->cluster_bytes);

	assert(block && template->clusters <= BLOCKS * per_block);
	for (unsigned i = 0; i < BLOCKS; i++) {
		uint64_t host = template->host[TEMPLATE_REFCOUNT_BLOCK] +
		    i * template->cluster_bytes;

		memset(block, 0, template->cluster_bytes);
		for (uint64_t j = 0; j < per_block &&
		    i * per_block + j < template->clusters; j++)
			entry_refcount_set(block, order, j,
			    maker->counts[i * per_block + j]);
		file_sim_poke(template->file, block, template->cluster_bytes,
		    host);
		put_entry(maker, template->host[TEMPLATE_REFCOUNT_TABLE], i,
		    host);
	}
	free(block);
}

static void
make(struct maker *maker)
{
	const struct recipe *recipe = maker->recipe;
	struct template *template = maker->template;
	unsigned entries = 1u << (recipe->cluster_bits - 3);
	uint32_t l1_entries = (recipe->guest_clusters + entries - 1) / entries;
	uint64_t *host = template->host;

	assert(!file_sim_create(NULL, "template", 0, &template->file));
	template->cluster_bytes = 1u << recipe->cluster_bits;
	host[TEMPLATE_HEADER] = take(maker, 1);
	host[TEMPLATE_REFCOUNT_TABLE] = take(maker, 1);
	host[TEMPLATE_REFCOUNT_BLOCK] = take(maker, 1);
	for (unsigned i = 1; i < BLOCKS; i++)
		take(maker, 1);
	host[TEMPLATE_L1] = take(maker, 1);
	if (recipe->snapshot) {
		host[TEMPLATE_SNAPSHOTS] = take(maker, 1);
		host[TEMPLATE_SNAPSHOT_L1] = take(maker, 1);
	}
	for (uint64_t i = 0; i < template->clusters; i++)
		fill(maker, i * template->cluster_bytes, 0);
	for (unsigned i = 0; i < l1_entries; i++)
		make_l2(maker, i, recipe->snapshot && i == 0);
	if (recipe->snapshot)
		make_snapshot_table(maker, host[TEMPLATE_SNAPSHOT_L1],
		    l1_entries, (uint64_t)recipe->guest_clusters <<
		    recipe->cluster_bits);
	make_header(maker, l1_entries);
	make_refcounts(maker);
}

const struct template *
template_get(unsigned index)
{
	static struct template templates[TEMPLATE_COUNT];
	struct maker maker = {
		.recipe = &recipes[index], .template = &templates[index],
	};

	assert(index < TEMPLATE_COUNT);
	if (!templates[index].file)
		make(&maker);
	return &templates[index];
}
