/* SPDX-License-Identifier: MIT */
/*
 * Cost: 2 us for most data, which is none by its first 4 KiB; some 100 us for
 * 64 KiB of noise.
 */
#include "qcow2/noise.h"

#include <stdint.h>
#include <string.h>

/* What is looked at first, and the least that tells anything. */
#define SAMPLE_BYTES 4096u
/* How far back a sequence may be, for deflate as QEMU reads it. */
#define WINDOW_BYTES 4096u
/* Of all sequences of four bytes, one in so many is remembered. */
#define SPARSITY_BITS 4
#define TABLE_BITS 9
/* If so many of a hundred that are remembered come again, it is no noise. */
#define REPEATS_PERCENT 1

/*
 * By the sum of the squares, which is least where all bytes are as frequent;
 * up to a 32nd more costs under 0.05 of 8 bits for each byte, and chance adds
 * as much as there are bytes, or half as much again.
 */
static bool
is_even(const uint8_t *bytes, size_t count)
{
	uint32_t counts[2][256] = {0};
	uint64_t squares = 0, even = (uint64_t)count * count / 256;

	/* Two counters, as one would wait for itself. */
	for (size_t i = 0; i + 1 < count; i += 2) {
		counts[0][bytes[i]]++;
		counts[1][bytes[i + 1]]++;
	}
	for (int i = 0; i < 256; i++) {
		uint64_t both = counts[0][i] + counts[1][i];

		squares += both * both;
	}
	return squares <= even + even / 32 + count + count / 2;
}

/*
 * Which sequences are remembered is said by what they are, so one that comes
 * again is found wherever it is.
 */
static bool
has_repeats(const uint8_t *bytes, size_t count)
{
	struct {
		uint32_t sequence;
		uint32_t place;
	} table[1 << TABLE_BITS] = {0};
	size_t repeats = 0, remembered = 0;

	for (size_t i = 0; i + sizeof(uint32_t) <= count; i++) {
		uint32_t sequence, hash;

		memcpy(&sequence, bytes + i, sizeof(sequence));
		hash = sequence * 2654435761u;
		if (hash >> (32 - SPARSITY_BITS))
			continue;
		hash = hash >> (32 - SPARSITY_BITS - TABLE_BITS);
		repeats += table[hash].sequence == sequence &&
		    table[hash].place > 0 &&
		    i + 1 - table[hash].place <= WINDOW_BYTES;
		table[hash].sequence = sequence;
		table[hash].place = (uint32_t)i + 1;
		remembered++;
	}
	return repeats * 100 > remembered * REPEATS_PERCENT;
}

bool
noise_is_all(const void *data, size_t bytes)
{
	return bytes >= SAMPLE_BYTES && is_even(data, SAMPLE_BYTES) &&
	    is_even(data, bytes) && !has_repeats(data, bytes);
}
