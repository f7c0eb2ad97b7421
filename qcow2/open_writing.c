/* SPDX-License-Identifier: MIT */
/*
 * What opening a qcow2 image for writing takes beyond reading it.
 */
#include <errno.h>
#include <string.h>
#include "qcow2/bitmap_directory.h"
#include "qcow2/internal.h"
#include "qcow2/open_internal.h"
#include "runtime/log.h"

/*
 * How many free clusters, and how many blocks about them, may lie between the
 * end of the file and the last refcount: enough for 8 TiB that were given back
 * in clusters of 64 KiB, and little enough to be looked through in a second.
 */
#define FREE_CLUSTERS_MAX (1ull << 27)
#define FREE_BLOCKS_MAX (1u << 17)

int
open_find_end(struct image *image, uint64_t from, uint64_t *endp)
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
	err = open_find_end(image, image->file->is_regular ? file_end : 1,
	    endp);
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
	err = guard_write_header(image, patch);
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

/* Finds, and logs, the first of the clusters whose refcount is not 1. */
co_fn static int
find_miscounted(struct image *image, uint64_t host, uint64_t bytes,
    bool *foundp)
{
	uint64_t cluster = host >> image->cluster_bits;
	uint64_t last = (host + bytes - 1) >> image->cluster_bits;

	for (; cluster <= last; cluster++) {
		uint64_t value;
		int err = refcount_get(image, cluster, &value);

		if (err)
			return err;
		if (value == 1)
			continue;
		log_error("cluster 0x%llx holds a table, but its refcount is "
		    "%llu file=%s", (unsigned long long)cluster <<
		    image->cluster_bits, (unsigned long long)value,
		    image->path);
		*foundp = true;
		return 0;
	}
	return 0;
}

/*
 * Do the refcounts know of the tables that there are in any case?  If a bit is
 * wrong in what says where they are or how wide, they do not, and clusters in
 * use would look free.  The first that they do not know of says it.
 */
co_fn static int
find_any_miscounted(struct image *image, bool *foundp)
{
	const struct header *header = &image->header;
	int err;

	err = find_miscounted(image, 0, image->cluster_bytes, foundp);
	if (!err && !*foundp && header->l1_entries > 0)
		err = find_miscounted(image, header->l1_offset,
		    (uint64_t)header->l1_entries * ENTRY_BYTES, foundp);
	if (!err && !*foundp)
		err = find_miscounted(image, header->refcount_table_offset,
		    image->refcount_table_entries * ENTRY_BYTES, foundp);
	for (uint64_t i = 0; i < image->refcount_table_entries && !err &&
	    !*foundp; i++)
		if (image->refcount_table[i])
			err = find_miscounted(image, entry_refcount_block(
			    image->refcount_table[i]), image->cluster_bytes,
			    foundp);
	return err;
}

/* Whether the refcounts can be believed. */
co_fn static int
judge_refcounts(struct image *image, struct error *error)
{
	bool miscounted = false;
	int err;

	monitor_enter(&image->monitor);
	err = find_any_miscounted(image, &miscounted);
	monitor_leave(&image->monitor);
	if (err)
		return error_set(error, err, "cannot read the refcounts of "
		    "%s: %s", image->path, strerror(-err));
	if (!miscounted)
		return 0;
	error_set(error, -EIO, "%s is damaged: its refcounts are wrong, even "
	    "for its own tables", image->path);
	error_hint(error, "repair: qnbd check --repair all %s      or "
	    "look only: qnbd serve -r %s", image->path, image->path);
	return -EIO;
}

co_fn int
open_for_writing(struct image *image, const struct image_options *options,
    struct error *error)
{
	uint64_t file_end = (image->limits.host_end + image->cluster_bytes -
	    1) >> image->cluster_bits;
	uint64_t used_end = file_end;
	int err;

	if (options->discard == IMAGE_DISCARD_NO_UNREF &&
	    !image->limits.zero_flag) {
		error_set(error, -ENOTSUP, "%s is of version 2, which has no "
		    "zeros for clusters that keep their place", image->path);
		error_hint(error, "use --discard unmap");
		return -ENOTSUP;
	}
	image->device_bytes = image->limits.host_end;
	err = check_tables(image, error);
	/* First, since it has a limit: there may be very many blocks. */
	if (!err)
		err = find_used_end(image, file_end, &used_end, error);
	if (!err)
		err = judge_refcounts(image, error);
	if (err)
		return err;
	/*
	 * The length of a device says nothing: it ends with its refcounts.  A
	 * file may be shorter than these say, after a crash or a cut: what
	 * would be there stays out of use, and entries that point there stay
	 * wrong.
	 */
	if (!image->file->is_regular) {
		file_end = used_end;
		image->limits.host_end = used_end << image->cluster_bits;
		open_judge_tables(image);
		err = check_tables(image, error);
		if (err)
			return err;
	} else if (used_end > file_end) {
		image->limits.gap_begin = file_end << image->cluster_bits;
		image->limits.gap_end = used_end << image->cluster_bits;
	}
	image->end_cluster = used_end;
	image->dirty.lazy = image->header.compatible & HEADER_LAZY_REFCOUNTS;
	image->allocator.scan_next = 1;
	image->allocator.scan_end = file_end;
	/* Whoever wrote what is there may have been killed before its flush. */
	atomic_store(&image->unsynced, true);
	return give_up_bitmaps(image, options->refuse_bitmaps, error);
}
