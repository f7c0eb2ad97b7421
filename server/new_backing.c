/* SPDX-License-Identifier: MIT */
#include "server/new_backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/header.h"
#include "server/source.h"

int
new_backing_take(const struct command *command, const char *name,
    int format, struct create_options *options)
{
	if (name && format < 0)
		return options_complain(command, "-b %s needs -F qcow2 or "
		    "-F raw, which is not guessed", name);
	if (!name && format >= 0)
		return options_complain(command, "-F goes with -b");
	options->backing_name = name;
	options->backing_format = name ? source_formats[format] : NULL;
	return 0;
}

char *
new_backing_path(const struct new_file *new_file, const char *name)
{
	char *path;

	if (name[0] == '/')
		return strdup(name);
	if (asprintf(&path, "%s/%s", new_file->directory, name) < 0)
		return NULL;
	return path;
}

static co_fn int
take_size(struct create_options *options, struct file *file,
    struct error *error)
{
	struct header header;
	int64_t size_bytes = file_size(file);
	int err;

	if (!strcmp(options->backing_format,
	    source_formats[IMAGE_RAW])) {
		if (size_bytes < 0)
			return error_set(error, (int)size_bytes,
			    "cannot tell the length of %s: %s", file->name,
			    strerror((int)-size_bytes));
		options->size_bytes = (uint64_t)size_bytes;
		options->backing_bytes = (uint64_t)size_bytes;
		return 0;
	}
	err = header_load(file, &header, error);
	if (err)
		return err;
	/* The part of a sector at its end is not seen by other tools. */
	options->size_bytes = header.size_bytes & ~511ull;
	options->backing_bytes = header.size_bytes;
	header_free(&header);
	return 0;
}

static bool
is_same(const struct file *a, const struct file *b)
{
	return a->id.dev == b->id.dev && a->id.ino == b->id.ino;
}

co_fn static int
open_backing(const struct new_file *new_file, const char *name,
    const char *path, struct file **filep, struct error *error)
{
	int err = file_open(AT_FDCWD, path, 0, 0, filep);

	if (!err)
		return 0;
	error_set(error, err, "cannot open the backing file %s: %s", path,
	    err == -EINVAL ? "it is neither a regular file nor a block device" :
	    strerror(-err));
	if (err == -ENOENT && name[0] != '/')
		error_hint(error, "the name is meant from the directory of %s",
		    new_file->path);
	return err;
}

co_fn int
new_backing_check(const struct new_file *new_file, bool size_given,
    struct create_options *options, struct error *error)
{
	const char *name = options->backing_name;
	struct create_options seen = *options;
	struct file *file;
	char *path = new_backing_path(new_file, name);
	int err;

	if (!path)
		return error_set(error, -ENOMEM, "out of memory");
	err = open_backing(new_file, name, path, &file, error);
	if (err)
		goto free_path;
	if (new_file->replaced && is_same(file, new_file->replaced))
		err = error_set(error, -EINVAL, "%s cannot be its own "
		    "backing file", new_file->path);
	if (!err)
		err = new_file_lock(file, FILE_LOCK_READ, path, error);
	if (!err)
		err = take_size(&seen, file, error);
	if (!err && !size_given)
		options->size_bytes = seen.size_bytes;
	if (!err)
		options->backing_bytes = seen.backing_bytes;
	file_close(file);
free_path:
	free(path);
	return err;
}
