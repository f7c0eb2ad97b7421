/* SPDX-License-Identifier: MIT */
/*
 * How far long work has come: one line on standard error, if that is a
 * terminal, which changes in its place; and lines for a program that listens at
 * a descriptor.
 */
#ifndef SERVER_PROGRESS_H
#define SERVER_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qcow2/image_progress.h"
#include "server/options.h"

struct progress {
	const char *what;	/* "checking" */
	int fd;			/* who listens; 0: nobody */
	bool is_shown;		/* on a terminal */
	unsigned percent;	/* that stands there */
	unsigned told_percent;	/* and that was told */
};

/* A line of a table of options, for an int64_t that is 0 at first. */
#define PROGRESS_OPTION(type, member) \
	{ "progress", 0, OPTION_NUMBER, "FD", \
	  "write \"DONE TOTAL\" lines to this descriptor", \
	  .offset = offsetof(type, member), .min = 1, .max = INT32_MAX }

/* fd is what the option says, or 0. */
void progress_begin(struct progress *progress, const char *what, int64_t fd);

/* done of total, which is not 0; costs nothing while the line is the same. */
void progress_set(struct progress *progress, uint64_t done, uint64_t total);

/* Takes the line away, for others to print; the next progress_set() puts it
 * back. */
void progress_clear(struct progress *progress);

/*
 * Begins it for an operation of an image, which the first SIGINT, SIGTERM or
 * SIGHUP from now on stops.
 */
struct image_progress progress_stoppable(struct progress *progress,
    const char *what, int64_t fd);

#endif
