/* SPDX-License-Identifier: MIT */
/*
 * Holds an image open and does what it is told on standard input, a line at a
 * time; answers each with a line: "ok", what was asked for, or an error.
 *
 *	reopen [-k KEY] [-f] [-w] IMAGE
 *
 *	-k KEY	it is encrypted with this passphrase
 *	-f	read beside a writer, without locks; not for what is reopened
 *	-w	for writing
 *
 *	read OFFSET LENGTH	the value of all the bytes, or "mixed"
 *	write OFFSET LENGTH VALUE
 *	size
 *	invalidate		image_invalidate()
 *	reopen r|w		image_reopen()
 *
 * For tests in which other programs write to the image meanwhile.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "qcow2/image_reopen.h"
#include "runtime/log.h"
#include "runtime/loop.h"
#include "runtime/worker.h"

#define LENGTH_MAX (16u << 20)

struct job {
	const char *path;
	struct image_options options;
	struct image_key key;
	struct image *image;
	int status;
	struct co_start start;
};

static void
answer(int err, const struct error *error, const char *format, ...)
{
	va_list arguments;

	if (err && error) {
		printf("error %s\n", error->message);
	} else if (err) {
		printf("error %s\n", strerror(-err));
	} else {
		va_start(arguments, format);
		vprintf(format, arguments);
		va_end(arguments);
		putchar('\n');
	}
	fflush(stdout);
}

co_fn static void
read_range(struct job *job, uint64_t offset, size_t length)
{
	unsigned char *data = malloc(length);
	int err;

	if (!data)
		abort();
	err = image_read(job->image, offset, data, length, NULL);
	if (!err && memcmp(data, data + 1, length - 1))
		answer(0, NULL, "mixed");
	else
		answer(err, NULL, "%u", data[0]);
	free(data);
}

co_fn static void
write_range(struct job *job, uint64_t offset, size_t length, int value)
{
	void *data = malloc(length);

	if (!data)
		abort();
	memset(data, value, length);
	answer(image_write(job->image, offset, data, length, 0), NULL, "ok");
	free(data);
}

/* Those that it has are kept. */
co_fn static void
open_anew(struct job *job, bool invalidates)
{
	struct image_options options = job->options;
	struct error error;
	int err;

	options.keys_count = 0;
	err = invalidates ? image_invalidate(job->image, &options, &error) :
	    image_reopen(job->image, &options, &error);
	answer(err, &error, "ok");
}

co_fn static void
obey(struct job *job, const char *line)
{
	uint64_t offset;
	unsigned length;
	int value;
	char way;

	if (sscanf(line, "read %" SCNu64 " %u", &offset, &length) == 2 &&
	    length > 0 && length <= LENGTH_MAX) {
		read_range(job, offset, length);
	} else if (sscanf(line, "write %" SCNu64 " %u %d", &offset, &length,
	    &value) == 3 && length <= LENGTH_MAX) {
		write_range(job, offset, length, value);
	} else if (!strcmp(line, "size\n")) {
		answer(0, NULL, "%" PRIu64, image_size_bytes(job->image));
	} else if (!strcmp(line, "invalidate\n")) {
		open_anew(job, true);
	} else if (sscanf(line, "reopen %c", &way) == 1) {
		job->options.writable = way == 'w';
		open_anew(job, false);
	} else {
		answer(0, NULL, "error what is %s", line);
	}
}

co_fn static void
job_main(void *arg)
{
	struct job *job = arg;
	struct error error;
	char line[256];
	int err;

	err = image_open(job->path, &job->options, &job->image, &error);
	if (err)
		goto stop;
	answer(0, NULL, "ok");
	while (fgets(line, sizeof(line), stdin))
		obey(job, line);
	err = image_close(job->image);
	if (err)
		error_set(&error, err, "%s", strerror(-err));
stop:
	if (err)
		fprintf(stderr, "%s\n", error.message);
	job->status = !!err;
	loop_stop(loop_self());
}

static void
read_options(int argc, char **argv, struct job *job)
{
	int letter;

	while ((letter = getopt(argc, argv, "fk:w")) != -1) {
		if (letter == 'f')
			job->options.force_share = true;
		else if (letter == 'w')
			job->options.writable = true;
		else if (letter == 'k')
			job->key = (struct image_key){optarg, strlen(optarg)};
		else
			exit(64);
	}
	if (argc - optind != 1)
		exit(64);
	job->path = argv[optind];
	job->options.keys = &job->key;
	job->options.keys_count = job->key.bytes > 0;
}

int
main(int argc, char **argv)
{
	struct job job = {.options.format = IMAGE_QCOW2};
	struct loop *loop;

	log_set_level(LOG_LEVEL_WARNING);
	read_options(argc, argv, &job);
	if (loop_create(1, &loop))
		return 1;
	co_start(&job.start, job_main, &job);
	loop_run(loop);
	loop_free(loop);
	worker_stop();
	log_flush(1000);
	return job.status;
}
