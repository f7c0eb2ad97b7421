/* SPDX-License-Identifier: MIT */
/*
 * Sectors that describe themselves.
 *
 * Each 512-byte sector is a function of three numbers that it begins with:
 * its offset in the export, the seed of the run, and the generation (which
 * write put it there).  So a misplaced, stale, foreign or torn sector is seen
 * from the sector alone, without a copy of what was written.
 */
#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PATTERN_SECTOR_BYTES	512

/* What a reader accepts. */
struct pattern_expectation {
	uint64_t seed;
	uint64_t generation;	/* 0: any */
	bool zeros_allowed;	/* a sector of zeros passes too */
};

/* What was wrong with a sector. */
struct pattern_mismatch {
	uint64_t offset;	/* where it was read */
	const char *reason;
	uint64_t found[4];	/* its first 32 bytes */
};

/* Fills bytes (whole sectors) that will stand at offset of the export. */
void pattern_fill(void *data, size_t bytes, uint64_t offset, uint64_t seed,
	uint64_t generation);

/*
 * Checks bytes (whole sectors) read at offset.  Returns how many sectors do
 * not meet the expectation, the first of them in *first, which stays
 * untouched if there are none; adds the zero sectors that passed to
 * *zero_sectors.
 */
uint64_t pattern_check(const void *data, size_t bytes, uint64_t offset,
	const struct pattern_expectation *expected, uint64_t *zero_sectors,
	struct pattern_mismatch *first);

#endif
