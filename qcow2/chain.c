/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/chain.h"
#include "qcow2/confine.h"
#include "qcow2/header.h"
#include "runtime/file.h"
#include "runtime/log.h"

/* Of a name, in a message. */
#define NAME_TEXT_BYTES	256

struct link {
	struct file_id id;
	char *name;	/* as typed, or as the image writes it, quoted */
	char *label;	/* as typed, or the absolute path, quoted */
};

struct chain {
	const struct image_options *options;
	/* Where files may be: the last file's own one first. */
	struct confine_directory *directories;
	unsigned directory_count;
	unsigned count;
	struct link links[1 + IMAGE_CHAIN_MAX];
};

/* A backing file on its way from a name to a file. */
struct candidate {
	char *path;			/* absolute */
	char quoted[NAME_TEXT_BYTES];	/* as the image writes it */
};

/* ---- the chain ---- */

/* The names from the top down, the middle of a long chain left out. */
static const char *
chain_text(const struct chain *chain, char *target, size_t bytes)
{
	size_t used = 0;
	unsigned i;

	target[0] = '\0';
	for (i = 0; i < chain->count && used < bytes; i++) {
		if (i > 0 && i + 2 < chain->count && chain->count > 4) {
			if (i == 1)
				used += (size_t)snprintf(target + used,
				    bytes - used, " -> ...");
			continue;
		}
		used += (size_t)snprintf(target + used, bytes - used, "%s%.80s",
		    i > 0 ? " -> " : "", chain->links[i].name);
	}
	return target;
}

static int
chain_append(struct chain *chain, const struct file *file, const char *name,
    const char *label)
{
	struct link *link = &chain->links[chain->count];

	link->id = file->id;
	link->name = strdup(name);
	link->label = strdup(label);
	if (link->name && link->label) {
		chain->count++;
		return 0;
	}
	free(link->name);
	free(link->label);
	return -ENOMEM;
}

/* Opens the directory of the top file and those the person allowed. */
static int
open_directories(struct chain *chain, const char *path, struct error *error)
{
	const struct image_options *options = chain->options;
	char *absolute = confine_absolute(path);
	char *own = absolute ? confine_parent(absolute) : NULL;
	const char *directory = own;
	unsigned i;
	int err;

	free(absolute);
	if (!own)
		return error_set(error, -ENOMEM,
		    "cannot tell in which directory %s is", path);
	for (i = 0; i <= options->backing_dirs_count; i++) {
		if (i > 0)
			directory = options->backing_dirs[i - 1];
		err = confine_directory_open(directory,
		    &chain->directories[i]);
		if (err) {
			error_set(error, err, "cannot open %s, the directory "
			    "for backing files: %s", directory, strerror(-err));
			break;
		}
		chain->directory_count++;
	}
	free(own);
	return err;
}

int
chain_create(const char *path, const struct file *file,
    const struct image_options *options, struct chain **chainp,
    struct error *error)
{
	struct chain *chain = calloc(1, sizeof(*chain));
	int err;

	if (!chain)
		goto no_memory;
	chain->options = options;
	chain->directories = calloc(options->backing_dirs_count + 1,
	    sizeof(*chain->directories));
	if (!chain->directories || chain_append(chain, file, path, path))
		goto free_chain;
	err = open_directories(chain, path, error);
	if (err) {
		chain_free(chain);
		return err;
	}
	*chainp = chain;
	return 0;
free_chain:
	chain_free(chain);
no_memory:
	return error_set(error, -ENOMEM, "%s: no memory for its backing chain",
	    path);
}

void
chain_free(struct chain *chain)
{
	unsigned i;

	if (!chain)
		return;
	for (i = 0; i < chain->directory_count; i++)
		confine_directory_close(&chain->directories[i]);
	free(chain->directories);
	for (i = 0; i < chain->count; i++) {
		free(chain->links[i].name);
		free(chain->links[i].label);
	}
	free(chain);
}

/* The top, with depth 0, is not for this module to open. */
static bool
chain_next_is_written(const struct chain *chain)
{
	return chain->count == chain->options->writable_depth;
}

/* ---- errors ---- */

static const char *
last_label(const struct chain *chain)
{
	return chain->links[chain->count - 1].label;
}

static int
refuse_place(const struct chain *chain, const struct candidate *candidate,
    struct error *error)
{
	char *directory = confine_parent(candidate->path);
	char quoted[NAME_TEXT_BYTES];

	error_set(error, -EACCES, "%.300s names the backing file %s, which is "
	    "not in its own directory nor in another that is allowed",
	    last_label(chain), candidate->quoted);
	if (directory)
		error_hint(error, "to allow it: --backing-dir %s",
		    log_quote(quoted, sizeof(quoted), directory,
		    (int)strlen(directory)));
	free(directory);
	return -EACCES;
}

static int
explain_missing(const struct chain *chain, const struct candidate *candidate,
    enum image_format format, struct error *error)
{
	char path[NAME_TEXT_BYTES], names[512];

	log_quote(path, sizeof(path), candidate->path,
	    (int)strlen(candidate->path));
	error_set(error, -ENOENT,
	    "%.300s needs its backing file %s, and %s does not exist",
	    last_label(chain), candidate->quoted, path);
	error_hint(error, "chain: %s -> %.80s (missing). If it moved: "
	    "qnbd rebase --unsafe -b NEWPATH -F %s %.300s",
	    chain_text(chain, names, sizeof(names)), candidate->quoted,
	    format == IMAGE_RAW ? "raw" : "qcow2", last_label(chain));
	return -ENOENT;
}

/* Says why confine_open() ended with err. */
static int
explain_opening(const struct chain *chain, const struct candidate *candidate,
    enum image_format format, int err, struct error *error)
{
	const char *label = last_label(chain), *why;

	switch (err) {
	case -ENOENT:
		return explain_missing(chain, candidate, format, error);
	case -EXDEV:
		return refuse_place(chain, candidate, error);
	case -ELOOP:
		why = "is reached through a symbolic link";
		break;
	case -EINVAL:
	case -EISDIR:
		why = "is not a regular file";
		break;
	default:
		return error_set(error, err, "%.300s needs its backing file "
		    "%s, which cannot be opened: %s", label, candidate->quoted,
		    strerror(-err));
	}
	return error_set(error, err, "%.300s names the backing file %s, which "
	    "%s", label, candidate->quoted, why);
}

/* ---- opening ---- */

/* A name has a protocol if a colon comes before any slash, as for QEMU. */
static bool
has_protocol(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

int
chain_check_name(const char *name, struct error *error)
{
	if (!*name || strlen(name) > HEADER_BACKING_NAME_BYTES_MAX)
		return error_set(error, -EINVAL, "the backing file's name is "
		    "%zu bytes long, not 1 to %u", strlen(name),
		    HEADER_BACKING_NAME_BYTES_MAX);
	if (has_protocol(name))
		return error_set(error, -EINVAL, "%s would be taken for a "
		    "protocol and what it leads to; write ./%s", name, name);
	return 0;
}

static int
choose_format(const struct chain *chain, const struct header *header,
    const struct candidate *candidate, enum image_format *formatp,
    struct error *error)
{
	const struct image_options *options = chain->options;
	const char *said = header->backing_format, *label = last_label(chain);
	char quoted[4 * HEADER_BACKING_FORMAT_BYTES_MAX + 1];

	if (options->backing_format_told && (chain->count == 1 || !*said)) {
		*formatp = options->backing_format;
	} else if (strcmp(said, "qcow2") == 0) {
		*formatp = IMAGE_QCOW2;
	} else if (strcmp(said, "raw") == 0) {
		*formatp = IMAGE_RAW;
	} else if (*said) {
		return error_set(error, -ENOTSUP, "%.300s says that its "
		    "backing file %s has the format \"%s\", which is not "
		    "supported, only qcow2 and raw", label, candidate->quoted,
		    log_quote(quoted, sizeof(quoted), said,
		    (int)strlen(said)));
	} else {
		error_set(error, -EINVAL, "%.300s does not say which format "
		    "its backing file %s has, and a format is never guessed",
		    label, candidate->quoted);
		error_hint(error, "if it is qcow2: qnbd rebase --unsafe "
		    "-F qcow2 -b %s %.300s      or for now: --backing-format "
		    "qcow2", candidate->quoted, label);
		return -EINVAL;
	}
	return 0;
}

static int
check_loop(const struct chain *chain, const struct candidate *candidate,
    const struct file *file, struct error *error)
{
	char names[512];
	unsigned i;

	for (i = 0; i < chain->count; i++) {
		if (chain->links[i].id.dev == file->id.dev &&
		    chain->links[i].id.ino == file->id.ino)
			return error_set(error, -ELOOP, "the backing chain "
			    "comes back to a file it has: %s -> %.80s",
			    chain_text(chain, names, sizeof(names)),
			    candidate->quoted);
	}
	return 0;
}

/* Makes file the last one of the chain, under its absolute path. */
static int
accept_file(struct chain *chain, const struct candidate *candidate,
    struct file *file, struct error *error)
{
	char quoted[PATH_MAX];
	char *label;

	log_quote(quoted, sizeof(quoted), candidate->path,
	    (int)strlen(candidate->path));
	label = strdup(quoted);
	if (!label || chain_append(chain, file, candidate->quoted, label)) {
		free(label);
		return error_set(error, -ENOMEM,
		    "%s: no memory for its backing chain",
		    chain->links[0].name);
	}
	free(file->name);
	file->name = label;
	return 0;
}

static int
open_candidate(struct chain *chain, const struct candidate *candidate,
    enum image_format format, struct file **filep, struct error *error)
{
	struct confine_directory parent;
	struct file *file;
	int err;

	err = confine_open(chain->directories, chain->directory_count,
	    candidate->path, chain_next_is_written(chain) ? FILE_WRITE : 0,
	    &parent, &file);
	if (err)
		return explain_opening(chain, candidate, format, err, error);
	err = check_loop(chain, candidate, file, error);
	if (!err)
		err = accept_file(chain, candidate, file, error);
	if (err) {
		file_close(file);
		confine_directory_close(&parent);
		return err;
	}
	confine_directory_close(&chain->directories[0]);
	chain->directories[0] = parent;
	*filep = file;
	return 0;
}

int
chain_open_next(struct chain *chain, const struct header *header,
    struct file **filep, enum image_format *formatp, struct error *error)
{
	const char *name = header->backing_name;
	enum image_format format = IMAGE_QCOW2;
	struct candidate candidate;
	int err;

	if (!header->backing) {
		*filep = NULL;
		return 0;
	}
	log_quote(candidate.quoted, sizeof(candidate.quoted), name,
	    (int)strlen(name));
	if (chain->count > IMAGE_CHAIN_MAX)
		return error_set(error, -ELOOP, "%s has more than %d files "
		    "below it", chain->links[0].name, IMAGE_CHAIN_MAX);
	if (has_protocol(name))
		return error_set(error, -EACCES, "%.300s names \"%s\" as its "
		    "backing file; only plain file names are allowed",
		    last_label(chain), candidate.quoted);
	err = choose_format(chain, header, &candidate, &format, error);
	if (err)
		return err;
	candidate.path = *name == '/' ? confine_absolute(name) :
	    confine_join(&chain->directories[0], name);
	if (!candidate.path)
		return error_set(error, -ENOMEM,
		    "%s: no memory for its backing chain",
		    chain->links[0].name);
	err = open_candidate(chain, &candidate, format, filep, error);
	free(candidate.path);
	if (!err)
		*formatp = format;
	return err;
}
