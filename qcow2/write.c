/* SPDX-License-Identifier: MIT */
/*
 * Writing.
 *
 * A write to clusters that are mapped and this image's own goes to their host
 * clusters in place: the image's lock once per contiguous run, no allocation,
 * one pwritev.  Everything else claims its guest clusters, takes new host
 * clusters, writes head, data and tail to them in one pwritev and changes the
 * L2 entries last, so that a failure leaves the guest's view as it was.  On
 * disk the barrier orders refcount, then data, then entry (O1, O2).
 *
 * A request goes in steps of at most one L2 slice, so it never holds up others
 * for long, and meets each step with nothing in its hands.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "qcow2/encrypted.h"
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/l2_fault.h"
#include "runtime/buf.h"

/* One step of a write: part of one L2 slice. */
struct write {
	struct image *image;
	uint64_t guest;
	const char *data;
	size_t length;		/* shortened by what the step can do */
	bool fua;
	atomic_uint *epoch;	/* what it entered, or NULL: the caller did */
	bool is_stable;		/* out: no flush is needed for FUA */
};

/* New or kept host clusters for the guest clusters a step writes to. */
struct target {
	struct allocation place;
	bool is_new;		/* else place is the guest's already */
	bool reads_zero;	/* all of them read as zeros so far */
};

/* ---- in place ---- */

/*
 * Whether a stable write of its own is enough, and cheaper than the next
 * barrier: only if nobody else waits for the disk.  The first barrier is for
 * what was found at the opening, too: whoever wrote the tables that lead to the
 * data may have left them in the host's cache.
 */
static bool
may_sync_alone(const struct image *image)
{
	return image->barrier.stable_cut > 0 && !image->barrier.waiters &&
	    !image->barrier.lone_fua;
}

/*
 * A stable write; in the monitor, which it leaves.  The kernel tells of a
 * failed write-back only once, so a barrier that ran meanwhile may have heard
 * of ours: then it decides.
 */
co_fn static int
write_alone(struct write *write, uint64_t host)
{
	struct image *image = write->image;
	uint64_t cuts = image->barrier.cuts;
	int err;

	image->barrier.lone_fua = true;
	monitor_leave(&image->monitor);
	err = file_pwrite(image->file, write->data, write->length, host,
	    FILE_DSYNC);
	monitor_enter(&image->monitor);
	image->barrier.lone_fua = false;
	if (err && err != -ENOSPC)
		image_fail(image, "a stable write failed", err);
	if (err)
		atomic_store(&image->unsynced, true);
	write->is_stable = !err && !image->failed &&
	    cuts == image->barrier.cuts;
	monitor_leave(&image->monitor);
	return err;
}

/*
 * In the monitor, which it leaves.  A write that completes after a cut was
 * made is not covered by it, so unsynced is set after, and before the reply.
 */
co_fn static int
write_in_place(struct write *write, uint64_t host, bool sync_alone)
{
	struct image *image = write->image;
	int err;

	if (sync_alone)
		return write_alone(write, host);
	monitor_leave(&image->monitor);
	err = file_pwrite(image->file, write->data, write->length, host, 0);
	atomic_store(&image->unsynced, true);
	return err;
}

/*
 * The same with the sectors claimed and encrypted.  Should the mapping change
 * meanwhile, then by a request that is under way as well and may be the later
 * one of the two; the epoch keeps the old clusters.
 */
co_fn static int
write_encrypted(struct write *write, uint64_t host, bool sync_alone)
{
	struct image *image = write->image;
	struct write sealed = *write;
	struct encrypted_sectors sectors;
	struct claim claim;
	int err;

	claim_take_sectors(image, &claim, write->guest, write->length, false);
	monitor_leave(&image->monitor);
	err = encrypted_seal(image, write->guest, write->data, write->length,
	    host, &sectors);
	monitor_enter(&image->monitor);
	if (err)
		goto release;
	sealed.data = sectors.data;
	sealed.length = sectors.length;
	if (image->failed) {
		err = -EIO;
	} else {
		err = write_in_place(&sealed, sectors.host,
		    sync_alone && may_sync_alone(image));
		monitor_enter(&image->monitor);
	}
	write->is_stable = sealed.is_stable;
	buf_put(sectors.data, sectors.length);
release:
	claim_release(image, &claim);
	monitor_leave(&image->monitor);
	return err;
}

/* ---- choosing host clusters ---- */

static uint64_t
entry_at(const struct image *image, const struct slice *slice,
    uint64_t guest)
{
	return slice ? entry_load(slice->data, l2_slice_index(image, guest)) :
	    0;
}

static bool
is_in_place(uint64_t entry)
{
	return entry_kind(entry) == CLUSTER_NORMAL && entry_copied(entry);
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
		if (is_in_place(entry) || (use_kept && is_kept(entry)))
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
	} else if (is_in_place(entry)) {
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

/* In the monitor, with a claim. */
co_fn static int
write_claimed(struct write *write)
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
	err = write_claimed(&write);
	if (!err)
		*donep = write.length;
	return err;
}

/* In the monitor; leaves it. */
co_fn static int
write_allocating(struct write *write)
{
	struct image *image = write->image;
	struct claim claim;
	int err;

	err = barrier_throttle(image);
	if (!err) {
		claim_take(image, &claim, write->guest, write->length);
		err = write_claimed(write);
		claim_release(image, &claim);
	}
	monitor_leave(&image->monitor);
	return err;
}

/* ---- a step ---- */

/*
 * Writes a part of the step and shortens it to that.  -EAGAIN: nothing was
 * written, look again.
 */
co_fn static int
write_step(struct write *write)
{
	struct image *image = write->image;
	struct slice *slice;
	struct l2_run run;
	bool sync_alone;
	int err;

	monitor_enter(&image->monitor);
	write->epoch = gate_enter(image);
	err = image_has(image, write->guest, write->length) ?
	    l2_pin(image, write->guest, &slice) : -EINVAL;
	if (err) {
		monitor_leave(&image->monitor);
		goto leave_epoch;
	}
	/* Now: what was just loaded may have shown that it is corrupt. */
	err = image->failed ? -EIO :
	    l2_run(image, slice, write->guest, write->length, &run);
	sync_alone = write->fua && slice && l2_is_stable(image, slice) &&
	    may_sync_alone(image);
	l2_unpin(image, slice);
	if (err) {
		monitor_leave(&image->monitor);
	} else if (!is_in_place(run.entry)) {
		err = write_allocating(write);
	} else {
		write->length = run.length;
		err = image->encrypted ?
		    write_encrypted(write, run.host, sync_alone) :
		    write_in_place(write, run.host, sync_alone);
	}
leave_epoch:
	epoch_leave(write->epoch);
	return err;
}

bool
qcow2_make_host_room(struct image *image)
{
	bool made = false;

	monitor_enter(&image->monitor);
	if (image->quarantine.count > 0)
		made = !barrier_release(image);
	monitor_leave(&image->monitor);
	return made;
}

int
qcow2_write(struct image *image, uint64_t guest, const void *data,
    size_t length, unsigned flags)
{
	const char *source = data;
	bool needs_flush = false, made_room = false;
	unsigned runs = 0;

	while (length > 0) {
		struct write write = {
			.image = image, .guest = guest, .data = source,
			.length = step_length(image, guest, length),
			.fua = flags & IMAGE_FUA,
		};
		int err;

		if (image->encrypted)
			write.length = encrypted_step(guest, write.length);
		err = write_step(&write);

		if (err == -EAGAIN)
			continue;
		if (err == -ENOSPC && !made_room) {
			made_room = true;
			if (qcow2_make_host_room(image))
				continue;
		}
		if (err)
			return err;
		needs_flush |= !write.is_stable;
		guest += write.length;
		source += write.length;
		length -= write.length;
		if (++runs % TURN_RUNS == 0)
			co_yield();
	}
	return flags & IMAGE_FUA && needs_flush ? qcow2_flush(image) : 0;
}

int
qcow2_flush(struct image *image)
{
	int err;

	monitor_enter(&image->monitor);
	err = barrier_flush(image);
	monitor_leave(&image->monitor);
	return err;
}
