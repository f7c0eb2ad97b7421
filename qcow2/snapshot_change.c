/* SPDX-License-Identifier: MIT */
#include "qcow2/snapshot_change.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "qcow2/internal.h"
#include "runtime/log.h"

/* The snapshot table as it is to be. */
struct next_table {
	struct snapshot *list;
	unsigned count;
	uint64_t bytes;
	uint64_t host;		/* 0: there is none */
};

/* ---- the table ---- */

static int
list_next(const struct image *image, const struct snapshot *added,
    int removed, struct next_table *next)
{
	const struct snapshot_table *table = &image->snapshots;

	*next = (struct next_table){
		.list = calloc(table->count + 1u, sizeof(*next->list)),
	};
	if (!next->list)
		return -ENOMEM;
	for (unsigned i = 0; i < table->count; i++)
		if ((int)i != removed)
			next->list[next->count++] = table->list[i];
	if (added)
		next->list[next->count++] = *added;
	for (unsigned i = 0; i < next->count; i++)
		next->bytes += snapshot_bytes(&next->list[i]);
	if (next->count <= HEADER_SNAPSHOTS_MAX &&
	    next->bytes <= SNAPSHOT_TABLE_BYTES_MAX)
		return 0;
	free(next->list);
	return -ENOTSUP;
}

/* Writes the table to clusters of its own; nothing points there yet. */
co_fn static int
write_next(struct image *image, struct next_table *next)
{
	uint64_t clusters = table_clusters(image, next->bytes);
	size_t bytes = (size_t)clusters << image->cluster_bits, done = 0;
	uint8_t *data;
	int err;

	if (clusters == 0)
		return 0;
	data = calloc(1, bytes);
	if (!data)
		return -ENOMEM;
	for (unsigned i = 0; i < next->count; i++) {
		snapshot_build(&next->list[i], data + done);
		done += snapshot_bytes(&next->list[i]);
	}
	err = alloc_table(image, clusters, &next->host);
	if (err)
		goto free_data;
	err = metadata_add_range(&image->metadata, METADATA_SNAPSHOTS,
	    next->host, next->bytes);
	if (err)
		goto give_back;
	err = file_pwrite(image->file, data, bytes, next->host, 0);
	atomic_store(&image->unsynced, true);
	if (!err)
		goto free_data;
	metadata_remove_range(&image->metadata, next->host);
give_back:
	alloc_give_back(image, next->host, clusters);
	next->host = 0;
free_data:
	free(data);
	return err;
}

/* What write_next() wrote. */
co_fn static void
drop_next(struct image *image, const struct next_table *next)
{
	if (!next->host)
		return;
	metadata_remove_range(&image->metadata, next->host);
	alloc_give_back(image, next->host,
	    table_clusters(image, next->bytes));
}

/*
 * A table that no barrier has switched to.  One that failed may have got that
 * far, so it is not free before the next has switched to another.
 */
static void
drop_unswitched(struct image *image)
{
	struct move *move = &image->moves.snapshots;

	if (!move->wanted || !move->host)
		return;
	moves_leave_place(image, move->host, image->moves.snapshots_bytes);
}

/* In RAM the table is the new one, and the next barrier makes it so on disk. */
static void
switch_table(struct image *image, const struct next_table *next, int removed)
{
	struct snapshot_table *table = &image->snapshots;

	drop_unswitched(image);
	if (removed >= 0)
		free(table->list[removed].memory);
	free(table->list);
	table->list = next->list;
	table->count = next->count;
	image->moves.snapshots = (struct move){
		.wanted = true, .host = next->host, .count = next->count,
	};
	image->moves.snapshots_bytes = next->bytes;
}

int
snapshot_table_change(struct image *image, const struct snapshot *added,
    int removed, bool *switchedp)
{
	struct next_table next;
	int err;

	*switchedp = false;
	err = list_next(image, added, removed, &next);
	if (err)
		return err;
	err = write_next(image, &next);
	if (!err)
		err = barrier_flush(image);
	if (err) {
		drop_next(image, &next);
		free(next.list);
		return err;
	}
	switch_table(image, &next, removed);
	*switchedp = true;
	return barrier_flush(image);
}

/* ---- the L1 table of a snapshot ---- */

static const char *
find_fault(const struct image *image, const struct snapshot *snapshot,
    const uint64_t *l1, uint32_t *indexp)
{
	for (uint32_t i = 0; i < snapshot->l1_entries; i++) {
		const char *fault = entry_l1_fault(l1[i], &image->limits);

		*indexp = i;
		if (fault)
			return fault;
	}
	return NULL;
}

int
snapshot_load_l1(struct image *image, const struct snapshot *snapshot,
    uint32_t entries, uint64_t **l1p)
{
	const char *fault = snapshot_l1_fault(snapshot, &image->header,
	    image->limits.host_end);
	uint32_t index = 0;
	uint64_t *l1;
	int err = 0;

	if (fault) {
		log_error("the L1 table of snapshot %s at 0x%" PRIx64 " %s "
		    "file=%s", snapshot->id, snapshot->l1_offset, fault,
		    image->path);
		return -EIO;
	}
	if (entries < snapshot->l1_entries)
		entries = snapshot->l1_entries;
	l1 = calloc((size_t)entries + 1, ENTRY_BYTES);
	if (!l1)
		return -ENOMEM;
	if (snapshot->l1_entries > 0)
		err = file_pread(image->file, l1,
		    (size_t)snapshot->l1_entries * ENTRY_BYTES,
		    snapshot->l1_offset);
	for (uint32_t i = 0; i < snapshot->l1_entries; i++)
		l1[i] = be64toh(l1[i]) & ~ENTRY_COPIED;
	fault = err ? NULL : find_fault(image, snapshot, l1, &index);
	if (fault) {
		log_error("entry %" PRIu32 " of the L1 table of snapshot %s "
		    "(0x%" PRIx64 ") %s file=%s", index, snapshot->id,
		    l1[index], fault, image->path);
		err = -EIO;
	}
	if (err)
		free(l1);
	else
		*l1p = l1;
	return err;
}
