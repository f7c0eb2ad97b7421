/* SPDX-License-Identifier: MIT */
#include "qcow2/refcount.h"

#include <errno.h>
#include "qcow2/internal.h"
#include "qcow2/refcount_table.h"
#include "qcow2/slice_write.h"
#include "runtime/log.h"

/* Refcounts in one slice of a block. */
static uint64_t
slice_counts(const struct image *image)
{
	return ((uint64_t)image->slices.slice_bytes * 8) >>
	    image->refcounts.order;
}

/* The slice with the count of cluster, whose block exists. */
co_fn static int
pin(struct image *image, uint64_t cluster, struct slice **slicep)
{
	uint64_t entry = image->refcount_table[
	    refcount_table_index(image, cluster)];
	uint64_t in_block = cluster &
	    ((1ull << image->refcounts.block_bits) - 1);
	uint64_t slice = in_block / slice_counts(image);

	/* It was logged when the table was loaded. */
	if (entry_refcount_fault(entry, &image->limits))
		return -EIO;
	return slice_pin(image, SLICE_REFCOUNTS, entry_refcount_block(entry) +
	    slice * image->slices.slice_bytes, slicep);
}

static uint64_t
count_of(const struct image *image, const struct slice *slice,
    uint64_t cluster)
{
	return entry_refcount_get(slice->data, image->refcounts.order,
	    cluster % slice_counts(image));
}

int
refcount_get(struct image *image, uint64_t cluster, uint64_t *valuep)
{
	struct slice *slice;
	int err;

	if (!refcount_table_has(image, cluster)) {
		*valuep = 0;
		return 0;
	}
	err = pin(image, cluster, &slice);
	if (err)
		return err;
	*valuep = count_of(image, slice, cluster);
	slice_unpin(image, slice);
	return 0;
}

static uint64_t
part_in_slice(const struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t counts = slice_counts(image);
	uint64_t room = counts - cluster % counts;

	return count < room ? count : room;
}

/*
 * How many clusters from cluster on, whose block exists, at most max and inside
 * one slice, have just this count, or others.
 */
co_fn static int
scan(struct image *image, uint64_t cluster, uint64_t max, uint64_t value,
    uint64_t *runp, bool *equalp)
{
	struct slice *slice;
	uint64_t run = 1;
	int err;

	err = pin(image, cluster, &slice);
	if (err)
		return err;
	max = part_in_slice(image, cluster, max);
	*equalp = count_of(image, slice, cluster) == value;
	while (run < max &&
	    (count_of(image, slice, cluster + run) == value) == *equalp)
		run++;
	slice_unpin(image, slice);
	*runp = run;
	return 0;
}

int
refcount_scan(struct image *image, uint64_t cluster, uint64_t max,
    uint64_t *runp, bool *freep)
{
	if (refcount_table_has(image, cluster))
		return scan(image, cluster, max, 0, runp, freep);
	*runp = part_in_slice(image, cluster, max);
	*freep = true;
	return 0;
}

static int
log_unreferenced(const struct image *image, uint64_t cluster)
{
	log_error("cluster 0x%llx is in use but its refcount is 0 file=%s",
	    (unsigned long long)cluster << image->cluster_bits,
	    image->file->name);
	return -EIO;
}

int
refcount_scan_last(struct image *image, uint64_t cluster, uint64_t max,
    uint64_t *runp, bool *lastp)
{
	if (!refcount_table_has(image, cluster))
		return log_unreferenced(image, cluster);
	return scan(image, cluster, max, 1, runp, lastp);
}

/* ---- changes ---- */

enum counting {
	COUNT_FIRST,		/* from 0 to 1 */
	COUNT_UP,
	COUNT_DOWN,
	COUNT_OUT,		/* and what has none left is free */
};

/* Whether a count can be changed so. */
static int
check_counting(const struct image *image, enum counting counting,
    uint64_t cluster, uint64_t count)
{
	if (counting == COUNT_FIRST)
		return count == 0 ? 0 : -EEXIST;
	if (count == 0)
		return log_unreferenced(image, cluster);
	if (counting == COUNT_UP &&
	    count == entry_refcount_max(image->refcounts.order))
		return -ERANGE;
	return 0;
}

static uint64_t
recount(const struct image *image, enum counting counting, uint8_t *data,
    uint64_t cluster)
{
	unsigned order = image->refcounts.order;
	size_t index = cluster % slice_counts(image);
	uint64_t count = entry_refcount_get(data, order, index);

	if (counting == COUNT_DOWN || counting == COUNT_OUT)
		count--;
	else
		count++;
	entry_refcount_set(data, order, index, count);
	return count;
}

/*
 * Changes the counts of all clusters, which lie in one slice, or of none;
 * *leftp is what the last has then.
 */
co_fn static int
count_in_slice(struct image *image, enum counting counting, uint64_t cluster,
    uint64_t clusters, uint64_t *leftp)
{
	struct slice *slice;
	uint8_t *data;
	int err;

	if (!refcount_table_has(image, cluster))
		return log_unreferenced(image, cluster);
	err = pin(image, cluster, &slice);
	if (err)
		return err;
	for (uint64_t i = 0; i < clusters && !err; i++)
		err = check_counting(image, counting, cluster + i,
		    count_of(image, slice, cluster + i));
	data = err ? NULL : slice_modify(image, slice);
	if (!err && !data)
		err = -ENOMEM;
	for (uint64_t i = 0; i < clusters && !err; i++) {
		*leftp = recount(image, counting, data, cluster + i);
		if (counting == COUNT_OUT && *leftp == 0)
			alloc_add_free(image, cluster + i, 1);
	}
	slice_unpin(image, slice);
	return err;
}

int
refcount_take(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t done = 0, left;

	while (done < count) {
		uint64_t part = part_in_slice(image, cluster + done,
		    count - done);
		int err = refcount_table_ensure(image, cluster + done);

		if (!err)
			err = count_in_slice(image, COUNT_FIRST,
			    cluster + done, part, &left);
		if (err) {
			/* What cannot be undone is a leak, no worse. */
			while (done > 0)
				refcount_drop(image, cluster + --done, &left);
			return err;
		}
		done += part;
	}
	return 0;
}

int
refcount_add(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t done = 0, left;

	while (done < count) {
		uint64_t part = part_in_slice(image, cluster + done,
		    count - done);
		int err = count_in_slice(image, COUNT_UP, cluster + done,
		    part, &left);

		if (err) {
			refcount_take_back(image, cluster, done);
			return err;
		}
		done += part;
	}
	return 0;
}

int
refcount_drop(struct image *image, uint64_t cluster, uint64_t *valuep)
{
	return count_in_slice(image, COUNT_DOWN, cluster, 1, valuep);
}

void
refcount_take_back(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t left;

	while (count > 0)
		if (refcount_drop(image, cluster + --count, &left))
			dirty_note_leak(image);
}

int
refcount_drop_run(struct image *image, uint64_t cluster, uint64_t count)
{
	uint64_t left;

	return count_in_slice(image, COUNT_OUT, cluster, count, &left);
}
