/* SPDX-License-Identifier: MIT */
#include "tests/schedule/pause.h"

#include "qcow2/entry.h"

/* Header fields that tell where tables are. */
#define L1_ENTRIES_AT 36
#define L1_AT 40
#define REFCOUNT_TABLE_AT 48
#define REFCOUNT_TABLE_CLUSTERS_AT 56

/* What an offset of the file belongs to, by the tables on disk. */
enum part {
	PART_DATA,		/* or a table that nothing points to yet */
	PART_REFCOUNTS,		/* and their table */
	PART_ENTRIES,		/* L2 tables and the L1 table */
};

static bool
is_within(uint64_t offset, uint64_t begin, uint64_t bytes)
{
	return begin && offset >= begin && offset - begin < bytes;
}

/* Whether a table at offset, or one of those that it points to, is hit. */
static bool
hits_tables(struct world *world, uint64_t table, uint64_t entries,
    uint64_t offset)
{
	if (is_within(offset, table, entries * ENTRY_BYTES))
		return true;
	for (uint64_t i = 0; i < entries; i++) {
		uint64_t entry = world_peek64(world, table + i * ENTRY_BYTES);

		if (is_within(offset, entry_host(entry),
		    world->options.cluster_bytes))
			return true;
	}
	return false;
}

static enum part
part_at(struct world *world, uint64_t offset)
{
	uint64_t refcount_entries = world_peek32(world,
	    REFCOUNT_TABLE_CLUSTERS_AT) * world->options.cluster_bytes /
	    ENTRY_BYTES;

	if (hits_tables(world, world_peek64(world, REFCOUNT_TABLE_AT),
	    refcount_entries, offset))
		return PART_REFCOUNTS;
	if (hits_tables(world, world_peek64(world, L1_AT),
	    world_peek32(world, L1_ENTRIES_AT), offset))
		return PART_ENTRIES;
	return PART_DATA;
}

/* One byte repeated in one of the pieces. */
static bool
holds_value(const struct file_sim_op *op, uint8_t value)
{
	for (unsigned i = 0; i < op->iov_count; i++) {
		if (op->iov[i].iov_len > 0 && is_all(op->iov[i].iov_base,
		    op->iov[i].iov_len, value))
			return true;
	}
	return false;
}

/* ---- what is what ---- */

static bool
is_at_host(struct pause *pause, const struct file_sim_op *op)
{
	uint64_t cluster_bytes = pause->world->options.cluster_bytes;

	return op->kind == FILE_SIM_READ &&
	    is_within(op->offset, pause->host, cluster_bytes);
}

static bool
is_new_table(struct pause *pause, const struct file_sim_op *op)
{
	uint64_t cluster_bytes = pause->world->options.cluster_bytes;

	return op->kind == FILE_SIM_WRITE && op->length == cluster_bytes &&
	    op->offset % cluster_bytes == 0 && holds_value(op, 0) &&
	    part_at(pause->world, op->offset) == PART_DATA;
}

static bool
is_data(struct pause *pause, const struct file_sim_op *op)
{
	return op->kind == FILE_SIM_WRITE && holds_value(op, pause->value) &&
	    part_at(pause->world, op->offset) == PART_DATA;
}

static bool
is_refcounts(struct pause *pause, const struct file_sim_op *op)
{
	return op->kind == FILE_SIM_WRITE &&
	    part_at(pause->world, op->offset) == PART_REFCOUNTS;
}

static bool
is_entries(struct pause *pause, const struct file_sim_op *op)
{
	return op->kind == FILE_SIM_WRITE &&
	    part_at(pause->world, op->offset) == PART_ENTRIES;
}

/* The sync after entries, or one that comes before them. */
static bool
is_sync(struct pause *pause, const struct file_sim_op *op, bool after_entries)
{
	bool were_written = pause->entries_written;

	if (op->kind == FILE_SIM_SYNC)
		pause->entries_written = false;
	else if (is_entries(pause, op))
		pause->entries_written = true;
	return op->kind == FILE_SIM_SYNC && were_written == after_entries;
}

static bool
is_first_sync(struct pause *pause, const struct file_sim_op *op)
{
	return is_sync(pause, op, false);
}

static bool
is_last_sync(struct pause *pause, const struct file_sim_op *op)
{
	return is_sync(pause, op, true);
}

static bool
is_punch(struct pause *pause, const struct file_sim_op *op)
{
	(void)pause;
	return op->kind == FILE_SIM_PUNCH;
}

static const struct point {
	const char *name;
	bool (*is_it)(struct pause *pause, const struct file_sim_op *op);
	bool after_effect;
} points[PAUSE_POINTS] = {
	[PAUSE_TABLE_LOAD] = {"table load", is_at_host, false},
	[PAUSE_TABLE_NEW] = {"table new", is_new_table, false},
	[PAUSE_COPY] = {"copy", is_at_host, false},
	[PAUSE_DATA] = {"data", is_data, false},
	[PAUSE_LINK] = {"link", is_data, true},
	[PAUSE_READ] = {"read", is_at_host, false},
	[PAUSE_CUT] = {"cut", is_refcounts, false},
	[PAUSE_FIRST_SYNC] = {"first sync", is_first_sync, false},
	[PAUSE_BETWEEN_SYNCS] = {"between syncs", is_entries, false},
	[PAUSE_LAST_SYNC] = {"last sync", is_last_sync, false},
	[PAUSE_STABLE] = {"stable", is_last_sync, true},
	[PAUSE_PUNCH] = {"punch", is_punch, false},
	[PAUSE_REUSE] = {"reuse", is_punch, true},
};

static bool
match(const struct file_sim_op *op, void *arg)
{
	struct pause *pause = arg;

	/* Let other pauses see what comes after. */
	return pause->hold.caught == 0 &&
	    points[pause->point].is_it(pause, op);
}

/* ---- holding ---- */

void
pause_begin(struct pause *pause, struct world *world, enum pause_point point,
    uint64_t guest, uint8_t value)
{
	*pause = (struct pause){
		.world = world, .point = point, .value = value,
		.hold = {
			.name = points[point].name,
			.kinds = FILE_SIM_ANY, .match = match, .arg = pause,
			.limit = 1, .after_effect = points[point].after_effect,
		},
	};
	if (points[point].is_it == is_at_host) {
		uint64_t at = world_l2_entry(world, guest);

		pause->host = point == PAUSE_TABLE_LOAD ?
		    at & ~(world->options.cluster_bytes - 1) :
		    entry_host(world_peek64(world, at));
		ck_assert_uint_ne(pause->host, 0);
	}
	file_sim_hold(world->disk, &pause->hold);
}

void
pause_await(struct pause *pause)
{
	file_sim_await(&pause->hold, 1);
}

void
pause_end(struct pause *pause)
{
	file_sim_release(pause->world->disk, &pause->hold);
}

const char *
pause_name(enum pause_point point)
{
	return points[point].name;
}
