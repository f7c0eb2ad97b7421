/* SPDX-License-Identifier: MIT */
/* qnbd create: makes an image file, all of it or none. */
#include "server/create_options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include "runtime/file.h"
#include "server/commands.h"
#include "server/new_backing.h"
#include "server/new_file.h"
#include "server/size.h"
#include "server/source.h"

struct create_arguments {
	bool force;
	int format;
	int backing_format;	/* -1: not said */
	const char *backing;
	struct option_texts options;
};

static const char *const made_formats[] = { "qcow2", NULL };

#define FIELD(name) .offset = offsetof(struct create_arguments, name)

static const struct option_spec create_specs[] = {
	{ "backing", 'b', OPTION_TEXT, "BASE",
	  "the disk begins as what BASE holds", FIELD(backing) },
	{ "backing-format", 'F', OPTION_CHOICE, "qcow2|raw",
	  "what BASE is; never guessed", FIELD(backing_format),
	  .choices = source_formats },
	{ "option", 'o', OPTION_TEXTS, "NAME=VALUE,...",
	  "settings, as of qemu-img; listed in qnbd(1)", FIELD(options) },
	{ "format", 'f', OPTION_CHOICE, "qcow2",
	  "what to make; there is no other", FIELD(format),
	  .choices = made_formats },
	{ "force", 0, OPTION_FLAG, NULL,
	  "replace FILE if it is there", FIELD(force) },
	{ .name = NULL },
};

struct create_call {
	const struct create_arguments *arguments;
	const char *path;
	struct new_file new_file;
	struct create_options options;
	bool size_given;
	struct error error;
	int err;
};

static co_fn int
write_file(struct create_call *call)
{
	struct file *file;
	int err = new_file_open(&call->new_file, &file, &call->error);

	if (err)
		return err;
	err = create_image(file, call->path, &call->options,
	    &call->error);
	file_close(file);
	if (!err)
		err = new_file_keep(&call->new_file, true, &call->error);
	if (err)
		new_file_remove();
	return err;
}

static co_fn void
create_main(void *arg)
{
	struct create_call *call = arg;

	call->err = new_file_settle(&call->new_file, call->path,
	    call->arguments->force, &call->error);
	if (!call->err)
		call->err = create_check(&call->options, &call->error);
	if (!call->err && call->options.backing_name)
		call->err = new_backing_check(&call->new_file,
		    call->size_given, &call->options, &call->error);
	if (!call->err)
		call->err = write_file(call);
	new_file_free(&call->new_file);
}

/* ---- the command line ---- */

static int
take_size_argument(const struct command *command, struct create_call *call,
    const char *text)
{
	int64_t bytes;
	int err = size_parse(text, &bytes);

	if (err)
		return options_complain(command, "%s is no size%s", text,
		    err == -ERANGE ? " that a disk can have" : "");
	call->options.size_bytes = (uint64_t)bytes;
	call->size_given = true;
	return 0;
}

static int
take_arguments(const struct command *command, struct create_call *call,
    int count, char **words)
{
	const struct create_arguments *arguments = call->arguments;
	int code = 0;

	if (count < 1 || count > 2)
		return options_complain(command,
		    "create takes a FILE and a SIZE");
	call->path = words[0];
	if (count == 2)
		code = take_size_argument(command, call, words[1]);
	else if (!arguments->backing)
		return options_complain(command, "how large? create %s SIZE",
		    words[0]);
	if (code)
		return code;
	code = new_backing_take(command, arguments->backing,
	    arguments->backing_format, &call->options);
	if (code)
		return code;
	return create_options_parse(command, &arguments->options,
	    &call->options);
}

static void
warn_of_encryption(void)
{
	fprintf(stderr, "qnbd: warning: the AES encryption of qcow2 is weak: "
	    "whoever has the file can guess passphrases fast,\n"
	    "  see where equal or old data is, and change it unnoticed. It is "
	    "there for programs that need it;\n"
	    "  for new images better encrypt the disk of the host, or inside "
	    "the guest.\n");
}

static int
create_run(const struct command *command, int argc, char **argv)
{
	struct create_arguments arguments = { .backing_format = -1 };
	struct create_call call = {
		.arguments = &arguments, .options = create_options_default,
	};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &arguments, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	exit_code = take_arguments(command, &call, argc - first,
	    argv + first);
	if (exit_code)
		return exit_code;
	if (call.options.encrypted)
		warn_of_encryption();
	new_file_catch_signals();
	exit_code = command_run(create_main, &call);
	if (!exit_code && call.err)
		exit_code = error_print(&call.error);
	return exit_code;
}

const struct command create_command = {
	.name = "create",
	.arguments = "[-b BASE -F FORMAT] [OPTIONS] FILE [SIZE]",
	.summary = "make an image file",
	.options = create_specs,
	.run = create_run,
};
