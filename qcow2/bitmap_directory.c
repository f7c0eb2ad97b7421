/* SPDX-License-Identifier: MIT */
/*
 * An entry: 24 bytes of fields, extra data, name, padding to 8 bytes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bitmap_directory.h"
#include "qcow2/bytes.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "qcow2/window.h"
#include "runtime/file.h"
#include "runtime/log.h"

#define HEAD_BYTES		24u
#define KNOWN_FLAGS \
	(BITMAP_IN_USE | BITMAP_AUTO | BITMAP_EXTRA_DATA_COMPATIBLE)

struct loader {
	struct window window;
	const struct header *header;
	uint64_t file_bytes;
};

/* -EINVAL if the fields of bitmap cannot be. */
static int
check_fields(const struct loader *loader, const struct bitmap *bitmap)
{
	const struct header *header = loader->header;
	uint64_t table_bytes = (uint64_t)bitmap->table_entries * ENTRY_BYTES;

	if (bitmap->flags & ~KNOWN_FLAGS || bitmap->granularity_bits > 63 ||
	    bitmap->table_entries > BITMAP_TABLE_ENTRIES_MAX)
		return -EINVAL;
	if (bitmap->table_offset % header_cluster_bytes(header) != 0 ||
	    !header_inside_file(header, bitmap->table_offset, table_bytes,
	    loader->file_bytes))
		return -EINVAL;
	return 0;
}

co_fn static int
load_entry(struct loader *loader, struct bitmap *bitmap)
{
	uint32_t name_bytes, extra_bytes, used;
	const void *data;
	int err;

	err = window_take(&loader->window, HEAD_BYTES, &data);
	if (err)
		return err;
	bitmap->table_offset = bytes_get64(data);
	bitmap->table_entries = bytes_get32((const uint8_t *)data + 8);
	bitmap->flags = bytes_get32((const uint8_t *)data + 12);
	bitmap->type = ((const uint8_t *)data)[16];
	bitmap->granularity_bits = ((const uint8_t *)data)[17];
	name_bytes = bytes_get16((const uint8_t *)data + 18);
	extra_bytes = bytes_get32((const uint8_t *)data + 20);
	if (name_bytes == 0 || name_bytes > BITMAP_NAME_BYTES_MAX)
		return -EINVAL;
	err = check_fields(loader, bitmap);
	if (!err)
		err = window_skip(&loader->window, extra_bytes);
	if (!err)
		err = window_take(&loader->window, name_bytes, &data);
	if (err)
		return err;
	if (memchr(data, '\0', name_bytes))
		return -EINVAL;
	bitmap->name = strndup(data, name_bytes);
	if (!bitmap->name)
		return -ENOMEM;
	/* Head and padded entry are multiples of 8; a cut padding is fine. */
	used = (extra_bytes % 8 + name_bytes) % 8;
	if (used > 0)
		window_skip(&loader->window, 8 - used);
	return 0;
}

co_fn static int
load_entries(struct loader *loader, struct bitmap_directory *directory,
    struct error *error)
{
	const char *name = loader->window.file->name;
	uint64_t offset;
	int err;

	while (directory->count < loader->header->bitmaps.count) {
		struct bitmap *bitmap = &directory->list[directory->count];

		offset = loader->window.offset;
		err = load_entry(loader, bitmap);
		if (err == -EINVAL)
			return error_set(error, err, "%s: entry %u of the "
			    "bitmap directory, at 0x%" PRIx64 ", is malformed "
			    "or lies past the end", name, directory->count,
			    offset);
		if (err)
			return error_set(error, err, "%s: cannot load the "
			    "bitmap directory: %s", name, strerror(-err));
		directory->count++;
	}
	return 0;
}

co_fn int
bitmap_directory_load(struct file *file, const struct header *header,
    struct bitmap_directory *directory, struct error *error)
{
	const struct header_bitmaps *bitmaps = &header->bitmaps;
	struct loader loader = { .header = header };
	int64_t size;
	int err;

	memset(directory, 0, sizeof(*directory));
	if (!bitmaps->present)
		return 0;
	if (bitmaps->fault)
		return error_set(error, -EINVAL, "%s: bitmaps extension: %s",
		    file->name, bitmaps->fault);
	size = file_size(file);
	if (size < 0)
		return error_set(error, (int)size, "cannot tell the length of "
		    "%s: %s", file->name, strerror((int)-size));
	loader.file_bytes = (uint64_t)size;
	err = window_open(&loader.window, file, bitmaps->directory_offset,
	    bitmaps->directory_offset + bitmaps->directory_bytes);
	if (err)
		goto no_memory;
	directory->list = calloc(bitmaps->count, sizeof(*directory->list));
	if (!directory->list) {
		err = -ENOMEM;
		goto close_window;
	}
	err = load_entries(&loader, directory, error);
	window_close(&loader.window);
	if (err)
		bitmap_directory_free(directory);
	return err;
close_window:
	window_close(&loader.window);
no_memory:
	return error_set(error, err, "%s: no memory for the bitmap directory",
	    file->name);
}

void
bitmap_directory_free(struct bitmap_directory *directory)
{
	unsigned i;

	for (i = 0; i < directory->count; i++)
		free(directory->list[i].name);
	free(directory->list);
	memset(directory, 0, sizeof(*directory));
}

const char *
bitmap_directory_names(const struct bitmap_directory *directory,
    char *target, size_t bytes)
{
	/* As many bytes stay free for the words that end a cut list. */
	const size_t reserve = sizeof(" and 65535 more");
	char name[128];
	const char *comma;
	size_t used = 0, wanted;
	unsigned i;

	if (bytes > 0)
		target[0] = '\0';
	for (i = 0; i < directory->count; i++) {
		log_quote(name, sizeof(name), directory->list[i].name,
		    (int)strlen(directory->list[i].name));
		comma = i > 0 ? ", " : "";
		wanted = strlen(comma) + strlen(name) + 2;
		if (used + wanted + reserve > bytes)
			break;
		used += (size_t)snprintf(target + used, bytes - used,
		    "%s\"%s\"", comma, name);
	}
	if (i < directory->count)
		snprintf(target + used, bytes - used, "%s%u %s",
		    i > 0 ? " and " : "", directory->count - i,
		    i > 0 ? "more" : "bitmaps");
	return target;
}
