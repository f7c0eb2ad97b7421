/* SPDX-License-Identifier: MIT */
/*
 * Parsing the header cluster.  Nothing in it is believed before it is checked,
 * in this order: fixed fields, extensions (which hold the names of features),
 * what is not supported, and last the tables, since an unknown incompatible
 * feature may mean that those look different.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "runtime/log.h"

#define EXTENSION_HEAD_BYTES	8u
#define FEATURE_NAME_BYTES	46u
#define FEATURE_RECORD_BYTES	(2 + FEATURE_NAME_BYTES)
#define BITMAPS_EXTENSION_BYTES	24u
#define BITMAP_RECORD_BYTES_MIN	24u
#define SNAPSHOT_BYTES_MIN	40u

#define KNOWN_INCOMPATIBLE	(HEADER_DIRTY | HEADER_CORRUPT | \
	HEADER_DATA_FILE | HEADER_COMPRESSION | HEADER_EXTENDED_L2)
/* Unknown features that one message names. */
#define FEATURES_NAMED_MAX	8u

struct parser {
	const char *name;
	const uint8_t *data;
	uint32_t cluster_bytes;
	uint32_t header_bytes;
	uint64_t file_bytes;
	struct header *header;
	struct error *error;
};

#define refuse(p, negative_errno, format, ...) \
	error_set((p)->error, negative_errno, "%s: " format, (p)->name, \
	    ##__VA_ARGS__)

int
header_parse_start(const char *name, const void *data,
    uint32_t *cluster_bytesp, struct error *error)
{
	const uint8_t *bytes = data;
	uint32_t magic = bytes_get32(bytes), version = bytes_get32(bytes + 4);
	uint32_t cluster_bits = bytes_get32(bytes + 20);

	if (magic != HEADER_MAGIC) {
		error_set(error, -EINVAL, "%s is not a qcow2 image: it begins "
		    "with 0x%08" PRIx32 ", not 0x%08x", name, magic,
		    HEADER_MAGIC);
		error_hint(error, "if it is a raw image, say so: -f raw");
		return -EINVAL;
	}
	if (version != 2 && version != 3)
		return error_set(error, -ENOTSUP, "%s: version %" PRIu32
		    " is not supported, only 2 and 3", name, version);
	if (cluster_bits < HEADER_CLUSTER_BITS_MIN ||
	    cluster_bits > HEADER_CLUSTER_BITS_MAX)
		return error_set(error, -EINVAL, "%s: cluster_bits is %" PRIu32
		    ", not %u to %u", name, cluster_bits,
		    HEADER_CLUSTER_BITS_MIN, HEADER_CLUSTER_BITS_MAX);
	*cluster_bytesp = 1u << cluster_bits;
	return 0;
}

static int
parse_v3_fields(struct parser *p)
{
	struct header *header = p->header;
	uint32_t order = bytes_get32(p->data + 96);
	uint32_t length = bytes_get32(p->data + 100);

	header->incompatible = bytes_get64(p->data + 72);
	header->compatible = bytes_get64(p->data + 80);
	header->autoclear = bytes_get64(p->data + 88);
	if (order > HEADER_REFCOUNT_ORDER_MAX)
		return refuse(p, -EINVAL, "refcount_order is %" PRIu32
		    ", not 0 to %u", order, HEADER_REFCOUNT_ORDER_MAX);
	header->refcount_order = order;
	if (length < HEADER_V3_BYTES || length > p->cluster_bytes ||
	    length % 8 != 0)
		return refuse(p, -EINVAL, "header_length is %" PRIu32 ", not a "
		    "multiple of 8 from %u to the cluster size of %" PRIu32,
		    length, HEADER_V3_BYTES, p->cluster_bytes);
	p->header_bytes = length;
	header->additional_bytes = length - HEADER_V3_BYTES;
	if (header->additional_bytes == 0)
		return 0;
	header->additional = malloc(header->additional_bytes);
	if (!header->additional)
		return refuse(p, -ENOMEM, "no memory for the header");
	memcpy(header->additional, p->data + HEADER_V3_BYTES,
	    header->additional_bytes);
	return 0;
}

static int
parse_fixed_fields(struct parser *p)
{
	struct header *header = p->header;

	header->version = bytes_get32(p->data + 4);
	header->cluster_bits = bytes_get32(p->data + 20);
	header->size_bytes = bytes_get64(p->data + 24);
	header->l1_entries = bytes_get32(p->data + 36);
	header->l1_offset = bytes_get64(p->data + 40);
	header->refcount_table_offset = bytes_get64(p->data + 48);
	header->refcount_table_clusters = bytes_get32(p->data + 56);
	header->snapshot_count = bytes_get32(p->data + 60);
	header->snapshots_offset = bytes_get64(p->data + 64);
	if (header->version == 3)
		return parse_v3_fields(p);
	header->refcount_order = 4;
	p->header_bytes = HEADER_V2_BYTES;
	return 0;
}

static int
parse_backing_name(struct parser *p, uint32_t *extensions_endp)
{
	struct header *header = p->header;
	uint64_t offset = bytes_get64(p->data + 8);
	uint32_t bytes = bytes_get32(p->data + 16);

	*extensions_endp = p->cluster_bytes;
	if (offset == 0)
		return 0;
	if (offset < p->header_bytes || offset > p->cluster_bytes)
		return refuse(p, -EINVAL, "backing_file_offset is 0x%" PRIx64
		    ", outside of what follows the header in the first "
		    "cluster", offset);
	if (bytes > HEADER_BACKING_NAME_BYTES_MAX ||
	    bytes > p->cluster_bytes - offset)
		return refuse(p, -EINVAL, "backing_file_size is %" PRIu32
		    ", more than %u or past the end of the first cluster",
		    bytes, HEADER_BACKING_NAME_BYTES_MAX);
	if (memchr(p->data + offset, '\0', bytes))
		return refuse(p, -EINVAL,
		    "the backing file's name has a zero byte in it");
	*extensions_endp = (uint32_t)offset;
	header->backing = bytes > 0;
	memcpy(header->backing_name, p->data + offset, bytes);
	return 0;
}

/*
 * Takes the extension at *offsetp and moves on.  Returns 1, or 0 at the end of
 * the area, which needs no end mark.
 */
static int
next_extension(struct parser *p, uint32_t *offsetp, uint32_t end,
    struct header_extension *extension)
{
	const uint8_t *at = p->data + *offsetp;
	uint32_t left = end - *offsetp, padded;

	if (left < EXTENSION_HEAD_BYTES ||
	    bytes_get32(at) == HEADER_EXTENSION_END)
		return 0;
	left -= EXTENSION_HEAD_BYTES;
	extension->type = bytes_get32(at);
	extension->bytes = bytes_get32(at + 4);
	extension->data = (uint8_t *)at + EXTENSION_HEAD_BYTES;
	if (extension->bytes > left)
		return refuse(p, -EINVAL, "header extension 0x%08" PRIx32
		    " at 0x%" PRIx32 " is %" PRIu32 " bytes long, where %"
		    PRIu32 " are left", extension->type, *offsetp,
		    extension->bytes, left);
	padded = (extension->bytes + 7) & ~7u;
	*offsetp += EXTENSION_HEAD_BYTES + (padded < left ? padded : left);
	return 1;
}

static int
parse_backing_format(struct parser *p, const struct header_extension *extension)
{
	if (extension->bytes > HEADER_BACKING_FORMAT_BYTES_MAX ||
	    memchr(extension->data, '\0', extension->bytes))
		return refuse(p, -EINVAL, "the backing format's name is %"
		    PRIu32 " bytes long, more than %u, or has a zero byte in "
		    "it", extension->bytes, HEADER_BACKING_FORMAT_BYTES_MAX);
	memcpy(p->header->backing_format, extension->data, extension->bytes);
	return 0;
}

/* A bad bitmap must not keep anybody from the disk. */
static void
parse_bitmaps(struct parser *p, const struct header_extension *extension)
{
	struct header_bitmaps *bitmaps = &p->header->bitmaps;
	const uint8_t *data = extension->data;
	uint64_t bytes, offset;
	uint32_t count;

	bitmaps->present = true;
	bitmaps->fault = "the extension has the wrong length";
	if (extension->bytes != BITMAPS_EXTENSION_BYTES)
		return;
	count = bytes_get32(data);
	bytes = bytes_get64(data + 8);
	offset = bytes_get64(data + 16);
	bitmaps->fault = "the number of bitmaps is out of range";
	if (count == 0 || count > HEADER_BITMAPS_MAX)
		return;
	bitmaps->fault = "reserved bytes are not zero";
	if (bytes_get32(data + 4) != 0)
		return;
	bitmaps->fault = "the directory's size is out of range";
	if (bytes < (uint64_t)count * BITMAP_RECORD_BYTES_MIN ||
	    bytes > HEADER_BITMAP_DIRECTORY_BYTES_MAX)
		return;
	bitmaps->fault = "the directory is not aligned or not in the file";
	if (offset % p->cluster_bytes != 0 ||
	    !header_inside_file(p->header, offset, bytes, p->file_bytes))
		return;
	bitmaps->fault = NULL;
	bitmaps->count = count;
	bitmaps->directory_bytes = bytes;
	bitmaps->directory_offset = offset;
}

static int
parse_extension(struct parser *p, const struct header_extension *extension)
{
	bool again = header_find_extension(p->header, extension->type);
	int err;

	switch (extension->type) {
	case HEADER_EXTENSION_BACKING_FORMAT:
	case HEADER_EXTENSION_BITMAPS:
	case HEADER_EXTENSION_CRYPTO:
	case HEADER_EXTENSION_DATA_FILE:
		if (again)
			return refuse(p, -EINVAL, "header extension 0x%08"
			    PRIx32 " is there twice", extension->type);
	}
	if (extension->type == HEADER_EXTENSION_BACKING_FORMAT) {
		err = parse_backing_format(p, extension);
		if (err)
			return err;
	}
	if (extension->type == HEADER_EXTENSION_BITMAPS)
		parse_bitmaps(p, extension);
	err = header_add_extension(p->header, extension->type,
	    extension->data, extension->bytes);
	if (err == -ENOSPC)
		return refuse(p, -EINVAL, "more than %u header extensions",
		    HEADER_EXTENSIONS_MAX);
	if (err)
		return refuse(p, err, "no memory for header extensions");
	return 0;
}

static int
parse_extensions(struct parser *p)
{
	struct header_extension extension;
	uint32_t offset = p->header_bytes, end;
	int err;

	err = parse_backing_name(p, &end);
	if (err)
		return err;
	while ((err = next_extension(p, &offset, end, &extension)) > 0) {
		err = parse_extension(p, &extension);
		if (err)
			return err;
	}
	return err;
}

/* The name the image has for an incompatible feature, quoted; or "". */
static const char *
feature_name(const struct header *header, unsigned bit,
    char target[4 * FEATURE_NAME_BYTES + 1])
{
	const struct header_extension *names = header_find_extension(header,
	    HEADER_EXTENSION_FEATURE_NAMES);
	const uint8_t *record;
	uint32_t i;

	target[0] = '\0';
	for (i = 0; names && i < names->bytes / FEATURE_RECORD_BYTES; i++) {
		record = names->data + i * FEATURE_RECORD_BYTES;
		if (record[0] != 0 || record[1] != bit)
			continue;
		log_quote(target, 4 * FEATURE_NAME_BYTES + 1, record + 2,
		    (int)strnlen((const char *)record + 2,
		    FEATURE_NAME_BYTES));
		break;
	}
	return target;
}

static int
refuse_unknown_features(struct parser *p, uint64_t unknown)
{
	char name[4 * FEATURE_NAME_BYTES + 1], list[512] = "";
	unsigned bit, named = 0;
	size_t used = 0;

	for (bit = 0; bit < 64 && named < FEATURES_NAMED_MAX; bit++) {
		if (!(unknown & 1ull << bit) || used >= sizeof(list))
			continue;
		feature_name(p->header, bit, name);
		used += (size_t)snprintf(list + used, sizeof(list) - used,
		    "%sbit %u%s%s%s", named++ ? ", " : "", bit,
		    *name ? " (" : "", name, *name ? ")" : "");
	}
	return refuse(p, -ENOTSUP, "the image needs features that are not "
	    "supported: incompatible_features 0x%" PRIx64 ", unknown: %s",
	    p->header->incompatible, list);
}

static int
check_supported(struct parser *p)
{
	uint64_t unknown = p->header->incompatible & ~KNOWN_INCOMPATIBLE;
	uint32_t crypt_method = bytes_get32(p->data + 32);

	if (unknown)
		return refuse_unknown_features(p, unknown);
	if (crypt_method == HEADER_CRYPT_LUKS)
		return refuse(p, -ENOTSUP, "the image is encrypted with LUKS "
		    "(crypt_method 2), which is not supported");
	if (crypt_method > HEADER_CRYPT_LUKS)
		return refuse(p, -ENOTSUP, "crypt_method is %" PRIu32
		    ", which is not supported", crypt_method);
	p->header->crypt_method = crypt_method;
	if (p->header->incompatible & HEADER_DATA_FILE)
		return refuse(p, -ENOTSUP, "the data is in an external data "
		    "file (incompatible feature 2), which is not supported");
	if (p->header->incompatible & HEADER_EXTENDED_L2)
		return refuse(p, -ENOTSUP, "the image has extended L2 entries "
		    "(incompatible feature 4), which are not supported");
	return 0;
}

static int
parse_compression(struct parser *p)
{
	struct header *header = p->header;
	unsigned type = header->additional_bytes ? header->additional[0] : 0;
	bool other = header->incompatible & HEADER_COMPRESSION;

	if (type != COMPRESSION_DEFLATE && type != COMPRESSION_ZSTD)
		return refuse(p, -ENOTSUP, "compression_type is %u, which is "
		    "not supported, only 0 (deflate) and 1 (zstd)", type);
	if (other != (type != COMPRESSION_DEFLATE))
		return refuse(p, -EINVAL, "compression_type is %u, but "
		    "incompatible feature 3, which goes with other types than "
		    "0, is %s", type, other ? "set" : "not set");
	header->compression = type;
	return 0;
}

static int
check_table(struct parser *p, const char *what, uint64_t offset,
    uint64_t bytes, uint64_t bytes_max)
{
	if (bytes > bytes_max)
		return refuse(p, -EINVAL, "%s is %" PRIu64 " bytes long, more "
		    "than %" PRIu64, what, bytes, bytes_max);
	if (offset % p->cluster_bytes != 0)
		return refuse(p, -EINVAL, "%s at 0x%" PRIx64 " is not aligned "
		    "to a cluster", what, offset);
	if (offset < p->cluster_bytes)
		return refuse(p, -EINVAL, "%s at 0x%" PRIx64 " lies in the "
		    "header", what, offset);
	if (!header_inside_file(p->header, offset, bytes, p->file_bytes))
		return refuse(p, -EINVAL, "%s at 0x%" PRIx64 " (%" PRIu64
		    " bytes) lies past the end of the file (%" PRIu64
		    " bytes)", what, offset, bytes, p->file_bytes);
	return 0;
}

static int
check_l1(struct parser *p)
{
	const struct header *header = p->header;
	unsigned span_bits = 2 * header->cluster_bits - 3;
	uint64_t needed = header->size_bytes >> span_bits;

	needed += (header->size_bytes & ((1ull << span_bits) - 1)) != 0;
	if (header->size_bytes > INT64_MAX)
		return refuse(p, -EINVAL, "size is %" PRIu64 " bytes, more "
		    "than 2^63 - 1", header->size_bytes);
	if (header->l1_entries < needed)
		return refuse(p, -EINVAL, "l1_size is %" PRIu32 ", but a disk "
		    "of %" PRIu64 " bytes needs %" PRIu64 " entries",
		    header->l1_entries, header->size_bytes, needed);
	if (header->l1_entries == 0)
		return 0;
	return check_table(p, "the L1 table", header->l1_offset,
	    (uint64_t)header->l1_entries * ENTRY_BYTES, HEADER_L1_BYTES_MAX);
}

static int
check_tables(struct parser *p)
{
	const struct header *header = p->header;
	int err;

	err = check_l1(p);
	if (err)
		return err;
	if (header->refcount_table_clusters == 0)
		return refuse(p, -EINVAL, "refcount_table_clusters is 0");
	err = check_table(p, "the refcount table",
	    header->refcount_table_offset,
	    (uint64_t)header->refcount_table_clusters << header->cluster_bits,
	    HEADER_REFCOUNT_TABLE_BYTES_MAX);
	if (err)
		return err;
	if (header->snapshot_count > HEADER_SNAPSHOTS_MAX)
		return refuse(p, -EINVAL, "nb_snapshots is %" PRIu32 ", more "
		    "than %u", header->snapshot_count, HEADER_SNAPSHOTS_MAX);
	if (header->snapshot_count == 0)
		return 0;
	return check_table(p, "the snapshot table", header->snapshots_offset,
	    (uint64_t)header->snapshot_count * SNAPSHOT_BYTES_MIN, UINT64_MAX);
}

int
header_parse(const char *name, const void *data, uint64_t file_bytes,
    struct header *header, struct error *error)
{
	struct parser p = {
		.name = name,
		.data = data,
		.file_bytes = file_bytes,
		.header = header,
		.error = error,
	};
	int err;

	memset(header, 0, sizeof(*header));
	err = header_parse_start(name, data, &p.cluster_bytes, error);
	if (err)
		return err;
	if (file_bytes < p.cluster_bytes)
		return refuse(&p, -EINVAL, "the file is cut short: it has %"
		    PRIu64 " bytes, its first cluster alone %" PRIu32,
		    file_bytes, p.cluster_bytes);
	err = parse_fixed_fields(&p);
	if (!err)
		err = parse_extensions(&p);
	if (!err)
		err = check_supported(&p);
	if (!err)
		err = parse_compression(&p);
	if (!err)
		err = check_tables(&p);
	if (err)
		header_free(header);
	return err;
}
