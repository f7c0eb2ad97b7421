/* SPDX-License-Identifier: MIT */
/* qnbd vmstate: puts the state of a virtual machine into a snapshot, or gets it
 * out of one. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "qcow2/image.h"
#include "qcow2/image_vmstate.h"
#include "server/commands.h"
#include "server/finish.h"
#include "server/key.h"
#include "server/progress.h"

#define PIECE_BYTES (1024u * 1024)

struct vmstate_options {
	const char *snapshot;
	bool refuse_bitmaps;
	struct key_options keys;
	int64_t progress_fd;	/* 0: not said */
};

#define FIELD(name) .offset = offsetof(struct vmstate_options, name)

static const struct option_spec vmstate_specs[] = {
	{ "snapshot", 0, OPTION_TEXT, "NAME",
	  "save: the snapshot to make; load: that which has it",
	  FIELD(snapshot) },
	KEY_OPTIONS(struct vmstate_options, keys),
	{ "refuse-bitmaps", 0, OPTION_FLAG, NULL,
	  "save: rather than make persistent bitmaps invalid",
	  FIELD(refuse_bitmaps) },
	PROGRESS_OPTION(struct vmstate_options, progress_fd),
	{ .name = NULL },
};

struct vmstate_call {
	const struct vmstate_options *options;
	struct key_ring keys;
	bool saves;
	const char *path;	/* of the image */
	const char *state_path;
	int fd;			/* of the state */
	struct progress progress;
	struct error error;
	int err;
};

static int
complain_about_state(struct vmstate_call *call, const char *verb, int err)
{
	return error_set(&call->error, err, "cannot %s %s: %s", verb,
	    call->state_path, strerror(-err));
}

/* ---- saving ---- */

static int
read_state(void *arg, void *data, size_t length)
{
	struct vmstate_call *call = arg;

	for (size_t done = 0; done < length;) {
		ssize_t got = read(call->fd, (char *)data + done,
		    length - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		done += (size_t)got;
	}
	return 0;
}

static co_fn int
save(struct vmstate_call *call, struct image *image)
{
	struct vmstate_source source = {.read = read_state, .arg = call};
	struct image_progress progress;
	struct timespec now;
	struct stat st;
	int err;

	call->fd = open(call->state_path, O_RDONLY | O_CLOEXEC);
	if (call->fd < 0 || fstat(call->fd, &st))
		return complain_about_state(call, "open", -errno);
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return error_set(&call->error, -EINVAL, "%s is no regular "
		    "file with anything in it", call->state_path);
	source.bytes = (uint64_t)st.st_size;
	clock_gettime(CLOCK_REALTIME, &now);
	progress = progress_stoppable(&call->progress, "saving",
	    call->options->progress_fd);
	err = image_vmstate_save(image, call->options->snapshot, &now,
	    &source, &progress, &call->error);
	progress_clear(&call->progress);
	return err;
}

/* ---- loading ---- */

static int
write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t put = write(fd, data, length);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		data += put;
		length -= (size_t)put;
	}
	return 0;
}

static co_fn int
copy_state(struct vmstate_call *call, struct image *image,
    const struct image_progress *progress)
{
	uint64_t bytes = image_vmstate_bytes(image);
	char *data = malloc(PIECE_BYTES);
	int err = 0;

	if (!data)
		return error_set(&call->error, -ENOMEM, "out of memory");
	for (uint64_t done = 0; done < bytes && !err;) {
		size_t part = bytes - done < PIECE_BYTES ?
		    (size_t)(bytes - done) : PIECE_BYTES;

		if (progress->report(progress->arg, done, bytes)) {
			err = error_set(&call->error, -ECANCELED, "stopped; "
			    "there is no %s", call->state_path);
			break;
		}
		err = image_vmstate_read(image, done, data, part);
		if (err) {
			error_set(&call->error, err, "cannot read the state "
			    "in %s: %s", call->path, strerror(-err));
			break;
		}
		err = write_all(call->fd, data, part);
		if (err)
			complain_about_state(call, "write", err);
		done += part;
	}
	free(data);
	if (!err && fsync(call->fd) && errno != EINVAL)
		err = complain_about_state(call, "write", -errno);
	return err;
}

static co_fn int
load(struct vmstate_call *call, struct image *image)
{
	struct image_progress progress;
	int err;

	if (image_vmstate_bytes(image) == 0)
		return error_set(&call->error, -ENOENT, "the snapshot \"%s\" "
		    "of %s has no state of a virtual machine",
		    call->options->snapshot, call->path);
	progress = progress_stoppable(&call->progress, "loading",
	    call->options->progress_fd);
	call->fd = open(call->state_path,
	    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (call->fd < 0)
		return complain_about_state(call, "make", -errno);
	err = copy_state(call, image, &progress);
	progress_clear(&call->progress);
	if (err)
		unlink(call->state_path);
	return err;
}

/* ---- the command ---- */

static co_fn void
vmstate_main(void *arg)
{
	struct vmstate_call *call = arg;
	const struct image_options options = {
		.format = IMAGE_QCOW2,
		.writable = call->saves,
		.no_backing = true,
		.snapshot = call->saves ? NULL : call->options->snapshot,
		.refuse_bitmaps = call->options->refuse_bitmaps,
		.keys = call->keys.list,
		.keys_count = call->keys.count,
		.loops = 1,
	};
	struct image *image;

	call->err = image_open(call->path, &options, &image, &call->error);
	if (call->err)
		return;
	call->err = call->saves ? save(call, image) : load(call, image);
	call->err = finish_image(image, call->path, call->err,
	    &call->error);
}

static int
vmstate_run(const struct command *command, int argc, char **argv)
{
	struct vmstate_options options = {0};
	struct vmstate_call call = {.options = &options, .fd = -1};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 3 || (strcmp(argv[first], "save") &&
	    strcmp(argv[first], "load")))
		return options_complain(command,
		    "vmstate takes save or load, an image and a FILE");
	if (!options.snapshot)
		return options_complain(command,
		    "vmstate %s needs --snapshot NAME", argv[first]);
	call.saves = !strcmp(argv[first], "save");
	call.path = argv[first + 1];
	call.state_path = argv[first + 2];
	exit_code = key_ring_load(command, &options.keys, &call.keys);
	if (!exit_code)
		exit_code = command_run(vmstate_main, &call);
	key_ring_free(&call.keys);
	if (call.fd >= 0)
		close(call.fd);
	if (!exit_code && call.err)
		exit_code = error_print(&call.error);
	return exit_code;
}

const struct command vmstate_command = {
	.name = "vmstate",
	.arguments = "save|load --snapshot NAME [OPTIONS] IMAGE FILE",
	.summary = "put the state of a machine into a snapshot, or get it",
	.options = vmstate_specs,
	.run = vmstate_run,
};
