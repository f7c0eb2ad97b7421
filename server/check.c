/* SPDX-License-Identifier: MIT */
/* qnbd check: whether the refcounts of an image file are right; repair. */
#include "server/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "qcow2/image.h"
#include "runtime/file.h"
#include "runtime/file_holder.h"
#include "server/commands.h"
#include "server/source.h"
#include "server/stop.h"

/* As of qemu-img check. */
#define EXIT_UNSUPPORTED 63

/* A killed io_uring process holds its locks for some 50 ms more. */
#define LOCK_PATIENCE_MS 2000

struct check_options {
	bool json;
	int format;
	int repair;
	int64_t progress_fd;	/* 0: not said */
};

static const char *const repair_names[] = {
	[CHECK_REPAIR_LEAKS] = "leaks", [CHECK_REPAIR_ALL] = "all", NULL,
};

#define FIELD(name) .offset = offsetof(struct check_options, name)

static const struct option_spec check_specs[] = {
	{ "json", 0, OPTION_FLAG, NULL,
	  "print the JSON that qemu-img prints", FIELD(json) },
	SOURCE_FORMAT_OPTION(struct check_options, format, "the file"),
	{ "repair", 'r', OPTION_CHOICE, "leaks|all",
	  "give leaked clusters back, or repair all that can be",
	  FIELD(repair), .choices = repair_names },
	PROGRESS_OPTION(struct check_options, progress_fd),
	{ .name = NULL },
};

static bool
is_repair(const struct check_call *call)
{
	return call->repair != CHECK_REPAIR_NOTHING;
}

/* ---- while it runs ---- */

static void
progress(void *arg, uint64_t done, uint64_t total)
{
	struct check_call *call = arg;

	progress_set(&call->progress, done, total);
}

/* A repair ends between two writes. */
static bool
stop(void *arg)
{
	(void)arg;
	return stop_is_wanted();
}

static void
report(void *arg, enum check_finding kind, const char *line)
{
	static const char *const names[] = {
		[CHECK_CORRUPTION] = "corrupt",
		[CHECK_LEAK] = "leaked",
		[CHECK_ERROR] = "not checked",
	};
	struct check_call *call = arg;

	progress_clear(&call->progress);
	call->reported[kind]++;
	fprintf(stderr, "%s: %s\n", names[kind], line);
}

static int
lock(struct check_call *call, const struct file *file, int err)
{
	char holder[FILE_HOLDER_BYTES];

	if (err != -EAGAIN)
		return error_set(&call->error, err, "cannot lock %s: %s",
		    call->path, strerror(-err));
	file_holder(file, holder);
	error_set(&call->error, err, "cannot open %s: it is locked by %s",
	    call->path, holder);
	error_hint(&call->error, "stop that program first: an image cannot "
	    "be checked while it changes");
	return err;
}

static co_fn int
repair(struct check_call *call, struct file *file,
    const struct check_listener *listener)
{
	int err = repair_file(file, call->path,
	    call->repair == CHECK_REPAIR_ALL ? REPAIR_ALL : REPAIR_LEAKS,
	    listener, &call->repaired, &call->error);

	if (err == -EINTR)
		error_hint(&call->error, "nothing is lost; the next repair "
		    "goes on: qnbd check --repair %s %s",
		    repair_names[call->repair], call->path);
	if (!err)
		call->result = call->repaired.left;
	return err;
}

static co_fn void
check_main(void *arg)
{
	struct check_call *call = arg;
	const struct check_listener listener = {
		.report = report, .progress = progress, .stop = stop,
		.arg = call,
	};
	struct file *file;
	int err = file_open(AT_FDCWD, call->path,
	    is_repair(call) ? FILE_WRITE : 0, 0, &file);

	if (err) {
		call->err = error_set(&call->error, err, "cannot open %s: %s",
		    call->path, err == -EINVAL ? "it is neither a regular "
		    "file nor a block device" : strerror(-err));
		return;
	}
	err = file_lock(file, is_repair(call) ? FILE_LOCK_WRITE :
	    FILE_LOCK_READ, LOCK_PATIENCE_MS);
	if (err)
		call->err = lock(call, file, err);
	else if (is_repair(call))
		call->err = repair(call, file, &listener);
	else
		call->err = check_file_listen(file, call->path, &listener,
		    &call->result, &call->error);
	progress_clear(&call->progress);
	file_close(file);
}

static int
check_run(const struct command *command, int argc, char **argv)
{
	struct check_options options = {
		.format = IMAGE_QCOW2, .repair = CHECK_REPAIR_NOTHING,
	};
	struct check_call call = {0};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 1)
		return options_complain(command, "check takes one FILE");
	call.path = argv[first];
	call.repair = (enum check_repair)options.repair;
	progress_begin(&call.progress, is_repair(&call) ?
	    "checking and repairing" : "checking", options.progress_fd);
	if (options.format == IMAGE_RAW) {
		fprintf(stderr, "qnbd: %s is raw, so there is nothing in it "
		    "that could be checked\n", call.path);
		return EXIT_UNSUPPORTED;
	}
	if (is_repair(&call))
		stop_begin();
	exit_code = command_run(check_main, &call);
	if (exit_code)
		return exit_code;
	return call.err ? error_print(&call.error) :
	    check_print(&call, options.json);
}

const struct command check_command = {
	.name = "check",
	.arguments = "[OPTIONS] FILE",
	.summary = "see whether an image file is sound; repair it",
	.options = check_specs,
	.run = check_run,
};
