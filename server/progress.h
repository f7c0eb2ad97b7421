/* SPDX-License-Identifier: MIT */
/*
 * How far long work has come: one line on standard error, if that is a
 * terminal, which changes in its place.
 */
#ifndef SERVER_PROGRESS_H
#define SERVER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *what;	/* "checking" */
	bool is_shown;		/* on a terminal */
	unsigned percent;	/* that stands there */
};

void progress_begin(struct progress *progress, const char *what);

/* done of total, which is not 0; costs nothing while the line is the same. */
void progress_set(struct progress *progress, uint64_t done, uint64_t total);

/* Takes the line away, for others to print; the next progress_set() puts it
 * back. */
void progress_clear(struct progress *progress);

#endif
