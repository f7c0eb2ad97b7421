/* SPDX-License-Identifier: MIT */
/*
 * The workloads by name, and what is done in them.
 *
 * Of a random workload every seed is another run.  Of the enumerated ones the
 * seed is the number of a sequence (sequence.h), plus how many there are for
 * every round: each round has a schedule of its own, and in the odd ones the
 * image is closed as soon as all is answered.
 */
#ifndef TESTS_CRASH_WORKLOAD_H
#define TESTS_CRASH_WORKLOAD_H

#include "tests/crash/crew.h"

struct workload;

/* NULL: there is none of that name. */
const struct workload *workload_find(const char *name);

/* Runs it from the opening of a clone of base to the closing. */
void workload_run(const struct workload *workload, uint64_t seed,
    struct file *base, struct file *backing, bool backing_is_raw,
    struct crew *crew);

#endif
