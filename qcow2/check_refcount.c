/* SPDX-License-Identifier: MIT */
/*
 * The refcounts of the file: read twice, first to see which are one, as the
 * flags of the L1 and L2 tables must agree with that, and at the end to hold
 * them against the counts.
 */
#include <inttypes.h>
#include <string.h>
#include "qcow2/check_internal.h"

uint64_t
check_entries_up_to(const struct check *check, uint64_t cluster)
{
	uint64_t entries = cluster / check_block_clusters(check) + 1;

	return entries < check->refcount_table_entries ? entries :
	    check->refcount_table_entries;
}

uint64_t
check_block_host(const struct check *check, uint64_t index)
{
	uint64_t host = entry_refcount_block(check->refcount_table[index]);

	if (host & (check->cluster_bytes - 1) || host >= check->file_bytes)
		return 0;
	return host;
}

/* How many blocks from index on, at least one, stand one behind the other. */
static uint64_t
run_length(const struct check *check, uint64_t index, uint64_t end)
{
	uint64_t max = check->buffer_bytes >> check->cluster_bits;
	uint64_t host = check_block_host(check, index), count = 1;

	while (index + count < end && count < max && check_block_host(check,
	    index + count) == host + (count << check->cluster_bits))
		count++;
	return count;
}

co_fn int
check_read_blocks(struct check *check, uint64_t index, uint64_t end,
    uint64_t *countp)
{
	if (!check_block_host(check, index)) {
		memset(check->buffer, 0, check->cluster_bytes);
		*countp = 1;
		return 0;
	}
	*countp = run_length(check, index, end);
	return check_read(check, check->buffer,
	    (size_t)*countp << check->cluster_bits,
	    check_block_host(check, index), "a refcount block");
}

/* ---- before ---- */

static void
note_single(struct check *check, uint64_t first, const uint8_t *block)
{
	unsigned order = check->header.refcount_order;
	uint64_t count = check->single_clusters - first;

	if (count > check_block_clusters(check))
		count = check_block_clusters(check);
	for (uint64_t i = 0; i < count; i++)
		if (entry_refcount_get(block, order, i) == 1)
			check_set_bit(check->single, first + i);
}

co_fn static int
note_singles(struct check *check)
{
	uint64_t end = check_entries_up_to(check, check->single_clusters);
	uint64_t count;
	int err;

	for (uint64_t index = 0; index < end; index += count) {
		count = 1;
		if (!check_block_host(check, index)) {
			check_advance(check, count);
			continue;
		}
		err = check_read_blocks(check, index, end, &count);
		if (err)
			return err;
		for (uint64_t i = 0; i < count; i++) {
			uint64_t first = (index + i) *
			    check_block_clusters(check);

			if (first < check->single_clusters)
				note_single(check, first, check->buffer +
				    (i << check->cluster_bits));
		}
		check_advance(check, count);
	}
	return 0;
}

bool
check_copied_is_right(const struct check *check, uint64_t entry)
{
	uint64_t cluster = entry_host(entry) >> check->cluster_bits;
	uint64_t index = cluster / check_block_clusters(check);
	bool single = cluster < check->single_clusters &&
	    check_bit(check->single, cluster);

	if (check->without_refcounts)
		return true;
	if (single == entry_copied(entry))
		return true;
	return index < check->refcount_table_entries &&
	    entry_refcount_block(check->refcount_table[index]) &
	    (check->cluster_bytes - 1);
}

static void
judge_block(struct check *check, uint64_t index)
{
	uint64_t entry = check->refcount_table[index];
	uint64_t host = entry_refcount_block(entry);
	const char *fault = NULL;

	if (entry & ENTRY_REFCOUNT_RESERVED)
		fault = "has reserved bits set";
	else if (host & (check->cluster_bytes - 1))
		fault = "is not aligned to a cluster";
	else if (host)
		fault = check_mark(check, host, check->cluster_bytes,
		    CHECK_TABLE);
	if (host)
		check_tell(check, CHECK_CONTENT_REFCOUNTS, host,
		    check->cluster_bytes);
	if (fault)
		check_report_repairable(check, "entry %" PRIu64
		    " of the refcount table (0x%016" PRIx64 ") %s", index,
		    entry, fault);
}

co_fn int
check_load_refcounts(struct check *check)
{
	const struct header *header = &check->header;
	uint64_t bytes = (uint64_t)header->refcount_table_clusters <<
	    check->cluster_bits;
	int err;

	check->refcount_table_entries = bytes / ENTRY_BYTES;
	check_tell(check, CHECK_CONTENT_REFCOUNTS,
	    header->refcount_table_offset, bytes);
	if (!check_mark_table(check, header->refcount_table_offset, bytes,
	    "the refcount table"))
		check->repairable++;
	err = check_load_table(check, header->refcount_table_offset,
	    check->refcount_table_entries, "the refcount table",
	    &check->refcount_table);
	if (err)
		return err;
	check->total += check_entries_up_to(check, check->file_clusters) +
	    check_entries_up_to(check, check->single_clusters);
	for (uint64_t i = 0; i < check->refcount_table_entries; i++)
		judge_block(check, i);
	return note_singles(check);
}

/* ---- after ---- */

static void
compare_cluster(struct check *check, uint64_t cluster, uint64_t refcount)
{
	uint64_t count = check_users(check, cluster);

	if (refcount == 0 && count == 0)
		return;
	check->result.image_end_offset = (cluster + 1) << check->cluster_bits;
	if (refcount == count)
		return;
	if (refcount < count)
		check->repairable++;
	if (count == 0)
		check_tell(check, CHECK_CONTENT_LEAKED,
		    cluster << check->cluster_bits, check->cluster_bytes);
	check_report(check, refcount < count ? CHECK_CORRUPTION : CHECK_LEAK,
	    "cluster %" PRIu64 " at 0x%" PRIx64 " has refcount %" PRIu64
	    ", but %" PRIu64 " users", cluster,
	    cluster << check->cluster_bits, refcount, count);
}

/* The clusters from first to before end, of which an unread block tells. */
static void
report_unreadable(struct check *check, uint64_t first, uint64_t end)
{
	for (uint64_t cluster = first; cluster < end; cluster++)
		check_report(check, CHECK_ERROR, "the refcount of cluster %"
		    PRIu64 " cannot be read", cluster);
}

static void
compare_block(struct check *check, uint64_t index, const uint8_t *block,
    uint64_t clusters)
{
	unsigned order = check->header.refcount_order;
	uint64_t first = index * check_block_clusters(check);
	uint64_t end = first + check_block_clusters(check);
	uint64_t host = entry_refcount_block(check->refcount_table[index]);

	if (end > clusters)
		end = clusters;
	if (host & (check->cluster_bytes - 1)) {
		report_unreadable(check, first, end);
		return;
	}
	for (uint64_t cluster = first; cluster < end; cluster++)
		compare_cluster(check, cluster, entry_refcount_get(block,
		    order, cluster - first));
}

co_fn int
check_compare_refcounts(struct check *check)
{
	uint64_t clusters = check->file_clusters;
	uint64_t end = check_entries_up_to(check, check->file_clusters), count;
	int err;

	/* What is past the end counts only if somebody uses it. */
	if (check_count(check, clusters) > 0)
		clusters++;
	check->result.image_end_offset = check->cluster_bytes;
	for (uint64_t index = 0; index < end; index += count) {
		err = check_read_blocks(check, index, end, &count);
		if (err)
			return err;
		for (uint64_t i = 0; i < count; i++)
			compare_block(check, index + i, check->buffer +
			    (i << check->cluster_bits), clusters);
		check_advance(check, count);
	}
	for (uint64_t cluster = end * check_block_clusters(check);
	    cluster < clusters; cluster++)
		compare_cluster(check, cluster, 0);
	return 0;
}
