/* SPDX-License-Identifier: MIT */
/*
 * How long the disk of a run is; and how long it may be when it is opened
 * again, as a resize that failed leaves its old length or its new one.
 */
#ifndef TESTS_FAULT_LENGTH_H
#define TESTS_FAULT_LENGTH_H

#include <stdbool.h>
#include <stdint.h>
#include "tests/fault/model.h"
#include "tests/fault/scenario.h"

struct length {
	uint64_t bytes;
	unsigned stable_count;
	uint64_t stable[2 * STEPS_MAX];	/* what it may be in the file */
	uint64_t min_bytes;	/* so far */
};

void length_begin(struct length *length, uint64_t bytes);

/* The most that a scenario ever makes of its disk. */
uint64_t length_max(const struct scenario *scenario);

/*
 * A resize has ended; the disk says that it has disk_bytes.  What is new, or
 * was cut off, is zeros.
 */
void length_end(struct length *length, struct model *model,
    const struct request *request, uint64_t disk_bytes);

/* A snapshot was applied, and brought its length. */
void length_apply(struct length *length, uint64_t disk_bytes, bool done);

/* All is stable. */
void length_keep(struct length *length);

/* Asserts that a disk that was opened again may be so long. */
void length_open(struct length *length, uint64_t disk_bytes);

/* Whether the range has ever been behind the end. */
bool length_excuses(const struct length *length, uint64_t guest,
    uint64_t bytes);

#endif
