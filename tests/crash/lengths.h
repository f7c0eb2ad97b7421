/* SPDX-License-Identifier: MIT */
/*
 * How long a disk may be that is resized, and becomes what snapshots hold.
 *
 * A length is judged like a sector by the oracle: a change may show from the
 * moment it was asked for, and must once it has worked, until the next may
 * show.  All changes are stable when they return.
 */
#ifndef TESTS_CRASH_LENGTHS_H
#define TESTS_CRASH_LENGTHS_H

#include <stdbool.h>
#include <stdint.h>

/* That one run ever has. */
#define LENGTHS_MAX 160

/* Numbers are those of the record. */
struct length_change {
	uint64_t received;
	uint64_t replied;	/* RECORD_NEVER */
	bool happened;
	bool is_copy;		/* of the length it had between these */
	uint64_t from_received;
	uint64_t from_replied;
	uint64_t bytes;
};

struct lengths {
	unsigned count;
	struct length_change list[LENGTHS_MAX];
};

/* What has to show, and what may: as in oracle.c. */
struct length_view {
	uint64_t horizon;	/* changes received before it may */
	uint64_t required;	/* those replied before it must */
};

enum length_end {
	LENGTH_CHANGED,
	LENGTH_UNKNOWN,		/* it failed */
	LENGTH_KEPT,		/* it was refused */
};

/* From the beginning on it has so many bytes. */
void lengths_begin(struct lengths *lengths, uint64_t bytes);

/* It is about to get these, or those it had then; for lengths_end(). */
unsigned lengths_change(struct lengths *lengths, uint64_t received,
    uint64_t bytes);
unsigned lengths_copy(struct lengths *lengths, uint64_t received,
    uint64_t from_received, uint64_t from_replied);
void lengths_end(struct lengths *lengths, unsigned index, uint64_t replied,
    enum length_end end);

bool lengths_may_be(const struct lengths *lengths, struct length_view view,
    uint64_t bytes);

/* The shortest and the longest it may be. */
void lengths_bounds(const struct lengths *lengths, struct length_view view,
    uint64_t *minp, uint64_t *maxp);

/* A number that follows from all it may be after a crash at point. */
uint64_t lengths_allowed(const struct lengths *lengths, uint64_t point);

#endif
