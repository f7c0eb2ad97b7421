/* SPDX-License-Identifier: MIT */
/*
 * Sector layout, 64 words of 64 bits in the machine's own order:
 *   0      magic
 *   1      offset of this sector in the export
 *   2      seed of the run
 *   3      generation, never 0
 *   4..63  a stream computed from words 1 to 3
 */
#include <string.h>
#include "bench/pattern.h"

#define SECTOR_WORDS	(PATTERN_SECTOR_BYTES / 8)
#define SECTOR_MAGIC	0x716e626473656374ull	/* "qnbdsect" */

static const uint64_t zero_sector[SECTOR_WORDS];

static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

static void
make_sector(uint64_t words[SECTOR_WORDS], uint64_t offset, uint64_t seed,
	uint64_t generation)
{
	uint64_t state;
	unsigned i;

	words[0] = SECTOR_MAGIC;
	words[1] = offset;
	words[2] = seed;
	words[3] = generation;
	state = mix(offset ^ mix(seed ^ mix(generation)));
	for (i = 4; i < SECTOR_WORDS; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		words[i] = state;
	}
}

/* Says what is wrong with a sector read at offset; NULL if nothing is. */
static const char *
sector_fault(const uint64_t words[SECTOR_WORDS], uint64_t offset,
	const struct pattern_expectation *expected)
{
	uint64_t whole[SECTOR_WORDS];

	if (memcmp(words, zero_sector, PATTERN_SECTOR_BYTES) == 0)
		return "zeros where data was written";
	if (words[0] != SECTOR_MAGIC)
		return "no sector of a load run";
	if (words[1] != offset)
		return "sector of another offset";
	if (words[2] != expected->seed)
		return "sector of another seed";
	if (expected->generation && words[3] != expected->generation)
		return "sector of another generation";
	make_sector(whole, words[1], words[2], words[3]);
	if (memcmp(words, whole, PATTERN_SECTOR_BYTES) != 0)
		return "torn or altered sector";
	return NULL;
}

void
pattern_fill(void *data, size_t bytes, uint64_t offset, uint64_t seed,
	uint64_t generation)
{
	uint64_t words[SECTOR_WORDS];
	size_t done;

	for (done = 0; done < bytes; done += PATTERN_SECTOR_BYTES) {
		make_sector(words, offset + done, seed, generation);
		memcpy((char *)data + done, words, PATTERN_SECTOR_BYTES);
	}
}

uint64_t
pattern_check(const void *data, size_t bytes, uint64_t offset,
	const struct pattern_expectation *expected, uint64_t *zero_sectors,
	struct pattern_mismatch *first)
{
	uint64_t words[SECTOR_WORDS], faults = 0;
	const char *fault;
	size_t done;

	for (done = 0; done < bytes; done += PATTERN_SECTOR_BYTES) {
		memcpy(words, (const char *)data + done, PATTERN_SECTOR_BYTES);
		if (expected->zeros_allowed &&
		    memcmp(words, zero_sector, PATTERN_SECTOR_BYTES) == 0) {
			(*zero_sectors)++;
			continue;
		}
		fault = sector_fault(words, offset + done, expected);
		if (!fault || faults++ > 0)
			continue;
		first->offset = offset + done;
		first->reason = fault;
		memcpy(first->found, words, sizeof(first->found));
	}
	return faults;
}
