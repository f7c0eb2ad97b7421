/* SPDX-License-Identifier: MIT */
/*
 * A log on its way through crash points: explorer.c reads it and builds
 * states, state.c decides which.
 */
#ifndef TESTS_CRASH_EXPLORER_H
#define TESTS_CRASH_EXPLORER_H

#include <stdbool.h>
#include "tests/crash/seen.h"
#include "tests/crash/state.h"
#include "tests/crash/variant.h"

/* One operation on the disk. */
struct operation {
	const struct record *record;
	uint64_t stable;	/* it is after a crash past this number */
	bool grows_file;
	bool in_floor;
	enum variant variant;	/* in the state that is being built */
};

/* When something happened. */
struct moment {
	uint64_t number;
	bool is_file;		/* to the file; else only prefixes are new */
};

struct explorer {
	const struct crash_options *options;
	int (*visit)(const struct crash_state *state, void *arg);
	void *arg;
	struct crash_counts counts;

	size_t operations_count;
	struct operation *operations;	/* by submission */
	size_t first_live;		/* all before it are in the floor */
	size_t moments_count;
	struct moment *moments;		/* ascending */
	size_t requests_count;
	uint64_t *requests;		/* numbers of request events */

	/* At the current point. */
	uint64_t point;
	uint64_t context;		/* of what is judged there */
	struct file *floor;
	size_t live_count;
	struct operation **live;	/* not in the floor, in order */
	size_t pending_count;
	struct operation **pending;	/* live and not stable */

	struct seen seen;		/* unless it is shared */
};

/* The fields up to arg are set by the caller, the rest is zeros. */
void explorer_open(struct explorer *explorer, const struct record_log *log,
    unsigned source, struct file *base);
void explorer_close(struct explorer *explorer);

/* Goes on to a crash at point; never back. */
void explorer_go_to(struct explorer *explorer, uint64_t point);

/* Sets what a state leaves of every pending operation. */
void explorer_set_pending(struct explorer *explorer, enum variant variant);

/*
 * Builds the state that the variants of the pending operations make, or with
 * reversed the one where overlapping ones took effect the other way round, and
 * visits it if it is new; what visit() returned, else 0.  what and operation
 * (may be NULL) describe it.
 */
int explorer_try(struct explorer *explorer, bool reversed, const char *what,
    const struct operation *operation);

#endif
