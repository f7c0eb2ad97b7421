/* SPDX-License-Identifier: MIT */
/* qnbd flatten: an image that needs its backing chain no more. */
#include <stddef.h>
#include "server/chain_command.h"
#include "server/commands.h"
#include "server/finish.h"

static const struct option_spec flatten_specs[] = {
	CHAIN_OPTION_SPECS,
	{ .name = NULL },
};

struct flatten_call {
	const char *path;
	struct chain_options options;
	struct key_ring keys;
	struct progress progress;
	struct error error;
	int err;
};

static co_fn void
flatten_main(void *arg)
{
	struct flatten_call *call = arg;
	struct image_options options = chain_image_options(&call->options,
	    &call->keys);
	struct image_progress progress;
	struct image *image;

	options.writable = true;
	call->err = image_open(call->path, &options, &image, &call->error);
	if (call->err)
		return;
	progress = progress_stoppable(&call->progress, "copying",
	    call->options.progress_fd);
	call->err = image_flatten(image, &progress, &call->error);
	call->err = finish_image(image, call->path, call->err,
	    &call->error);
	progress_clear(&call->progress);
}

static int
flatten_run(const struct command *command, int argc, char **argv)
{
	struct flatten_call call = { .path = NULL };
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &call.options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 1)
		return options_complain(command, "flatten takes one FILE");
	call.path = argv[first];
	return chain_run(command, &call.options, &call.keys, flatten_main,
	    &call, &call.err, &call.error);
}

const struct command flatten_command = {
	.name = "flatten",
	.arguments = "[OPTIONS] FILE",
	.summary = "copy into an image what it needs its backing file for",
	.options = flatten_specs,
	.run = flatten_run,
};
