/* SPDX-License-Identifier: MIT */
/*
 * L1 tables, L2 tables, and the clusters they map.
 *
 * L2 tables that stand one behind the other are read in one go.  Nearly every
 * entry is that of a plain cluster with nothing wrong; those take a short way.
 */
#include <inttypes.h>
#include <stdlib.h>
#include "qcow2/check_internal.h"
#include "runtime/file.h"

/* An L2 table at work. */
struct walk {
	struct check *check;
	bool active;		/* of the disk, so it has C flags that tell */
	uint64_t host;		/* where the table stands */
	uint64_t next_host;	/* where the cluster before ends, or 0 */
	uint8_t *table;
	unsigned step;		/* words of an entry */
	bool changed;		/* the table, by a repair */
};

static void
report_entry(struct walk *walk, unsigned index, uint64_t entry,
    const char *fault)
{
	check_report(walk->check, CHECK_CORRUPTION, "entry %u of the L2 table "
	    "at 0x%" PRIx64 " (0x%016" PRIx64 ") %s", index, walk->host,
	    entry, fault);
}

static void
fix_entry(struct walk *walk, unsigned index, uint64_t entry)
{
	entry_store(walk->table, (size_t)index * walk->step, entry);
	walk->changed = true;
	walk->check->fixed++;
}

/* A fault that can only be meant in one way. */
static void
judge_entry(struct walk *walk, unsigned index, uint64_t entry,
    const char *fault, uint64_t right_entry)
{
	struct check *check = walk->check;

	report_entry(walk, index, entry, fault);
	check->repairable++;
	check->entry_faults++;
	if (check->fix_entries)
		fix_entry(walk, index, right_entry);
}

static const char *
copied_fault(uint64_t entry)
{
	return entry_copied(entry) ?
	    "is marked as copied, but its refcount is not 1" :
	    "is not marked as copied, but its refcount is 1";
}

/* The flag of an entry is wrong. */
static void
judge_copied(struct walk *walk, unsigned index, uint64_t entry)
{
	if (walk->check->fix_copied) {
		fix_entry(walk, index, entry ^ ENTRY_COPIED);
		return;
	}
	walk->check->copied_faults++;
	walk->check->repairable++;
	report_entry(walk, index, entry, copied_fault(entry));
}

static void
count_cluster(struct walk *walk, uint64_t host)
{
	struct check_result *result = &walk->check->result;

	if (!walk->active)
		return;
	result->allocated_clusters++;
	if (walk->next_host && walk->next_host != host)
		result->fragmented_clusters++;
	walk->next_host = host + walk->check->cluster_bytes;
}

static void
walk_compressed(struct walk *walk, unsigned index, uint64_t entry,
    uint64_t subclusters)
{
	struct check *check = walk->check;
	struct entry_span span = entry_compressed(entry, check->cluster_bits);
	const char *fault;

	if (entry_copied(entry))
		judge_entry(walk, index, entry,
		    "is compressed and marked as copied",
		    entry & ~ENTRY_COPIED);
	if (check->data_elsewhere || subclusters) {
		report_entry(walk, index, entry, "is compressed, which does "
		    "not go with subclusters or an external data file");
		return;
	}
	fault = check_mark(check, span.host, span.bytes, CHECK_DATA);
	check_tell(check, walk->active ? CHECK_CONTENT_COMPRESSED :
	    CHECK_CONTENT_SNAPSHOT, span.host, span.bytes);
	if (fault)
		report_entry(walk, index, entry, fault);
	if (!walk->active)
		return;
	/* Parts of sectors are read twice, so each counts as a fragment. */
	check->result.allocated_clusters++;
	check->result.compressed_clusters++;
	check->result.fragmented_clusters++;
}

/* The room of a cluster is in no place for one: true if it is not counted. */
static bool
judge_unaligned(struct walk *walk, unsigned index, uint64_t entry,
    uint64_t subclusters)
{
	static const char fault[] = "is not aligned to a cluster";
	bool has_data = walk->step == 2 ? subclusters & UINT32_MAX :
	    !(entry & ENTRY_ZERO) || walk->check->header.version < 3;

	if (has_data || entry & ENTRY_L2_RESERVED) {
		report_entry(walk, index, entry, fault);
		return false;
	}
	/* There is nothing in the room, so nothing is lost with it. */
	judge_entry(walk, index, entry, fault,
	    walk->step == 2 ? 0 : ENTRY_ZERO);
	return walk->check->for_repair;
}

/*
 * With lazy refcounts an entry may be stable and the length of the file not, if
 * there was no flush yet.  Nobody has been told of a flush without both.
 */
static bool
is_unflushed(const struct check *check, uint64_t host)
{
	return check->for_repair && check->file->is_regular &&
	    check->header.incompatible & HEADER_DIRTY &&
	    check->header.compatible & HEADER_LAZY_REFCOUNTS &&
	    !(host & (check->cluster_bytes - 1)) &&
	    host >= check->file_bytes &&
	    host >> check->cluster_bits <
	    check->file_clusters + CHECK_CLUSTERS_PAST_END;
}

static void
note_unflushed(struct check *check, uint64_t host)
{
	check->unflushed++;
	check->repairable++;
	if (host + check->cluster_bytes > check->unflushed_end)
		check->unflushed_end = host + check->cluster_bytes;
}

/* An uncompressed cluster that has room in the file. */
static void
walk_cluster(struct walk *walk, unsigned index, uint64_t entry,
    uint64_t subclusters)
{
	struct check *check = walk->check;
	uint64_t host = entry_host(entry);
	const char *fault = NULL;
	bool copied_right;

	if (host & (check->cluster_bytes - 1) &&
	    judge_unaligned(walk, index, entry, subclusters))
		return;
	count_cluster(walk, host);
	copied_right = check->data_elsewhere ? entry_copied(entry) :
	    check_copied_is_right(check, entry);
	if (!check->data_elsewhere)
		fault = check_mark(check, host, check->cluster_bytes,
		    CHECK_DATA);
	if (fault)
		report_entry(walk, index, entry, fault);
	if (fault && is_unflushed(check, host))
		note_unflushed(check, host);
	if (walk->active && !copied_right)
		judge_copied(walk, index, entry);
}

/* The same cluster, for the listener. */
static void
tell_cluster(const struct walk *walk, uint64_t entry)
{
	const struct check *check = walk->check;
	enum check_content content = CHECK_CONTENT_DATA;

	if (!walk->active)
		content = CHECK_CONTENT_SNAPSHOT;
	else if (entry & ENTRY_ZERO && !check->extended_l2)
		content = CHECK_CONTENT_ROOM;
	if (!check->data_elsewhere)
		check_tell(check, content, entry_host(entry),
		    check->cluster_bytes);
}

/* subclusters: allocated ones in the low half, those that read as zeros in the
 * high half; 0 where entries have none. */
static void
walk_entry(struct walk *walk, unsigned index, uint64_t entry,
    uint64_t subclusters)
{
	struct check *check = walk->check;
	bool has_room;

	if (entry & ENTRY_COMPRESSED) {
		walk_compressed(walk, index, entry, subclusters);
		return;
	}
	/* In another file, 0 is an offset like others, and C tells. */
	has_room = entry_host(entry) ||
	    (check->data_elsewhere && entry_copied(entry));
	if (entry & ENTRY_L2_RESERVED)
		report_entry(walk, index, entry, "has reserved bits set");
	if (entry & ENTRY_ZERO && check->header.version < 3)
		report_entry(walk, index, entry,
		    "has the zero flag in a version 2 image");
	if (has_room && subclusters >> 32 & subclusters)
		report_entry(walk, index, entry,
		    "has subclusters that are both data and zeros");
	if (!has_room && subclusters & UINT32_MAX)
		report_entry(walk, index, entry,
		    "has subclusters with data, but no cluster");
	if (has_room)
		walk_cluster(walk, index, entry, subclusters);
	if (has_room)
		tell_cluster(walk, entry);
}

/* Counts a whole cluster that has nothing wrong; false: look closer. */
static bool
walk_plain_entry(struct walk *walk, uint64_t entry)
{
	struct check *check = walk->check;
	uint64_t host = entry_host(entry);
	uint64_t cluster = host >> check->cluster_bits;

	if (!host || entry & ~(ENTRY_HOST_MASK | ENTRY_COPIED) ||
	    host & (check->cluster_bytes - 1) ||
	    cluster >= check->file_clusters || check->data_elsewhere ||
	    (walk->active && !check_copied_is_right(check, entry)) ||
	    check_bit(check->tables, cluster) ||
	    check_bit(check->l2_tables, cluster) ||
	    check_count(check, cluster) >= check->count_max ||
	    check_tells_content(check))
		return false;
	check_count_up(check, cluster);
	count_cluster(walk, host);
	return true;
}

/* Whether the table is another one now, by a repair. */
static bool
walk_l2(struct check *check, bool active, uint64_t host, uint8_t *table)
{
	unsigned words = check->cluster_bytes / ENTRY_BYTES;
	unsigned step = check->extended_l2 ? 2 : 1;
	struct walk walk = {
		.check = check, .active = active, .host = host,
		.table = table, .step = step,
	};

	for (unsigned i = 0; i < words; i += step) {
		uint64_t entry = entry_load(table, i);
		uint64_t subclusters = step == 2 ? entry_load(table, i + 1) :
		    0;

		if (!entry && !subclusters)
			continue;
		if (subclusters || !walk_plain_entry(&walk, entry))
			walk_entry(&walk, i / step, entry, subclusters);
	}
	return walk.changed;
}

/* Marks a table that is in its place; what is wrong with it, or NULL. */
static const char *
mark_own_table(struct check *check, uint64_t host)
{
	uint64_t cluster = host >> check->cluster_bits;
	const char *fault = check_mark(check, host, check->cluster_bytes,
	    CHECK_L2);

	check_tell(check, CHECK_CONTENT_L2, host, check->cluster_bytes);
	if (fault)
		return fault;
	/* Else a small file could make us read one table for years. */
	if (check_bit(check->own_tables, cluster))
		return "overlaps the table of an entry before it";
	check_set_bit(check->own_tables, cluster);
	return NULL;
}

/* Puts the flag of an entry right, where that is wanted. */
co_fn static int
fix_l1_entry(struct check *check, const struct check_l1 *l1, uint32_t index,
    uint64_t *entryp)
{
	uint8_t bytes[ENTRY_BYTES];

	if (!check->fix_copied || !l1->active || !entry_host(*entryp) ||
	    check_copied_is_right(check, *entryp))
		return 0;
	*entryp ^= ENTRY_COPIED;
	check->fixed++;
	entry_store(bytes, 0, *entryp);
	return check_write(check, bytes, sizeof(bytes),
	    l1->offset + (uint64_t)index * ENTRY_BYTES, "the L1 table");
}

/* Marks the table of an entry that is not 0; is it one to go on with? */
static bool
mark_l2(struct check *check, const struct check_l1 *l1, uint32_t index,
    uint64_t entry)
{
	uint64_t host = entry_host(entry);
	const char *fault = NULL;

	if (!host)
		fault = "has flags, but points nowhere";
	else if (host & (check->cluster_bytes - 1))
		fault = "is not aligned to a cluster";
	else
		fault = mark_own_table(check, host);
	if (entry & ENTRY_L1_RESERVED)
		check_report(check, CHECK_CORRUPTION, "entry %" PRIu32 " of "
		    "the L1 table at 0x%" PRIx64 " (0x%016" PRIx64 ") has "
		    "reserved bits set", index, l1->offset, entry);
	if (fault)
		check_report(check, CHECK_CORRUPTION, "entry %" PRIu32 " of "
		    "the L1 table at 0x%" PRIx64 " (0x%016" PRIx64 ") %s",
		    index, l1->offset, entry, fault);
	if (!host || !l1->active || check_copied_is_right(check, entry))
		return !fault;
	check->copied_faults++;
	check_report_repairable(check, "entry %" PRIu32 " of the L1 table at "
	    "0x%" PRIx64 " (0x%016" PRIx64 ") %s", index, l1->offset, entry,
	    copied_fault(entry));
	return !fault;
}

/* Reads count tables that stand at host one behind the other; walks them. */
co_fn static int
walk_run(struct check *check, bool active, uint64_t host, uint32_t count)
{
	int err;

	if (count == 0)
		return 0;
	err = check_read(check, check->buffer,
	    (size_t)count << check->cluster_bits, host, "an L2 table");
	if (err)
		return err;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t offset = (uint64_t)i << check->cluster_bits;
		uint8_t *table = check->buffer + offset;

		if (!walk_l2(check, active, host + offset, table))
			continue;
		err = check_write(check, table, check->cluster_bytes,
		    host + offset, "an L2 table");
		if (err)
			return err;
	}
	return 0;
}

co_fn static int
walk_entries(struct check *check, const struct check_l1 *l1,
    uint64_t *table)
{
	uint32_t max = check->buffer_bytes >> check->cluster_bits;
	uint64_t start = 0;		/* of the run that is gathered */
	uint32_t count = 0;
	int err;

	for (uint32_t i = 0; i < l1->entries; i++) {
		uint64_t host = entry_host(table[i]);

		check_advance(check, 1);
		err = fix_l1_entry(check, l1, i, &table[i]);
		if (err)
			return err;
		if (!table[i] || !mark_l2(check, l1, i, table[i]))
			continue;
		if (count > 0 && count < max &&
		    host == start + ((uint64_t)count << check->cluster_bits)) {
			count++;
			continue;
		}
		err = walk_run(check, l1->active, start, count);
		if (err)
			return err;
		start = host;
		count = 1;
	}
	return walk_run(check, l1->active, start, count);
}

/* Other disks may have the same tables. */
static void
forget_own_tables(struct check *check, const struct check_l1 *l1,
    const uint64_t *table)
{
	for (uint32_t i = 0; i < l1->entries; i++) {
		uint64_t cluster = entry_host(table[i]) >> check->cluster_bits;

		if (cluster <= check->file_clusters)
			check_clear_bit(check->own_tables, cluster);
	}
}

co_fn int
check_walk_l1(struct check *check, const struct check_l1 *l1)
{
	uint64_t *table;
	int err;

	if (l1->entries == 0)
		return 0;
	err = check_load_table(check, l1->offset, l1->entries,
	    "an L1 table", &table);
	if (err)
		return err;
	err = walk_entries(check, l1, table);
	forget_own_tables(check, l1, table);
	free(table);
	return err;
}
