/* SPDX-License-Identifier: MIT */
/*
 * Sectors that say who wrote them, and where.
 *
 * Every byte follows from the seed of the run, the value (which write it was)
 * and the offset on the export, so data that is misplaced, stale or torn inside
 * a sector tells so.
 */
#ifndef TESTS_CRASH_SECTOR_H
#define TESTS_CRASH_SECTOR_H

#include <stddef.h>
#include <stdint.h>

#define SECTOR_BYTES 512u

struct sector_label {
	uint64_t seed;
	uint64_t value;
	uint64_t offset;
};

enum sector_kind {
	SECTOR_ZERO,		/* nothing but zeros */
	SECTOR_LABELLED,	/* whole, as sector_fill() made it */
	SECTOR_GARBAGE,
};

/* Fills whole sectors; offset and length are multiples of SECTOR_BYTES. */
void sector_fill(void *data, size_t length, uint64_t seed, uint64_t value,
    uint64_t offset);

/* label is set if the sector is labelled. */
enum sector_kind sector_parse(const void *sector, struct sector_label *label);

#endif
