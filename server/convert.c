/* SPDX-License-Identifier: MIT */
/* qnbd convert: copies a disk into a new image, or into one that is there. */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "runtime/file.h"
#include "server/commands.h"
#include "server/copy.h"
#include "server/create_options.h"
#include "server/finish.h"
#include "server/new_backing.h"
#include "server/new_file.h"
#include "server/progress.h"
#include "server/source.h"
#include "server/stop.h"
#include "server/write_back.h"

/* How often the kernel is told to write on, in bytes of the disk. */
#define WRITE_BACK_BYTES (16u * 1024 * 1024)

struct convert_arguments {
	struct source_arguments source;
	struct key_options target_keys;
	int output_format;
	int backing_format;		/* -1: not said */
	const char *backing;
	bool compress;
	bool existing;
	bool force;
	bool sync;
	int64_t progress_fd;		/* 0: not said */
	int64_t threads;		/* 0: not said */
	struct option_texts options;
};

#define FIELD(name) .offset = offsetof(struct convert_arguments, name)

static const struct option_spec convert_specs[] = {
	{ "output-format", 'O', OPTION_CHOICE, "qcow2|raw",
	  "what DST is to be (qcow2)", FIELD(output_format),
	  .choices = source_formats },
	{ "option", 'o', OPTION_TEXTS, "NAME=VALUE,...",
	  "settings of DST, as of create", FIELD(options) },
	{ "compress", 'c', OPTION_FLAG, NULL,
	  "compress all data", FIELD(compress) },
	{ "backing", 'b', OPTION_TEXT, "BASE",
	  "DST holds only what differs from BASE", FIELD(backing) },
	{ "backing-format", 'F', OPTION_CHOICE, "qcow2|raw",
	  "what BASE is; never guessed", FIELD(backing_format),
	  .choices = source_formats },
	{ "existing", 'n', OPTION_FLAG, NULL,
	  "write into the image or device DST, which is there",
	  FIELD(existing) },
	{ "force", 0, OPTION_FLAG, NULL,
	  "replace DST if it is there", FIELD(force) },
	{ "sync", 0, OPTION_FLAG, NULL,
	  "end when all of DST is on the disk", FIELD(sync) },
	SOURCE_OPTIONS(struct convert_arguments, source, "SRC"),
	KEY_OPTIONS(struct convert_arguments, source.keys),
	{ "target-key-file", 0, OPTION_TEXTS, "FILE",
	  "the key of DST, if it is encrypted, repeatable",
	  FIELD(target_keys.files) },
	PROGRESS_OPTION(struct convert_arguments, progress_fd),
	{ "threads", 0, OPTION_NUMBER, "N",
	  "processors to use; default: all", FIELD(threads),
	  .min = 1, .max = COMMAND_LOOPS_MAX },
	{ .name = NULL },
};

struct convert_call {
	const struct convert_arguments *arguments;
	const char *source_path;
	const char *target_path;
	struct create_options options;
	struct loop *loops[COMMAND_LOOPS_MAX];
	unsigned loops_count;
	struct key_ring source_keys, target_keys;
	struct new_file new_file;
	char *backing_dir;		/* of BASE */
	struct image *source;
	struct progress progress;
	struct write_back write_back;	/* of a new file */
	uint64_t written_back;		/* how much was done then */
	struct error error;
	int err;
};

/* ---- copying ---- */

/* How far the file was written, or not far behind that. */
static uint64_t
written_bytes(const struct convert_call *call, uint64_t done)
{
	struct stat st;

	if (call->arguments->output_format == IMAGE_RAW)
		return done;
	return fstat(call->write_back.fd, &st) ? 0 : (uint64_t)st.st_size;
}

static void
show_progress(void *arg, uint64_t done, uint64_t total)
{
	struct convert_call *call = arg;

	progress_set(&call->progress, done, total);
	if (call->write_back.fd < 0 ||
	    done - call->written_back < WRITE_BACK_BYTES)
		return;
	call->written_back = done;
	write_back_advance(&call->write_back, written_bytes(call, done));
}

co_fn static int
copy_to(struct convert_call *call, struct image *target, uint64_t size_bytes)
{
	const struct convert_arguments *arguments = call->arguments;
	struct copy copy = {
		.source = call->source, .target = target,
		.target_format = (enum image_format)arguments->output_format,
		.size_bytes = size_bytes,
		.holds_other = arguments->existing || arguments->backing,
		.compares = arguments->backing,
		.compresses = arguments->compress,
		.stop = arguments->existing ? stop_is_wanted : NULL,
		.progress = show_progress, .progress_arg = call,
	};
	int err;

	progress_begin(&call->progress, "copying", arguments->progress_fd);
	err = copy_run(&copy, call->loops, call->loops_count, &call->error);
	progress_clear(&call->progress);
	if (err == -EINTR)
		error_hint(&call->error, "%s holds a part of the copy by now",
		    call->target_path);
	return err;
}

/* ---- a new image ---- */

/* Where the backing file of the target may lie, besides what is told. */
static int
allow_backing(struct convert_call *call, struct option_texts *dirs)
{
	char *path, *slash;

	*dirs = call->arguments->source.backing_dirs;
	if (!call->options.backing_name)
		return 0;
	path = new_backing_path(&call->new_file, call->options.backing_name);
	if (!path)
		return error_set(&call->error, -ENOMEM, "out of memory");
	slash = strrchr(path, '/');
	slash[slash == path] = '\0';
	call->backing_dir = path;
	if (dirs->count == OPTION_TEXTS_MAX)
		dirs->count--;
	dirs->list[dirs->count++] = path;
	return 0;
}

/* Makes the empty image, whose path the caller frees. */
co_fn static int
make_target(struct convert_call *call, char **pathp)
{
	struct file *file;
	int err = new_file_open(&call->new_file, &file, &call->error);

	if (err)
		return err;
	if (call->arguments->output_format == IMAGE_RAW) {
		err = file_truncate(file, call->options.size_bytes);
		if (err)
			error_set(&call->error, err, "cannot make %s %" PRIu64
			    " bytes long: %s", call->target_path,
			    call->options.size_bytes, strerror(-err));
	} else {
		err = create_image(file, call->target_path, &call->options,
		    &call->error);
	}
	if (!err) {
		*pathp = strdup(file->name);
		if (!*pathp)
			err = error_set(&call->error, -ENOMEM,
			    "out of memory");
	}
	file_close(file);
	return err;
}

co_fn static int
fill_new(struct convert_call *call)
{
	struct option_texts dirs;
	struct image_options options = {
		.format = (enum image_format)call->arguments->output_format,
		.writable = true, .draft = true,
		.keys = call->target_keys.list,
		.keys_count = call->target_keys.count,
		.loops = call->loops_count,
	};
	struct image *target;
	char *path = NULL;
	int err = allow_backing(call, &dirs);

	if (!err)
		err = make_target(call, &path);
	options.backing_dirs = dirs.list;
	options.backing_dirs_count = dirs.count;
	if (!err)
		err = image_open(path, &options, &target, &call->error);
	if (err)
		goto free_path;
	if (call->arguments->sync || call->new_file.replaced)
		write_back_open(&call->write_back, path);
	err = copy_to(call, target, image_size_bytes(target));
	write_back_close(&call->write_back);
	err = finish_image(target, call->target_path, err,
	    &call->error);
free_path:
	free(path);
	return err;
}

co_fn static int
convert_to_new(struct convert_call *call)
{
	int err = new_file_settle(&call->new_file, call->target_path,
	    call->arguments->force, &call->error);

	call->options.size_bytes = image_size_bytes(call->source);
	if (!err && call->arguments->output_format == IMAGE_QCOW2)
		err = create_check(&call->options, &call->error);
	if (!err && call->options.backing_name)
		err = new_backing_check(&call->new_file, true,
		    &call->options, &call->error);
	if (!err)
		err = fill_new(call);
	if (!err)
		err = new_file_keep(&call->new_file, call->arguments->sync,
		    &call->error);
	if (err)
		new_file_remove();
	new_file_free(&call->new_file);
	return err;
}

/* ---- an image that is there ---- */

co_fn static int
convert_to_existing(struct convert_call *call)
{
	const struct convert_arguments *arguments = call->arguments;
	const struct image_options options = {
		.format = (enum image_format)arguments->output_format,
		.writable = true,
		.backing_dirs = arguments->source.backing_dirs.list,
		.backing_dirs_count = arguments->source.backing_dirs.count,
		.keys = call->target_keys.list,
		.keys_count = call->target_keys.count,
		.loops = call->loops_count,
	};
	uint64_t size_bytes = image_size_bytes(call->source);
	struct image *target;
	int err;

	err = image_open(call->target_path, &options, &target, &call->error);
	if (err)
		return err;
	if (image_size_bytes(target) < size_bytes)
		err = error_set(&call->error, -ENOSPC, "%s has %" PRIu64
		    " bytes, less than the %" PRIu64 " of %s",
		    call->target_path, image_size_bytes(target), size_bytes,
		    call->source_path);
	else
		err = copy_to(call, target, size_bytes);
	return finish_image(target, call->target_path, err, &call->error);
}

/* ---- both ---- */

/* The target would be read while it is written, or replaced. */
static int
refuse_same(struct convert_call *call)
{
	struct stat target, layer;

	if (stat(call->target_path, &target))
		return 0;
	for (const struct image *image = call->source; image;
	    image = image_backing(image)) {
		if (stat(image_path(image), &layer) ||
		    layer.st_dev != target.st_dev ||
		    layer.st_ino != target.st_ino)
			continue;
		if (image == call->source)
			return error_set(&call->error, -EINVAL,
			    "%s cannot be converted into itself",
			    call->source_path);
		return error_set(&call->error, -EINVAL, "%s is a backing file "
		    "of %s", call->target_path, call->source_path);
	}
	return 0;
}

static co_fn void
convert_main(void *arg)
{
	struct convert_call *call = arg;
	const struct convert_arguments *arguments = call->arguments;
	const struct image_options options = source_image_options(
	    &arguments->source, &call->source_keys, call->loops_count);

	call->err = image_open(call->source_path, &options, &call->source,
	    &call->error);
	if (call->err)
		return;
	call->err = refuse_same(call);
	if (!call->err)
		call->err = arguments->existing ? convert_to_existing(call) :
		    convert_to_new(call);
	image_close(call->source);
}

/* ---- the command line ---- */

static int
check_existing(const struct command *command,
    const struct convert_arguments *arguments)
{
	if (arguments->force || arguments->backing || arguments->compress ||
	    arguments->options.count > 0)
		return options_complain(command, "-n writes into DST as it "
		    "is, so --force, -b, -c and -o do not go with it");
	return 0;
}

static int
check_raw(const struct command *command,
    const struct convert_arguments *arguments)
{
	if (arguments->backing || arguments->compress ||
	    arguments->options.count > 0)
		return options_complain(command, "a raw DST has no settings "
		    "or backing file and is not compressed");
	return 0;
}

static int
take_arguments(const struct command *command, struct convert_call *call,
    int count, char **words)
{
	const struct convert_arguments *arguments = call->arguments;
	int code = 0;

	if (count != 2)
		return options_complain(command,
		    "convert takes a SRC and a DST");
	call->source_path = words[0];
	call->target_path = words[1];
	call->loops_count = command_loops(arguments->threads);
	if (arguments->existing)
		code = check_existing(command, arguments);
	if (!code && arguments->output_format == IMAGE_RAW)
		code = check_raw(command, arguments);
	if (!code)
		code = new_backing_take(command, arguments->backing,
		    arguments->backing_format, &call->options);
	if (!code)
		code = create_options_parse(command, &arguments->options,
		    &call->options);
	if (!code && arguments->compress && (call->options.encrypted ||
	    call->options.preallocation != CREATE_OFF))
		return options_complain(command, "-c does not go with "
		    "encryption or preallocation");
	return code;
}

static int
run(struct convert_call *call)
{
	int exit_code;

	if (call->arguments->existing)
		stop_begin();
	else
		new_file_catch_signals();
	exit_code = command_run_on(call->loops_count, call->loops,
	    convert_main, call);
	if (!exit_code && call->err)
		exit_code = error_print(&call->error);
	free(call->backing_dir);
	return exit_code;
}

static int
convert_run(const struct command *command, int argc, char **argv)
{
	struct convert_arguments arguments = {
		.source = SOURCE_ARGUMENTS_DEFAULT,
		.output_format = IMAGE_QCOW2,
		.backing_format = -1,
	};
	struct convert_call call = {
		.arguments = &arguments, .options = create_options_default,
		.write_back.fd = -1,
	};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &arguments, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	exit_code = take_arguments(command, &call, argc - first,
	    argv + first);
	if (exit_code)
		return exit_code;
	exit_code = key_ring_load(command, &arguments.source.keys,
	    &call.source_keys);
	if (!exit_code)
		exit_code = key_ring_load(command, &arguments.target_keys,
		    &call.target_keys);
	if (!exit_code)
		exit_code = run(&call);
	key_ring_free(&call.source_keys);
	key_ring_free(&call.target_keys);
	return exit_code;
}

const struct command convert_command = {
	.name = "convert",
	.arguments = "[OPTIONS] SRC DST",
	.summary = "copy a disk into another image file",
	.options = convert_specs,
	.run = convert_run,
};
