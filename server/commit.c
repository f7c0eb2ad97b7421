/* SPDX-License-Identifier: MIT */
/* qnbd commit: what an image holds goes into its backing file. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "server/chain_command.h"
#include "server/commands.h"
#include "server/finish.h"

struct commit_options {
	struct chain_options chain;
	const char *base;
	bool keep;
};

#define FIELD(name) .offset = offsetof(struct commit_options, name)

static const struct option_spec commit_specs[] = {
	{ "keep", 'd', OPTION_FLAG, NULL,
	  "leave FILE as it is, rather than empty it", FIELD(keep) },
	{ "base", 'b', OPTION_TEXT, "BASE",
	  "which file of the chain, if not the first", FIELD(base) },
	CHAIN_OPTION_SPECS,
	{ .name = NULL },
};

struct commit_call {
	const char *path;
	struct commit_options options;
	struct key_ring keys;
	struct progress progress;
	struct error error;
	int err;
};

/* ---- which layer ---- */

static int
refuse_base(struct commit_call *call)
{
	error_set(&call->error, -EINVAL, "%s is none of the backing files of "
	    "%s", call->options.base, call->path);
	error_hint(&call->error, "see which there are: qnbd info --chain %s",
	    call->path);
	return -EINVAL;
}

static int
find_base(struct commit_call *call, const struct image *image,
    unsigned *depthp)
{
	unsigned depth = 0;
	struct file_id id;
	struct stat st;

	if (stat(call->options.base, &st))
		return error_set(&call->error, -errno, "cannot find %s: %s",
		    call->options.base, strerror(errno));
	id = (struct file_id){st.st_dev, st.st_ino};
	if (!image_chain_has(image_backing(image), &id))
		return refuse_base(call);
	/* It is in the shortest part of the chain that has it. */
	for (; image && image_chain_has(image, &id);
	    image = image_backing(image))
		depth++;
	*depthp = depth - 1;
	return 0;
}

static int
refuse_no_backing(struct commit_call *call)
{
	return error_set(&call->error, -EINVAL, "%s has no backing file that "
	    "it could be committed to", call->path);
}

/* Looks at the chain without changing anything; *depthp is the base's. */
static co_fn int
choose_depth(struct commit_call *call, unsigned *depthp)
{
	struct image_options options =
	    chain_image_options(&call->options.chain, &call->keys);
	struct image *image;
	int err;

	*depthp = 1;
	options.no_data = true;
	err = image_open(call->path, &options, &image, &call->error);
	if (err)
		return err;
	if (!image_backing(image))
		err = refuse_no_backing(call);
	else if (call->options.base)
		err = find_base(call, image, depthp);
	image_close(image);
	return err;
}

/* ---- doing it ---- */

/* The chain was looked at before, but nothing kept it from changing. */
static bool
is_as_deep(const struct image *image, unsigned depth)
{
	while (image && depth-- > 0)
		image = image_backing(image);
	return image;
}

static co_fn int
commit(struct commit_call *call, struct image *image, unsigned depth)
{
	struct image_progress progress;
	int err;

	if (!is_as_deep(image, depth))
		return refuse_no_backing(call);
	progress = progress_stoppable(&call->progress, "committing",
	    call->options.chain.progress_fd);
	err = image_commit(image, depth, &progress, &call->error);
	progress_clear(&call->progress);
	if (err || !image_writable(image))
		return err;
	/* What is told to programs is the first of the two. */
	progress = progress_stoppable(&call->progress, "emptying", 0);
	err = image_empty(image, &progress, &call->error);
	progress_clear(&call->progress);
	return err;
}

static co_fn void
commit_main(void *arg)
{
	struct commit_call *call = arg;
	struct image_options options =
	    chain_image_options(&call->options.chain, &call->keys);
	struct image *image;
	unsigned depth;

	call->err = choose_depth(call, &depth);
	if (call->err)
		return;
	options.writable = depth == 1 && !call->options.keep;
	options.writable_depth = depth;
	call->err = image_open(call->path, &options, &image, &call->error);
	if (call->err)
		return;
	call->err = commit(call, image, depth);
	call->err = finish_image(image, call->path, call->err,
	    &call->error);
}

static int
commit_run(const struct command *command, int argc, char **argv)
{
	struct commit_call call = { .path = NULL };
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &call.options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 1)
		return options_complain(command, "commit takes one FILE");
	call.path = argv[first];
	return chain_run(command, &call.options.chain, &call.keys, commit_main,
	    &call, &call.err, &call.error);
}

const struct command commit_command = {
	.name = "commit",
	.arguments = "[OPTIONS] FILE",
	.summary = "write what an image holds into its backing file",
	.options = commit_specs,
	.run = commit_run,
};
