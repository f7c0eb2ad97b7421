/* SPDX-License-Identifier: MIT */
/*
 * The bitmap directory: which persistent bitmaps an image has.
 *
 * Enough to name them and to count their clusters; the bits are not read.  A
 * directory that does not load only means that the bitmaps are lost: it must
 * not keep anybody from the disk.  (Specification: "Bitmaps".)
 */
#ifndef QCOW2_BITMAP_DIRECTORY_H
#define QCOW2_BITMAP_DIRECTORY_H

#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/error.h"

struct file;
struct header;

#define BITMAP_NAME_BYTES_MAX		1023u
#define BITMAP_TABLE_ENTRIES_MAX	0x8000000u

#define BITMAP_IN_USE			1u	/* was not saved: invalid */
#define BITMAP_AUTO			2u	/* recording */
#define BITMAP_EXTRA_DATA_COMPATIBLE	4u

struct bitmap {
	char *name;		/* from the image: quote it before printing */
	uint64_t table_offset;	/* inside the file, aligned */
	uint32_t table_entries;	/* see entry_bitmap_fault() */
	uint32_t flags;
	uint8_t type;		/* 1: dirty tracking; no others are known */
	uint8_t granularity_bits;
};

struct bitmap_directory {
	struct bitmap *list;
	unsigned count;
};

/*
 * Loads the directory that header tells of; an empty one if the image has no
 * bitmaps.  -EINVAL (also for a faulty extension), -EIO, -ENOMEM; *directory
 * is empty then.
 */
co_fn int bitmap_directory_load(struct file *file,
    const struct header *header, struct bitmap_directory *directory,
    struct error *error);

/* Frees what directory points to and makes it empty. */
void bitmap_directory_free(struct bitmap_directory *directory);

/*
 * Puts the names into target, quoted: "monday", "tuesday" and 3 more.  As many
 * as fit into bytes are spelled out.
 */
const char *bitmap_directory_names(const struct bitmap_directory *directory,
    char *target, size_t bytes);

#endif
