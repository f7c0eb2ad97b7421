/* SPDX-License-Identifier: MIT */
/*
 * The backing chain: which files named inside an image may be opened, and how.
 *
 * An image is not trusted to name files.  What it names must lie in the
 * directory of the file that names it, or below, or in one of the directories
 * the person allowed; it is a regular file, opened for reading (but for the one
 * that the options say is to be written), reached from that directory without
 * symbolic links or "..".  A relative name is meant relative to the directory
 * of the file that names it; an absolute one must begin, as text, with an
 * allowed directory.  Anything with a protocol
 * ("nbd://...", "json:...", "file:...") is refused, as are chains that come
 * back to a file they have and chains of more than IMAGE_CHAIN_MAX files below
 * the top.  The format is never guessed.
 *
 * The top itself was named by a person, so symbolic links in its path are
 * followed; its directory is the one that was typed.
 *
 * Nothing here suspends, but opening files blocks: it is for start-up.
 */
#ifndef QCOW2_CHAIN_H
#define QCOW2_CHAIN_H

#include "qcow2/image.h"
#include "runtime/error.h"

struct chain;
struct file;
struct header;

/*
 * A chain that has only its top yet: file, opened by path.  Of the options,
 * backing_dirs and the backing format are used, and must outlive the chain.
 * -errno if a directory of theirs cannot be opened.
 */
int chain_create(const char *path, const struct file *file,
    const struct image_options *options, struct chain **chainp,
    struct error *error);

/* The files of the chain are the caller's and stay open.  NULL is fine. */
void chain_free(struct chain *chain);

/*
 * Opens the backing file of the last file of the chain, of which header is the
 * header, and makes that the last one; *filep is NULL if there is none.  The
 * file's name is its absolute path, fit for messages.
 *
 * *formatp is what the header says.  The format in the options rules over it
 * for the top's backing file, and fills in for headers that say nothing.
 *
 * -ENOENT, -EACCES for what the rules above forbid, -ELOOP, -EINVAL, -ENOTSUP,
 * -ENOMEM or what opening gave, with a message and a hint.
 */
int chain_open_next(struct chain *chain, const struct header *header,
    struct file **filep, enum image_format *formatp, struct error *error);

/*
 * Whether a person may give a backing file this name: one that the rules above
 * do not refuse for its form, and that a header has room for.  -EINVAL.
 */
int chain_check_name(const char *name, struct error *error);

#endif
