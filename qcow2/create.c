/* SPDX-License-Identifier: MIT */
#include "qcow2/create.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/chain.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "runtime/file.h"

/* What is written at once; at least a cluster. */
#define WRITE_BYTES		(4u * 1024 * 1024)
/* Of the fields behind the fixed ones, as other writers have them. */
#define ADDITIONAL_BYTES	8u
#define FEATURE_BYTES		48u

/* Where everything goes, in clusters from the start of the file. */
struct layout {
	unsigned cluster_bits;
	unsigned refcount_order;
	uint64_t disk_bytes;
	uint64_t l1_entries;
	uint64_t l2_tables;	/* 0 unless preallocated, like data */
	uint64_t data;		/* the last clusters of the disk */
	uint64_t data_first;	/* the first of them, on the disk */

	uint64_t refcount_table, refcount_table_clusters;
	uint64_t l1, l1_clusters;
	uint64_t blocks, block_count;
	uint64_t l2;
	uint64_t data_start;
	uint64_t total;
};

struct creation {
	struct file *file;
	const char *name;
	const struct create_options *options;
	struct layout layout;
	uint8_t *buffer;	/* WRITE_BYTES */
	struct error *error;
};

static uint64_t
divide_up(uint64_t value, uint64_t divisor)
{
	return value / divisor + (value % divisor != 0);
}

static bool
is_power_of_two(uint64_t value)
{
	return value > 0 && (value & (value - 1)) == 0;
}

/* ---- what cannot be ---- */

static int
check_features(const struct create_options *options, struct error *error)
{
	uint64_t cluster_bytes = options->cluster_bytes;
	uint64_t bits = options->refcount_bits;

	if (!is_power_of_two(cluster_bytes) ||
	    cluster_bytes < 1u << HEADER_CLUSTER_BITS_MIN ||
	    cluster_bytes > 1u << HEADER_CLUSTER_BITS_MAX)
		return error_set(error, -EINVAL, "the cluster size must be a "
		    "power of two from 512 to 2M, not %" PRIu64,
		    cluster_bytes);
	if (!is_power_of_two(bits) || bits > 64)
		return error_set(error, -EINVAL, "refcounts must have 1, 2, "
		    "4, 8, 16, 32 or 64 bits, not %" PRIu64, bits);
	if (options->version >= 3)
		return 0;
	if (bits != CREATE_REFCOUNT_BITS_DEFAULT)
		return error_set(error, -EINVAL, "refcounts of %" PRIu64
		    " bits need compat=1.1; compat=0.10 has 16", bits);
	if (options->lazy_refcounts)
		return error_set(error, -EINVAL,
		    "lazy_refcounts needs compat=1.1");
	if (options->compression != COMPRESSION_DEFLATE)
		return error_set(error, -EINVAL,
		    "compression_type=zstd needs compat=1.1");
	if (options->encrypted && options->preallocation != CREATE_OFF)
		return error_set(error, -EINVAL, "preallocation of an "
		    "encrypted image needs compat=1.1, where the clusters can "
		    "be marked as zeros");
	return 0;
}

static int
refuse_size(const struct layout *layout, const char *why,
    struct error *error)
{
	error_set(error, -EFBIG, "a disk of %" PRIu64 " bytes is too large "
	    "for clusters of %u bytes: %s", layout->disk_bytes,
	    1u << layout->cluster_bits, why);
	if (layout->cluster_bits < HEADER_CLUSTER_BITS_MAX)
		error_hint(error, "take larger ones: -o cluster_size=%u",
		    2u << layout->cluster_bits);
	return -EFBIG;
}

/*
 * The tables of refcounts tell of themselves, too, so each makes the other
 * longer, until they have room for all.
 */
static void
place_refcounts(struct layout *layout)
{
	unsigned bits = layout->cluster_bits;
	uint64_t block_clusters = 1ull << (bits + 3 -
	    layout->refcount_order);
	uint64_t others = 1 + layout->l1_clusters + layout->l2_tables +
	    layout->data;
	uint64_t needed = 1;

	do {
		layout->block_count = needed;
		layout->refcount_table_clusters =
		    divide_up(needed * ENTRY_BYTES, 1ull << bits);
		layout->total = others + layout->block_count +
		    layout->refcount_table_clusters;
		needed = divide_up(layout->total, block_clusters);
	} while (needed > layout->block_count);
	layout->refcount_table = 1;
	layout->l1 = 1 + layout->refcount_table_clusters;
	layout->blocks = layout->l1 + layout->l1_clusters;
	layout->l2 = layout->blocks + layout->block_count;
	layout->data_start = layout->l2 + layout->l2_tables;
	assert(layout->data_start + layout->data == layout->total);
}

static int
make_layout(const struct create_options *options, struct layout *layout,
    struct error *error)
{
	unsigned bits = (unsigned)__builtin_ctzll(options->cluster_bytes);
	uint64_t clusters, l2_entries = 1ull << (bits - 3);

	*layout = (struct layout){
		.cluster_bits = bits,
		.refcount_order =
		    (unsigned)__builtin_ctzll(options->refcount_bits),
		.disk_bytes = options->size_bytes,
	};
	if (options->size_bytes > INT64_MAX - 511)
		return refuse_size(layout, "it may have 2^63 - 512 at most",
		    error);
	layout->disk_bytes = (options->size_bytes + 511) & ~511ull;
	clusters = divide_up(layout->disk_bytes, 1ull << bits);
	layout->l1_entries = divide_up(clusters, l2_entries);
	if (layout->l1_entries > HEADER_L1_BYTES_MAX / ENTRY_BYTES)
		return refuse_size(layout, "its L1 table would have more than "
		    "32 MiB", error);
	layout->l1_clusters = divide_up(layout->l1_entries * ENTRY_BYTES,
	    1ull << bits);
	if (options->preallocation != CREATE_OFF) {
		layout->data_first = options->backing_name ?
		    divide_up(options->backing_bytes, 1ull << bits) : 0;
		if (layout->data_first > clusters)
			layout->data_first = clusters;
		layout->data = clusters - layout->data_first;
		if (layout->data > 0)
			layout->l2_tables = layout->l1_entries -
			    layout->data_first / l2_entries;
	}
	place_refcounts(layout);
	return 0;
}

/* Whether all that is preallocated can be. */
static int
check_layout(const struct layout *layout, struct error *error)
{
	unsigned bits = layout->cluster_bits;

	if (layout->refcount_table_clusters << bits >
	    HEADER_REFCOUNT_TABLE_BYTES_MAX)
		return refuse_size(layout, "preallocated, its refcount table "
		    "would have more than 8 MiB", error);
	if (layout->total >= ENTRY_HOST_END >> bits)
		return refuse_size(layout, "not all of it can be "
		    "preallocated", error);
	return 0;
}

static int
check_backing(const struct create_options *options,
    const struct layout *layout, struct error *error)
{
	if (!options->backing_name)
		return 0;
	if (options->preallocation != CREATE_OFF && layout->data == 0) {
		error_set(error, -EINVAL, "preallocation would hide all that "
		    "the backing file holds; what the disk has past the end "
		    "of that can be preallocated, but it has nothing there");
		error_hint(error, "leave preallocation out, or make the disk "
		    "longer than %" PRIu64 " bytes",
		    layout->data_first << layout->cluster_bits);
		return -EINVAL;
	}
	return chain_check_name(options->backing_name, error);
}

static int
check_options(const struct create_options *options, struct layout *layout,
    struct error *error)
{
	int err = check_features(options, error);

	if (!err)
		err = make_layout(options, layout, error);
	if (!err)
		err = check_backing(options, layout, error);
	return err ? err : check_layout(layout, error);
}

/* ---- the header ---- */

/* So that a program that does not know a feature can say which it is. */
static int
add_feature_names(struct header *header)
{
	static const struct {
		uint8_t kind;	/* incompatible, compatible, autoclear */
		uint8_t bit;
		const char *name;
	} features[] = {
		{0, 0, "dirty bit"},
		{0, 1, "corrupt bit"},
		{0, 2, "external data file"},
		{0, 3, "compression type"},
		{0, 4, "extended L2 entries"},
		{1, 0, "lazy refcounts"},
		{2, 0, "bitmaps"},
		{2, 1, "raw external data"},
	};
	const size_t count = sizeof(features) / sizeof(features[0]);
	uint8_t table[sizeof(features) / sizeof(features[0]) * FEATURE_BYTES];

	memset(table, 0, sizeof(table));
	for (size_t i = 0; i < count; i++) {
		uint8_t *record = table + i * FEATURE_BYTES;

		record[0] = features[i].kind;
		record[1] = features[i].bit;
		memcpy(record + 2, features[i].name,
		    strlen(features[i].name));
	}
	return header_add_extension(header, HEADER_EXTENSION_FEATURE_NAMES,
	    table, sizeof(table));
}

static int
fill_header(const struct creation *creation, struct header *header)
{
	const struct create_options *options = creation->options;
	const struct layout *layout = &creation->layout;
	unsigned bits = layout->cluster_bits;
	const char *format = options->backing_format;

	*header = (struct header){
		.version = options->version,
		.cluster_bits = bits,
		.size_bytes = layout->disk_bytes,
		.crypt_method = options->encrypted ? HEADER_CRYPT_AES :
		    HEADER_CRYPT_NONE,
		.l1_entries = (uint32_t)layout->l1_entries,
		.l1_offset = layout->l1_entries ? layout->l1 << bits : 0,
		.refcount_table_offset = layout->refcount_table << bits,
		.refcount_table_clusters =
		    (uint32_t)layout->refcount_table_clusters,
		.refcount_order = layout->refcount_order,
		.compression = options->compression,
		.backing = options->backing_name,
	};
	if (options->lazy_refcounts)
		header->compatible |= HEADER_LAZY_REFCOUNTS;
	if (options->compression != COMPRESSION_DEFLATE)
		header->incompatible |= HEADER_COMPRESSION;
	if (options->version >= 3) {
		header->additional = calloc(1, ADDITIONAL_BYTES);
		header->additional_bytes = ADDITIONAL_BYTES;
		if (!header->additional)
			return -ENOMEM;
	}
	if (!options->backing_name)
		return 0;
	memcpy(header->backing_name, options->backing_name,
	    strlen(options->backing_name));
	return header_add_extension(header, HEADER_EXTENSION_BACKING_FORMAT,
	    format, (uint32_t)strlen(format));
}

/* The names of features are a convenience, left out where they do not fit. */
static int
build_header(const struct creation *creation, struct header *header)
{
	size_t cluster_bytes = (size_t)1 << creation->layout.cluster_bits;
	struct header_extension *extension;
	int err = fill_header(creation, header);

	if (!err && header->version >= 3)
		err = add_feature_names(header);
	if (!err)
		err = header_build(header, creation->buffer, cluster_bytes);
	if (err != -ENOSPC || header->version < 3)
		return err;
	extension = &header->extensions[--header->extension_count];
	free(extension->data);
	return header_build(header, creation->buffer, cluster_bytes);
}

/* ---- writing ---- */

co_fn static int
write_buffer(struct creation *creation, uint64_t bytes, uint64_t offset)
{
	int err = file_pwrite(creation->file, creation->buffer, bytes, offset,
	    0);

	if (!err)
		return 0;
	return error_set(creation->error, err, "cannot write %s: %s",
	    creation->name, strerror(-err));
}

co_fn static int
write_header(struct creation *creation)
{
	uint64_t cluster_bytes = 1ull << creation->layout.cluster_bits;
	struct header header;
	int err = build_header(creation, &header);

	header_free(&header);
	if (err == -ENOSPC)
		return error_set(creation->error, -EINVAL, "the backing "
		    "file's name does not fit into a cluster of %" PRIu64
		    " bytes", cluster_bytes);
	if (err)
		return error_set(creation->error, err, "out of memory");
	return write_buffer(creation, cluster_bytes, 0);
}

/* A table of 8-byte entries. */
struct table {
	uint64_t start;		/* where it stands, in clusters */
	uint64_t skipped;	/* entries that point nowhere, and then */
	uint64_t count;		/* such as point at clusters */
	uint64_t target;	/* from here on, one after the other */
	uint64_t flags;
};

/* And zeros up to the end of its last cluster. */
co_fn static int
write_table(struct creation *creation, const struct table *table)
{
	unsigned bits = creation->layout.cluster_bits;
	uint64_t mask = (1ull << bits) - 1;
	uint64_t offset = table->start << bits;
	uint64_t end = table->skipped + table->count;

	for (uint64_t i = 0; i < end;) {
		uint64_t part = end - i, bytes, skipped = 0;
		int err;

		if (part > WRITE_BYTES / ENTRY_BYTES)
			part = WRITE_BYTES / ENTRY_BYTES;
		if (i < table->skipped)
			skipped = table->skipped - i;
		bytes = (part * ENTRY_BYTES + mask) & ~mask;
		memset(creation->buffer, 0, bytes);
		for (uint64_t j = skipped; j < part; j++)
			entry_store(creation->buffer, j, (table->target + i +
			    j - table->skipped) << bits | table->flags);
		err = write_buffer(creation, bytes, offset);
		if (err)
			return err;
		i += part;
		offset += bytes;
	}
	return 0;
}

/* Refcounts of 1 for all clusters, and none beyond. */
co_fn static int
write_blocks(struct creation *creation)
{
	const struct layout *layout = &creation->layout;
	unsigned bits = layout->cluster_bits;
	uint64_t block_clusters = 1ull << (bits + 3 -
	    layout->refcount_order);
	uint64_t batch = WRITE_BYTES >> bits;
	uint64_t done = 0;

	while (done < layout->block_count) {
		uint64_t count = layout->block_count - done;
		uint64_t left = layout->total - done * block_clusters;
		int err;

		if (count > batch)
			count = batch;
		if (left > count * block_clusters)
			left = count * block_clusters;
		memset(creation->buffer, 0, count << bits);
		for (uint64_t i = 0; i < left; i++)
			entry_refcount_set(creation->buffer,
			    layout->refcount_order, i, 1);
		err = write_buffer(creation, count << bits,
		    (layout->blocks + done) << bits);
		if (err)
			return err;
		done += count;
	}
	return 0;
}

co_fn static int
write_zeros(struct creation *creation, uint64_t offset, uint64_t end)
{
	memset(creation->buffer, 0, WRITE_BYTES);
	while (offset < end) {
		uint64_t bytes = end - offset;
		int err;

		if (bytes > WRITE_BYTES)
			bytes = WRITE_BYTES;
		err = write_buffer(creation, bytes, offset);
		if (err)
			return err;
		offset += bytes;
	}
	return 0;
}

/* The clusters of the disk, which read as zeros since the file is new. */
co_fn static int
make_room(struct creation *creation)
{
	const struct layout *layout = &creation->layout;
	uint64_t start = layout->data_start << layout->cluster_bits;
	uint64_t end = layout->total << layout->cluster_bits;
	int err = 0;

	switch (creation->options->preallocation) {
	case CREATE_FULL:
		return write_zeros(creation, start, end);
	case CREATE_FALLOC:
		if (end > start)
			err = file_fallocate(creation->file, FILE_ALLOCATE,
			    start, end - start);
		break;
	default:
		err = file_truncate(creation->file, end);
	}
	if (!err)
		return 0;
	error_set(creation->error, err, "cannot make %s %" PRIu64 " bytes "
	    "long: %s", creation->name, end, strerror(-err));
	if (err == -EOPNOTSUPP)
		error_hint(creation->error, "this file system cannot set room "
		    "aside; write zeros instead: -o preallocation=full");
	return err;
}

co_fn static int
write_all(struct creation *creation)
{
	const struct layout *layout = &creation->layout;
	/* What nobody encrypted does not read as zeros, unless it says so. */
	uint64_t data_flags = ENTRY_COPIED |
	    (creation->options->encrypted ? ENTRY_ZERO : 0);
	uint64_t l2_entries = 1ull << (layout->cluster_bits - 3);
	int err;

	err = write_header(creation);
	if (!err)
		err = write_table(creation, &(struct table){
			.start = layout->refcount_table,
			.count = layout->block_count,
			.target = layout->blocks,
		});
	if (!err && layout->l2_tables > 0)
		err = write_table(creation, &(struct table){
			.start = layout->l1,
			.skipped = layout->l1_entries - layout->l2_tables,
			.count = layout->l2_tables,
			.target = layout->l2, .flags = ENTRY_COPIED,
		});
	if (!err)
		err = write_blocks(creation);
	if (!err && layout->l2_tables > 0)
		err = write_table(creation, &(struct table){
			.start = layout->l2,
			.skipped = layout->data_first % l2_entries,
			.count = layout->data,
			.target = layout->data_start, .flags = data_flags,
		});
	return err ? err : make_room(creation);
}

int
create_check(const struct create_options *options, struct error *error)
{
	struct layout layout;

	return check_options(options, &layout, error);
}

int
create_measure(const struct create_options *options, uint64_t *bytesp,
    struct error *error)
{
	struct create_options full = *options;
	struct layout layout;
	int err = check_features(options, error);

	full.preallocation = CREATE_METADATA;
	if (!err)
		err = make_layout(&full, &layout, error);
	if (!err)
		*bytesp = layout.total << layout.cluster_bits;
	return err;
}

co_fn int
create_image(struct file *file, const char *name,
    const struct create_options *options, struct error *error)
{
	struct creation creation = {
		.file = file, .name = name, .options = options,
		.error = error,
	};
	int err = check_options(options, &creation.layout, error);

	if (err)
		return err;
	creation.buffer = malloc(WRITE_BYTES);
	if (!creation.buffer)
		return error_set(error, -ENOMEM, "out of memory");
	err = write_all(&creation);
	free(creation.buffer);
	return err;
}
