/* SPDX-License-Identifier: MIT */
/*
 * Refcounts that are changed in their place.  Each is right or wrong by
 * itself, so a block may be torn.
 */
#include "qcow2/repair_internal.h"

/* How many refcounts of the block are other ones now. */
static uint64_t
adjust_block(struct check *check, uint64_t index, void *block,
    uint64_t clusters, enum repair_direction direction)
{
	unsigned order = check->header.refcount_order;
	uint64_t first = index * check_block_clusters(check);
	uint64_t end = first + check_block_clusters(check);
	uint64_t changed = 0;

	if (end > clusters)
		end = clusters;
	for (uint64_t cluster = first; cluster < end; cluster++) {
		uint64_t old = entry_refcount_get(block, order,
		    cluster - first);
		uint64_t users = check_users(check, cluster);

		if (direction == REPAIR_RAISE ? old >= users : old <= users)
			continue;
		entry_refcount_set(block, order, cluster - first, users);
		changed++;
	}
	return changed;
}

co_fn static int
adjust_run(struct check *check, uint64_t index, uint64_t count,
    uint64_t clusters, enum repair_direction direction, uint64_t *changedp)
{
	for (uint64_t i = 0; i < count; i++) {
		uint8_t *block = check->buffer + (i << check->cluster_bits);
		uint64_t changed = adjust_block(check, index + i, block,
		    clusters, direction);
		int err;

		if (changed == 0)
			continue;
		err = check_write(check, block, check->cluster_bytes,
		    check_block_host(check, index + i), "a refcount block");
		if (err)
			return err;
		*changedp += changed;
	}
	return 0;
}

co_fn int
repair_refcounts(struct check *check, enum repair_direction direction,
    uint64_t *countp)
{
	uint64_t clusters = check->file_clusters;
	uint64_t end = check_entries_up_to(check, clusters);
	uint64_t changed = 0, count;
	int err = 0;

	if (check_count(check, clusters) > 0)
		clusters++;
	for (uint64_t index = 0; index < end; index += count) {
		count = 1;
		if (!check_block_host(check, index))
			continue;
		err = check_read_blocks(check, index, end, &count);
		if (!err)
			err = adjust_run(check, index, count, clusters,
			    direction, &changed);
		if (err)
			return err;
	}
	*countp += changed;
	return changed > 0 ? check_sync(check) : 0;
}
