/* SPDX-License-Identifier: MIT */
/*
 * Saying where data lies, for readers that pass it on without copying.
 *
 * Cost for mapped clusters: one taking of the lock for each run that is
 * contiguous on the host; none where all of the chain may change.
 */
#include <errno.h>
#include "qcow2/internal.h"
#include "qcow2/l2.h"

co_fn static int plan_layer(struct image *image, struct image_plan *plan,
    uint64_t guest, uint64_t length);

/* 1, or 0 if it is to be read: it may change, or there are too many. */
static int
add_range(struct image *image, struct image_plan *plan, uint64_t host,
    size_t length)
{
	struct file_range *last = plan->count > 0 ?
	    &plan->ranges[plan->count - 1] : NULL;

	if (!image->can_splice)
		return 0;
	if (last && last->file == image->file &&
	    last->offset + last->length == host) {
		last->length += length;
		return 1;
	}
	if (plan->count == IMAGE_PLAN_RANGES_MAX)
		return 0;
	plan->ranges[plan->count++] = (struct file_range){
		.file = image->file, .offset = host, .length = length,
	};
	return 1;
}

co_fn static int
plan_run(struct image *image, struct image_plan *plan, uint64_t guest,
    const struct l2_run *run)
{
	if (run->kind == CLUSTER_NORMAL)
		return add_range(image, plan, run->host, run->length);
	if (run->kind == CLUSTER_UNALLOCATED && image->backing)
		return plan_layer(image->backing, plan, guest, run->length);
	return 0;
}

int
qcow2_plan(struct image *image, struct image_plan *plan, uint64_t guest,
    uint64_t length)
{
	int result = 1;

	while (length > 0 && result == 1) {
		atomic_uint *epoch;
		struct l2_run run;

		monitor_enter(&image->monitor);
		/* The table must not go while this waits for it. */
		epoch = gate_enter(image);
		result = image_has(image, guest, length) ?
		    qcow2_find_run(image, guest, length, &run) : -EINVAL;
		monitor_leave(&image->monitor);
		epoch_leave(epoch);
		if (result < 0)
			break;
		result = plan_run(image, plan, guest, &run);
		guest += run.length;
		length -= run.length;
	}
	return result;
}

int
raw_plan(struct image *image, struct image_plan *plan, uint64_t guest,
    uint64_t length)
{
	return add_range(image, plan, guest, length);
}

/* What is past the end of a layer are zeros, and nowhere. */
static int
plan_layer(struct image *image, struct image_plan *plan, uint64_t guest,
    uint64_t length)
{
	if (guest >= image->size_bytes ||
	    length > image->size_bytes - guest)
		return 0;
	return image->ops->plan(image, plan, guest, length);
}

int
image_plan(struct image *image, uint64_t guest, uint64_t length,
    struct image_plan *plan)
{
	atomic_uint *ticket = door_enter(&image->door);
	int result = 0;

	if (!ticket)
		return -EIO;
	plan->count = 0;
	if (image->can_splice || image->backing)
		result = plan_layer(image, plan, guest, length);
	if (result == 1)
		plan->ticket = ticket;
	else
		door_leave(ticket);
	return result;
}

void
image_plan_end(struct image_plan *plan)
{
	door_leave(plan->ticket);
}
