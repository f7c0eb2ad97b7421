/* SPDX-License-Identifier: MIT */
#include "bench/histogram.h"

/* The value in the middle of a bucket; the inverse of histogram_index(). */
static uint64_t
bucket_middle(unsigned index)
{
	unsigned shift;
	uint64_t steps;

	if (index < 2 * HISTOGRAM_STEPS)
		return index;
	shift = index / HISTOGRAM_STEPS - 1;
	steps = index % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
	return (steps << shift) + (1ull << (shift - 1));
}

uint64_t
histogram_percentile(const struct histogram *histogram, double percent)
{
	uint64_t rank, seen = 0, value;
	unsigned index;

	if (histogram->count == 0)
		return 0;
	rank = (uint64_t)((double)histogram->count * percent / 100.0);
	if (rank >= histogram->count)
		return histogram->max;
	for (index = 0; index < HISTOGRAM_BUCKETS - 1; index++) {
		seen += histogram->buckets[index];
		if (seen > rank)
			break;
	}
	value = bucket_middle(index);
	return value < histogram->max ? value : histogram->max;
}

double
histogram_mean(const struct histogram *histogram)
{
	if (histogram->count == 0)
		return 0;
	return (double)histogram->sum / (double)histogram->count;
}
