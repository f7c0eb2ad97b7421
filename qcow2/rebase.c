/* SPDX-License-Identifier: MIT */
/*
 * Rebasing: what shows through from the backing chain and would not from
 * another becomes the image's own, a cluster at a time, under claims; then the
 * header names the other (header_update.h).
 *
 * Until then, copies or not, the image reads the same, and after it, too, since
 * all copies were made stable before.  Clusters that the image has are skipped,
 * so a rebase that was cut short is ended by the next.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "qcow2/header_update.h"
#include "qcow2/image_chain.h"
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "qcow2/slice_write.h"
#include "qcow2/zeros_only.h"
#include "runtime/buf.h"

/* Looked at, and copied, under one claim; at least a cluster. */
#define PIECE_BYTES	(2u << 20)
/* An L2 slice has so many entries at most. */
#define PIECE_CLUSTERS	(SLICE_BYTES_MAX / ENTRY_BYTES)

/* What is to be done with a cluster that the image does not have. */
enum fate {
	FATE_LEAVE,	/* both chains show the same */
	FATE_COPY,
	FATE_ZERO,	/* zeros, but not on the other chain */
};

struct copying {
	struct image *image;
	struct image *below;	/* what it shall rest on; NULL: nothing */
	char *shown;		/* PIECE_BYTES: what the chain shows */
	char *other;		/* PIECE_BYTES: what below holds */
	uint8_t fates[PIECE_CLUSTERS];
};

/* ---- what is to be done ---- */

/* The bytes of the disk from guest on that lie in its cluster. */
static size_t
part_of_cluster(const struct image *image, uint64_t length)
{
	return length < image->cluster_bytes ? length : image->cluster_bytes;
}

static enum fate
judge(const struct copying *copying, size_t offset, size_t length)
{
	const char *shown = copying->shown + offset;
	bool zero = zeros_only(shown, length);

	if (copying->below ? !memcmp(shown, copying->other + offset, length) :
	    zero)
		return FATE_LEAVE;
	return zero ? FATE_ZERO : FATE_COPY;
}

co_fn static int
read_whole(struct image *image, uint64_t guest, uint64_t length, char *target)
{
	struct reader reader = {.data = target, .guest = guest};

	if (image)
		return image_read_layer(image, &reader, guest, length);
	memset(target, 0, length);
	return 0;
}

/* Compares the chains; not in the monitor. */
co_fn static int
judge_all(struct copying *copying, uint64_t guest, uint64_t length)
{
	struct image *image = copying->image;
	unsigned count = 0;
	int err;

	err = read_whole(image->backing, guest, length, copying->shown);
	if (!err && copying->below)
		err = read_whole(copying->below, guest, length,
		    copying->other);
	for (size_t done = 0; done < length && !err;) {
		size_t part = part_of_cluster(image, length - done);

		assert(count < PIECE_CLUSTERS);
		copying->fates[count++] = (uint8_t)judge(copying, done, part);
		done += part;
	}
	return err;
}

/* ---- doing it; in the monitor, with a claim ---- */

/* Says of count clusters of one slice, which have no entry, that they are
 * zeros. */
co_fn static int
say_zeros(struct image *image, uint64_t guest, unsigned count)
{
	size_t index = l2_slice_index(image, guest);
	struct slice *slice;
	uint8_t *entries;
	int err;

	err = l2_own(image, guest);
	if (!err)
		err = l2_pin(image, guest, &slice);
	if (err)
		return err;
	entries = slice_modify(image, slice);
	for (unsigned i = 0; i < count && entries; i++) {
		assert(entry_kind(entry_load(entries, index + i)) ==
		    CLUSTER_UNALLOCATED);
		entry_store(entries, index + i, ENTRY_ZERO);
	}
	l2_unpin(image, slice);
	return entries ? 0 : -ENOMEM;
}

co_fn static int
copy_run(struct copying *copying, uint64_t guest, size_t offset,
    size_t length)
{
	size_t done = 0;
	int err = 0;

	for (; length > 0 && !err; offset += done, length -= done)
		err = qcow2_write_claimed(copying->image, guest + offset,
		    copying->shown + offset, length, &done);
	return err;
}

/* Version 2 has no way to say zeros but to write them. */
co_fn static int
carry_out(struct copying *copying, uint64_t guest, uint64_t length)
{
	struct image *image = copying->image;
	size_t offset = 0;
	unsigned first = 0;
	int err = 0;

	while (offset < length && !err) {
		enum fate fate = copying->fates[first];
		unsigned count = 0;
		size_t bytes = 0;

		while (offset + bytes < length &&
		    copying->fates[first + count] == fate) {
			bytes += part_of_cluster(image,
			    length - offset - bytes);
			count++;
		}
		if (fate == FATE_ZERO && image->limits.zero_flag)
			err = say_zeros(image, guest + offset, count);
		else if (fate != FATE_LEAVE)
			err = copy_run(copying, guest, offset, bytes);
		offset += bytes;
		first += count;
	}
	return err;
}

co_fn static int
copy_claimed(struct copying *copying, uint64_t guest, uint64_t *lengthp)
{
	struct image *image = copying->image;
	struct l2_run run;
	int err;

	err = qcow2_find_run(image, guest, *lengthp, &run);
	if (err)
		return err;
	*lengthp = run.length;
	if (run.kind != CLUSTER_UNALLOCATED)
		return 0;
	monitor_leave(&image->monitor);
	err = judge_all(copying, guest, run.length);
	monitor_enter(&image->monitor);
	return err ? err : carry_out(copying, guest, run.length);
}

/* Copies what is to be copied of some clusters from guest on. */
co_fn static int
copy_piece(struct copying *copying, uint64_t guest, uint64_t *donep)
{
	struct image *image = copying->image;
	uint64_t length = image->size_bytes - guest;
	atomic_uint *epoch;
	struct claim claim;
	int err;

	length = step_length(image, guest,
	    length < PIECE_BYTES ? length : PIECE_BYTES);
	monitor_enter(&image->monitor);
	err = image->failed ? -EIO : barrier_throttle(image);
	if (!err) {
		epoch = gate_enter(image);
		claim_take(image, &claim, guest, length);
		err = copy_claimed(copying, guest, &length);
		claim_release(image, &claim);
		epoch_leave(epoch);
	}
	monitor_leave(&image->monitor);
	if (!err)
		*donep = length;
	return err;
}

/* ---- all of it ---- */

/* How many of length bytes at guest read as zeros in below. */
co_fn static int
zeros_below(struct image *below, uint64_t guest, uint64_t length,
    uint64_t *zerosp)
{
	struct image_extent extent;
	int err;

	*zerosp = length;
	if (!below || guest >= below->size_bytes)
		return 0;
	if (length > below->size_bytes - guest)
		length = below->size_bytes - guest;
	err = below->ops->status(below, guest, length, &extent);
	if (!err)
		*zerosp = extent.zero ? extent.length : 0;
	return err;
}

/*
 * How many bytes at guest, in whole clusters, need not be looked at: the image
 * has them, or they are zeros on both chains.
 */
co_fn static int
skip(const struct copying *copying, uint64_t guest, uint64_t *donep)
{
	struct image *image = copying->image;
	uint64_t left = image->size_bytes - guest, length;
	struct image_extent extent;
	int err;

	err = qcow2_status(image, guest, left, &extent);
	if (err)
		return err;
	length = extent.length;
	if (!extent.present || extent.depth > 0) {
		if (!extent.zero)
			length = 0;
		else
			err = zeros_below(copying->below, guest, length,
			    &length);
	}
	if (length < left)
		length &= ~(uint64_t)(image->cluster_bytes - 1);
	*donep = length;
	return err;
}

co_fn static int
copy_all(struct copying *copying, const struct image_progress *progress)
{
	uint64_t size_bytes = copying->image->size_bytes;
	uint64_t guest = 0, done;
	int err = 0;

	while (guest < size_bytes && !err) {
		if (progress->report(progress->arg, guest, size_bytes))
			return -ECANCELED;
		err = skip(copying, guest, &done);
		if (!err && done == 0)
			err = copy_piece(copying, guest, &done);
		if (!err)
			guest += done;
		co_yield();
	}
	return err;
}

co_fn static int
copy_with_buffers(struct image *image, struct image *below,
    const struct image_progress *progress)
{
	struct copying copying = {
		.image = image, .below = below,
		.shown = buf_get(PIECE_BYTES), .other = buf_get(PIECE_BYTES),
	};
	int err = -ENOMEM;

	if (copying.shown && copying.other)
		err = copy_all(&copying, progress);
	buf_put(copying.shown, PIECE_BYTES);
	buf_put(copying.other, PIECE_BYTES);
	return err;
}

/* Nobody makes a snapshot or changes the length meanwhile. */
co_fn static int
take_operation(struct image *image, struct error *error)
{
	int err;

	monitor_enter(&image->monitor);
	co_mutex_lock(&image->gate.operation);
	err = gate_refuses(image);
	if (err)
		co_mutex_unlock(&image->monitor, &image->gate.operation);
	monitor_leave(&image->monitor);
	return err ? error_set(error, err, "cannot change %s: %s",
	    image->path, strerror(-err)) : 0;
}

co_fn static void
end_operation(struct image *image)
{
	monitor_enter(&image->monitor);
	co_mutex_unlock(&image->monitor, &image->gate.operation);
	monitor_leave(&image->monitor);
}

int
image_set_backing(struct image *image, const struct header_backing *backing,
    struct error *error)
{
	int err = take_operation(image, error);

	if (err)
		return err;
	err = header_update(image, backing, error);
	end_operation(image);
	return err;
}

co_fn static int
rebase_alone(struct image *image, struct image *below,
    const struct header_backing *backing,
    const struct image_progress *progress, struct error *error)
{
	int err;

	err = image_refuse_snapshots(image, error);
	if (err)
		return err;
	err = copy_with_buffers(image, below, progress);
	if (err == -ECANCELED)
		return error_set(error, err, "stopped; %s still rests on what "
		    "it did, and the same command goes on from here",
		    image->path);
	if (!err)
		err = image_flush(image);
	if (err)
		return error_set(error, err, "cannot copy into %s what it "
		    "shows of its backing file: %s", image->path,
		    strerror(-err));
	return header_update(image, backing, error);
}

int
image_rebase(struct image *image, struct image *below,
    const struct header_backing *backing,
    const struct image_progress *progress, struct error *error)
{
	int err;

	assert(image->format == IMAGE_QCOW2);
	err = take_operation(image, error);
	if (err)
		return err;
	err = rebase_alone(image, below, backing, progress, error);
	end_operation(image);
	return err;
}

int
image_flatten(struct image *image, const struct image_progress *progress,
    struct error *error)
{
	static const struct header_backing nothing = {.name = NULL};

	return image_rebase(image, NULL, &nothing, progress, error);
}
