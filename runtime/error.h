/* SPDX-License-Identifier: MIT */
/*
 * An error a person will read: what failed and why, and what to type next.
 *
 * Filled by whoever has the facts and passed up unchanged; the command line
 * prints it, the daemon logs it.  For failures on the data path there is only
 * -errno and the log.
 */
#ifndef RUNTIME_ERROR_H
#define RUNTIME_ERROR_H

struct error {
	int exit_code;		/* 1 failed, 75 busy, 77 not allowed, ... */
	char message[1024];	/* one line, no newline at the end */
	char hint[1024];	/* what to do, or empty */
};

/* Both return the negative number given, so that callers can say
 * "return error_set(error, -EINVAL, ...)". */
int error_set(struct error *error, int negative_errno, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void error_hint(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
