/* SPDX-License-Identifier: MIT */
#include "tests/crash/sector.h"

#include <assert.h>
#include <string.h>
#include "runtime/random.h"

#define MAGIC UINT64_C(0x726f746365732121)
#define WORDS (SECTOR_BYTES / sizeof(uint64_t))
#define HEAD_WORDS 4

/*
 * A word that follows from the label; the next ones follow from it, with bytes
 * enough alike that the sector can be compressed.
 */
static uint64_t
first_word(const struct sector_label *label)
{
	return random_mix(label->seed ^ random_mix(label->value ^
	    random_mix(label->offset)));
}

static uint64_t
next_word(uint64_t word)
{
	return word + (UINT64_C(1) << 56);
}

void
sector_fill(void *data, size_t length, uint64_t seed, uint64_t value,
    uint64_t offset)
{
	assert(offset % SECTOR_BYTES == 0 && length % SECTOR_BYTES == 0);
	for (size_t done = 0; done < length; done += SECTOR_BYTES) {
		struct sector_label label = {seed, value, offset + done};
		uint64_t words[WORDS] = {MAGIC, seed, value, offset + done};

		words[HEAD_WORDS] = first_word(&label);
		for (unsigned i = HEAD_WORDS + 1; i < WORDS; i++)
			words[i] = next_word(words[i - 1]);
		memcpy((char *)data + done, words, SECTOR_BYTES);
	}
}

enum sector_kind
sector_parse(const void *sector, struct sector_label *label)
{
	struct sector_label found;
	uint64_t words[WORDS];

	memcpy(words, sector, SECTOR_BYTES);
	if (words[0] == 0 &&
	    !memcmp(words, words + 1, SECTOR_BYTES - sizeof(*words)))
		return SECTOR_ZERO;
	found = (struct sector_label){words[1], words[2], words[3]};
	if (words[0] != MAGIC || words[HEAD_WORDS] != first_word(&found))
		return SECTOR_GARBAGE;
	for (unsigned i = HEAD_WORDS + 1; i < WORDS; i++) {
		if (words[i] != next_word(words[i - 1]))
			return SECTOR_GARBAGE;
	}
	*label = found;
	return SECTOR_LABELLED;
}
