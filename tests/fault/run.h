/* SPDX-License-Identifier: MIT */
/*
 * One run of a scenario in trouble, and the verdict.
 *
 * After the trouble: requests have failed with its error or worked, all of the
 * disk reads as they say, and writing goes on as if nothing had been, except
 * after a sync that failed (O6): then nothing is accepted until the image is
 * opened again.  Opened again, all is there that has to be.  The file has leaks
 * at most, and a snapshot is as it was.
 *
 * An operation on a snapshot that has failed may have been done or not; then
 * the image may be dirty, which its opening repairs.  Version 2 has no such
 * mark: it is repaired by hand.
 */
#ifndef TESTS_FAULT_RUN_H
#define TESTS_FAULT_RUN_H

#include "tests/fault/base.h"
#include "tests/fault/kept.h"
#include "tests/fault/length.h"

struct trouble {
	unsigned layer;		/* whose file, in a chain */
	unsigned kind;		/* of operations, one of FILE_SIM_... */
	uint64_t nth;
	bool for_good;
	int result;		/* as file_sim_fail()'s; 0: no trouble */
	uint64_t seed;
};

/* Where the trouble comes from, other than from the files. */
struct run_hooks {
	void (*begin)(void *arg);
	bool (*end)(void *arg);		/* whether it struck */
	void *arg;
};

struct run {
	const struct scenario *scenario;
	const struct base *base;
	struct trouble trouble;
	const struct run_hooks *hooks;	/* or NULL */
	struct model model;
	struct kept kept;
	struct length length;	/* of the disk */
	struct world world;
	struct file *lower[LAYERS_MAX];	/* the files below the world's disk */
	uint8_t value;		/* written last */
	bool failed;		/* a sync failed: O6 */
	bool struck;		/* the trouble came */
	bool reopened;		/* after it */
	uint64_t operations;	/* of trouble's kind while it lasted */
};

/* Plays and judges; how many operations the trouble could have struck. */
uint64_t run_scenario(const struct scenario *scenario,
    const struct base *base, const struct trouble *trouble,
    const struct run_hooks *hooks);

/* ---- telling the case that went wrong ---- */

/*
 * world_main(), and what was tried.  A test ends where an assertion fails, in a
 * process of its own; what it was about stands in memory that is shared with
 * the parent, which tells, and counts.
 */
int run_main(Suite *suite);

#endif
