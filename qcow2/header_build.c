/* SPDX-License-Identifier: MIT */
/*
 * Writing the header: whole, or one field of it.
 *
 * The whole is fixed fields, additional fields, extensions, end mark, and the
 * backing file's name.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/header.h"

#define EXTENSION_HEAD_BYTES	8u

uint32_t
header_fields_bytes(const struct header *header)
{
	if (header->version == 2)
		return HEADER_V2_BYTES;
	return HEADER_V3_BYTES + header->additional_bytes;
}

uint64_t
header_extensions_end(const struct header *header)
{
	uint64_t bytes = header_fields_bytes(header) + EXTENSION_HEAD_BYTES;
	unsigned i;

	for (i = 0; i < header->extension_count; i++)
		bytes += EXTENSION_HEAD_BYTES +
		    (((uint64_t)header->extensions[i].bytes + 7) & ~7ull);
	return bytes;
}

static void
put_v3_fields(const struct header *header, uint8_t *target)
{
	bytes_put64(target + 72, header->incompatible);
	bytes_put64(target + 80, header->compatible);
	bytes_put64(target + 88, header->autoclear);
	bytes_put32(target + 96, header->refcount_order);
	bytes_put32(target + 100, header_fields_bytes(header));
	if (header->additional_bytes == 0) {
		assert(header->compression == COMPRESSION_DEFLATE);
		return;
	}
	memcpy(target + HEADER_V3_BYTES, header->additional,
	    header->additional_bytes);
	target[HEADER_V3_BYTES] = (uint8_t)header->compression;
}

static void
put_fixed_fields(const struct header *header, uint8_t *target)
{
	bytes_put32(target, HEADER_MAGIC);
	bytes_put32(target + 4, header->version);
	bytes_put32(target + 20, header->cluster_bits);
	bytes_put64(target + 24, header->size_bytes);
	bytes_put32(target + 32, header->crypt_method);
	bytes_put32(target + 36, header->l1_entries);
	bytes_put64(target + 40, header->l1_offset);
	bytes_put64(target + 48, header->refcount_table_offset);
	bytes_put32(target + 56, header->refcount_table_clusters);
	bytes_put32(target + 60, header->snapshot_count);
	bytes_put64(target + 64, header->snapshots_offset);
	if (header->version == 3)
		put_v3_fields(header, target);
}

int
header_build(const struct header *header, void *target, size_t bytes)
{
	uint64_t name_offset = header_extensions_end(header);
	size_t name_bytes = header->backing ? strlen(header->backing_name) : 0;
	const struct header_extension *extension;
	uint8_t *at = target;
	unsigned i;

	assert(header->version == 2 || header->version == 3);
	if (name_offset + name_bytes > bytes ||
	    name_offset + name_bytes > header_cluster_bytes(header))
		return -ENOSPC;
	memset(target, 0, bytes);
	put_fixed_fields(header, target);
	at += header_fields_bytes(header);
	for (i = 0; i < header->extension_count; i++) {
		extension = &header->extensions[i];
		bytes_put32(at, extension->type);
		bytes_put32(at + 4, extension->bytes);
		at += EXTENSION_HEAD_BYTES;
		if (extension->bytes)
			memcpy(at, extension->data, extension->bytes);
		at += ((size_t)extension->bytes + 7) & ~(size_t)7;
	}
	if (!header->backing)
		return 0;
	bytes_put64((uint8_t *)target + 8, name_offset);
	bytes_put32((uint8_t *)target + 16, (uint32_t)name_bytes);
	memcpy((uint8_t *)target + name_offset, header->backing_name,
	    name_bytes);
	return 0;
}

struct header_patch
header_patch_incompatible(uint64_t incompatible)
{
	struct header_patch patch = { .offset = 72, .bytes = 8 };

	bytes_put64(patch.data, incompatible);
	return patch;
}

struct header_patch
header_patch_autoclear(uint64_t autoclear)
{
	struct header_patch patch = { .offset = 88, .bytes = 8 };

	bytes_put64(patch.data, autoclear);
	return patch;
}

struct header_patch
header_patch_disk(const struct header *header, uint64_t size_bytes,
    uint32_t l1_entries, uint64_t l1_offset)
{
	struct header_patch patch = { .offset = 24, .bytes = 24 };

	bytes_put64(patch.data, size_bytes);
	bytes_put32(patch.data + 8, header->crypt_method);
	bytes_put32(patch.data + 12, l1_entries);
	bytes_put64(patch.data + 16, l1_offset);
	return patch;
}

struct header_patch
header_patch_refcount_table(uint64_t offset, uint32_t clusters)
{
	struct header_patch patch = { .offset = 48, .bytes = 12 };

	bytes_put64(patch.data, offset);
	bytes_put32(patch.data + 8, clusters);
	return patch;
}

struct header_patch
header_patch_snapshots(uint32_t count, uint64_t offset)
{
	struct header_patch patch = { .offset = 60, .bytes = 12 };

	bytes_put32(patch.data, count);
	bytes_put64(patch.data + 4, offset);
	return patch;
}
