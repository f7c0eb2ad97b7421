/* SPDX-License-Identifier: MIT */
#include "tests/crash/sector.h"

#include <assert.h>
#include <string.h>
#include "qcow2/zeros_only.h"
#include "runtime/random.h"

#define MAGIC UINT64_C(0x726f746365732121)
#define WORDS (SECTOR_BYTES / sizeof(uint64_t))
#define HEAD_WORDS 4

/*
 * A word that follows from the label, and those that follow from it, with bytes
 * enough alike that the sector can be compressed.
 */
static uint64_t
first_word(const struct sector_label *label)
{
	return random_mix(label->seed ^ random_mix(label->value ^
	    random_mix(label->offset)));
}

static uint64_t
word_after(uint64_t first, uint64_t number)
{
	return first + (number << 56);
}

void
sector_fill(void *data, size_t length, uint64_t seed, uint64_t value,
    uint64_t offset)
{
	assert(offset % SECTOR_BYTES == 0 && length % SECTOR_BYTES == 0);
	for (size_t done = 0; done < length; done += SECTOR_BYTES) {
		struct sector_label label = {seed, value, offset + done};
		uint64_t words[WORDS] = {MAGIC, seed, value, offset + done};
		uint64_t first = first_word(&label);

		for (unsigned i = HEAD_WORDS; i < WORDS; i++)
			words[i] = word_after(first, i - HEAD_WORDS);
		memcpy((char *)data + done, words, SECTOR_BYTES);
	}
}

static uint64_t
word_of(const void *sector, unsigned number)
{
	uint64_t word;

	memcpy(&word, (const char *)sector + number * sizeof(word),
	    sizeof(word));
	return word;
}

/*
 * Most of the time of a crash test is spent here, so the loop has no way out:
 * thus the compiler makes it take several words at a time.
 */
enum sector_kind
sector_parse(const void *sector, struct sector_label *label)
{
	struct sector_label found;
	uint64_t first, wrong = 0;

	if (zeros_only(sector, SECTOR_BYTES))
		return SECTOR_ZERO;
	found = (struct sector_label){word_of(sector, 1), word_of(sector, 2),
	    word_of(sector, 3)};
	first = first_word(&found);
	for (unsigned i = HEAD_WORDS; i < WORDS; i++)
		wrong |= word_of(sector, i) ^ word_after(first, i - HEAD_WORDS);
	if (word_of(sector, 0) != MAGIC || wrong)
		return SECTOR_GARBAGE;
	*label = found;
	return SECTOR_LABELLED;
}
