/* SPDX-License-Identifier: MIT */
/*
 * Reading.
 *
 * A read of mapped clusters takes the image's lock once for each run that is
 * contiguous on the host, allocates nothing and issues one preadv for it.
 * The lock is not held during that: an epoch keeps the host clusters from
 * being reused under the read.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/encrypted.h"
#include "qcow2/internal.h"
#include "qcow2/l2.h"
#include "runtime/buf.h"
#include "runtime/log.h"
#include "runtime/worker.h"

/* Inflating more than this at once would hold the loop up: a worker does it. */
#define INFLATE_INLINE_BYTES (64 * 1024)

struct inflate_job {
	enum compression compression;
	const char *source;
	size_t source_bytes;
	char *target;
	size_t target_bytes;
	int err;
};

static void
inflate(void *arg)
{
	struct inflate_job *job = arg;

	job->err = inflate_cluster(job->compression, job->source,
	    job->source_bytes, job->target, job->target_bytes);
}

/* Fills cluster, a buffer of one cluster, from where entry says. */
co_fn int
read_compressed_cluster(struct image *image, uint64_t entry, char *cluster)
{
	struct entry_span span = entry_compressed(entry, image->cluster_bits);
	struct inflate_job job = {
		.compression = image->header.compression,
		.source_bytes = span.bytes,
		.target = cluster, .target_bytes = image->cluster_bytes,
	};
	char *source = buf_get(span.bytes);
	int err;

	if (!source)
		return -ENOMEM;
	err = file_pread(image->file, source, span.bytes, span.host);
	if (err)
		goto put_source;
	job.source = source;
	if (image->cluster_bytes > INFLATE_INLINE_BYTES)
		worker_run(inflate, &job);
	else
		inflate(&job);
	err = job.err;
	if (err == -EIO)
		log_error("the compressed cluster at 0x%llx (%u bytes) does "
		    "not inflate file=%s", (unsigned long long)span.host,
		    span.bytes, image->file->name);
put_source:
	buf_put(source, span.bytes);
	return err;
}

co_fn static int
read_compressed(struct image *image, struct reader *reader, uint64_t guest,
    const struct l2_run *run)
{
	uint64_t in_cluster = guest & (image->cluster_bytes - 1);
	char *target = reader_target(reader, guest);
	char *cluster;
	int err;

	if (run->length == image->cluster_bytes)
		return read_compressed_cluster(image, run->entry, target);
	cluster = buf_get(image->cluster_bytes);
	if (!cluster)
		return -ENOMEM;
	err = read_compressed_cluster(image, run->entry, cluster);
	if (!err)
		memcpy(target, cluster + in_cluster, run->length);
	buf_put(cluster, image->cluster_bytes);
	return err;
}

co_fn static int
read_run(struct image *image, struct reader *reader, uint64_t guest,
    const struct l2_run *run)
{
	switch (run->kind) {
	case CLUSTER_UNALLOCATED:
		if (image->backing)
			return image_read_layer(image->backing, reader, guest,
			    run->length);
		/* fall through */
	case CLUSTER_ZERO:
	case CLUSTER_ZERO_ALLOCATED:
		reader_zeros(reader, guest, run->length);
		return 0;
	case CLUSTER_NORMAL:
		if (image->encrypted)
			return encrypted_read(image,
			    reader_target(reader, guest), guest, run);
		return file_pread(image->file, reader_target(reader, guest),
		    run->length, run->host);
	case CLUSTER_COMPRESSED:
		return read_compressed(image, reader, guest, run);
	}
	assert(!"a cluster kind");
	return -EIO;
}

/* What begins at guest: the lookup of one taking of the lock. */
co_fn int
qcow2_find_run(struct image *image, uint64_t guest, uint64_t length,
    struct l2_run *run)
{
	struct slice *slice;
	int err;

	err = l2_pin(image, guest, &slice);
	if (err)
		return err;
	err = l2_run(image, slice, guest, length, run);
	l2_unpin(image, slice);
	return err;
}

int
qcow2_read(struct image *image, struct reader *reader, uint64_t guest,
    uint64_t length)
{
	unsigned runs = 0;
	int err = 0;

	while (length > 0 && !err) {
		atomic_uint *epoch;
		struct l2_run run;

		monitor_enter(&image->monitor);
		epoch = reader->inside == image ?
		    epoch_enter(&image->epochs) : gate_enter(image);
		err = image_has(image, guest, length) ?
		    qcow2_find_run(image, guest, length, &run) : -EINVAL;
		monitor_leave(&image->monitor);
		if (!err)
			err = read_run(image, reader, guest, &run);
		epoch_leave(epoch);
		if (err)
			break;
		guest += run.length;
		length -= run.length;
		if (++runs % TURN_RUNS == 0)
			co_yield();
	}
	return err;
}
