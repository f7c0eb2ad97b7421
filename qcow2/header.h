/* SPDX-License-Identifier: MIT */
/*
 * The header: everything the first cluster of a qcow2 file says.
 *
 * Parsing is pure: bytes in, struct or error out.  It validates all that can
 * be judged from the header and the file's length, before anybody allocates a
 * table by its numbers, and refuses by name what is not supported (encryption
 * with LUKS, external data files, extended L2 entries, unknown incompatible
 * features).
 * Whatever it does not know but may keep (compatible bits, fields and
 * extensions of the future) is kept and written back in its order.
 *
 * Messages name the file, the field and its value; name is what the file is
 * called there.  Nothing but header_load() suspends.
 * (Specification: "Header", "Header extensions".)
 */
#ifndef QCOW2_HEADER_H
#define QCOW2_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qcow2/inflate.h"
#include "runtime/co.h"
#include "runtime/error.h"

struct file;

#define HEADER_MAGIC			0x514649fbu	/* "QFI\xfb" */
#define HEADER_V2_BYTES			72u
#define HEADER_V3_BYTES			104u	/* at least */

#define HEADER_CLUSTER_BITS_MIN		9u
#define HEADER_CLUSTER_BITS_MAX		21u
#define HEADER_REFCOUNT_ORDER_MAX	6u
#define HEADER_L1_BYTES_MAX		(32u * 1024 * 1024)
#define HEADER_REFCOUNT_TABLE_BYTES_MAX	(8u * 1024 * 1024)
#define HEADER_SNAPSHOTS_MAX		65536u
#define HEADER_BITMAPS_MAX		65535u
#define HEADER_BITMAP_DIRECTORY_BYTES_MAX (HEADER_BITMAPS_MAX * 1024u)
#define HEADER_EXTENSIONS_MAX		1024u
#define HEADER_BACKING_NAME_BYTES_MAX	1023u
#define HEADER_BACKING_FORMAT_BYTES_MAX	15u

#define HEADER_CRYPT_NONE		0u
#define HEADER_CRYPT_AES		1u
#define HEADER_CRYPT_LUKS		2u

/* Incompatible features. */
#define HEADER_DIRTY			(1ull << 0)
#define HEADER_CORRUPT			(1ull << 1)
#define HEADER_DATA_FILE		(1ull << 2)
#define HEADER_COMPRESSION		(1ull << 3)
#define HEADER_EXTENDED_L2		(1ull << 4)
/* Compatible ones. */
#define HEADER_LAZY_REFCOUNTS		(1ull << 0)
/* Autoclear ones. */
#define HEADER_BITMAPS			(1ull << 0)
#define HEADER_DATA_FILE_RAW		(1ull << 1)

#define HEADER_EXTENSION_END		0u
#define HEADER_EXTENSION_BACKING_FORMAT	0xe2792acau
#define HEADER_EXTENSION_FEATURE_NAMES	0x6803f857u
#define HEADER_EXTENSION_BITMAPS	0x23852875u
#define HEADER_EXTENSION_CRYPTO		0x0537be77u
#define HEADER_EXTENSION_DATA_FILE	0x44415441u

struct header_extension {
	uint32_t type;
	uint32_t bytes;
	uint8_t *data;
};

/* The bitmaps extension; a faulty one only means that there are no bitmaps. */
struct header_bitmaps {
	bool present;
	const char *fault;		/* why the rest is not filled in */
	uint32_t count;
	uint64_t directory_offset;
	uint64_t directory_bytes;
};

struct header {
	unsigned version;		/* 2 or 3 */
	unsigned cluster_bits;
	uint64_t size_bytes;		/* of the disk; any number */
	uint32_t crypt_method;		/* none or AES */
	uint32_t l1_entries;		/* enough for size_bytes */
	uint64_t l1_offset;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
	uint32_t snapshot_count;
	uint64_t snapshots_offset;
	uint64_t incompatible;		/* the three are 0 in version 2 */
	uint64_t compatible;
	uint64_t autoclear;
	unsigned refcount_order;	/* 4 in version 2 */
	enum compression compression;

	/* Fields from byte 104 on, compression first; raw. */
	uint8_t *additional;
	uint32_t additional_bytes;

	/* All extensions but the end mark, in their order; raw. */
	struct header_extension *extensions;
	unsigned extension_count;
	struct header_bitmaps bitmaps;

	/* Names as they stand in the image: quote them before printing. */
	bool backing;
	char backing_name[HEADER_BACKING_NAME_BYTES_MAX + 1];
	/* Empty if the image does not say. */
	char backing_format[HEADER_BACKING_FORMAT_BYTES_MAX + 1];
};

static inline uint32_t
header_cluster_bytes(const struct header *header)
{
	return 1u << header->cluster_bits;
}

/*
 * Whether bytes at offset lie behind the header and inside the file, whose
 * last cluster may be cut short: it reads as zeros there.
 */
static inline bool
header_inside_file(const struct header *header, uint64_t offset,
    uint64_t bytes, uint64_t file_bytes)
{
	uint64_t mask = header_cluster_bytes(header) - 1;
	uint64_t end = (file_bytes + mask) & ~mask;

	return offset > mask && bytes <= end && offset <= end - bytes;
}

/*
 * How long the header cluster is that header_parse() needs, from the first
 * HEADER_V3_BYTES bytes of the file (zeros where it is shorter).  -EINVAL.
 */
int header_parse_start(const char *name, const void *data,
    uint32_t *cluster_bytesp, struct error *error);

/*
 * Decodes and validates the header cluster; data is as long as
 * header_parse_start() said, zeros past the end of the file.  -EINVAL,
 * -ENOTSUP or -ENOMEM; header is all zeros then.  On success the caller ends
 * with header_free().
 */
int header_parse(const char *name, const void *data, uint64_t file_bytes,
    struct header *header, struct error *error);

/* Reads the header of file and parses it; results as header_parse()'s. */
co_fn int header_load(struct file *file, struct header *header,
    struct error *error);

/* Frees what header points to, not itself, and makes it all zeros. */
void header_free(struct header *header);

/*
 * Whether the state the image was left in permits this opening: corrupt ones
 * may only be read, else -EROFS.  (Dirty ones are repaired: open_repair().)
 */
int header_check_policy(const char *name, const struct header *header,
    bool writable, struct error *error);

/* Whether the bitmaps were kept up to date by all who wrote to the image. */
bool header_bitmaps_valid(const struct header *header);

/* Appends a copy of data as an extension.  -ENOMEM, -ENOSPC: too many. */
int header_add_extension(struct header *header, uint32_t type,
    const void *data, uint32_t bytes);

/* The first extension of that type, or NULL. */
const struct header_extension *header_find_extension(
    const struct header *header, uint32_t type);

/* How long the fields are, in front of the extensions. */
uint32_t header_fields_bytes(const struct header *header);

/* Where the extensions end, their end mark included. */
uint64_t header_extensions_end(const struct header *header);

/*
 * Writes the header with everything behind it, and zeros up to bytes, the
 * length of target.  -ENOSPC if it does not fit.
 */
int header_build(const struct header *header, void *target, size_t bytes);

/* ---- changes in place: one short write, so one sector, each ---- */

struct header_patch {
	uint32_t offset;
	uint32_t bytes;
	uint8_t data[24];
};

/* The feature patches are for version 3 only. */
struct header_patch header_patch_incompatible(uint64_t incompatible);
struct header_patch header_patch_autoclear(uint64_t autoclear);
/* The length of the disk and its L1 table. */
struct header_patch header_patch_disk(const struct header *header,
    uint64_t size_bytes, uint32_t l1_entries, uint64_t l1_offset);
struct header_patch header_patch_refcount_table(uint64_t offset,
    uint32_t clusters);
struct header_patch header_patch_snapshots(uint32_t count, uint64_t offset);

#endif
