/* SPDX-License-Identifier: MIT */
/* Which crash states are built: the enumerators. */
#include "tests/crash/state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include "runtime/random.h"
#include "tests/crash/explorer.h"

/* Two to the power of this many subsets are as many as anybody waits for. */
#define SUBSET_OPERATIONS_MAX 20

const struct crash_options crash_defaults = {
	.kinds = CRASH_ALL,
	.tear_ways = 1,
	.tear_bytes = 512,
	.subset_operations = 8,
	.random_subsets = 64,
};

static bool
is_in_flight(const struct explorer *explorer,
    const struct operation *operation)
{
	return operation->record->completed >= explorer->point;
}

static int
try_prefix(struct explorer *explorer)
{
	int result;

	explorer_set_pending(explorer, VARIANT_WHOLE);
	result = explorer_try(explorer, false, "all that was submitted", NULL);
	if (result)
		return result;
	for (size_t i = 0; i < explorer->pending_count; i++) {
		if (is_in_flight(explorer, explorer->pending[i]))
			explorer->pending[i]->variant = VARIANT_LOST;
	}
	return explorer_try(explorer, false, "all that was completed", NULL);
}

/* The state where others stand as they are set, and one as variant says. */
static int
try_one(struct explorer *explorer, struct operation *operation,
    enum variant variant, const char *what)
{
	enum variant saved = operation->variant;
	int result;

	operation->variant = variant;
	result = explorer_try(explorer, false, what, operation);
	operation->variant = saved;
	return result;
}

static int
try_torn(struct explorer *explorer, struct operation *operation)
{
	static const char *const whats[CRASH_TEAR_WAYS] = {
		"the second half is missing of ",
		"only the first piece is there of ",
		"the last piece is missing of ",
		"some pieces are missing of ",
		"some other pieces are missing of ",
	};
	int result = 0;

	if (!variant_tears(operation->record, explorer->options))
		return 0;
	for (unsigned way = 0; way < explorer->options->tear_ways && !result;
	    way++)
		result = try_one(explorer, operation, VARIANT_TORN + way,
		    whats[way]);
	return result;
}

static int
try_sizes(struct explorer *explorer, struct operation *operation)
{
	int result;

	if (!operation->grows_file)
		return 0;
	result = try_one(explorer, operation, VARIANT_SIZE,
	    "only the size is there of ");
	if (result)
		return result;
	return try_one(explorer, operation, VARIANT_CUT,
	    "the size is missing of ");
}

/* The last submitted operation in part, on top of all others. */
static int
try_newest(struct explorer *explorer, uint64_t last_moment)
{
	unsigned kinds = explorer->options->kinds;
	int result = 0;

	explorer_set_pending(explorer, VARIANT_WHOLE);
	for (size_t i = 0; i < explorer->pending_count; i++) {
		struct operation *operation = explorer->pending[i];

		if (operation->record->submitted != last_moment)
			continue;
		if (kinds & CRASH_TORN)
			result = try_torn(explorer, operation);
		if (!result && (kinds & CRASH_SIZES))
			result = try_sizes(explorer, operation);
	}
	return result;
}

/* Every pending operation in turn as one, all others as rest. */
static int
try_each(struct explorer *explorer, enum variant one, enum variant rest,
    const char *what)
{
	int result = 0;

	explorer_set_pending(explorer, rest);
	for (size_t i = 0; i < explorer->pending_count && !result; i++)
		result = try_one(explorer, explorer->pending[i], one, what);
	return result;
}

static int
try_all_sizes(struct explorer *explorer)
{
	int result = 0;

	explorer_set_pending(explorer, VARIANT_WHOLE);
	for (size_t i = 0; i < explorer->pending_count && !result; i++)
		result = try_sizes(explorer, explorer->pending[i]);
	return result;
}

/* As if the disk had gone through the epoch from its end. */
static int
try_reversed(struct explorer *explorer)
{
	int result;

	explorer_set_pending(explorer, VARIANT_WHOLE);
	result = explorer_try(explorer, true, "the other way round", NULL);
	for (size_t i = 0; i < explorer->pending_count && !result; i++) {
		explorer->pending[i]->variant = VARIANT_LOST;
		result = explorer_try(explorer, false,
		    "lost is all up to ", explorer->pending[i]);
	}
	return result;
}

static int
try_subset(struct explorer *explorer, uint64_t mask)
{
	char what[64];

	for (size_t i = 0; i < explorer->pending_count; i++)
		explorer->pending[i]->variant = mask >> i & 1 ?
		    VARIANT_WHOLE : VARIANT_LOST;
	snprintf(what, sizeof(what), "of the pending, subset 0x%" PRIx64,
	    mask);
	return explorer_try(explorer, false, what, NULL);
}

/* There, gone, or now and then in part. */
static enum variant
draw_variant(const struct explorer *explorer,
    const struct operation *operation, struct random *random)
{
	unsigned ways = explorer->options->tear_ways;

	if (operation->grows_file && random_one_in(random, 8))
		return random_one_in(random, 2) ? VARIANT_SIZE : VARIANT_CUT;
	if (ways > 0 && random_one_in(random, 8) &&
	    variant_tears(operation->record, explorer->options))
		return VARIANT_TORN + (enum variant)random_below(random, ways);
	return random_one_in(random, 2) ? VARIANT_WHOLE : VARIANT_LOST;
}

static int
try_random_subset(struct explorer *explorer, struct random *random)
{
	for (size_t i = 0; i < explorer->pending_count; i++)
		explorer->pending[i]->variant = draw_variant(explorer,
		    explorer->pending[i], random);
	return explorer_try(explorer, false, "some of the pending", NULL);
}

static int
try_subsets(struct explorer *explorer)
{
	const struct crash_options *options = explorer->options;
	size_t count = explorer->pending_count;
	struct random random;
	int result = 0;

	if (count <= options->subset_operations) {
		for (uint64_t mask = 0; mask >> count == 0 && !result; mask++)
			result = try_subset(explorer, mask);
		return result;
	}
	random_seed(&random, options->seed ^ random_mix(explorer->point));
	for (unsigned i = 0; i < options->random_subsets && !result; i++)
		result = try_random_subset(explorer, &random);
	return result;
}

static int
try_epoch(struct explorer *explorer)
{
	unsigned kinds = explorer->options->kinds;
	int result = 0;

	if (kinds & CRASH_SIZES)
		result = try_all_sizes(explorer);
	if (!result && (kinds & CRASH_LOST))
		result = try_each(explorer, VARIANT_LOST, VARIANT_WHOLE,
		    "lost is ");
	if (!result && (kinds & CRASH_SURVIVOR))
		result = try_each(explorer, VARIANT_WHOLE, VARIANT_LOST,
		    "the only survivor is ");
	if (!result && (kinds & CRASH_REVERSED))
		result = try_reversed(explorer);
	if (!result && (kinds & CRASH_SUBSETS))
		result = try_subsets(explorer);
	return result;
}

/* Whether something becomes stable with the event of this number. */
static bool
is_epoch_end(const struct explorer *explorer, uint64_t number)
{
	for (size_t i = explorer->first_live;
	    i < explorer->operations_count; i++) {
		if (explorer->operations[i].stable == number)
			return true;
	}
	return false;
}

/*
 * A crash just before each moment, so that replies count as late as can be,
 * and before each request, which would allow for more.
 */
static int
explore(struct explorer *explorer)
{
	uint64_t last = 0;	/* number of the last event of the file */
	int result = 0;

	for (size_t i = 0; i < explorer->moments_count && !result; i++) {
		const struct moment *moment = &explorer->moments[i];
		bool is_end = i + 1 == explorer->moments_count ||
		    is_epoch_end(explorer, moment->number);

		explorer_go_to(explorer, moment->number);
		if (explorer->options->kinds & CRASH_PREFIX)
			result = try_prefix(explorer);
		if (!moment->is_file)
			continue;
		if (!result && last > 0)
			result = try_newest(explorer, last);
		if (!result && is_end)
			result = try_epoch(explorer);
		last = moment->number;
	}
	return result;
}

int
crash_explore(const struct record_log *log, unsigned source,
    struct file *base, const struct crash_options *options,
    int (*visit)(const struct crash_state *state, void *arg), void *arg,
    struct crash_counts *counts)
{
	struct explorer explorer = {
		.options = options, .visit = visit, .arg = arg,
	};
	int result;

	assert(options->tear_ways <= CRASH_TEAR_WAYS);
	assert(options->tear_bytes == 512 || options->tear_bytes == 4096);
	assert(options->subset_operations <= SUBSET_OPERATIONS_MAX);
	explorer_open(&explorer, log, source, base);
	result = explore(&explorer);
	if (counts)
		*counts = explorer.counts;
	explorer_close(&explorer);
	return result;
}
