/* SPDX-License-Identifier: MIT */
/*
 * Writing.
 *
 * A write to clusters that are mapped and this image's own goes to their host
 * clusters in place: the image's lock once per contiguous run, no allocation,
 * one pwritev.  Everything else claims its guest clusters and goes to new host
 * clusters (write_new.c).
 *
 * A request goes in steps of at most one L2 slice, so it never holds up others
 * for long, and meets each step with nothing in its hands.
 */
#include <errno.h>
#include "qcow2/encrypted.h"
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/write_internal.h"
#include "runtime/buf.h"

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

/* ---- a step ---- */

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
		err = write_new(write);
		claim_release(image, &claim);
	}
	monitor_leave(&image->monitor);
	return err;
}

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
	} else if (!write_fits_in_place(run.entry)) {
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
