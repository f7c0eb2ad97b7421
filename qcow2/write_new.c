/* SPDX-License-Identifier: MIT */
/*
 * Writing to new host clusters, or to those that are kept for zeros.
 *
 * Head, data and tail of the clusters are written in one pwritev, and the L2
 * entries change last, so that a failure leaves the guest's view as it was.  On
 * disk the barrier orders refcount, then data, then entry (O1, O2).
 */
#include "qcow2/write_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "qcow2/encrypted.h"
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/l2_fault.h"
#include "runtime/buf.h"

/* New or kept host clusters for the guest clusters a step writes to. */
struct target {
	struct allocation place;
	bool is_new;		/* else place is the guest's already */
	bool reads_zero;	/* all of them read as zeros so far */
};

/* ---- choosing host clusters ---- */

static uint64_t
entry_at(const struct image *image, const struct slice *slice,
    uint64_t guest)
{
	return slice ? entry_load(slice->data, l2_slice_index(image, guest)) :
	    0;
}

/* Host clusters that are kept for zeros, and ours. */
static bool
is_kept(uint64_t entry)
{
	return entry_kind(entry) == CLUSTER_ZERO_ALLOCATED &&
	    entry_copied(entry);
}

/*
 * Whether kept host clusters may be written to.  A write in place that was
 * under way when its cluster was zeroed still lands there, at any time until
 * its epoch has ended, and must not come to light by a later write's mapping.
 */
static bool
kept_room_usable(struct image *image)
{
	if (image->zeroed_epoch &&
	    !epoch_drained(&image->epochs, image->zeroed_epoch))
		return false;
	image->zeroed_epoch = 0;
	return true;
}

/*
 * The same for a step that wants such a cluster.  The request may itself be
 * all that is left of the epoch: as it has found nothing out yet that it goes
 * by, it can just as well be one of this epoch, and is inside all the while.
 */
static bool
renew_epoch_for_kept(struct write *write)
{
	struct epochs *epochs = &write->image->epochs;

	if (!write->epoch)
		return false;
	epoch_leave(write->epoch);
	write->epoch = epoch_enter(epochs);
	return kept_room_usable(write->image);
}

static bool
reads_zero(const struct image *image, uint64_t entry, uint64_t guest)
{
	switch (entry_kind(entry)) {
	case CLUSTER_ZERO:
	case CLUSTER_ZERO_ALLOCATED:
		return true;
	case CLUSTER_UNALLOCATED:
		return !image->backing || guest >= image->backing->size_bytes;
	default:
		return false;
	}
}

/*
 * How many clusters from guest on, of those the step touches, need host
 * clusters of their own.  -EIO: the first has a bad entry.
 */
static int
count_clusters(const struct write *write, const struct slice *slice,
    bool use_kept, uint64_t *countp, bool *zerop)
{
	const struct image *image = write->image;
	uint64_t cluster = write->guest & ~(image->cluster_bytes - 1ull);
	uint64_t end = write->guest + write->length;
	uint64_t count = 0;
	bool zero = true;

	for (; cluster < end; cluster += image->cluster_bytes) {
		uint64_t entry = entry_at(image, slice, cluster);

		if (slice && l2_fault_in(image, slice, entry)) {
			if (count == 0)
				return -EIO;
			break;
		}
		if (write_fits_in_place(entry) || (use_kept && is_kept(entry)))
			break;
		zero = zero && reads_zero(image, entry, cluster);
		count++;
	}
	*countp = count;
	*zerop = zero;
	return 0;
}

/*
 * Finds host clusters for the step, which the claim covers, and shortens it to
 * what they hold.  -EAGAIN: it can be written in place by now.
 */
co_fn static int
choose_target(struct write *write, struct target *target)
{
	struct image *image = write->image;
	uint64_t in_cluster = write->guest & (image->cluster_bytes - 1);
	uint64_t count = 0, bytes, entry;
	struct slice *slice;
	struct l2_run run;
	bool use_kept;
	int err;

	err = l2_own(image, write->guest);
	if (!err)
		err = l2_pin(image, write->guest, &slice);
	if (err)
		return err;
	entry = entry_at(image, slice, write->guest);
	use_kept = kept_room_usable(image) ||
	    (is_kept(entry) && renew_epoch_for_kept(write));
	*target = (struct target){0};
	if (image->failed) {
		err = -EIO;
	} else if (write_fits_in_place(entry)) {
		err = -EAGAIN;
	} else if (use_kept && is_kept(entry)) {
		err = l2_run(image, slice, write->guest, write->length, &run);
		target->reads_zero = true;
		target->place.host = run.host - in_cluster;
		target->place.clusters = (in_cluster + run.length +
		    image->cluster_bytes - 1) >> image->cluster_bits;
	} else {
		target->is_new = true;
		err = count_clusters(write, slice, use_kept, &count,
		    &target->reads_zero);
	}
	l2_unpin(image, slice);
	if (!err && target->is_new)
		err = alloc_clusters(image, count, &target->place);
	if (err)
		return err;
	/* Zeros that nobody encrypted do not decrypt to zeros. */
	if (image->encrypted)
		target->place.virgin = false;
	bytes = (target->place.clusters << image->cluster_bits) - in_cluster;
	if (write->length > bytes)
		write->length = bytes;
	return 0;
}

/* ---- data, with what stands before and behind it in its clusters ---- */

struct edge {
	char *data;
	size_t length;
	bool skip;		/* zeros on zeros: need not be written */
};

/* Reads what the guest sees from guest on. */
co_fn static int
read_edge(struct image *image, uint64_t guest, size_t length, bool virgin,
    struct edge *edge)
{
	struct image_hole hole;
	struct image_holes holes = {.max = 1, .list = &hole};
	struct reader reader = {
		.guest = guest, .holes = &holes, .inside = image,
	};
	int err;

	*edge = (struct edge){.length = length, .skip = true};
	if (length == 0)
		return 0;
	edge->data = buf_get(length);
	if (!edge->data)
		return -ENOMEM;
	reader.data = edge->data;
	err = image_read_layer(image, &reader, guest, length);
	if (err) {
		buf_put(edge->data, length);
		edge->data = NULL;
		return err;
	}
	edge->skip = virgin && holes.count == 1 && hole.length == length;
	if (holes.count == 1)
		memset(edge->data + hole.offset, 0, hole.length);
	return 0;
}

/* Writes head, data and tail to the target; not in the monitor. */
co_fn static int
write_target(const struct write *write, const struct target *target)
{
	struct image *image = write->image;
	uint64_t in_cluster = write->guest & (image->cluster_bytes - 1);
	uint64_t end = in_cluster + write->length;
	size_t behind = -end & (image->cluster_bytes - 1);
	uint64_t host = target->place.host;
	struct edge head, tail = {0};
	struct iovec iov[3];
	unsigned count = 0;
	int err;

	err = read_edge(image, write->guest - in_cluster, in_cluster,
	    target->place.virgin, &head);
	if (!err)
		err = read_edge(image, write->guest + write->length, behind,
		    target->place.virgin, &tail);
	if (err)
		goto put_edges;
	if (head.skip)
		host += in_cluster;
	else
		iov[count++] = (struct iovec){head.data, head.length};
	iov[count++] = (struct iovec){
		(void *)(uintptr_t)write->data, write->length,
	};
	if (!tail.skip)
		iov[count++] = (struct iovec){tail.data, tail.length};
	err = file_pwritev(image->file, iov, count, host, 0);
	atomic_store(&image->unsynced, true);
put_edges:
	buf_put(head.data, head.length);
	buf_put(tail.data, tail.length);
	return err;
}

/* ---- the mapping ---- */

co_fn static int
link_target(const struct write *write, const struct target *target)
{
	struct image *image = write->image;
	uint64_t in_cluster = write->guest & (image->cluster_bytes - 1);
	uint64_t clusters = (in_cluster + write->length +
	    image->cluster_bytes - 1) >> image->cluster_bits;
	int err;

	assert(entry_host(target->place.host));
	err = l2_link(image, write->guest, clusters,
	    target->place.host | ENTRY_COPIED, target->is_new);
	if (!err && !(target->reads_zero && target->place.virgin &&
	    target->place.stable))
		image->barrier.needs_order = true;
	return err;
}

int
write_new(struct write *write)
{
	struct image *image = write->image;
	struct target target;
	int err;

	err = choose_target(write, &target);
	if (err)
		return err;
	monitor_leave(&image->monitor);
	err = image->encrypted ?
	    encrypted_write_new(image, write->guest, write->data,
	    write->length, target.place.host) : write_target(write, &target);
	monitor_enter(&image->monitor);
	if (!err)
		err = link_target(write, &target);
	if (err && target.is_new)
		alloc_give_back(image, target.place.host,
		    target.place.clusters);
	return err;
}

int
qcow2_write_claimed(struct image *image, uint64_t guest, const void *data,
    size_t length, size_t *donep)
{
	struct write write = {
		.image = image, .guest = guest, .data = data,
		.length = length,
	};
	int err;

	if (image->encrypted)
		write.length = encrypted_step(guest, length);
	err = write_new(&write);
	if (!err)
		*donep = write.length;
	return err;
}
