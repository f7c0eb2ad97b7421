/* SPDX-License-Identifier: MIT */
/*
 * Zeroing and discarding: whole clusters change their L2 entries, a slice at a
 * time, under a claim; the edges of a range that are less than a cluster are
 * written as zeros (zeroing) or left alone (discarding).
 *
 * The last cluster of a disk counts as whole if the range goes to its end.
 */
#include <errno.h>
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/l2_fault.h"
#include "qcow2/slice_write.h"
#include "runtime/loop.h"

/* Zeros are written in pieces of this at most. */
#define ZEROS_BYTES (64 * 1024)
static const char zeros[ZEROS_BYTES];

/* Entries that are looked at before others on the loop get a turn. */
#define TURN_ENTRIES 256

static bool
has_backing_at(const struct image *image, uint64_t guest)
{
	return image->backing && guest < image->backing->size_bytes;
}

/* What becomes of the host clusters behind what is cleared. */
enum room {
	ROOM_FREE,	/* they are freed */
	ROOM_LEAVE,	/* those that are this image's own stay */
	ROOM_PUNCH,	/* the same, but the host gets their room back */
	ROOM_KEEP,	/* afterwards there is one behind every cluster */
	ROOM_MAP,	/* the same, but the host need not have room yet */
};

static bool
keeps_all(enum room room)
{
	return room == ROOM_KEEP || room == ROOM_MAP;
}

/* ---- clearing ---- */

/* The entry that reads as zeros; version 2 has none with a host cluster. */
static uint64_t
cleared(const struct image *image, uint64_t guest, uint64_t entry,
    enum room room)
{
	if (entry_kind(entry) == CLUSTER_ZERO)
		return entry;
	if (room != ROOM_FREE && image->limits.zero_flag &&
	    entry_owns_host(entry))
		return entry | ENTRY_ZERO;
	return image->limits.zero_flag && has_backing_at(image, guest) ?
	    ENTRY_ZERO : 0;
}

/* How many of the count entries from guest on have to change. */
static int
count_changes(const struct image *image, const struct slice *slice,
    uint64_t guest, uint64_t count, enum room room, uint64_t *changesp)
{
	size_t index = l2_slice_index(image, guest);
	uint64_t changes = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t entry = entry_load(slice->data, index + i);

		if (l2_fault_in(image, slice, entry))
			return -EIO;
		if (cleared(image, guest + (i << image->cluster_bits),
		    entry, room) != entry)
			changes++;
	}
	*changesp = changes;
	return 0;
}

/*
 * Changes what is to be changed; the slice is pinned and the table ours.
 * Writes in place may be under way to host clusters that stay: see
 * kept_room_usable() in write_new.c.
 */
static int
clear_entries(struct image *image, struct slice *slice, uint64_t guest,
    uint64_t count, enum room room, uint64_t changes)
{
	size_t index = l2_slice_index(image, guest);
	uint8_t *entries;
	int err;

	err = quarantine_make_room(image, changes);
	if (err)
		return err;
	entries = slice_modify(image, slice);
	if (!entries)
		return -ENOMEM;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t old = entry_load(entries, index + i);
		uint64_t entry = cleared(image,
		    guest + (i << image->cluster_bits), old, room);

		if (entry == old)
			continue;
		entry_store(entries, index + i, entry);
		if (entry_host(entry))
			image->zeroed_epoch = image->epochs.now;
		else
			quarantine_add_entry(image, old);
	}
	return 0;
}

/*
 * Gives the host the room of the host clusters that stayed.  Under the claim
 * nobody can take them for data meanwhile.  O3 would let it wait for the
 * entries to be stable, so that whatever a crash leaves is whole; here what it
 * leaves of the old content is zeros, which is the new one.
 */
co_fn static int
punch(struct image *image, uint64_t guest, uint64_t count)
{
	uint64_t end = guest + (count << image->cluster_bits);
	int err = 0;

	while (guest < end && !err) {
		struct l2_run run;

		err = qcow2_find_run(image, guest, end - guest, &run);
		if (err)
			return err;
		guest += run.length;
		/* A read under way would decrypt the zeros of a hole. */
		if (run.kind != CLUSTER_ZERO_ALLOCATED ||
		    !entry_owns_host(run.entry) || image->encrypted)
			continue;
		err = guard_new(image, run.host, run.length);
		/* A failure only means that the host has less room. */
		if (!err)
			file_fallocate(image->file, FILE_PUNCH, run.host,
			    run.length);
	}
	return err;
}

/* Clears count clusters of one slice, under a claim, in the monitor. */
co_fn static int
clear_claimed(struct image *image, uint64_t guest, uint64_t count,
    enum room room)
{
	struct slice *slice;
	uint64_t changes;
	int err;

	for (bool owned = false;; owned = true) {
		err = l2_pin(image, guest, &slice);
		if (err)
			return err;
		changes = slice ? 0 : has_backing_at(image, guest);
		if (slice)
			err = count_changes(image, slice, guest, count, room,
			    &changes);
		if (err || changes == 0 || (slice && owned))
			break;
		/* Now it is worth a table of our own. */
		l2_unpin(image, slice);
		err = l2_own(image, guest);
		if (err)
			return err;
	}
	if (!err && changes > 0)
		err = clear_entries(image, slice, guest, count, room,
		    changes);
	l2_unpin(image, slice);
	if (!err && room == ROOM_PUNCH)
		err = punch(image, guest, count);
	return err;
}

/* ---- steps ---- */

/*
 * Clears as much of the whole clusters in the range as one slice, or one
 * missing table, maps; *donep is how many bytes.
 */
co_fn static int
clear_step(struct image *image, uint64_t guest, uint64_t length,
    enum room room, uint64_t *donep)
{
	atomic_uint *epoch;
	struct slice *slice;
	struct claim claim;
	uint64_t end, count;
	int err;

	monitor_enter(&image->monitor);
	err = image->failed ? -EIO : barrier_throttle(image);
	if (err)
		goto leave;
	epoch = gate_enter(image);
	/* A last cluster that is whole because the disk ends there may not be
	 * so any more. */
	if (!image_has(image, guest, length))
		err = -EINVAL;
	else if ((guest + length) & (image->cluster_bytes - 1) &&
	    guest + length < image->size_bytes)
		err = -EAGAIN;
	else
		err = l2_pin(image, guest, &slice);
	if (err)
		goto leave_epoch;
	end = l2_slice_end(image, slice, guest);
	l2_unpin(image, slice);
	if (!slice && !keeps_all(room) && !has_backing_at(image, guest)) {
		/* No table, nothing below: all of it is zeros already. */
		*donep = end - guest < length ? end - guest : length;
		goto leave_epoch;
	}
	end = guest + step_length(image, guest, length);
	*donep = end - guest;
	count = (end - guest + image->cluster_bytes - 1) >>
	    image->cluster_bits;
	claim_take(image, &claim, guest, end - guest);
	if (image->failed)
		err = -EIO;
	else if (keeps_all(room))
		err = room_keep(image, guest, count, room == ROOM_KEEP);
	else
		err = clear_claimed(image, guest, count, room);
	claim_release(image, &claim);
leave_epoch:
	epoch_leave(epoch);
leave:
	monitor_leave(&image->monitor);
	return err;
}

/* guest is at a cluster's start; length goes to one's end or the disk's. */
co_fn static int
clear_clusters(struct image *image, uint64_t guest, uint64_t length,
    enum room room)
{
	unsigned step_entries = image->slices.slice_bytes / ENTRY_BYTES;
	unsigned entries = 0;

	while (length > 0) {
		uint64_t done = 0;
		int err = clear_step(image, guest, length, room, &done);

		if (err)
			return err;
		guest += done;
		length -= done;
		entries += step_entries;
		if (entries >= TURN_ENTRIES && length > 0) {
			entries = 0;
			co_yield();
		}
	}
	return 0;
}

int
qcow2_set_aside(struct image *image, uint64_t guest, uint64_t length,
    bool on_disk)
{
	return clear_clusters(image, guest, length,
	    on_disk ? ROOM_KEEP : ROOM_MAP);
}

/* ---- ranges ---- */

/* The whole clusters in a range. */
struct middle {
	uint64_t begin, end;	/* equal: there are none */
};

static struct middle
middle_of(const struct image *image, uint64_t guest, uint64_t length)
{
	uint64_t mask = image->cluster_bytes - 1;
	struct middle middle = {
		.begin = (guest + mask) & ~mask,
		.end = (guest + length) & ~mask,
	};

	if (guest + length == image->size_bytes)
		middle.end = guest + length;
	if (middle.end < middle.begin)
		middle.end = middle.begin;
	return middle;
}

int
qcow2_write_zeros(struct image *image, uint64_t guest, uint64_t length,
    bool keep_room)
{
	while (length > 0) {
		struct image_extent extent;
		uint64_t part;
		int err;

		err = qcow2_status(image, guest, length, &extent);
		if (err)
			return err;
		part = extent.length;
		if (!extent.zero || (keep_room && !extent.allocated)) {
			part = part < ZEROS_BYTES ? part : ZEROS_BYTES;
			err = qcow2_write(image, guest, zeros, part, 0);
		}
		if (err)
			return err;
		guest += part;
		length -= part;
		if (length > 0)
			co_yield();
	}
	return 0;
}

/*
 * Version 2 cannot say "zeros" where the backing file says something else, nor
 * of a cluster that keeps its room.
 */
static bool
can_clear(const struct image *image, uint64_t guest, enum room room)
{
	return image->limits.zero_flag ||
	    (room != ROOM_KEEP && !has_backing_at(image, guest));
}

static enum room
room_of_zeros(const struct image *image, unsigned flags)
{
	if (flags & IMAGE_NO_HOLE)
		return ROOM_KEEP;
	if (flags & IMAGE_LEAVE_ROOM)
		return ROOM_LEAVE;
	return image->discard == IMAGE_DISCARD_NO_UNREF ? ROOM_PUNCH :
	    ROOM_FREE;
}

/* -EAGAIN: the disk has become longer meanwhile, so begin anew. */
co_fn static int
zero_range(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	struct middle middle = middle_of(image, guest, length);
	enum room room = room_of_zeros(image, flags);
	bool keep_room = room == ROOM_KEEP;
	int err;

	if (middle.begin == middle.end ||
	    !can_clear(image, guest, room)) {
		if (flags & IMAGE_FAST)
			return -ENOTSUP;
		err = qcow2_write_zeros(image, guest, length, keep_room);
	} else {
		err = qcow2_write_zeros(image, guest, middle.begin - guest,
		    keep_room);
		if (!err)
			err = clear_clusters(image, middle.begin,
			    middle.end - middle.begin, room);
		if (!err && guest + length > middle.end)
			err = qcow2_write_zeros(image, middle.end,
			    guest + length - middle.end, keep_room);
	}
	return err;
}

/* The same of the whole clusters alone. */
co_fn static int
discard_range(struct image *image, uint64_t guest, uint64_t length)
{
	struct middle middle = middle_of(image, guest, length);
	enum room room = image->discard == IMAGE_DISCARD_NO_UNREF ?
	    ROOM_PUNCH : ROOM_FREE;

	if (middle.begin == middle.end ||
	    !can_clear(image, middle.begin, room))
		return 0;
	return clear_clusters(image, middle.begin, middle.end - middle.begin,
	    room);
}

/*
 * Whether a range is to be tried again from its beginning, with no harm to
 * what is zeros by now: the disk is longer, or there is room on it, after all.
 */
co_fn static bool
is_worth_another_try(struct image *image, int err, bool *made_roomp)
{
	if (err != -ENOSPC || *made_roomp)
		return err == -EAGAIN;
	*made_roomp = true;
	return qcow2_make_host_room(image);
}

int
qcow2_zero(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	bool made_room = false;
	int err;

	if (length == 0)
		return 0;
	do
		err = zero_range(image, guest, length, flags);
	while (is_worth_another_try(image, err, &made_room));
	if (!err && flags & IMAGE_FUA)
		err = qcow2_flush(image);
	return err;
}

int
qcow2_discard(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags)
{
	bool made_room = false;
	int err;

	do
		err = discard_range(image, guest, length);
	while (is_worth_another_try(image, err, &made_room));
	if (!err && flags & IMAGE_FUA)
		err = qcow2_flush(image);
	return err;
}
