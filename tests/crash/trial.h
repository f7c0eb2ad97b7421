/* SPDX-License-Identifier: MIT */
/*
 * The trial of one crash state: what qnbd makes of it.
 *
 * The check must find leaks at most, unless the image is dirty; the image
 * opens, has a length that it may have, and is clean then; every sector holds
 * what the oracle allows; up to 1 MiB is written and flushed, reads back, and
 * leaves all else as it was; a disk that is resized becomes as long as it ever
 * may, with zeros behind its end; after the closing the check is as good again,
 * and of some states the leaks are repaired.  Autoclear bits are gone unless
 * nothing else has changed (O7).
 */
#ifndef TESTS_CRASH_TRIAL_H
#define TESTS_CRASH_TRIAL_H

#include <stdbool.h>
#include <stdint.h>
#include "tests/crash/crew.h"
#include "tests/crash/state.h"

struct trial {
	struct sim *sim;	/* a world of its own */
	struct crew *crew;	/* whose oracle judges */
	uint64_t base_hash;	/* of the disk before anything was done */
	bool verbose;		/* print what the check finds */

	/* Of the state. */
	const struct crash_state *state;
	bool repaired;		/* by hand, as version 2 may need it */
	uint64_t leaks;		/* before it was written to */
	char failure[1280];	/* the first thing that was wrong, or "" */

	uint8_t data[65536];	/* private */
};

/* Fills in the results; may write to state's file. */
void trial_run(struct trial *trial, const struct crash_state *state);

/* Notes a failure, unless there was one before. */
void trial_fail(struct trial *trial, const char *what, const char *detail);

#endif
