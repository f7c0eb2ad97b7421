/* SPDX-License-Identifier: MIT */
/*
 * Random numbers that a seed repeats: for simulations and tests.
 *
 * xoshiro256** (Blackman, Vigna), its state filled by splitmix64.  Nobody
 * should guard a secret with it.
 */
#ifndef RUNTIME_RANDOM_H
#define RUNTIME_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
	uint64_t state[4];
};

/* Scatters the bits of value; equal in, equal out.  Also good for hashes. */
static inline uint64_t
random_mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15ull;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

static inline void
random_seed(struct random *random, uint64_t seed)
{
	for (unsigned i = 0; i < 4; i++)
		random->state[i] = random_mix(seed + i * 0x9e3779b97f4a7c15ull);
}

static inline uint64_t
random_rotate(uint64_t value, unsigned bits)
{
	return value << bits | value >> (64 - bits);
}

static inline uint64_t
random_next(struct random *random)
{
	uint64_t *state = random->state;
	uint64_t result = random_rotate(state[1] * 5, 7) * 9;
	uint64_t shifted = state[1] << 17;

	state[2] ^= state[0];
	state[3] ^= state[1];
	state[1] ^= state[2];
	state[0] ^= state[3];
	state[2] ^= shifted;
	state[3] = random_rotate(state[3], 45);
	return result;
}

/* One of 0 to limit - 1; limit is above 0. */
static inline uint64_t
random_below(struct random *random, uint64_t limit)
{
	return (uint64_t)((unsigned __int128)random_next(random) * limit >> 64);
}

/* True once in count times, never if count is 0. */
static inline bool
random_one_in(struct random *random, unsigned count)
{
	return count && random_below(random, count) == 0;
}

#endif
