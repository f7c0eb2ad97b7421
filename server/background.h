/* SPDX-License-Identifier: MIT */
/*
 * Going to the background (--fork), and the file that holds the process id.
 *
 * The child does all the work; the parent waits until it is ready and then
 * ends with 0, or with the child's exit code if that ended before.  Messages
 * need no way through the parent: the child has the same standard error.
 */
#ifndef SERVER_BACKGROUND_H
#define SERVER_BACKGROUND_H

#include "runtime/error.h"

/*
 * Returns in the child only, which is in a session of its own; *reportp is for
 * background_report().  Call it before there are threads.  -errno.
 */
int background_begin(int *reportp);

/*
 * Lets the parent end and closes report.  Standard input and output become
 * /dev/null, and standard error too if it is a terminal.
 */
void background_report(int report);

/* Replaces path.  -errno. */
int background_write_pid(const char *path, struct error *error);

#endif
