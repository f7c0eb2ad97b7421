/* SPDX-License-Identifier: MIT */
/* qnbd resize: makes a disk longer or shorter. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include "qcow2/image.h"
#include "qcow2/image_resize.h"
#include "server/commands.h"
#include "server/finish.h"
#include "server/progress.h"
#include "server/size.h"
#include "server/source.h"

struct resize_options {
	bool shrink;
	bool refuse_bitmaps;
	int preallocation;
	struct source_arguments source;
	int64_t progress_fd;	/* 0: not said */
};

static const char *const preallocation_names[] = {
	[CREATE_OFF] = "off", [CREATE_METADATA] = "metadata",
	[CREATE_FALLOC] = "falloc", [CREATE_FULL] = "full", NULL,
};

#define FIELD(name) .offset = offsetof(struct resize_options, name)

static const struct option_spec resize_specs[] = {
	{ "shrink", 0, OPTION_FLAG, NULL,
	  "let the disk become shorter, and lose what lies there",
	  FIELD(shrink) },
	{ "preallocation", 0, OPTION_CHOICE, "off|metadata|falloc|full",
	  "what to do for what is new (off)", FIELD(preallocation),
	  .choices = preallocation_names },
	SOURCE_FORMAT_OPTION(struct resize_options, source.format,
	    "the file"),
	SOURCE_BACKING_OPTIONS(struct resize_options, source, "", ""),
	KEY_OPTIONS(struct resize_options, source.keys),
	{ "refuse-bitmaps", 0, OPTION_FLAG, NULL,
	  "rather than make persistent bitmaps invalid",
	  FIELD(refuse_bitmaps) },
	PROGRESS_OPTION(struct resize_options, progress_fd),
	{ .name = NULL },
};

struct resize_call {
	const struct resize_options *options;
	struct key_ring keys;
	const char *path;
	char sign;		/* '+' or '-': by so much; else 0: to it */
	int64_t bytes;
	uint64_t size_bytes;	/* in the end */
	struct progress progress;
	struct error error;
	int err;
};

co_fn static int
change_image(struct resize_call *call, struct image *image)
{
	uint64_t old_bytes = image_size_bytes(image);
	struct image_progress progress;
	struct image_resize how = {
		.size_bytes = (uint64_t)call->bytes,
		.shrink = call->options->shrink,
		.preallocation =
		    (enum create_preallocation)call->options->preallocation,
		.progress = &progress,
	};
	int err;

	if (call->sign == '+')
		how.size_bytes = old_bytes + (uint64_t)call->bytes;
	else if (call->sign == '-' && (uint64_t)call->bytes > old_bytes)
		return error_set(&call->error, -EINVAL, "%s has no more than "
		    "%llu bytes", call->path, (unsigned long long)old_bytes);
	else if (call->sign == '-')
		how.size_bytes = old_bytes - (uint64_t)call->bytes;
	progress = progress_stoppable(&call->progress, "resizing",
	    call->options->progress_fd);
	err = image_resize(image, &how, &call->error);
	progress_clear(&call->progress);
	call->size_bytes = image_size_bytes(image);
	return err;
}

static co_fn void
resize_main(void *arg)
{
	struct resize_call *call = arg;
	struct image_options options = source_image_options(
	    &call->options->source, &call->keys, 1);
	struct image *image;

	options.writable = true;
	options.refuse_bitmaps = call->options->refuse_bitmaps;
	call->err = image_open(call->path, &options, &image, &call->error);
	if (call->err)
		return;
	call->err = change_image(call, image);
	call->err = finish_image(image, call->path, call->err,
	    &call->error);
}

static int
take_size(const struct command *command, const char *text,
    struct resize_call *call)
{
	int err;

	if (*text == '+' || *text == '-')
		call->sign = *text++;
	err = size_parse(text, &call->bytes);
	if (!err)
		return 0;
	return options_complain(command, "%s is no size%s", text,
	    err == -ERANGE ? " that a disk can have" : "");
}

/* A size such as -5G, which is last, is not to be taken for an option. */
static bool
is_negative_size(const char *word)
{
	return word[0] == '-' && word[1] >= '0' && word[1] <= '9';
}

static int
resize_run(const struct command *command, int argc, char **argv)
{
	struct resize_options options = {
		.source = SOURCE_ARGUMENTS_DEFAULT,
		.preallocation = CREATE_OFF,
	};
	struct resize_call call = {.options = &options};
	char text[SIZE_TEXT_BYTES];
	const char *size = NULL;
	int first, exit_code;

	if (argc > 1 && is_negative_size(argv[argc - 1]))
		size = argv[--argc];
	exit_code = options_parse(command, argc, argv, &options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != (size ? 1 : 2))
		return options_complain(command,
		    "resize takes a FILE and a SIZE");
	call.path = argv[first];
	exit_code = take_size(command, size ? size : argv[first + 1], &call);
	if (!exit_code)
		exit_code = key_ring_load(command, &options.source.keys,
		    &call.keys);
	if (!exit_code)
		exit_code = command_run(resize_main, &call);
	key_ring_free(&call.keys);
	if (exit_code)
		return exit_code;
	if (call.err)
		return error_print(&call.error);
	printf("%s: %s (%llu bytes)\n", call.path,
	    size_print(text, call.size_bytes),
	    (unsigned long long)call.size_bytes);
	return 0;
}

const struct command resize_command = {
	.name = "resize",
	.arguments = "[OPTIONS] FILE [+|-]SIZE",
	.summary = "make a disk longer or shorter",
	.options = resize_specs,
	.run = resize_run,
};
