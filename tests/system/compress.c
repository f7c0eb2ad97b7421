/* SPDX-License-Identifier: MIT */
/*
 * Writes a raw file into an empty qcow2 image as compressed clusters, many at
 * once; clusters of zeros are left out.
 *
 *	compress RAW IMAGE
 *
 * For tests that hold the result against what other programs make and see.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/image.h"
#include "qcow2/zeros_only.h"
#include "runtime/log.h"
#include "runtime/loop.h"
#include "runtime/worker.h"

#define WRITERS 8

struct job {
	const char *raw_path, *image_path;
	FILE *raw;
	struct image *image;
	uint64_t next;		/* guest offset that nobody has taken yet */
	unsigned writers;	/* still at work */
	struct co *waiter;
	int err;		/* the first */
	struct co_start start;
};

struct writer {
	struct job *job;
	char *data;
	struct co_start start;
};

/* Reads the next cluster; its length, 0 at the end. */
static size_t
take_cluster(struct writer *writer, uint64_t *guestp)
{
	struct job *job = writer->job;
	size_t got = fread(writer->data, 1, image_cluster_bytes(job->image),
	    job->raw);

	*guestp = job->next;
	job->next += got;
	return got;
}

co_fn static void
write_clusters(void *arg)
{
	struct writer *writer = arg;
	struct job *job = writer->job;
	uint64_t guest;
	size_t length;

	while (!job->err && (length = take_cluster(writer, &guest)) > 0) {
		int err = zeros_only(writer->data, length) ? 0 :
		    image_write_compressed(job->image, guest, writer->data,
		    length);

		if (err && !job->err)
			job->err = err;
	}
	if (--job->writers == 0)
		co_wake(job->waiter);
}

co_fn static void
write_all(struct job *job)
{
	struct writer writers[WRITERS];

	job->writers = WRITERS;
	job->waiter = co_self();
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){
			.job = job,
			.data = malloc(image_cluster_bytes(job->image)),
		};
		if (!writers[i].data)
			abort();
		co_start(&writers[i].start, write_clusters, &writers[i]);
	}
	co_suspend();
	for (unsigned i = 0; i < WRITERS; i++)
		free(writers[i].data);
}

co_fn static void
compress_main(void *arg)
{
	struct image_options options = {
		.format = IMAGE_QCOW2, .writable = true,
	};
	struct job *job = arg;
	struct error error;
	int err;

	job->err = image_open(job->image_path, &options, &job->image, &error);
	if (job->err) {
		fprintf(stderr, "%s\n", error.message);
	} else {
		write_all(job);
		err = image_close(job->image);
		if (!job->err)
			job->err = err;
	}
	loop_stop(loop_self());
}

int
main(int argc, char **argv)
{
	struct job job = {0};
	struct loop *loop;

	if (argc != 3) {
		fprintf(stderr, "usage: compress RAW IMAGE\n");
		return 64;
	}
	job.raw_path = argv[1];
	job.image_path = argv[2];
	job.raw = fopen(job.raw_path, "rb");
	if (!job.raw || loop_create(1, &loop)) {
		perror(job.raw_path);
		return 1;
	}
	co_start(&job.start, compress_main, &job);
	loop_run(loop);
	loop_free(loop);
	worker_stop();
	log_flush(1000);
	fclose(job.raw);
	if (job.err)
		fprintf(stderr, "%s: %s\n", job.image_path,
		    strerror(-job.err));
	return job.err != 0;
}
