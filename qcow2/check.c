/* SPDX-License-Identifier: MIT */
#include "qcow2/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bitmap_directory.h"
#include "qcow2/bytes.h"
#include "qcow2/check_internal.h"
#include "qcow2/snapshot.h"
#include "qcow2/window.h"
#include "runtime/file.h"

/* What is read at first; also the smallest cluster. */
#define HEADER_START_BYTES	512u
#define EXTENDED_L2_CLUSTER_BITS_MIN 14u
#define CRYPTO_EXTENSION_BYTES	16u
/* A version 3 entry without these has no length of the disk. */
#define SNAPSHOT_EXTRA_V3_BYTES	16u

co_fn int
check_read(struct check *check, void *data, size_t bytes, uint64_t host,
    const char *what)
{
	int err = check_stop(check);

	if (err)
		return err;
	err = file_pread(check->file, data, bytes, host);
	if (!err)
		return 0;
	return error_set(check->error, err, "cannot read %s of %s at 0x%"
	    PRIx64 ": %s", what, check->name, host, strerror(-err));
}

co_fn int
check_load_table(struct check *check, uint64_t host, uint64_t entries,
    const char *what, uint64_t **tablep)
{
	uint64_t *table = calloc(entries + 1, ENTRY_BYTES);
	int err;

	if (!table)
		return error_set(check->error, -ENOMEM, "%s: no memory for %s",
		    check->name, what);
	/* Past the end are zeros, and offsets that no file can have. */
	if (host < check->file_bytes) {
		err = check_read(check, table, entries * ENTRY_BYTES, host,
		    what);
		if (err) {
			free(table);
			return err;
		}
	}
	for (uint64_t i = 0; i < entries; i++)
		table[i] = be64toh(table[i]);
	*tablep = table;
	return 0;
}

/* ---- the header ---- */

/*
 * The parser refuses what cannot be served, but tables can be checked without
 * a key, without the file that has the data, and with extended entries.  So it
 * is not shown these.  A table past the end of the file is a finding here, no
 * reason to stop.
 */
static int
parse_header(struct check *check, uint8_t *cluster)
{
	bool is_v3 = bytes_get32(cluster + 4) == 3;
	uint32_t crypt_method = bytes_get32(cluster + 32);
	uint64_t incompatible = is_v3 ? bytes_get64(cluster + 72) : 0;
	const struct header_extension *crypto;
	int err;

	check->data_elsewhere = incompatible & HEADER_DATA_FILE;
	check->extended_l2 = incompatible & HEADER_EXTENDED_L2;
	if (is_v3)
		bytes_put64(cluster + 72, incompatible &
		    ~(HEADER_DATA_FILE | HEADER_EXTENDED_L2));
	if (crypt_method == HEADER_CRYPT_LUKS)
		bytes_put32(cluster + 32, HEADER_CRYPT_NONE);
	if (check->extended_l2 &&
	    bytes_get32(cluster + 20) < EXTENDED_L2_CLUSTER_BITS_MIN)
		return error_set(check->error, -EINVAL, "%s has extended L2 "
		    "entries, but clusters of less than 16 KiB", check->name);
	err = header_parse(check->name, cluster, INT64_MAX, &check->header,
	    check->error);
	if (err || crypt_method != HEADER_CRYPT_LUKS)
		return err;
	check->header.crypt_method = crypt_method;
	crypto = header_find_extension(&check->header,
	    HEADER_EXTENSION_CRYPTO);
	if (!crypto || crypto->bytes != CRYPTO_EXTENSION_BYTES)
		return error_set(check->error, -EINVAL, "%s is encrypted, but "
		    "does not say where the encryption header is",
		    check->name);
	check->crypto_offset = bytes_get64(crypto->data);
	check->crypto_bytes = bytes_get64(crypto->data + 8);
	return 0;
}

/* As long as what is read at once can be; a small file needs little. */
static int
make_buffer(struct check *check, uint32_t cluster_bytes)
{
	uint64_t bytes = (check->file_bytes + cluster_bytes - 1) &
	    ~(cluster_bytes - 1ull);

	if (bytes > CHECK_READ_BYTES_MAX)
		bytes = CHECK_READ_BYTES_MAX;
	if (bytes < cluster_bytes)
		bytes = cluster_bytes;
	check->buffer_bytes = (uint32_t)bytes;
	check->buffer = malloc(bytes);
	return check->buffer ? 0 : error_set(check->error, -ENOMEM,
	    "%s: no memory to check it", check->name);
}

co_fn static int
load_header(struct check *check)
{
	int64_t size = file_size(check->file);
	uint8_t start[HEADER_START_BYTES];
	uint32_t cluster_bytes;
	int err;

	if (size < 0)
		return error_set(check->error, (int)size,
		    "cannot tell the length of %s: %s", check->name,
		    strerror((int)-size));
	check->file_bytes = (uint64_t)size;
	err = check_read(check, start, sizeof(start), 0, "the header");
	if (!err)
		err = header_parse_start(check->name, start, &cluster_bytes,
		    check->error);
	if (!err)
		err = make_buffer(check, cluster_bytes);
	if (!err)
		err = check_read(check, check->buffer, cluster_bytes, 0,
		    "the header");
	if (!err)
		err = parse_header(check, check->buffer);
	if (err)
		return err;
	check->cluster_bytes = cluster_bytes;
	check->cluster_bits = check->header.cluster_bits;
	check->file_clusters = (check->file_bytes + cluster_bytes - 1) >>
	    check->cluster_bits;
	/* The disk ends with a whole sector for all other tools. */
	check->result.total_clusters = ((check->header.size_bytes & ~511ull) +
	    cluster_bytes - 1) >> check->cluster_bits;
	return 0;
}

/* ---- snapshots ---- */

/* One with more extra data than anybody takes is for a repair only. */
static int
entry_bytes(struct check *check, uint32_t index, const uint8_t *entry,
    uint64_t *bytesp)
{
	uint32_t extra_bytes = bytes_get32(entry + 36);

	*bytesp = ((uint64_t)SNAPSHOT_HEAD_BYTES + extra_bytes +
	    bytes_get16(entry + 12) + bytes_get16(entry + 14) + 7) & ~7ull;
	if (extra_bytes <= SNAPSHOT_EXTRA_BYTES_MAX)
		return 0;
	if (!check->for_repair)
		return -EINVAL;
	check->snapshot_faults++;
	check_report_repairable(check, "entry %" PRIu32 " of the snapshot "
	    "table has %" PRIu32 " bytes of extra data", index, extra_bytes);
	return 0;
}

/* Takes the next entry of the table; only where its L1 table is matters. */
co_fn static int
load_snapshot(struct check *check, struct window *window, uint32_t index)
{
	struct check_l1 *snapshot = &check->snapshots[index];
	const void *entry;
	uint64_t bytes;
	int err;

	err = window_peek(window, SNAPSHOT_HEAD_BYTES, &entry);
	if (!err)
		err = entry_bytes(check, index, entry, &bytes);
	if (err)
		return err;
	snapshot->offset = bytes_get64(entry);
	snapshot->entries = bytes_get32((const uint8_t *)entry + 8);
	if (check->header.version >= 3 &&
	    bytes_get32((const uint8_t *)entry + 36) <
	    SNAPSHOT_EXTRA_V3_BYTES) {
		check->snapshot_faults++;
		check_report_repairable(check, "entry %" PRIu32 " of the "
		    "snapshot table is incomplete", index);
	}
	return window_skip(window, bytes);
}

/* Marks the L1 table; one that cannot be is forgotten. */
static void
mark_snapshot(struct check *check, uint32_t index, struct check_l1 *snapshot)
{
	uint64_t bytes = (uint64_t)snapshot->entries * ENTRY_BYTES;
	const char *fault;

	if (snapshot->offset & (check->cluster_bytes - 1))
		fault = "is not aligned to a cluster";
	else if (bytes > HEADER_L1_BYTES_MAX)
		fault = "is too long";
	else
		fault = check_mark(check, snapshot->offset, bytes,
		    CHECK_TABLE);
	if (!fault) {
		check_tell(check, CHECK_CONTENT_L1, snapshot->offset, bytes);
		return;
	}
	check_report(check, CHECK_CORRUPTION, "the L1 table of entry %" PRIu32
	    " of the snapshot table, at 0x%" PRIx64 ", %s", index,
	    snapshot->offset, fault);
	snapshot->entries = 0;
}

co_fn static int
load_snapshots(struct check *check)
{
	const struct header *header = &check->header;
	uint64_t offset = header->snapshots_offset;
	struct window window;
	int err = -ENOMEM;

	if (header->snapshot_count == 0)
		return 0;
	check->snapshots = calloc(header->snapshot_count,
	    sizeof(*check->snapshots));
	if (!check->snapshots || window_open(&window, check->file, offset,
	    offset + SNAPSHOT_TABLE_BYTES_MAX))
		goto explain;
	for (err = 0; !err && check->snapshot_count < header->snapshot_count;)
		err = load_snapshot(check, &window, check->snapshot_count++);
	offset = window.offset;
	window_close(&window);
	if (err)
		goto explain;
	if (!check->without_snapshot_table)
		check_mark_table(check, header->snapshots_offset,
		    offset - header->snapshots_offset, "the snapshot table");
	check_tell(check, CHECK_CONTENT_SNAPSHOT_TABLE,
	    header->snapshots_offset, offset - header->snapshots_offset);
	for (uint32_t i = 0; i < check->snapshot_count; i++)
		mark_snapshot(check, i, &check->snapshots[i]);
	return 0;
explain:
	return error_set(check->error, err, "%s: cannot load the snapshot "
	    "table after %" PRIu32 " entries: %s", check->name,
	    check->snapshot_count > 0 ? check->snapshot_count - 1 : 0,
	    strerror(-err));
}

/* ---- bitmaps ---- */

/* A table that overlaps another one is not looked into: there could be many. */
co_fn static int
mark_bitmap(struct check *check, const struct bitmap *bitmap)
{
	uint64_t *table;
	int err;

	check_tell(check, CHECK_CONTENT_BITMAPS, bitmap->table_offset,
	    (uint64_t)bitmap->table_entries * ENTRY_BYTES);
	if (!check_mark_table(check, bitmap->table_offset,
	    (uint64_t)bitmap->table_entries * ENTRY_BYTES,
	    "the table of a bitmap"))
		return 0;
	err = check_load_table(check, bitmap->table_offset,
	    bitmap->table_entries, "the table of a bitmap", &table);
	if (err)
		return err;
	for (uint32_t i = 0; i < bitmap->table_entries; i++) {
		const struct entry_limits limits = {
			.cluster_bits = check->cluster_bits,
			.host_end = UINT64_MAX,
		};
		uint64_t host = entry_host(table[i]);
		const char *fault = entry_bitmap_fault(table[i], &limits);

		if (!fault && host) {
			fault = check_mark(check, host, check->cluster_bytes,
			    CHECK_TABLE);
			check_tell(check, CHECK_CONTENT_BITMAPS, host,
			    check->cluster_bytes);
		}
		if (fault)
			check_report(check, CHECK_CORRUPTION, "entry %" PRIu32
			    " of the table of a bitmap at 0x%" PRIx64
			    " (0x%016" PRIx64 ") %s", i, bitmap->table_offset,
			    table[i], fault);
	}
	free(table);
	return 0;
}

/*
 * Bitmaps that a writer did not keep up to date are not there any more, and
 * what they used is leaked.
 */
co_fn static int
mark_bitmaps(struct check *check)
{
	const struct header_bitmaps *bitmaps = &check->header.bitmaps;
	struct bitmap_directory directory;
	struct error error;
	int err;

	if (!bitmaps->present || !(check->header.autoclear & HEADER_BITMAPS))
		return 0;
	if (!bitmaps->fault) {
		check_mark_table(check, bitmaps->directory_offset,
		    bitmaps->directory_bytes, "the bitmap directory");
		check_tell(check, CHECK_CONTENT_BITMAPS,
		    bitmaps->directory_offset, bitmaps->directory_bytes);
	}
	err = bitmap_directory_load(check->file, &check->header, &directory,
	    &error);
	if (err == -EINVAL) {
		check_report(check, CHECK_CORRUPTION, "%s", error.message);
		return 0;
	}
	if (err) {
		*check->error = error;
		return err;
	}
	for (unsigned i = 0; i < directory.count && !err; i++)
		err = mark_bitmap(check, &directory.list[i]);
	bitmap_directory_free(&directory);
	return err;
}

/* ---- all of it ---- */

/* Everything that shares its clusters with nobody. */
co_fn static int
mark_tables(struct check *check)
{
	const struct header *header = &check->header;
	int err;

	check_mark_table(check, 0, check->cluster_bytes, "the header");
	check_tell(check, CHECK_CONTENT_HEADER, 0, check->cluster_bytes);
	check_mark_table(check, header->l1_offset,
	    (uint64_t)header->l1_entries * ENTRY_BYTES, "the L1 table");
	check_tell(check, CHECK_CONTENT_L1, header->l1_offset,
	    (uint64_t)header->l1_entries * ENTRY_BYTES);
	check_mark_table(check, check->crypto_offset, check->crypto_bytes,
	    "the encryption header");
	check_tell(check, CHECK_CONTENT_HEADER, check->crypto_offset,
	    check->crypto_bytes);
	err = load_snapshots(check);
	check->total = header->l1_entries;
	for (uint32_t i = 0; i < check->snapshot_count; i++)
		check->total += check->snapshots[i].entries;
	if (!err)
		err = mark_bitmaps(check);
	if (err || check->without_refcounts)
		return err;
	return check_load_refcounts(check);
}

co_fn static int
walk_disks(struct check *check)
{
	const struct check_l1 disk = {
		.offset = check->header.l1_offset,
		.entries = check->header.l1_entries,
		.active = true,
	};
	int err;

	if (check->data_elsewhere && check->snapshot_count > 0)
		check_report(check, CHECK_CORRUPTION, "there are snapshots, "
		    "which do not go with an external data file");
	err = check_walk_l1(check, &disk);
	for (uint32_t i = 0; i < check->snapshot_count && !err; i++)
		err = check_walk_l1(check, &check->snapshots[i]);
	return err;
}

co_fn int
check_open(struct check *check)
{
	int err = load_header(check);

	return err ? err : check_counts_init(check);
}

co_fn int
check_count_users(struct check *check)
{
	int err = mark_tables(check);

	return err ? err : walk_disks(check);
}

void
check_close(struct check *check)
{
	header_free(&check->header);
	free(check->snapshots);
	free(check->refcount_table);
	free(check->single);
	free(check->own_tables);
	free(check->l2_tables);
	free(check->tables);
	free(check->counts);
	free(check->buffer);
}

co_fn int
check_file_listen(struct file *file, const char *name,
    const struct check_listener *listener, struct check_result *result,
    struct error *error)
{
	struct check check = {
		.file = file,
		.name = name,
		.listener = listener,
		.error = error,
	};
	int err;

	err = check_open(&check);
	if (!err)
		err = check_count_users(&check);
	if (!err)
		err = check_compare_refcounts(&check);
	if (!err)
		*result = check.result;
	check_close(&check);
	return err;
}

co_fn int
check_file(struct file *file, const char *name, struct check_result *result,
    struct error *error)
{
	return check_file_listen(file, name, NULL, result, error);
}
