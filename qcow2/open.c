/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a qcow2 image; open_writing.c has what is only for
 * writing.
 *
 * What a request needs to trust is read and validated here: header, snapshot
 * table, L1 table, refcount table.  Every table is in the index of metadata
 * before the first L2 slice is loaded and held against it.  A bad entry in
 * the L1 table makes the range behind it unreadable, not the whole image; an
 * image whose tables overlap is only good for reading.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/internal.h"
#include "qcow2/open_internal.h"
#include "qcow2/snapshot_change.h"
#include "runtime/log.h"

/* Bad entries of one table that are logged; more are only counted. */
#define FAULTS_LOGGED_MAX 8

typedef const char *entry_fault_fn(uint64_t entry,
    const struct entry_limits *limits);

static int
out_of_memory(struct error *error)
{
	return error_set(error, -ENOMEM, "out of memory");
}

/* Reads a table of 8-byte entries into the machine's order. */
co_fn static int
load_table(struct image *image, uint64_t offset, uint64_t entries,
    const char *what, uint64_t **tablep, struct error *error)
{
	/* Room for one even if there is none, so that it is not NULL. */
	uint64_t *table = calloc(entries + 1, ENTRY_BYTES);
	int err;

	if (!table)
		return out_of_memory(error);
	err = file_pread(image->file, table, entries * ENTRY_BYTES, offset);
	if (err) {
		free(table);
		return error_set(error, err, "cannot read %s of %s: %s", what,
		    image->path, strerror(-err));
	}
	for (uint64_t i = 0; i < entries; i++)
		table[i] = be64toh(table[i]);
	*tablep = table;
	return 0;
}

/* Logs what is wrong with the entries of a table; how many are bad. */
static uint64_t
log_faults(const struct image *image, const uint64_t *table, uint64_t entries,
    uint64_t offset, const char *what, entry_fault_fn *entry_fault)
{
	uint64_t faults = 0;

	for (uint64_t i = 0; i < entries; i++) {
		const char *fault = entry_fault(table[i], &image->limits);

		if (!fault || ++faults > FAULTS_LOGGED_MAX)
			continue;
		log_error("entry %llu of %s at 0x%llx (0x%llx) %s file=%s",
		    (unsigned long long)i, what,
		    (unsigned long long)(offset + i * ENTRY_BYTES),
		    (unsigned long long)table[i], fault, image->path);
	}
	if (faults > FAULTS_LOGGED_MAX)
		log_error("%llu more bad entries in %s file=%s",
		    (unsigned long long)(faults - FAULTS_LOGGED_MAX), what,
		    image->path);
	return faults;
}

/* ---- the index of metadata ---- */

struct overlaps {
	unsigned count;
	uint64_t host;		/* of the last one found */
	enum metadata_kind kind;
};

static int
add_range(struct image *image, enum metadata_kind kind, uint64_t host,
    uint64_t bytes, struct overlaps *overlaps)
{
	int err = metadata_add_range(&image->metadata, kind, host, bytes);

	if (err != -EEXIST)
		return err;
	*overlaps = (struct overlaps){overlaps->count + 1, host, kind};
	return 0;
}

static int
add_table(struct image *image, enum metadata_kind kind, uint64_t host,
    struct overlaps *overlaps)
{
	int err = metadata_add_cluster(&image->metadata, kind, host);

	if (err != -EEXIST)
		return err;
	*overlaps = (struct overlaps){overlaps->count + 1, host, kind};
	return 0;
}

/* Snapshots made one after the other may not share an L1 table. */
static int
add_snapshots(struct image *image, struct overlaps *overlaps)
{
	for (unsigned i = 0; i < image->snapshots.count; i++) {
		const struct snapshot *snapshot = &image->snapshots.list[i];
		int err;

		if (snapshot_l1_fault(snapshot, &image->header,
		    image->limits.host_end))
			continue;
		err = add_range(image, METADATA_SNAPSHOT_L1,
		    snapshot->l1_offset,
		    (uint64_t)snapshot->l1_entries * ENTRY_BYTES, overlaps);
		if (err)
			return err;
	}
	return 0;
}

static size_t
count_tables(const uint64_t *table, uint64_t entries)
{
	size_t count = 0;

	for (uint64_t i = 0; i < entries; i++)
		count += table[i] != 0;
	return count;
}

/* Room for all is made at once: to grow takes half as much again. */
static int
add_tables(struct image *image, struct overlaps *overlaps)
{
	size_t count = count_tables(image->l1, image->l1_entries) +
	    count_tables(image->refcount_table,
	    image->refcount_table_entries);

	if (metadata_make_room(&image->metadata, count))
		return -ENOMEM;
	for (uint64_t i = 0; i < image->l1_entries; i++) {
		uint64_t entry = image->l1[i];
		int err = 0;

		if (entry && !entry_l1_fault(entry, &image->limits))
			err = add_table(image, METADATA_L2,
			    entry_host(entry), overlaps);
		if (err)
			return err;
	}
	for (uint64_t i = 0; i < image->refcount_table_entries; i++) {
		uint64_t entry = image->refcount_table[i];
		int err = 0;

		if (entry && !entry_refcount_fault(entry, &image->limits))
			err = add_table(image, METADATA_REFCOUNT_BLOCK,
			    entry_refcount_block(entry), overlaps);
		if (err)
			return err;
	}
	return 0;
}

static int
build_index(struct image *image, struct overlaps *overlaps)
{
	const struct header *header = &image->header;
	int err;

	err = add_range(image, METADATA_HEADER, 0, image->cluster_bytes,
	    overlaps);
	if (!err)
		err = add_range(image, METADATA_L1, header->l1_offset,
		    (uint64_t)header->l1_entries * ENTRY_BYTES, overlaps);
	if (!err)
		err = add_range(image, METADATA_REFCOUNT_TABLE,
		    header->refcount_table_offset,
		    image->refcount_table_entries * ENTRY_BYTES, overlaps);
	if (!err)
		err = add_range(image, METADATA_SNAPSHOTS,
		    header->snapshots_offset, image->snapshots.bytes,
		    overlaps);
	if (!err && header->bitmaps.present && !header->bitmaps.fault)
		err = add_range(image, METADATA_BITMAPS,
		    header->bitmaps.directory_offset,
		    header->bitmaps.directory_bytes, overlaps);
	if (!err)
		err = add_snapshots(image, overlaps);
	return err ? err : add_tables(image, overlaps);
}

static int
index_metadata(struct image *image, struct error *error)
{
	struct overlaps overlaps = {0};

	if (build_index(image, &overlaps))
		return out_of_memory(error);
	if (overlaps.count == 0)
		return 0;
	if (!image->writable) {
		log_warning("%u tables overlap others, the last is %s at "
		    "0x%llx file=%s", overlaps.count,
		    metadata_name(overlaps.kind),
		    (unsigned long long)overlaps.host, image->path);
		return 0;
	}
	error_set(error, -EIO, "%s is corrupt: %s at 0x%llx overlaps another "
	    "table", image->path, metadata_name(overlaps.kind),
	    (unsigned long long)overlaps.host);
	error_hint(error, "repair: qnbd check --repair all %s      or "
	    "look only: qnbd serve -r %s", image->path, image->path);
	return -EIO;
}

/* ---- opening ---- */

/* What the header says, in the units the engine works with. */
static int
settle_geometry(struct image *image, struct error *error)
{
	int64_t file_bytes = file_size(image->file);
	const struct header *header = &image->header;

	if (file_bytes < 0)
		return error_set(error, (int)file_bytes,
		    "cannot find the size of %s: %s", image->path,
		    strerror((int)-file_bytes));
	image->size_bytes = header->size_bytes;
	image->usable_bytes = header->size_bytes;
	image->l1_entries = header->l1_entries;
	image->encrypted = header->crypt_method != HEADER_CRYPT_NONE;
	image->cluster_bits = header->cluster_bits;
	image->cluster_bytes = header_cluster_bytes(header);
	image->l2_bits = header->cluster_bits - 3;
	image->refcount_table_entries =
	    ((uint64_t)header->refcount_table_clusters <<
	    header->cluster_bits) / ENTRY_BYTES;
	image->refcounts.order = header->refcount_order;
	image->refcounts.block_bits = header->cluster_bits + 3 -
	    header->refcount_order;
	image->limits = (struct entry_limits){
		.cluster_bits = header->cluster_bits,
		.zero_flag = header->version >= 3,
		.host_end = (uint64_t)file_bytes,
	};
	return 0;
}

/* Counts and logs the bad entries of the tables that are loaded as a whole. */
void
open_judge_tables(struct image *image)
{
	const struct header *header = &image->header;

	image->table_faults = log_faults(image, image->l1,
	    header->l1_entries, header->l1_offset, "the L1 table",
	    entry_l1_fault);
	image->table_faults += log_faults(image, image->refcount_table,
	    image->refcount_table_entries, header->refcount_table_offset,
	    "the refcount table", entry_refcount_fault);
}

co_fn static int
load_tables(struct image *image, struct error *error)
{
	const struct header *header = &image->header;
	int err;

	err = snapshot_table_load(image->file, header, &image->snapshots,
	    error);
	if (!err)
		err = load_table(image, header->l1_offset, header->l1_entries,
		    "the L1 table", &image->l1, error);
	if (!err)
		err = load_table(image, header->refcount_table_offset,
		    image->refcount_table_entries, "the refcount table",
		    &image->refcount_table, error);
	if (!err)
		open_judge_tables(image);
	return err;
}

/* The disk is what a snapshot has; nobody writes to it. */
co_fn static int
turn_to_snapshot(struct image *image, const char *name, struct error *error)
{
	const struct snapshot *snapshot = snapshot_find(&image->snapshots,
	    name);
	unsigned span_bits = image->cluster_bits + image->l2_bits;
	uint64_t *l1, usable;
	int err;

	if (!snapshot) {
		error_set(error, -ENOENT, "%s has no snapshot \"%s\"",
		    image->path, name);
		error_hint(error, "those it has: qnbd snapshot list %s",
		    image->path);
		return -ENOENT;
	}
	if (snapshot->disk_bytes > INT64_MAX || (snapshot->disk_bytes > 0 &&
	    (snapshot->disk_bytes - 1) >> span_bits >= snapshot->l1_entries))
		return error_set(error, -EIO, "the snapshot \"%s\" of %s is "
		    "damaged: its L1 table is too short for it", name,
		    image->path);
	err = snapshot_load_l1(image, snapshot, 0, &l1);
	if (err)
		return error_set(error, err, "cannot read the L1 table of the "
		    "snapshot \"%s\" of %s: %s", name, image->path,
		    strerror(-err));
	/* A state that the L1 table does not reach is not there. */
	usable = (uint64_t)snapshot->l1_entries << span_bits;
	if (snapshot->vm_state_bytes > 0 && ((uint64_t)l1_entries_for(image,
	    snapshot->disk_bytes) << span_bits) + snapshot->vm_state_bytes >
	    usable) {
		free(l1);
		return error_set(error, -EIO, "the snapshot \"%s\" of %s is "
		    "damaged: its L1 table is too short for its state", name,
		    image->path);
	}
	free(image->l1);
	image->l1 = l1;
	image->l1_entries = snapshot->l1_entries;
	image->size_bytes = snapshot->disk_bytes;
	image->vm_state_bytes = snapshot->vm_state_bytes;
	image->usable_bytes = usable;
	return 0;
}

static void
free_tables(struct image *image)
{
	changes_free(&image->barrier.l1);
	changes_free(&image->refcounts.hooks);
	quarantine_free(&image->quarantine);
	retired_free(&image->retired);
	alloc_free(&image->allocator);
	epochs_free(&image->epochs);
	slice_cache_free(&image->slices);
	metadata_free(&image->metadata);
	free(image->refcount_table);
	free(image->l1);
	snapshot_table_free(&image->snapshots);
	header_free(&image->header);
}

int
qcow2_open(struct image *image, const struct image_options *options,
    struct error *error)
{
	int err;

	err = header_load(image->file, &image->header, error);
	if (err)
		return err;
	metadata_init(&image->metadata, image->header.cluster_bits);
	err = header_check_policy(image->path, &image->header,
	    image->writable, error);
	if (!err && image->writable &&
	    image->header.incompatible & HEADER_DIRTY) {
		image->repaired = true;
		err = open_repair(image, options, error);
	}
	if (!err)
		err = settle_geometry(image, error);
	if (!err && slice_cache_init(&image->slices, image->cluster_bytes,
	    options->metadata_cache_bytes))
		err = out_of_memory(error);
	if (!err && epochs_init(&image->epochs, image->loops))
		err = out_of_memory(error);
	if (!err)
		err = load_tables(image, error);
	if (!err && options->snapshot)
		err = turn_to_snapshot(image, options->snapshot, error);
	if (!err)
		err = index_metadata(image, error);
	if (!err && image->writable)
		err = open_for_writing(image, options, error);
	if (err) {
		free_tables(image);
		return err;
	}
	image->ops = &qcow2_ops;
	return 0;
}

/* ---- closing ---- */

int
open_settle(struct image *image)
{
	int err = image->failed ? -EIO : 0;

	while (!err && (barrier_is_needed(image) ||
	    image->quarantine.count > 0)) {
		barrier_request(image);
		barrier_wait_idle(image);
		if (image->failed)
			err = -EIO;
		else if (barrier_is_needed(image))
			err = barrier_flush(image);
		barrier_wait_idle(image);
	}
	return err;
}

/* Cuts off what the reserve had made longer. */
co_fn static int
trim_file(struct image *image)
{
	uint64_t end = image->allocator.reserve_next << image->cluster_bits;

	if (!image->file->is_regular ||
	    image->allocator.reserve_next != image->end_cluster ||
	    file_size(image->file) <= (int64_t)end)
		return 0;
	return file_truncate(image->file, end);
}

co_fn static int
qcow2_finish(struct image *image)
{
	uint64_t reserve_end = image->allocator.reserve_end;
	int err;

	monitor_enter(&image->monitor);
	image->closing = true;
	barrier_wait_idle(image);
	quarantine_unwatch(image);
	barrier_wait_idle(image);
	image->allocator.used = false;
	pack_let_go(image);
	err = open_settle(image);
	if (!err)
		err = alloc_return_reserve(image);
	if (!err)
		err = open_settle(image);
	if (!err && image->cuts_file)
		err = empty_cut_file(image);
	if (!err && image->dirty.lazy_held) {
		image->dirty.holders--;
		image->dirty.lazy_held = false;
	}
	if (!err)
		err = dirty_clear(image);
	if (!err && reserve_end == image->end_cluster)
		image->end_cluster = image->allocator.reserve_next;
	if (!err && !image->cuts_file && image->allocator.reserve_next > 0)
		err = trim_file(image);
	monitor_leave(&image->monitor);
	return err;
}

static void
qcow2_resume(struct image *image)
{
	image->closing = false;
}

static void
qcow2_close(struct image *image)
{
	free_tables(image);
}

const struct image_ops qcow2_ops = {
	.read = qcow2_read,
	.plan = qcow2_plan,
	.status = qcow2_status,
	.write = qcow2_write,
	.write_compressed = qcow2_write_compressed,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.flush = qcow2_flush,
	.finish = qcow2_finish,
	.resume = qcow2_resume,
	.close = qcow2_close,
};
