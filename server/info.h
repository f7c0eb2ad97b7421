/* SPDX-License-Identifier: MIT */
/*
 * What `qnbd info` tells about one image file, and its two forms.
 */
#ifndef SERVER_INFO_H
#define SERVER_INFO_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "qcow2/bitmap_directory.h"
#include "qcow2/header.h"
#include "qcow2/image.h"
#include "qcow2/snapshot.h"
#include "runtime/error.h"
#include "runtime/file_holder.h"

struct info {
	char *filename;			/* as it was named */
	enum image_format format;
	uint64_t virtual_bytes;
	uint64_t actual_bytes;		/* on the disk of the host */
	bool in_use;			/* somebody writes to it */
	char holder[FILE_HOLDER_BYTES];

	/* qcow2 only. */
	struct header header;
	struct snapshot_table snapshots;
	struct bitmap_directory bitmaps;
	char *backing_filename;		/* with its directory, or NULL */
};

/*
 * Reads path, this one file only; filename is what to call it.  -errno; info
 * is to be freed in any case.
 */
co_fn int info_load(const char *path, const char *filename,
    enum image_format format, struct info *info, struct error *error);

/* All zeros is fine. */
void info_free(struct info *info);

/* The object that qemu-img prints; NULL if there is no memory. */
json_t *info_to_json(const struct info *info);

/* The list under "snapshots" in that object. */
json_t *info_snapshots_to_json(const struct snapshot_table *table);

void info_print(const struct info *info, FILE *out);

/* A line for each. */
void info_print_snapshots(const struct snapshot_table *table, FILE *out);

#endif
