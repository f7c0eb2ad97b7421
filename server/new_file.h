/* SPDX-License-Identifier: MIT */
/*
 * A new image file, all of it or none.
 *
 * It is written beside its place and gets its name when it is complete, so
 * whatever happens meanwhile leaves an existing file as it was: a failure, a
 * signal, a power failure.  One at a time in a process.
 */
#ifndef SERVER_NEW_FILE_H
#define SERVER_NEW_FILE_H

#include <stdbool.h>
#include "runtime/error.h"
#include "runtime/file.h"

struct new_file {
	const char *path;	/* as it was typed */
	char *target;		/* path, or what that links to */
	char *directory;	/* of target */
	struct file *replaced;	/* held locked, or NULL */
};

/* From now on a signal that ends the process removes the file beside. */
void new_file_catch_signals(void);

/*
 * Finds out where path is to be.  A file that is there already is refused, or,
 * with force, held until it is replaced.  Ends with new_file_free() even if it
 * fails.
 */
int new_file_settle(struct new_file *new_file, const char *path, bool force,
    struct error *error);

/* Opens the empty file beside; the caller closes it. */
int new_file_open(struct new_file *new_file, struct file **filep,
    struct error *error);

/*
 * Gives the file its name.  With sync, or where it replaces another, it is made
 * stable before, and the name after.
 */
int new_file_keep(struct new_file *new_file, bool sync, struct error *error);

/* Removes the file beside, if there is one. */
void new_file_remove(void);

/* Releases the file that was to be replaced.  All zeros is fine. */
void new_file_free(struct new_file *new_file);

/* Locks a file for this process; *error says who else has it. */
int new_file_lock(struct file *file, enum file_lock kind, const char *path,
    struct error *error);

#endif
