/* SPDX-License-Identifier: MIT */
/*
 * An entry: 40 bytes of fields, extra data, id, name, padding to 8 bytes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "qcow2/snapshot.h"
#include "qcow2/window.h"
#include "runtime/file.h"

int
snapshot_entry_bytes(const void *head, size_t *bytesp)
{
	const uint8_t *data = head;
	uint32_t extra_bytes = bytes_get32(data + 36);

	if (extra_bytes > SNAPSHOT_EXTRA_BYTES_MAX)
		return -EINVAL;
	*bytesp = (SNAPSHOT_HEAD_BYTES + extra_bytes + bytes_get16(data + 12) +
	    bytes_get16(data + 14) + (size_t)7) & ~(size_t)7;
	return 0;
}

/* The fields that older writers left out have these values. */
static void
parse_extra(const uint8_t *entry, const struct header *header,
    struct snapshot *snapshot)
{
	snapshot->vm_state_bytes = bytes_get32(entry + 32);
	snapshot->disk_bytes = header->size_bytes;
	snapshot->icount = SNAPSHOT_NO_ICOUNT;
	if (snapshot->extra_bytes >= 8)
		snapshot->vm_state_bytes = bytes_get64(entry + 40);
	if (snapshot->extra_bytes >= 16)
		snapshot->disk_bytes = bytes_get64(entry + 48);
	if (snapshot->extra_bytes >= 24)
		snapshot->icount = bytes_get64(entry + 56);
}

/* Copies id, name and extra data into memory of the snapshot's own. */
static int
copy_strings(const uint8_t *entry, struct snapshot *snapshot)
{
	size_t id_bytes = bytes_get16(entry + 12);
	size_t name_bytes = bytes_get16(entry + 14);
	const uint8_t *id = entry + SNAPSHOT_HEAD_BYTES + snapshot->extra_bytes;
	char *memory;

	if (memchr(id, '\0', id_bytes + name_bytes))
		return -EINVAL;
	memory = malloc(snapshot->extra_bytes + id_bytes + name_bytes + 2);
	if (!memory)
		return -ENOMEM;
	snapshot->memory = memory;
	snapshot->extra = (uint8_t *)memory;
	memcpy(memory, entry + SNAPSHOT_HEAD_BYTES, snapshot->extra_bytes);
	memory += snapshot->extra_bytes;
	snapshot->id = memory;
	memcpy(memory, id, id_bytes);
	memory[id_bytes] = '\0';
	memory += id_bytes + 1;
	snapshot->name = memory;
	memcpy(memory, id + id_bytes, name_bytes);
	memory[name_bytes] = '\0';
	return 0;
}

int
snapshot_parse(const void *entry, const struct header *header,
    struct snapshot *snapshot)
{
	const uint8_t *data = entry;
	struct snapshot parsed = {
		.l1_offset = bytes_get64(data),
		.l1_entries = bytes_get32(data + 8),
		.date_seconds = bytes_get32(data + 16),
		.date_nanoseconds = bytes_get32(data + 20),
		.vm_clock_ns = bytes_get64(data + 24),
		.extra_bytes = bytes_get32(data + 36),
	};
	int err;

	if (parsed.extra_bytes > SNAPSHOT_EXTRA_BYTES_MAX)
		return -EINVAL;
	parse_extra(data, header, &parsed);
	err = copy_strings(data, &parsed);
	if (err)
		return err;
	*snapshot = parsed;
	return 0;
}

size_t
snapshot_bytes(const struct snapshot *snapshot)
{
	return (SNAPSHOT_HEAD_BYTES + snapshot->extra_bytes +
	    strlen(snapshot->id) + strlen(snapshot->name) + (size_t)7) &
	    ~(size_t)7;
}

void
snapshot_build(const struct snapshot *snapshot, void *entry)
{
	size_t id_bytes = strlen(snapshot->id);
	size_t name_bytes = strlen(snapshot->name);
	uint8_t *data = entry;
	uint8_t *extra = data + SNAPSHOT_HEAD_BYTES;
	uint8_t *names = extra + snapshot->extra_bytes;

	memset(data, 0, snapshot_bytes(snapshot));
	bytes_put64(data, snapshot->l1_offset);
	bytes_put32(data + 8, snapshot->l1_entries);
	bytes_put16(data + 12, (uint16_t)id_bytes);
	bytes_put16(data + 14, (uint16_t)name_bytes);
	bytes_put32(data + 16, snapshot->date_seconds);
	bytes_put32(data + 20, snapshot->date_nanoseconds);
	bytes_put64(data + 24, snapshot->vm_clock_ns);
	if (snapshot->vm_state_bytes <= UINT32_MAX)
		bytes_put32(data + 32, (uint32_t)snapshot->vm_state_bytes);
	bytes_put32(data + 36, snapshot->extra_bytes);
	if (snapshot->extra)
		memcpy(extra, snapshot->extra, snapshot->extra_bytes);
	if (snapshot->extra_bytes >= 8)
		bytes_put64(extra, snapshot->vm_state_bytes);
	if (snapshot->extra_bytes >= 16)
		bytes_put64(extra + 8, snapshot->disk_bytes);
	if (snapshot->extra_bytes >= 24)
		bytes_put64(extra + 16, snapshot->icount);
	memcpy(names, snapshot->id, id_bytes);
	memcpy(names + id_bytes, snapshot->name, name_bytes);
}

const struct snapshot *
snapshot_find(const struct snapshot_table *table, const char *name)
{
	for (unsigned i = 0; i < table->count; i++)
		if (!strcmp(table->list[i].id, name))
			return &table->list[i];
	for (unsigned i = 0; i < table->count; i++)
		if (!strcmp(table->list[i].name, name))
			return &table->list[i];
	return NULL;
}

co_fn static int
load_entry(struct window *window, const struct header *header,
    struct snapshot *snapshot)
{
	const void *data;
	size_t bytes;
	int err;

	err = window_peek(window, SNAPSHOT_HEAD_BYTES, &data);
	if (!err)
		err = snapshot_entry_bytes(data, &bytes);
	if (!err)
		err = window_take(window, bytes, &data);
	return err ? err : snapshot_parse(data, header, snapshot);
}

co_fn static int
load_entries(struct window *window, const struct header *header,
    uint64_t file_bytes, struct snapshot_table *table, struct error *error)
{
	const char *name = window->file->name;
	uint64_t offset;
	int err;

	while (table->count < header->snapshot_count) {
		offset = window->offset;
		err = load_entry(window, header, &table->list[table->count]);
		if (err == -EINVAL)
			return error_set(error, err, "%s: entry %u of the "
			    "snapshot table, at 0x%" PRIx64 ", is malformed or "
			    "lies past the end", name, table->count, offset);
		if (err)
			return error_set(error, err, "%s: cannot load the "
			    "snapshot table: %s", name, strerror(-err));
		table->count++;
	}
	table->bytes = window->offset - header->snapshots_offset;
	if (!header_inside_file(header, header->snapshots_offset, table->bytes,
	    file_bytes))
		return error_set(error, -EINVAL, "%s: the snapshot table at "
		    "0x%" PRIx64 " (%" PRIu64 " bytes) lies past the end of "
		    "the file", name, header->snapshots_offset, table->bytes);
	return 0;
}

co_fn int
snapshot_table_load(struct file *file, const struct header *header,
    struct snapshot_table *table, struct error *error)
{
	uint64_t offset = header->snapshots_offset;
	struct window window;
	int64_t size;
	int err;

	memset(table, 0, sizeof(*table));
	if (header->snapshot_count == 0)
		return 0;
	size = file_size(file);
	if (size < 0)
		return error_set(error, (int)size, "cannot tell the length of "
		    "%s: %s", file->name, strerror((int)-size));
	err = window_open(&window, file, offset,
	    offset + SNAPSHOT_TABLE_BYTES_MAX);
	if (err)
		goto no_memory;
	table->list = calloc(header->snapshot_count, sizeof(*table->list));
	if (!table->list) {
		err = -ENOMEM;
		goto close_window;
	}
	err = load_entries(&window, header, (uint64_t)size, table, error);
	window_close(&window);
	if (err)
		snapshot_table_free(table);
	return err;
close_window:
	window_close(&window);
no_memory:
	return error_set(error, err, "%s: no memory for the snapshot table",
	    file->name);
}

void
snapshot_table_free(struct snapshot_table *table)
{
	unsigned i;

	for (i = 0; i < table->count; i++)
		free(table->list[i].memory);
	free(table->list);
	memset(table, 0, sizeof(*table));
}

const char *
snapshot_l1_fault(const struct snapshot *snapshot,
    const struct header *header, uint64_t file_bytes)
{
	uint64_t bytes = (uint64_t)snapshot->l1_entries * ENTRY_BYTES;

	if (bytes > HEADER_L1_BYTES_MAX)
		return "is too long";
	if (bytes == 0)
		return NULL;
	if (snapshot->l1_offset % header_cluster_bytes(header) != 0)
		return "is not aligned to a cluster";
	if (!header_inside_file(header, snapshot->l1_offset, bytes, file_bytes))
		return "lies in the header or past the end of the file";
	return NULL;
}
