/* SPDX-License-Identifier: MIT */
/*
 * Writing compressed clusters.
 *
 * A worker compresses, with nothing held.  Then the guest cluster is claimed,
 * as by every change of a mapping, the stream gets its room, is written, and
 * is linked last.  On disk the barrier orders refcount, then stream, then
 * entry (O1, O2): the last cluster of the packer has had other streams and is
 * not virgin, so there is no way around that.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "qcow2/compress.h"
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "runtime/buf.h"
#include "runtime/worker.h"

struct compress_job {
	enum compression compression;
	const void *source;
	size_t cluster_bytes;
	void *target;
	size_t stream_bytes;
	int err;
};

/* A cluster on its way to the disk. */
struct stream {
	struct image *image;
	uint64_t guest;
	size_t length;		/* what the disk has of the cluster */
	const void *plain;	/* all of it */
	const void *data;	/* compressed, or NULL */
	uint32_t bytes;		/* of data */
	uint64_t host;
	uint64_t entry;
};

static void
compress(void *arg)
{
	struct compress_job *job = arg;

	job->err = compress_cluster(job->compression, job->source,
	    job->cluster_bytes, job->target, &job->stream_bytes);
}

/* Whether the cluster may be written to.  -EIO: it has a host cluster. */
co_fn static int
expect_unallocated(const struct stream *stream)
{
	struct l2_run run;
	int err;

	err = l2_own(stream->image, stream->guest);
	if (!err)
		err = qcow2_find_run(stream->image, stream->guest, 1, &run);
	if (err || stream->image->failed)
		return err ? err : -EIO;
	return run.kind == CLUSTER_UNALLOCATED || run.kind == CLUSTER_ZERO ?
	    0 : -EIO;
}

/* The stream becomes the cluster as it is. */
co_fn static int
take_plain(struct stream *stream)
{
	struct image *image = stream->image;
	struct allocation place;
	int err = alloc_clusters(image, 1, &place);

	if (err)
		return err;
	stream->data = NULL;
	stream->host = place.host;
	stream->entry = place.host | ENTRY_COPIED;
	return 0;
}

co_fn static int
take_place(struct stream *stream)
{
	struct image *image = stream->image;
	int err = -EFBIG;

	if (stream->data)
		err = pack_take(image, stream->bytes, &stream->host);
	if (err == -EFBIG)
		return take_plain(stream);
	if (err)
		return err;
	stream->entry = entry_of_compressed(stream->host, stream->bytes,
	    image->cluster_bits);
	return 0;
}

co_fn static void
give_place_back(const struct stream *stream)
{
	if (stream->data)
		pack_give_back(stream->image, stream->host, stream->bytes);
	else
		alloc_give_back(stream->image, stream->host, 1);
}

/* Not in the monitor. */
co_fn static int
write_place(const struct stream *stream)
{
	struct image *image = stream->image;
	int err;

	if (stream->data)
		err = file_pwrite(image->file, stream->data, stream->bytes,
		    stream->host, 0);
	else
		err = file_pwrite(image->file, stream->plain,
		    image->cluster_bytes, stream->host, 0);
	atomic_store(&image->unsynced, true);
	return err;
}

co_fn static int
link_place(const struct stream *stream)
{
	int err = l2_link(stream->image, stream->guest, 1, stream->entry,
	    true);

	if (!err)
		stream->image->barrier.needs_order = true;
	return err;
}

/* In the monitor, with a claim. */
co_fn static int
write_claimed(struct stream *stream)
{
	struct image *image = stream->image;
	int err;

	err = expect_unallocated(stream);
	if (!err)
		err = take_place(stream);
	if (err)
		return err;
	monitor_leave(&image->monitor);
	err = write_place(stream);
	monitor_enter(&image->monitor);
	if (!err)
		err = link_place(stream);
	if (err)
		give_place_back(stream);
	return err;
}

/* Whether the disk, as long as it is now, has no more of the cluster. */
static bool
is_whole(const struct stream *stream)
{
	const struct image *image = stream->image;

	return image_has(image, stream->guest, stream->length) &&
	    (stream->length == image->cluster_bytes ||
	    stream->guest + stream->length == image->size_bytes);
}

co_fn static int
write_stream(struct stream *stream)
{
	struct image *image = stream->image;
	atomic_uint *epoch;
	struct claim claim;
	int err;

	monitor_enter(&image->monitor);
	epoch = gate_enter(image);
	err = is_whole(stream) ? barrier_throttle(image) : -EINVAL;
	if (!err) {
		claim_take(image, &claim, stream->guest, 1);
		err = write_claimed(stream);
		claim_release(image, &claim);
	}
	monitor_leave(&image->monitor);
	epoch_leave(epoch);
	return err;
}

/* Compresses into target, which has room for a cluster, and writes. */
co_fn static int
write_cluster(struct stream *stream, void *target)
{
	struct image *image = stream->image;
	struct compress_job job = {
		.compression = image->header.compression,
		.source = stream->plain,
		.cluster_bytes = image->cluster_bytes, .target = target,
	};
	int err;

	worker_run(compress, &job);
	if (job.err && job.err != -E2BIG)
		return job.err;
	stream->data = job.err ? NULL : target;
	stream->bytes = (uint32_t)job.stream_bytes;
	err = write_stream(stream);
	if (err == -ENOSPC && qcow2_make_host_room(image))
		err = write_stream(stream);
	return err;
}

int
qcow2_write_compressed(struct image *image, uint64_t guest, const void *data,
    size_t length)
{
	size_t cluster_bytes = image->cluster_bytes;
	struct stream stream = {
		.image = image, .guest = guest, .length = length,
		.plain = data,
	};
	char *padded = NULL, *target;
	int err = -ENOMEM;

	assert(guest % cluster_bytes == 0 && length > 0 &&
	    length <= cluster_bytes);
	if (image->encrypted)
		return -ENOTSUP;
	target = buf_get(cluster_bytes);
	if (!target)
		return -ENOMEM;
	if (length < cluster_bytes) {
		padded = buf_get(cluster_bytes);
		if (!padded)
			goto put_target;
		memcpy(padded, data, length);
		memset(padded + length, 0, cluster_bytes - length);
		stream.plain = padded;
	}
	err = write_cluster(&stream, target);
	buf_put(padded, cluster_bytes);
put_target:
	buf_put(target, cluster_bytes);
	return err;
}
