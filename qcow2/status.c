/* SPDX-License-Identifier: MIT */
/*
 * What a guest range consists of: one extent at a time.
 *
 * Work per call is bounded by STATUS_LOOKUPS_MAX slices, or as many times
 * STATUS_TABLES_MAX tables that are not there, so that asking about 16 TiB of
 * nothing takes as long as it may and no longer; the caller asks again from
 * where the answer ends.
 */
#include <assert.h>
#include <errno.h>
#include "qcow2/internal.h"
#include "qcow2/l2.h"

#define STATUS_LOOKUPS_MAX 256

/* Lookups, or extents of fewer, before others on the loop get a turn. */
#define TURN_LOOKUPS 16
#define TURN_EXTENTS 8

/* Of the L1 table, in one taking of the lock. */
#define STATUS_TABLES_MAX 512

/* Extents that image_status() looks at, merged or not. */
#define STATUS_EXTENTS_MAX 256

/* The extent of one run, where this image says what it is. */
static struct image_extent
describe(const struct image *image, const struct l2_run *run)
{
	struct image_extent extent = {.length = run->length, .present = true};

	switch (run->kind) {
	case CLUSTER_UNALLOCATED:
		extent.zero = true;
		extent.present = false;
		break;
	case CLUSTER_ZERO:
		extent.zero = true;
		break;
	case CLUSTER_ZERO_ALLOCATED:
		extent.zero = true;
		/* fall through */
	case CLUSTER_NORMAL:
		extent.allocated = true;
		/* What is there is not what the guest sees. */
		if (image->encrypted)
			break;
		extent.host_valid = true;
		extent.host = run->host;
		break;
	case CLUSTER_COMPRESSED:
		extent.allocated = true;
		extent.compressed = true;
		break;
	}
	return extent;
}

/* Whether next, right behind extent, is more of the same. */
static bool
is_more(const struct image_extent *extent, const struct image_extent *next)
{
	return extent->zero == next->zero &&
	    extent->allocated == next->allocated &&
	    extent->compressed == next->compressed &&
	    extent->present == next->present &&
	    extent->depth == next->depth &&
	    extent->host_valid == next->host_valid &&
	    (!extent->host_valid ||
	    extent->host + extent->length == next->host);
}

/* What one look finds at guest; absent tables are seen many at a time. */
co_fn static int
look(struct image *image, uint64_t guest, uint64_t length, struct l2_run *run)
{
	int err = qcow2_find_run(image, guest, length, run);
	uint64_t end;

	if (err || run->kind != CLUSTER_UNALLOCATED)
		return err;
	end = l2_absent_end(image, guest, length, STATUS_TABLES_MAX);
	if (end - guest > run->length)
		run->length = end - guest;
	return 0;
}

co_fn static int
find(struct image *image, uint64_t guest, uint64_t length, struct l2_run *run)
{
	atomic_uint *epoch;
	int err;

	monitor_enter(&image->monitor);
	/* The table must not become another while this waits for it. */
	epoch = gate_enter(image);
	err = image_has(image, guest, length) ?
	    look(image, guest, length, run) : -EINVAL;
	monitor_leave(&image->monitor);
	epoch_leave(epoch);
	return err;
}

/* What the backing image says about a hole of this one. */
co_fn static int
ask_backing(struct image *image, uint64_t guest, uint64_t length,
    struct image_extent *extent)
{
	struct image *backing = image->backing;
	int err;

	if (guest >= backing->size_bytes) {
		*extent = (struct image_extent){
			.length = length, .zero = true,
		};
		return 0;
	}
	if (length > backing->size_bytes - guest)
		length = backing->size_bytes - guest;
	err = backing->ops->status(backing, guest, length, extent);
	if (!err)
		extent->depth++;
	return err;
}

int
qcow2_status(struct image *image, uint64_t guest, uint64_t length,
    struct image_extent *extent)
{
	uint64_t done = 0;

	for (int lookups = 0; done < length && lookups < STATUS_LOOKUPS_MAX;
	    lookups++) {
		struct image_extent next;
		struct l2_run run;
		int err;

		err = find(image, guest + done, length - done, &run);
		if (err && done > 0)
			return 0;
		if (err)
			return err;
		next = describe(image, &run);
		if (!next.present && image->backing) {
			err = ask_backing(image, guest + done, run.length,
			    &next);
			if (err && done > 0)
				return 0;
			if (err)
				return err;
		}
		if (done > 0 && !is_more(extent, &next))
			return 0;
		if (done == 0)
			*extent = next;
		else
			extent->length += next.length;
		done += next.length;
		if (lookups % TURN_LOOKUPS == TURN_LOOKUPS - 1)
			co_yield();
	}
	return 0;
}

co_fn static int
list_extents(struct image *image, uint64_t guest, uint64_t length,
    struct image_extent *extents, unsigned max, unsigned *countp)
{
	unsigned count = 0;

	if (!image_shows(image, guest, length))
		return -EINVAL;
	for (unsigned seen = 0; count < max && length > 0 &&
	    seen < STATUS_EXTENTS_MAX; seen++) {
		struct image_extent *extent = &extents[count];
		int err;

		err = image->ops->status(image, guest, length, extent);
		if (err && count > 0)
			break;
		if (err)
			return err;
		guest += extent->length;
		length -= extent->length;
		if (count > 0 && is_more(extent - 1, extent))
			extents[count - 1].length += extent->length;
		else
			count++;
		if (seen % TURN_EXTENTS == TURN_EXTENTS - 1)
			co_yield();
	}
	*countp = count;
	return 0;
}

int
image_status(struct image *image, uint64_t guest, uint64_t length,
    struct image_extent *extents, unsigned max, unsigned *countp)
{
	atomic_uint *ticket = door_enter(&image->door);
	int err;

	assert(max > 0 && length > 0);
	if (!ticket)
		return -EIO;
	err = list_extents(image, guest, length, extents, max, countp);
	door_leave(ticket);
	return err;
}
