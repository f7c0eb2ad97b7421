/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/header.h"
#include "runtime/file.h"

/* What is read at first; also the smallest cluster. */
#define START_BYTES	512u

co_fn int
header_load(struct file *file, struct header *header, struct error *error)
{
	uint8_t start[START_BYTES];
	uint32_t cluster_bytes;
	int64_t file_bytes;
	void *cluster;
	int err;

	memset(header, 0, sizeof(*header));
	file_bytes = file_size(file);
	if (file_bytes < 0)
		return error_set(error, (int)file_bytes,
		    "cannot tell the length of %s: %s", file->name,
		    strerror((int)-file_bytes));
	err = file_pread(file, start, sizeof(start), 0);
	if (err)
		return error_set(error, err, "cannot read the header of %s: %s",
		    file->name, strerror(-err));
	err = header_parse_start(file->name, start, &cluster_bytes, error);
	if (err)
		return err;
	cluster = malloc(cluster_bytes);
	if (!cluster)
		return error_set(error, -ENOMEM,
		    "%s: no memory for the header", file->name);
	err = file_pread(file, cluster, cluster_bytes, 0);
	if (err)
		error_set(error, err, "cannot read the header of %s: %s",
		    file->name, strerror(-err));
	else
		err = header_parse(file->name, cluster, (uint64_t)file_bytes,
		    header, error);
	free(cluster);
	return err;
}

void
header_free(struct header *header)
{
	unsigned i;

	for (i = 0; i < header->extension_count; i++)
		free(header->extensions[i].data);
	free(header->extensions);
	free(header->additional);
	memset(header, 0, sizeof(*header));
}

int
header_check_policy(const char *name, const struct header *header,
    bool writable, struct error *error)
{
	if (!writable || !(header->incompatible & HEADER_CORRUPT))
		return 0;
	error_set(error, -EROFS, "%s is marked as corrupt; serving it "
	    "read-write needs a repair first", name);
	error_hint(error, "repair: qnbd check --repair all %s      "
	    "or look only: qnbd serve -r %s", name, name);
	return -EROFS;
}

bool
header_bitmaps_valid(const struct header *header)
{
	return header->bitmaps.present && !header->bitmaps.fault &&
	    header->autoclear & HEADER_BITMAPS;
}

int
header_add_extension(struct header *header, uint32_t type, const void *data,
    uint32_t bytes)
{
	struct header_extension *list;
	uint8_t *copy;

	if (header->extension_count == HEADER_EXTENSIONS_MAX)
		return -ENOSPC;
	list = realloc(header->extensions,
	    (header->extension_count + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	header->extensions = list;
	copy = malloc(bytes + 1);
	if (!copy)
		return -ENOMEM;
	if (bytes)
		memcpy(copy, data, bytes);
	list[header->extension_count++] = (struct header_extension){
		.type = type,
		.bytes = bytes,
		.data = copy,
	};
	return 0;
}

const struct header_extension *
header_find_extension(const struct header *header, uint32_t type)
{
	unsigned i;

	for (i = 0; i < header->extension_count; i++) {
		if (header->extensions[i].type == type)
			return &header->extensions[i];
	}
	return NULL;
}
