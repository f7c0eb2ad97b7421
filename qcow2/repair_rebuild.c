/* SPDX-License-Identifier: MIT */
/*
 * Refcounts that get a new place.
 *
 * Users are counted once more, as if there were no refcounts, since a bad
 * table of them marks clusters of others as its own.  The new table and its
 * blocks go where nobody has anything: behind the end of a file, behind the
 * last cluster in use of a device, or else into its gaps.  If an entry points
 * past the end of the file it must not grow, since what is lost there would
 * then read as zeros, or as refcounts.
 * When they are stable one write to the header switches (O5).  The old ones
 * are counted by nobody, so with the switch they are free.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/repair_internal.h"
#include "runtime/file.h"

struct rebuild {
	struct check *old;		/* all was counted */
	struct check *users;		/* all but refcounts; then the new */
	bool keep;			/* old refcounts that are higher */
	uint64_t *table;		/* where the blocks are to be */
	uint64_t table_entries;
	uint64_t table_cluster;
	uint64_t next, end;		/* clusters to take from */
	bool wrapped;			/* to the gaps of a device */
	uint8_t *snapshots;		/* a new table, or NULL */
	size_t snapshots_bytes;
	uint64_t snapshots_cluster;
};

/* ---- whether ---- */

/* Who else has a part of that cluster, or that it is in the file at all. */
static bool
is_shared(const struct check *check, uint64_t host)
{
	uint64_t cluster = host >> check->cluster_bits;

	return cluster >= check->file_clusters ||
	    check_count(check, cluster) != 1;
}

static bool
has_users(const struct check *check, uint64_t index)
{
	uint64_t first = index * check_block_clusters(check);
	uint64_t end = first + check_block_clusters(check);

	if (end > check->counts_clusters)
		end = check->counts_clusters;
	for (uint64_t cluster = first; cluster < end; cluster++)
		if (check_count(check, cluster) > 0)
			return true;
	return false;
}

/* A block that is there, where it may be, and belongs to this entry alone. */
static bool
is_sound_block(const struct check *check, uint64_t index)
{
	return index < check->refcount_table_entries &&
	    check_block_host(check, index) &&
	    !(check->refcount_table[index] & ENTRY_REFCOUNT_RESERVED) &&
	    !is_shared(check, check_block_host(check, index));
}

bool
repair_needs_rebuild(const struct check *check)
{
	uint64_t host = check->header.refcount_table_offset;
	uint64_t blocks = check->counts_clusters /
	    check_block_clusters(check) + 1;

	for (uint64_t i = 0; i < check->header.refcount_table_clusters; i++)
		if (is_shared(check, host + (i << check->cluster_bits)))
			return true;
	for (uint64_t i = 0; i < check->refcount_table_entries; i++)
		if (check->refcount_table[i] && !is_sound_block(check, i))
			return true;
	for (uint64_t i = 0; i < blocks; i++)
		if (!is_sound_block(check, i) && has_users(check, i))
			return true;
	return false;
}

/* ---- where ---- */

static bool
is_free(const struct rebuild *rebuild, uint64_t cluster)
{
	const struct check *old = rebuild->old;
	const struct check *users = rebuild->users;

	if (cluster < users->counts_clusters && check_count(users, cluster))
		return false;
	return cluster >= old->file_clusters || !check_count(old, cluster);
}

/* Where next clusters are to be looked for; false: nowhere. */
static bool
wrap(struct rebuild *rebuild)
{
	/* Leaks may be what others have lost. */
	if (rebuild->users->file->is_regular || rebuild->wrapped ||
	    rebuild->keep)
		return false;
	rebuild->wrapped = true;
	rebuild->next = 1;
	return true;
}

/* Takes count clusters in a row, which have one user each from here on. */
static int
take(struct rebuild *rebuild, uint64_t count, uint64_t *clusterp)
{
	struct check *users = rebuild->users;
	uint64_t run = 0, first;

	while (run < count) {
		if (rebuild->next >= rebuild->end) {
			run = 0;
			if (wrap(rebuild))
				continue;
			return error_set(users->error, -ENOSPC, "%s: there is "
			    "no room for new refcounts", users->name);
		}
		run = is_free(rebuild, rebuild->next) ? run + 1 : 0;
		rebuild->next++;
	}
	first = rebuild->next - count;
	if (check_counts_extend(users, rebuild->next))
		return error_set(users->error, -ENOMEM, "%s: no memory for "
		    "new refcounts", users->name);
	for (uint64_t i = 0; i < count; i++)
		check_count_up(users, first + i);
	*clusterp = first;
	return 0;
}

/* More entries than will be used: for what is there, and for the new. */
static uint64_t
guess_entries(const struct rebuild *rebuild)
{
	const struct check *users = rebuild->users;
	uint64_t block_clusters = check_block_clusters(users);
	uint64_t clusters = rebuild->next + 1;
	uint64_t blocks = clusters / block_clusters + 1;

	clusters += 2 * blocks + 64 +
	    2 * (blocks * ENTRY_BYTES >> users->cluster_bits);
	return clusters / block_clusters + 1;
}

static int
place_table(struct rebuild *rebuild)
{
	struct check *users = rebuild->users;
	uint64_t bytes = (guess_entries(rebuild) * ENTRY_BYTES +
	    users->cluster_bytes - 1) & ~(users->cluster_bytes - 1ull);

	if (bytes > HEADER_REFCOUNT_TABLE_BYTES_MAX)
		return error_set(users->error, -EFBIG, "%s is too large for "
		    "its clusters: its refcounts would need a table of %llu "
		    "bytes", users->name, (unsigned long long)bytes);
	rebuild->table_entries = bytes / ENTRY_BYTES;
	rebuild->table = calloc(rebuild->table_entries, ENTRY_BYTES);
	if (!rebuild->table)
		return error_set(users->error, -ENOMEM, "%s: no memory for "
		    "new refcounts", users->name);
	return take(rebuild, bytes >> users->cluster_bits,
	    &rebuild->table_cluster);
}

static bool
needs_block(const struct rebuild *rebuild, uint64_t index)
{
	return has_users(rebuild->users, index) ||
	    (rebuild->keep && is_sound_block(rebuild->old, index));
}

/* Blocks need blocks that tell of them. */
static int
place_blocks(struct rebuild *rebuild)
{
	struct check *users = rebuild->users;
	bool placed = true;

	while (placed) {
		placed = false;
		for (uint64_t i = 0; i < rebuild->table_entries; i++) {
			uint64_t cluster;
			int err;

			if (rebuild->table[i] || !needs_block(rebuild, i))
				continue;
			err = take(rebuild, 1, &cluster);
			if (err)
				return err;
			rebuild->table[i] = cluster << users->cluster_bits;
			placed = true;
		}
	}
	/* The guess was wrong. */
	if (users->counts_clusters > rebuild->table_entries *
	    check_block_clusters(users) &&
	    has_users(users, rebuild->table_entries))
		return error_set(users->error, -EFBIG, "%s: new refcounts do "
		    "not fit into their table", users->name);
	return 0;
}

/* ---- writing ---- */

co_fn static int
fill_block(struct rebuild *rebuild, uint64_t index, uint8_t *block)
{
	struct check *users = rebuild->users;
	unsigned order = users->header.refcount_order;
	uint64_t count = check_block_clusters(users);
	uint64_t first = index * count;

	memset(block, 0, users->cluster_bytes);
	if (rebuild->keep && is_sound_block(rebuild->old, index)) {
		int err = check_read(users, block, users->cluster_bytes,
		    check_block_host(rebuild->old, index),
		    "a refcount block");

		if (err)
			return err;
	}
	for (uint64_t i = 0; i < count && first + i < users->counts_clusters;
	    i++) {
		uint64_t value = check_users(users, first + i);

		if (value > entry_refcount_get(block, order, i))
			entry_refcount_set(block, order, i, value);
	}
	return 0;
}

co_fn static int
write_blocks(struct rebuild *rebuild)
{
	struct check *users = rebuild->users;
	uint64_t max = users->buffer_bytes >> users->cluster_bits;
	uint64_t start = 0, count = 0;
	int err = 0;

	for (uint64_t i = 0; i < rebuild->table_entries && !err; i++) {
		uint64_t host = rebuild->table[i];

		if (!host)
			continue;
		if (count == max ||
		    host != start + (count << users->cluster_bits)) {
			if (count > 0)
				err = check_write(users, users->buffer,
				    (size_t)count << users->cluster_bits,
				    start, "refcount blocks");
			start = host;
			count = 0;
		}
		if (!err)
			err = fill_block(rebuild, i, users->buffer +
			    (count++ << users->cluster_bits));
	}
	if (!err && count > 0)
		err = check_write(users, users->buffer,
		    (size_t)count << users->cluster_bits, start,
		    "refcount blocks");
	return err;
}

co_fn static int
write_table(struct rebuild *rebuild)
{
	struct check *users = rebuild->users;

	for (uint64_t i = 0; i < rebuild->table_entries; i++)
		rebuild->table[i] = htobe64(rebuild->table[i]);
	return check_write(users, rebuild->table,
	    rebuild->table_entries * ENTRY_BYTES,
	    rebuild->table_cluster << users->cluster_bits,
	    "the refcount table");
}

/* The two fields are neighbours: one write, in one sector. */
co_fn static int
switch_tables(struct rebuild *rebuild)
{
	struct check *users = rebuild->users;
	struct header_patch refcounts = header_patch_refcount_table(
	    rebuild->table_cluster << users->cluster_bits,
	    (uint32_t)(rebuild->table_entries * ENTRY_BYTES >>
	    users->cluster_bits));
	struct header_patch snapshots = header_patch_snapshots(
	    users->header.snapshot_count,
	    rebuild->snapshots_cluster << users->cluster_bits);
	uint8_t data[sizeof(refcounts.data) + sizeof(snapshots.data)];
	size_t bytes = refcounts.bytes;
	int err = check_sync(users);

	assert(snapshots.offset == refcounts.offset + refcounts.bytes);
	memcpy(data, refcounts.data, refcounts.bytes);
	if (rebuild->snapshots) {
		memcpy(data + bytes, snapshots.data, snapshots.bytes);
		bytes += snapshots.bytes;
	}
	if (!err)
		err = check_write(users, data, bytes, refcounts.offset,
		    "the header");
	return err ? err : check_sync(users);
}

/* ---- the snapshot table ---- */

co_fn static int
place_snapshots(struct rebuild *rebuild)
{
	struct check *users = rebuild->users;
	int err;

	if (!users->without_snapshot_table)
		return 0;
	err = repair_snapshot_table(users, &rebuild->snapshots,
	    &rebuild->snapshots_bytes);
	if (err)
		return err;
	return take(rebuild, (rebuild->snapshots_bytes +
	    users->cluster_bytes - 1) >> users->cluster_bits,
	    &rebuild->snapshots_cluster);
}

co_fn static int
write_snapshots(struct rebuild *rebuild)
{
	struct check *users = rebuild->users;

	if (!rebuild->snapshots)
		return 0;
	return check_write(users, rebuild->snapshots,
	    rebuild->snapshots_bytes,
	    rebuild->snapshots_cluster << users->cluster_bits,
	    "the snapshot table");
}

/* ---- all of it ---- */

static void
choose_place(struct rebuild *rebuild)
{
	const struct check *old = rebuild->old;

	rebuild->next = old->file_clusters;
	rebuild->end = old->file_clusters + CHECK_CLUSTERS_PAST_END;
	if (old->file->is_regular)
		return;
	rebuild->next = old->result.image_end_offset >> old->cluster_bits;
	rebuild->end = old->file_bytes >> old->cluster_bits;
}

co_fn static int
build(struct rebuild *rebuild)
{
	int err;

	choose_place(rebuild);
	err = place_snapshots(rebuild);
	if (!err)
		err = place_table(rebuild);
	if (!err)
		err = place_blocks(rebuild);
	if (!err)
		err = write_blocks(rebuild);
	if (!err)
		err = write_table(rebuild);
	if (!err)
		err = write_snapshots(rebuild);
	return err ? err : switch_tables(rebuild);
}

co_fn int
repair_rebuild(struct check *check, bool *didp, bool *hopelessp)
{
	struct check_listener quiet = {0};
	struct check users = {
		.file = check->file,
		.name = check->name,
		.error = check->error,
		.without_refcounts = true,
		.for_repair = true,
		.without_snapshot_table = check->snapshot_faults > 0 &&
		    !repair_is_hopeless(check),
	};
	struct rebuild rebuild = {.old = check, .users = &users};
	int err;

	if (check->listener) {
		quiet = *check->listener;
		quiet.report = NULL;
		users.listener = &quiet;
	}
	err = check_open(&users);
	if (!err)
		err = check_count_users(&users);
	rebuild.keep = repair_is_hopeless(&users);
	if (!err && !users.points_past_end) {
		err = build(&rebuild);
		*didp = !err;
	}
	if (!err)
		*hopelessp = rebuild.keep;
	free(rebuild.snapshots);
	free(rebuild.table);
	check_close(&users);
	return err;
}
