/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a qcow2 image.
 *
 * What a request needs to trust is read and validated here: header, snapshot
 * table, L1 table, refcount table.  Every table is in the index of metadata
 * before the first L2 slice is loaded and held against it.  A bad entry in
 * the L1 table makes the range behind it unreadable, not the whole image; an
 * image whose tables overlap is only good for reading.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bitmap_directory.h"
#include "qcow2/internal.h"
#include "runtime/log.h"

/* Bad entries of one table that are logged; more are only counted. */
#define FAULTS_LOGGED_MAX 8

/*
 * How many free clusters, and how many blocks about them, may lie between the
 * end of the file and the last refcount: enough for 8 TiB that were given back
 * in clusters of 64 KiB, and little enough to be looked through in a second.
 */
#define FREE_CLUSTERS_MAX (1ull << 27)
#define FREE_BLOCKS_MAX (1u << 17)

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
	const char *what;
};

static int
add_range(struct image *image, uint64_t host, uint64_t bytes,
    const char *what, struct overlaps *overlaps)
{
	int err = metadata_add_range(&image->metadata, host, bytes, what);

	if (err != -EEXIST)
		return err;
	*overlaps = (struct overlaps){overlaps->count + 1, host, what};
	return 0;
}

static int
add_table(struct image *image, uint64_t host, const char *what,
    struct overlaps *overlaps)
{
	int err = metadata_add_cluster(&image->metadata, host);

	if (err != -EEXIST)
		return err;
	*overlaps = (struct overlaps){overlaps->count + 1, host, what};
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
		err = add_range(image, snapshot->l1_offset,
		    (uint64_t)snapshot->l1_entries * ENTRY_BYTES,
		    "the L1 table of a snapshot", overlaps);
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
	size_t count = count_tables(image->l1, image->header.l1_entries) +
	    count_tables(image->refcount_table,
	    image->refcount_table_entries);

	if (metadata_make_room(&image->metadata, count))
		return -ENOMEM;
	for (uint64_t i = 0; i < image->header.l1_entries; i++) {
		uint64_t entry = image->l1[i];
		int err = 0;

		if (entry && !entry_l1_fault(entry, &image->limits))
			err = add_table(image, entry_host(entry),
			    "an L2 table", overlaps);
		if (err)
			return err;
	}
	for (uint64_t i = 0; i < image->refcount_table_entries; i++) {
		uint64_t entry = image->refcount_table[i];
		int err = 0;

		if (entry && !entry_refcount_fault(entry, &image->limits))
			err = add_table(image, entry_refcount_block(entry),
			    "a refcount block", overlaps);
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

	err = add_range(image, 0, image->cluster_bytes, "the header",
	    overlaps);
	if (!err)
		err = add_range(image, header->l1_offset,
		    (uint64_t)header->l1_entries * ENTRY_BYTES,
		    "the L1 table", overlaps);
	if (!err)
		err = add_range(image, header->refcount_table_offset,
		    image->refcount_table_entries * ENTRY_BYTES,
		    "the refcount table", overlaps);
	if (!err)
		err = add_range(image, header->snapshots_offset,
		    image->snapshots.bytes, "the snapshot table", overlaps);
	if (!err && header->bitmaps.present && !header->bitmaps.fault)
		err = add_range(image, header->bitmaps.directory_offset,
		    header->bitmaps.directory_bytes, "the bitmap directory",
		    overlaps);
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
		    "0x%llx file=%s", overlaps.count, overlaps.what,
		    (unsigned long long)overlaps.host, image->path);
		return 0;
	}
	error_set(error, -EIO, "%s is corrupt: %s at 0x%llx overlaps another "
	    "table", image->path, overlaps.what,
	    (unsigned long long)overlaps.host);
	error_hint(error, "repair: qemu-img check -r all %s      or look "
	    "only: qnbd serve -r %s", image->path, image->path);
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
	if (err)
		return err;
	image->table_faults = log_faults(image, image->l1,
	    header->l1_entries, header->l1_offset, "the L1 table",
	    entry_l1_fault);
	image->table_faults += log_faults(image, image->refcount_table,
	    image->refcount_table_entries, header->refcount_table_offset,
	    "the refcount table", entry_refcount_fault);
	return 0;
}

static void
free_tables(struct image *image)
{
	changes_free(&image->barrier.l1);
	changes_free(&image->refcounts.hooks);
	quarantine_free(&image->quarantine);
	alloc_free(&image->allocator);
	epochs_free(&image->epochs);
	slice_cache_free(&image->slices);
	metadata_free(&image->metadata);
	free(image->refcount_table);
	free(image->l1);
	snapshot_table_free(&image->snapshots);
	monitor_destroy(&image->monitor);
	header_free(&image->header);
}

/* ---- opening for writing ---- */

/*
 * The cluster behind the last one that has a refcount, if that is past from;
 * else from.  -EFBIG if there is too much to look through.
 */
co_fn static int
find_end(struct image *image, uint64_t from, uint64_t *endp)
{
	unsigned block_bits = image->refcounts.block_bits;
	uint64_t block = image->refcount_table_entries;
	uint64_t blocks = FREE_CLUSTERS_MAX >> block_bits;

	if (blocks > FREE_BLOCKS_MAX)
		blocks = FREE_BLOCKS_MAX;
	for (; block > 0 && block << block_bits > from; block--) {
		uint64_t first = (block - 1) << block_bits;
		uint64_t cluster = first, end = 0, run;

		if (!image->refcount_table[block - 1])
			continue;
		if (blocks-- == 0)
			return -EFBIG;

		while (cluster < first + (1ull << block_bits)) {
			bool is_free;
			int err = refcount_scan(image, cluster,
			    first + (1ull << block_bits) - cluster, &run,
			    &is_free);

			if (err)
				return err;
			cluster += run;
			if (!is_free)
				end = cluster;
		}
		if (end > 0) {
			*endp = end > from ? end : from;
			return 0;
		}
	}
	*endp = from;
	return 0;
}

/* The same from where the file ends; the length of a device says nothing. */
co_fn static int
find_used_end(struct image *image, uint64_t file_end, uint64_t *endp,
    struct error *error)
{
	int err;

	monitor_enter(&image->monitor);
	err = find_end(image, image->file->is_regular ? file_end : 1, endp);
	monitor_leave(&image->monitor);
	if (err == -EFBIG) {
		error_set(error, err, "%s has too many empty refcount blocks "
		    "for clusters past its end", image->path);
		error_hint(error, "copy it to a new image, or look only: "
		    "qnbd serve -r %s", image->path);
		return err;
	}
	if (err)
		error_set(error, err, "cannot read the refcounts of %s: %s",
		    image->path, strerror(-err));
	return err;
}

/* Names the bitmaps that writing makes invalid, or refuses to do that. */
co_fn static int
give_up_bitmaps(struct image *image, bool refuse, struct error *error)
{
	struct bitmap_directory directory;
	struct error ignored;
	char names[256] = "(their directory cannot be read)";

	if (!header_bitmaps_valid(&image->header))
		return 0;
	if (!bitmap_directory_load(image->file, &image->header, &directory,
	    &ignored)) {
		bitmap_directory_names(&directory, names, sizeof(names));
		bitmap_directory_free(&directory);
	}
	if (!refuse) {
		log_warning("writing makes the persistent bitmaps of %s "
		    "invalid: %s", image->path, names);
		return 0;
	}
	error_set(error, -EROFS, "%s has persistent bitmaps that writing "
	    "would make invalid: %s", image->path, names);
	error_hint(error, "serve it read-only with -r, or without "
	    "--refuse-bitmaps");
	return -EROFS;
}

/* O7: no autoclear feature may survive the first change. */
co_fn int
qcow2_begin_writing(struct image *image, struct error *error)
{
	struct header_patch patch = header_patch_autoclear(0);
	int err;

	if (!image->writable || image->header.version < 3 ||
	    !image->header.autoclear)
		return 0;
	err = file_pwrite(image->file, patch.data, patch.bytes, patch.offset,
	    0);
	if (!err)
		err = file_fdatasync(image->file);
	if (err)
		return error_set(error, err, "cannot update the header of "
		    "%s: %s", image->path, strerror(-err));
	image->header.autoclear = 0;
	return 0;
}

/* A table with bad entries is no ground to write on. */
static int
check_tables(const struct image *image, struct error *error)
{
	if (image->table_faults == 0)
		return 0;
	error_set(error, -EIO, "%s is damaged: %llu entries of its L1 or "
	    "refcount table are wrong", image->path,
	    (unsigned long long)image->table_faults);
	error_hint(error, "find out more: qnbd check %s      or look only: "
	    "qnbd serve -r %s", image->path, image->path);
	return -EIO;
}

co_fn static int
prepare_writing(struct image *image, const struct image_options *options,
    struct error *error)
{
	uint64_t end = (image->limits.host_end + image->cluster_bytes - 1) >>
	    image->cluster_bits;
	uint64_t used_end;
	int err;

	image->device_bytes = image->limits.host_end;
	err = check_tables(image, error);
	if (!err)
		err = find_used_end(image, end, &used_end, error);
	if (err)
		return err;
	/*
	 * A file may be shorter than its refcounts say, after a crash or a
	 * cut: what would be there stays out of use, and entries that point
	 * there stay wrong.
	 */
	if (!image->file->is_regular || used_end > end) {
		image->limits.gap_begin = image->file->is_regular ?
		    end << image->cluster_bits : 0;
		image->limits.gap_end = image->file->is_regular ?
		    used_end << image->cluster_bits : 0;
		end = used_end;
	}
	image->end_cluster = end;
	image->allocator.scan_next = 1;
	image->allocator.scan_end = end;
	return give_up_bitmaps(image, options->refuse_bitmaps, error);
}

int
qcow2_open(struct image *image, const struct image_options *options,
    struct error *error)
{
	int err;

	err = header_load(image->file, &image->header, error);
	if (err)
		return err;
	monitor_init(&image->monitor);
	metadata_init(&image->metadata, image->header.cluster_bits);
	err = header_check_policy(image->path, &image->header,
	    image->writable, error);
	if (!err)
		err = settle_geometry(image, error);
	if (!err && slice_cache_init(&image->slices, image->cluster_bytes,
	    options->metadata_cache_bytes))
		err = out_of_memory(error);
	if (!err && epochs_init(&image->epochs, image->loops))
		err = out_of_memory(error);
	if (!err)
		err = load_tables(image, error);
	if (!err)
		err = index_metadata(image, error);
	if (!err && image->writable)
		err = prepare_writing(image, options, error);
	if (err) {
		free_tables(image);
		return err;
	}
	image->ops = &qcow2_ops;
	return 0;
}

/* ---- closing ---- */

/* Barriers until the disk has it all: each may let clusters out that lower
 * refcounts for the next. */
co_fn static int
settle(struct image *image)
{
	int err = 0;

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
finish_writing(struct image *image)
{
	uint64_t reserve_end = image->allocator.reserve_end;
	int err;

	monitor_enter(&image->monitor);
	image->closing = true;
	barrier_wait_idle(image);
	quarantine_unwatch(image);
	barrier_wait_idle(image);
	image->allocator.used = false;
	err = settle(image);
	if (!err)
		err = alloc_return_reserve(image);
	if (!err)
		err = settle(image);
	if (!err && reserve_end == image->end_cluster)
		image->end_cluster = image->allocator.reserve_next;
	if (!err && image->allocator.reserve_next > 0)
		err = trim_file(image);
	monitor_leave(&image->monitor);
	return err;
}

co_fn static int
qcow2_close(struct image *image)
{
	int err = image->writable ? finish_writing(image) : 0;

	free_tables(image);
	return err;
}

const struct image_ops qcow2_ops = {
	.read = qcow2_read,
	.plan = qcow2_plan,
	.status = qcow2_status,
	.write = qcow2_write,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.flush = qcow2_flush,
	.close = qcow2_close,
};
