/* SPDX-License-Identifier: MIT */
/*
 * qnbd create: makes an image file, all of it or none.
 *
 * The image is written beside its place, made stable, and only then gets its
 * name, so whatever happens meanwhile leaves an existing file as it was.
 */
#include "server/create_options.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "qcow2/header.h"
#include "runtime/file.h"
#include "runtime/file_holder.h"
#include "server/commands.h"
#include "server/size.h"

/* A killed io_uring process holds its locks for some 50 ms more. */
#define LOCK_PATIENCE_MS 2000
/* Names to try for the file beside. */
#define NAMES_MAX 16

enum { FORMAT_QCOW2, FORMAT_RAW };

struct create_arguments {
	bool force;
	int format;
	int backing_format;	/* -1: not said */
	const char *backing;
	struct option_texts options;
};

static const char *const made_formats[] = { "qcow2", NULL };
static const char *const backing_formats[] = {
	[FORMAT_QCOW2] = "qcow2", [FORMAT_RAW] = "raw", NULL,
};

#define FIELD(name) .offset = offsetof(struct create_arguments, name)

static const struct option_spec create_specs[] = {
	{ "backing", 'b', OPTION_TEXT, "BASE",
	  "the disk begins as what BASE holds", FIELD(backing) },
	{ "backing-format", 'F', OPTION_CHOICE, "qcow2|raw",
	  "what BASE is; never guessed", FIELD(backing_format),
	  .choices = backing_formats },
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
	char *directory;		/* of path */
	char *target;			/* path, or what that links to */
	struct create_options options;
	bool size_given;
	struct file *replaced;		/* held locked, or NULL */
	struct error error;
	int err;
};

static int
out_of_memory(struct create_call *call)
{
	return error_set(&call->error, -ENOMEM, "out of memory");
}

/* The directory of a path: all before its last slash. */
static char *
parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* Somebody who writes to the file may not be surprised. */
static int
lock(struct create_call *call, struct file *file, enum file_lock kind,
    const char *path)
{
	char holder[FILE_HOLDER_BYTES];
	int err = file_lock(file, kind, LOCK_PATIENCE_MS);

	if (!err)
		return 0;
	if (err != -EAGAIN)
		return error_set(&call->error, err, "cannot lock %s: %s",
		    path, strerror(-err));
	file_holder(file, holder);
	error_set(&call->error, err, "cannot use %s: it is locked by %s",
	    path, holder);
	error_hint(&call->error, "stop that program first");
	return err;
}

/* ---- the file that may be there already ---- */

static int
open_replaced(struct create_call *call)
{
	int err;

	call->target = realpath(call->path, NULL);
	if (!call->target)
		return error_set(&call->error, -errno, "cannot replace %s: %s",
		    call->path, strerror(errno));
	err = file_open(AT_FDCWD, call->target, FILE_WRITE, 0,
	    &call->replaced);
	if (!err && !call->replaced->is_regular)
		err = -EINVAL;
	if (err)
		return error_set(&call->error, err, "cannot replace %s: %s",
		    call->path, err == -EINVAL ? "it is no regular file" :
		    strerror(-err));
	return lock(call, call->replaced, FILE_LOCK_WRITE, call->path);
}

static int
settle_target(struct create_call *call)
{
	struct stat st;
	int err = 0;

	if (lstat(call->path, &st) == 0) {
		if (!call->arguments->force) {
			error_set(&call->error, -EEXIST, "%s is there already",
			    call->path);
			error_hint(&call->error,
			    "replace it, and lose what it holds: --force");
			return -EEXIST;
		}
		err = open_replaced(call);
	} else {
		call->target = strdup(call->path);
	}
	if (err)
		return err;
	call->directory = call->target ? parent_of(call->target) : NULL;
	return call->directory ? 0 : out_of_memory(call);
}

/* ---- the backing file ---- */

static co_fn int
take_size(struct create_call *call, struct file *file)
{
	struct header header;
	int64_t size_bytes = file_size(file);
	int err;

	if (call->arguments->backing_format == FORMAT_RAW) {
		if (size_bytes < 0)
			return error_set(&call->error, (int)size_bytes,
			    "cannot tell the length of %s: %s", file->name,
			    strerror((int)-size_bytes));
		if (!call->size_given)
			call->options.size_bytes = (uint64_t)size_bytes;
		return 0;
	}
	err = header_load(file, &header, &call->error);
	if (err)
		return err;
	/* The part of a sector at its end is not seen by other tools. */
	if (!call->size_given)
		call->options.size_bytes = header.size_bytes & ~511ull;
	header_free(&header);
	return 0;
}

static bool
is_same(const struct file *a, const struct file *b)
{
	return a->id.dev == b->id.dev && a->id.ino == b->id.ino;
}

/*
 * Opens that one file: it must be there, be what -F says, and not change under
 * the image that is about to rest on it.
 */
static co_fn int
look_at_backing(struct create_call *call)
{
	const char *name = call->options.backing_name;
	struct file *file;
	char *path;
	int err;

	if (name[0] == '/')
		path = strdup(name);
	else if (asprintf(&path, "%s/%s", call->directory, name) < 0)
		path = NULL;
	if (!path)
		return out_of_memory(call);
	err = file_open(AT_FDCWD, path, 0, 0, &file);
	if (err) {
		error_set(&call->error, err, "cannot open the backing file "
		    "%s: %s", path, err == -EINVAL ? "it is neither a regular "
		    "file nor a block device" : strerror(-err));
		if (err == -ENOENT && name[0] != '/')
			error_hint(&call->error, "the name is meant from the "
			    "directory of %s", call->path);
		free(path);
		return err;
	}
	if (call->replaced && is_same(file, call->replaced))
		err = error_set(&call->error, -EINVAL, "%s cannot be its own "
		    "backing file", call->path);
	if (!err)
		err = lock(call, file, FILE_LOCK_READ, path);
	if (!err)
		err = take_size(call, file);
	file_close(file);
	free(path);
	return err;
}

/* ---- the file beside ---- */

/* What a signal shall remove; empty: nothing. */
static char beside_path[PATH_MAX];

static void
remove_beside(int number)
{
	if (beside_path[0])
		unlink(beside_path);
	signal(number, SIG_DFL);
	raise(number);
}

static void
catch_signals(void)
{
	struct sigaction action = { .sa_handler = remove_beside };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

static int
open_beside(struct create_call *call, struct file **filep)
{
	int err = -EEXIST;

	for (unsigned i = 0; i < NAMES_MAX && err == -EEXIST; i++) {
		int length = snprintf(beside_path, sizeof(beside_path),
		    "%s/.qnbd-%ld-%u.new", call->directory, (long)getpid(),
		    i);

		if (length >= (int)sizeof(beside_path))
			err = -ENAMETOOLONG;
		else
			err = file_open(AT_FDCWD, beside_path,
			    FILE_WRITE | FILE_CREATE, 0, filep);
	}
	if (!err)
		return 0;
	beside_path[0] = '\0';
	return error_set(&call->error, err, "cannot make a file in %s: %s",
	    call->directory, strerror(-err));
}

/* The name must still be free, unless it was to be replaced. */
static int
give_name(struct create_call *call)
{
	int result;

	if (call->replaced)
		result = rename(beside_path, call->target);
	else
		result = renameat2(AT_FDCWD, beside_path, AT_FDCWD,
		    call->target, RENAME_NOREPLACE);
	/* Not all file systems have that flag; a link does it, too. */
	if (result && errno == EINVAL && !call->replaced) {
		result = link(beside_path, call->target);
		if (!result)
			unlink(beside_path);
	}
	if (result)
		return error_set(&call->error, -errno, "cannot name the new "
		    "file %s: %s", call->target, strerror(errno));
	beside_path[0] = '\0';
	return 0;
}

/* Makes the name stable. */
static int
sync_directory(struct create_call *call)
{
	int fd = open(call->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0 || fsync(fd))
		err = error_set(&call->error, -errno, "%s is made, but may "
		    "not outlive a power failure: cannot sync %s: %s",
		    call->target, call->directory, strerror(errno));
	if (fd >= 0)
		close(fd);
	return err;
}

static co_fn int
write_file(struct create_call *call)
{
	struct file *file;
	int err = open_beside(call, &file);

	if (err)
		return err;
	err = create_image(file, call->path, &call->options,
	    &call->error);
	if (!err) {
		err = file_fdatasync(file);
		if (err)
			error_set(&call->error, err, "cannot sync %s: %s",
			    call->path, strerror(-err));
	}
	file_close(file);
	if (!err)
		err = give_name(call);
	if (!err)
		return sync_directory(call);
	unlink(beside_path);
	beside_path[0] = '\0';
	return err;
}

static co_fn void
create_main(void *arg)
{
	struct create_call *call = arg;

	call->err = settle_target(call);
	if (!call->err)
		call->err = create_check(&call->options, &call->error);
	if (!call->err && call->options.backing_name)
		call->err = look_at_backing(call);
	if (!call->err)
		call->err = write_file(call);
	file_close(call->replaced);
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
	if (arguments->backing && arguments->backing_format < 0)
		return options_complain(command, "-b %s needs -F qcow2 or "
		    "-F raw, which is not guessed", arguments->backing);
	if (!arguments->backing && arguments->backing_format >= 0)
		return options_complain(command, "-F goes with -b");
	if (arguments->backing) {
		call->options.backing_name = arguments->backing;
		call->options.backing_format =
		    backing_formats[arguments->backing_format];
	}
	for (unsigned i = 0; i < arguments->options.count && !code; i++)
		code = create_options_parse(command,
		    arguments->options.list[i], &call->options);
	return code;
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
	catch_signals();
	exit_code = command_run(create_main, &call);
	if (!exit_code && call.err)
		exit_code = error_print(&call.error);
	free(call.target);
	free(call.directory);
	return exit_code;
}

const struct command create_command = {
	.name = "create",
	.arguments = "[-b BASE -F FORMAT] [OPTIONS] FILE [SIZE]",
	.summary = "make an image file",
	.options = create_specs,
	.run = create_run,
};
