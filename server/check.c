/* SPDX-License-Identifier: MIT */
/* qnbd check: whether the refcounts of an image file are right. */
#include "qcow2/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "qcow2/image.h"
#include "runtime/file.h"
#include "runtime/file_holder.h"
#include "server/commands.h"
#include "server/json_text.h"

/* Exit codes, as of qemu-img check. */
#define EXIT_CORRUPT 2
#define EXIT_LEAKS 3
#define EXIT_UNSUPPORTED 63

/* A killed io_uring process holds its locks for some 50 ms more. */
#define LOCK_PATIENCE_MS 2000

struct check_options {
	bool json;
	int format;
};

static const char *const format_names[] = {
	[IMAGE_QCOW2] = "qcow2", [IMAGE_RAW] = "raw", NULL,
};

#define FIELD(name) .offset = offsetof(struct check_options, name)

static const struct option_spec check_specs[] = {
	{ "json", 0, OPTION_FLAG, NULL,
	  "print the JSON that qemu-img prints", FIELD(json) },
	{ "format", 'f', OPTION_CHOICE, "qcow2|raw",
	  "what the file is (qcow2); never guessed", FIELD(format),
	  .choices = format_names },
	{ .name = NULL },
};

struct check_call {
	const char *path;
	struct check_result result;
	struct error error;
	int err;
	bool show_progress;
	unsigned percent;	/* that the progress line shows */
	uint64_t reported[CHECK_ERROR + 1];
};

/* ---- while it runs ---- */

static void
clear_progress(const struct check_call *call)
{
	if (call->show_progress)
		fprintf(stderr, "\r\033[K");
}

static void
progress(void *arg, uint64_t done, uint64_t total)
{
	struct check_call *call = arg;
	unsigned percent = (unsigned)(done * 100 / total);

	if (!call->show_progress || percent == call->percent)
		return;
	call->percent = percent;
	fprintf(stderr, "\rchecking: %u %%", percent);
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

	clear_progress(call);
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

static co_fn void
check_main(void *arg)
{
	struct check_call *call = arg;
	const struct check_listener listener = {
		.report = report, .progress = progress, .arg = call,
	};
	struct file *file;
	int err = file_open(AT_FDCWD, call->path, 0, 0, &file);

	if (err) {
		call->err = error_set(&call->error, err, "cannot open %s: %s",
		    call->path, err == -EINVAL ? "it is neither a regular "
		    "file nor a block device" : strerror(-err));
		return;
	}
	err = file_lock(file, FILE_LOCK_READ, LOCK_PATIENCE_MS);
	if (err)
		call->err = lock(call, file, err);
	else
		call->err = check_file_listen(file, call->path, &listener,
		    &call->result, &call->error);
	clear_progress(call);
	file_close(file);
}

/* ---- afterwards ---- */

/* qemu-img leaves out what is 0, except for the errors. */
static void
set_number(json_t *object, const char *key, uint64_t number)
{
	if (number > 0)
		json_object_set_new(object, key,
		    json_integer((json_int_t)number));
}

static int
print_json(const struct check_call *call)
{
	const struct check_result *result = &call->result;
	json_t *object;

	json_text_begin();
	object = json_object();
	set_number(object, "image-end-offset", result->image_end_offset);
	set_number(object, "total-clusters", result->total_clusters);
	json_object_set_new(object, "check-errors",
	    json_integer((json_int_t)result->check_errors));
	set_number(object, "corruptions", result->corruptions);
	set_number(object, "leaks", result->leaks);
	set_number(object, "allocated-clusters", result->allocated_clusters);
	set_number(object, "fragmented-clusters",
	    result->fragmented_clusters);
	set_number(object, "compressed-clusters",
	    result->compressed_clusters);
	json_object_set_new(object, "filename", json_string(call->path));
	json_object_set_new(object, "format", json_string("qcow2"));
	return json_text_print(object);
}

static void
print_findings(const struct check_call *call)
{
	const struct check_result *result = &call->result;

	if (result->check_errors > 0)
		printf("%s: %" PRIu64 " refcounts could not be checked\n",
		    call->path, result->check_errors);
	if (result->corruptions > 0)
		printf("%s is corrupt: %" PRIu64 " faults\n"
		    "  do not write to it; repair: qemu-img check -r all %s\n",
		    call->path, result->corruptions, call->path);
	if (result->leaks > 0)
		printf("%s has %" PRIu64 " leaked clusters\n"
		    "  they only waste room; give it back: qemu-img check "
		    "-r leaks %s\n", call->path, result->leaks, call->path);
	if (!result->check_errors && !result->corruptions && !result->leaks)
		printf("%s is clean\n", call->path);
}

static double
percent(uint64_t part, uint64_t whole)
{
	return whole > 0 ? (double)part * 100 / (double)whole : 0;
}

static void
print_text(const struct check_call *call)
{
	const struct check_result *result = &call->result;

	print_findings(call);
	printf("%-16s %" PRIu64 " of %" PRIu64 " clusters (%.2f %%)\n",
	    "allocated", result->allocated_clusters, result->total_clusters,
	    percent(result->allocated_clusters, result->total_clusters));
	printf("%-16s %.2f %% of these\n", "fragmented",
	    percent(result->fragmented_clusters, result->allocated_clusters));
	printf("%-16s %.2f %% of these\n", "compressed",
	    percent(result->compressed_clusters, result->allocated_clusters));
	printf("%-16s %" PRIu64 " bytes\n", "end of image",
	    result->image_end_offset);
}

static void
say_more(uint64_t found, uint64_t reported, const char *what)
{
	if (found > reported)
		fprintf(stderr, "%" PRIu64 " more %s\n", found - reported,
		    what);
}

static int
print_result(const struct check_call *call, bool json)
{
	const struct check_result *result = &call->result;

	say_more(result->check_errors, call->reported[CHECK_ERROR],
	    "refcounts were not checked");
	say_more(result->corruptions, call->reported[CHECK_CORRUPTION],
	    "are corrupt");
	say_more(result->leaks, call->reported[CHECK_LEAK],
	    "clusters are leaked");
	if (!json)
		print_text(call);
	else if (print_json(call))
		return 1;
	if (result->check_errors > 0)
		return 1;
	if (result->corruptions > 0)
		return EXIT_CORRUPT;
	return result->leaks > 0 ? EXIT_LEAKS : 0;
}

static int
check_run(const struct command *command, int argc, char **argv)
{
	struct check_options options = { .format = IMAGE_QCOW2 };
	struct check_call call = {
		.show_progress = isatty(STDERR_FILENO), .percent = UINT_MAX,
	};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 1)
		return options_complain(command, "check takes one FILE");
	call.path = argv[first];
	if (options.format == IMAGE_RAW) {
		fprintf(stderr, "qnbd: %s is raw, so there is nothing in it "
		    "that could be checked\n", call.path);
		return EXIT_UNSUPPORTED;
	}
	exit_code = command_run(check_main, &call);
	if (exit_code)
		return exit_code;
	return call.err ? error_print(&call.error) :
	    print_result(&call, options.json);
}

const struct command check_command = {
	.name = "check",
	.arguments = "[OPTIONS] FILE",
	.summary = "see whether an image file is sound",
	.options = check_specs,
	.run = check_run,
};
