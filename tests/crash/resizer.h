/* SPDX-License-Identifier: MIT */
/*
 * A resizer: who makes a crew's disk longer and shorter, beside the clients and
 * the keeper of snapshots.
 *
 * What is cut off is gone: when the disk is longer again, it has zeros there.
 * For the oracle, one that becomes longer writes zeros to what is new; one that
 * becomes shorter writes zeros behind its end, in the moment in which it
 * returns.  Where the keeper changes the length as well, nobody knows which of
 * the two was first, and these zeros may be there or not.
 *
 * Each is a RECORD_REQUEST_OTHER in the record: offset is the new length, value
 * is the preallocation.
 */
#ifndef TESTS_CRASH_RESIZER_H
#define TESTS_CRASH_RESIZER_H

#include <stdint.h>
#include "runtime/co.h"

struct crew;

/* What the record has as its source. */
#define RESIZER_SOURCE 998

/* Resizes at random, as many as the crew's options say. */
co_fn void resizer_work(struct crew *crew);

/*
 * To bytes, at most as long as the crew's disk ever gets, with a value of enum
 * create_preallocation.
 */
co_fn void resizer_do(struct crew *crew, uint64_t bytes,
    unsigned preallocation);

/* The word for a value. */
const char *resizer_preallocation_name(uint64_t preallocation);

#endif
