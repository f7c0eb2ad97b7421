/* SPDX-License-Identifier: MIT */
/*
 * qnbd rebase: an image gets another backing file, or none.
 *
 * The new chain is opened before the image is, which nobody may even read from
 * then on: it could be part of that chain.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "qcow2/chain.h"
#include "qcow2/header_update.h"
#include "server/chain_command.h"
#include "server/commands.h"
#include "server/finish.h"
#include "server/source.h"

struct rebase_options {
	struct chain_options chain;
	const char *backing;	/* NULL: not said; "": none */
	int format;		/* -1: not said */
	bool unsafe;
};

#define FIELD(name) .offset = offsetof(struct rebase_options, name)

static const struct option_spec rebase_specs[] = {
	{ "backing", 'b', OPTION_TEXT, "BASE",
	  "what FILE shall rest on; \"\" for nothing", FIELD(backing) },
	{ "backing-format", 'F', OPTION_CHOICE, "qcow2|raw",
	  "what BASE is; never guessed", FIELD(format),
	  .choices = source_formats },
	{ "unsafe", 'u', OPTION_FLAG, NULL,
	  "change the header alone, whatever FILE then holds",
	  FIELD(unsafe) },
	CHAIN_OPTION_SPECS,
	{ .name = NULL },
};

struct rebase_call {
	const char *path;
	struct rebase_options options;
	struct header_backing backing;
	char *backing_path;	/* seen from here; NULL: none */
	struct file_id id;	/* of the image */
	struct key_ring keys;
	struct progress progress;
	struct error error;
	int err;
};

/* ---- what cannot be ---- */

/* A name in an image is meant from the directory of the image. */
static int
find_backing(struct rebase_call *call)
{
	const char *name = call->backing.name;
	const char *slash = strrchr(call->path, '/');
	int length = slash ? (int)(slash - call->path) + 1 : 0;

	if (!name)
		return 0;
	if (name[0] == '/')
		call->backing_path = strdup(name);
	else if (asprintf(&call->backing_path, "%.*s%s", length, call->path,
	    name) < 0)
		call->backing_path = NULL;
	if (!call->backing_path)
		return error_set(&call->error, -ENOMEM, "out of memory");
	return 0;
}

/* Without a name it is as good as any. */
static int
identify(struct rebase_call *call)
{
	struct stat st;

	if (stat(call->path, &st))
		return error_set(&call->error, -errno, "cannot open %s: %s",
		    call->path, strerror(errno));
	call->id = (struct file_id){st.st_dev, st.st_ino};
	if (!call->backing_path || stat(call->backing_path, &st) ||
	    st.st_dev != call->id.dev || st.st_ino != call->id.ino)
		return 0;
	return error_set(&call->error, -ELOOP, "%s cannot be its own backing "
	    "file", call->path);
}

/* The names from the top of the new chain to where the image comes again. */
static int
refuse_loop(struct rebase_call *call, const struct image *below)
{
	char names[512];
	size_t used = 0;

	for (; below && used < sizeof(names) &&
	    image_chain_has(below, &call->id); below = image_backing(below))
		used += (size_t)snprintf(names + used, sizeof(names) - used,
		    " -> %.80s", image_path(below));
	return error_set(&call->error, -ELOOP, "the backing chain would come "
	    "back to %.80s: %.80s%s", call->path, call->path, names);
}

static int
check_chain(struct rebase_call *call, const struct image *below)
{
	unsigned files = 0;

	if (image_chain_has(below, &call->id))
		return refuse_loop(call, below);
	for (const struct image *image = below; image;
	    image = image_backing(image))
		files++;
	if (files > IMAGE_CHAIN_MAX)
		return error_set(&call->error, -ELOOP, "%s would have more "
		    "than %d files below it", call->path, IMAGE_CHAIN_MAX);
	return 0;
}

/* ---- doing it ---- */

/* Opens what the image shall rest on; *belowp is NULL for nothing. */
static co_fn int
open_below(struct rebase_call *call, struct image **belowp)
{
	struct image_options options =
	    chain_image_options(&call->options.chain, &call->keys);
	int err;

	*belowp = NULL;
	if (!call->backing_path)
		return 0;
	options.format = (enum image_format)call->options.format;
	/* The last key is for all that are further down. */
	if (options.keys_count > 1)
		options.keys += options.keys_count - 1;
	if (options.keys_count > 1)
		options.keys_count = 1;
	options.keys_spare = true;
	err = image_open(call->backing_path, &options, belowp, &call->error);
	if (err == -ENOENT && !call->error.hint[0] &&
	    call->backing.name[0] != '/')
		error_hint(&call->error, "the name is meant from the "
		    "directory of %s", call->path);
	return err;
}

static co_fn int
rebase_safely(struct rebase_call *call)
{
	struct image_options options =
	    chain_image_options(&call->options.chain, &call->keys);
	struct image_progress progress;
	struct image *image, *below;
	int err;

	err = open_below(call, &below);
	if (err)
		return err;
	err = check_chain(call, below);
	if (err)
		goto close_below;
	options.writable = true;
	/* They may all be for the new chain. */
	options.keys_spare = true;
	err = image_open(call->path, &options, &image, &call->error);
	if (err)
		goto close_below;
	progress = progress_stoppable(&call->progress, "rebasing",
	    call->options.chain.progress_fd);
	err = image_rebase(image, below, &call->backing, &progress,
	    &call->error);
	err = finish_image(image, call->path, err, &call->error);
	progress_clear(&call->progress);
close_below:
	if (below)
		image_close(below);
	return err;
}

/* No other file is opened: the one it rests on may be gone. */
static co_fn int
rebase_header(struct rebase_call *call)
{
	struct image_options options =
	    chain_image_options(&call->options.chain, &call->keys);
	struct image *image;
	int err;

	options.writable = true;
	options.no_backing = true;
	options.no_data = true;
	err = image_open(call->path, &options, &image, &call->error);
	if (err)
		return err;
	err = image_set_backing(image, &call->backing,
	    &call->error);
	return finish_image(image, call->path, err, &call->error);
}

static co_fn void
rebase_main(void *arg)
{
	struct rebase_call *call = arg;

	call->err = find_backing(call);
	if (!call->err && call->backing.name)
		call->err = chain_check_name(call->backing.name,
		    &call->error);
	if (!call->err)
		call->err = identify(call);
	if (call->err)
		return;
	call->err = call->options.unsafe ? rebase_header(call) :
	    rebase_safely(call);
}

/* ---- the command line ---- */

static int
take_arguments(const struct command *command, struct rebase_call *call,
    int count, char **words)
{
	const struct rebase_options *options = &call->options;

	if (count != 1)
		return options_complain(command, "rebase takes one FILE");
	call->path = words[0];
	if (!options->backing)
		return options_complain(command, "rebase needs -b BASE, or "
		    "-b \"\" for no backing file");
	if (!*options->backing) {
		if (options->format >= 0)
			return options_complain(command, "-F says what BASE "
			    "is, and there shall be none");
		return 0;
	}
	if (options->format < 0)
		return options_complain(command, "-b %s needs -F qcow2 or "
		    "-F raw, which is not guessed", options->backing);
	call->backing.name = options->backing;
	call->backing.format = source_formats[options->format];
	return 0;
}

static int
rebase_run(const struct command *command, int argc, char **argv)
{
	struct rebase_call call = { .options.format = -1 };
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &call.options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	exit_code = take_arguments(command, &call, argc - first,
	    argv + first);
	if (exit_code)
		return exit_code;
	exit_code = chain_run(command, &call.options.chain, &call.keys,
	    rebase_main, &call, &call.err, &call.error);
	free(call.backing_path);
	return exit_code;
}

const struct command rebase_command = {
	.name = "rebase",
	.arguments = "-b BASE -F FORMAT [OPTIONS] FILE",
	.summary = "give an image another backing file, or none",
	.options = rebase_specs,
	.run = rebase_run,
};
