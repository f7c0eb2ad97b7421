/* SPDX-License-Identifier: MIT */
#include "tests/crash/lengths.h"

#include <assert.h>
#include "runtime/random.h"
#include "runtime/record.h"

static unsigned
add(struct lengths *lengths, const struct length_change *change)
{
	assert(lengths->count < LENGTHS_MAX);
	lengths->list[lengths->count] = *change;
	return lengths->count++;
}

void
lengths_begin(struct lengths *lengths, uint64_t bytes)
{
	lengths->count = 0;
	add(lengths, &(struct length_change){
		.replied = 1, .happened = true, .bytes = bytes,
	});
}

unsigned
lengths_change(struct lengths *lengths, uint64_t received, uint64_t bytes)
{
	return add(lengths, &(struct length_change){
		.received = received, .replied = RECORD_NEVER,
		.bytes = bytes,
	});
}

unsigned
lengths_copy(struct lengths *lengths, uint64_t received,
    uint64_t from_received, uint64_t from_replied)
{
	return add(lengths, &(struct length_change){
		.received = received, .replied = RECORD_NEVER,
		.is_copy = true, .from_received = from_received,
		.from_replied = from_replied,
	});
}

void
lengths_end(struct lengths *lengths, unsigned index, uint64_t replied,
    enum length_end end)
{
	struct length_change *change = &lengths->list[index];

	assert(index < lengths->count && change->replied == RECORD_NEVER);
	change->replied = replied;
	change->happened = end == LENGTH_CHANGED;
	if (end == LENGTH_KEPT)
		change->received = RECORD_NEVER;
}

/* What was replied to before this number does not show any more. */
static uint64_t
cutoff(const struct lengths *lengths, struct length_view view)
{
	uint64_t latest = 0;

	for (unsigned i = 0; i < lengths->count; i++) {
		const struct length_change *change = &lengths->list[i];

		if (change->happened && change->replied < view.required &&
		    change->received > latest)
			latest = change->received;
	}
	return latest;
}

/* Calls take for each length that it may have, perhaps more than once. */
static void
each(const struct lengths *lengths, struct length_view view,
    void (*take)(void *arg, uint64_t bytes), void *arg)
{
	uint64_t gone = cutoff(lengths, view);

	for (unsigned i = 0; i < lengths->count; i++) {
		const struct length_change *change = &lengths->list[i];

		if (change->received >= view.horizon ||
		    change->replied < gone)
			continue;
		if (change->is_copy)
			each(lengths, (struct length_view){
			    change->from_replied, change->from_received,
			    }, take, arg);
		else
			take(arg, change->bytes);
	}
}

struct look {
	uint64_t bytes;
	bool found;
};

static void
look_at(void *arg, uint64_t bytes)
{
	struct look *look = arg;

	look->found |= bytes == look->bytes;
}

bool
lengths_may_be(const struct lengths *lengths, struct length_view view,
    uint64_t bytes)
{
	struct look look = {.bytes = bytes};

	each(lengths, view, look_at, &look);
	return look.found;
}

struct bounds {
	uint64_t min, max;
};

static void
widen(void *arg, uint64_t bytes)
{
	struct bounds *bounds = arg;

	if (bytes < bounds->min)
		bounds->min = bytes;
	if (bytes > bounds->max)
		bounds->max = bytes;
}

void
lengths_bounds(const struct lengths *lengths, struct length_view view,
    uint64_t *minp, uint64_t *maxp)
{
	struct bounds bounds = {.min = UINT64_MAX};

	each(lengths, view, widen, &bounds);
	*minp = bounds.min;
	*maxp = bounds.max;
}

static void
mix(void *arg, uint64_t bytes)
{
	uint64_t *hash = arg;

	*hash = random_mix(*hash ^ random_mix(bytes));
}

uint64_t
lengths_allowed(const struct lengths *lengths, uint64_t point)
{
	uint64_t hash = 0;

	each(lengths, (struct length_view){point, point}, mix, &hash);
	return hash;
}
