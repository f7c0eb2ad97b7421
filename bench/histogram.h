/* SPDX-License-Identifier: MIT */
/*
 * A histogram of times in constant memory.
 *
 * Buckets are log-linear: each power of two is cut into 64 equal steps, so a
 * value is known to 1.6 % wherever it lies between 1 ns and 584 years.  The
 * maximum is exact.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS	6
#define HISTOGRAM_STEPS		(1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS	((65 - HISTOGRAM_STEP_BITS) * HISTOGRAM_STEPS)

struct histogram {
	uint64_t count;
	uint64_t sum;
	uint64_t max;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* The bucket of value: below 64 its own, above by its 7 leading bits. */
static inline unsigned
histogram_index(uint64_t value)
{
	unsigned shift;

	if (value < HISTOGRAM_STEPS)
		return (unsigned)value;
	shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
	return shift * HISTOGRAM_STEPS + (unsigned)(value >> shift);
}

static inline void
histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->buckets[histogram_index(value)]++;
	histogram->count++;
	histogram->sum += value;
	if (value > histogram->max)
		histogram->max = value;
}

/*
 * The value that percent of all values do not exceed: the middle of its
 * bucket, and never above the maximum.  0 if nothing was added.
 */
uint64_t histogram_percentile(const struct histogram *histogram,
	double percent);

/* The mean, exact; 0 if nothing was added. */
double histogram_mean(const struct histogram *histogram);

#endif
