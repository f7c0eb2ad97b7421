/* SPDX-License-Identifier: MIT */
/*
 * Cost of judging a sector: parsing it, and a look at the requests that touch
 * its 64 KiB.
 */
#include "tests/crash/oracle.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "runtime/random.h"

#define BUCKET_BYTES 65536u

struct event {
	enum record_kind kind;
	bool has_fua;
	bool failed;
	uint64_t offset;
	uint64_t length;
	uint64_t value;
	uint64_t received;
	uint64_t replied;	/* RECORD_NEVER */
	uint64_t stable;	/* required after a crash past this number */
	/* RECORD_REQUEST_OTHER: of the read whose result is written. */
	uint64_t from_received;
	uint64_t from_replied;
};

/* Indexes of the events that touch a part of the export. */
struct bucket {
	size_t count;
	size_t room;
	size_t *events;
};

struct oracle {
	uint64_t seed;
	uint64_t bytes;
	struct bucket *buckets;
	size_t events_count;
	size_t events_room;
	struct event *events;
	bool is_settled;	/* every stable is computed */
};

/* When a sector is looked at. */
struct view {
	uint64_t horizon;	/* writes received before it may show */
	uint64_t required;	/* those replied, or stable, before it must */
	bool is_crash;
};

static void *
grow(void *array, size_t *room, size_t entry_bytes)
{
	*room = 2 * *room + 16;
	array = realloc(array, *room * entry_bytes);
	if (!array)
		abort();
	return array;
}

int
oracle_create(uint64_t seed, uint64_t bytes, struct oracle **oraclep)
{
	struct oracle *oracle;

	assert(bytes <= ORACLE_BYTES_MAX);
	oracle = calloc(1, sizeof(*oracle));
	if (!oracle)
		return -ENOMEM;
	oracle->seed = seed;
	oracle->bytes = bytes;
	oracle->buckets = calloc(bytes / BUCKET_BYTES + 1,
	    sizeof(*oracle->buckets));
	if (!oracle->buckets) {
		free(oracle);
		return -ENOMEM;
	}
	*oraclep = oracle;
	return 0;
}

void
oracle_free(struct oracle *oracle)
{
	if (!oracle)
		return;
	for (size_t i = 0; i <= oracle->bytes / BUCKET_BYTES; i++)
		free(oracle->buckets[i].events);
	free(oracle->buckets);
	free(oracle->events);
	free(oracle);
}

/* ---- what happened ---- */

static void
bucket_add(struct bucket *bucket, size_t event)
{
	if (bucket->count == bucket->room)
		bucket->events = grow(bucket->events, &bucket->room,
		    sizeof(*bucket->events));
	bucket->events[bucket->count++] = event;
}

static size_t
add_event(struct oracle *oracle, const struct event *event)
{
	size_t index = oracle->events_count;

	assert(event->offset <= oracle->bytes &&
	    event->length <= oracle->bytes - event->offset);
	assert((event->offset | event->length) % SECTOR_BYTES == 0);
	if (index == oracle->events_room)
		oracle->events = grow(oracle->events, &oracle->events_room,
		    sizeof(*oracle->events));
	oracle->events[oracle->events_count++] = *event;
	oracle->is_settled = false;
	for (uint64_t at = event->offset; at < event->offset + event->length;
	    at = (at / BUCKET_BYTES + 1) * BUCKET_BYTES)
		bucket_add(&oracle->buckets[at / BUCKET_BYTES], index);
	return index;
}

void
oracle_set_initial(struct oracle *oracle, uint64_t offset, uint64_t length,
    uint64_t value)
{
	add_event(oracle, &(struct event){
		.kind = RECORD_REQUEST_WRITE, .value = value,
		.offset = offset, .length = length,
	});
}

size_t
oracle_begin(struct oracle *oracle, const struct record *entry)
{
	bool has_range = entry->kind == RECORD_REQUEST_WRITE ||
	    entry->kind == RECORD_REQUEST_ZERO ||
	    entry->kind == RECORD_REQUEST_TRIM;

	assert(entry->submitted > 0);
	return add_event(oracle, &(struct event){
		.kind = entry->kind, .has_fua = entry->flags & RECORD_FUA,
		.offset = has_range ? entry->offset : 0,
		.length = has_range ? entry->length : 0,
		.value = entry->value, .received = entry->submitted,
		.replied = RECORD_NEVER,
	});
}

size_t
oracle_begin_copy(struct oracle *oracle, uint64_t submitted,
    uint64_t received, uint64_t replied)
{
	assert(submitted > 0 && replied <= submitted);
	return add_event(oracle, &(struct event){
		.kind = RECORD_REQUEST_OTHER, .has_fua = true,
		.length = oracle->bytes & ~(SECTOR_BYTES - 1ull),
		.received = submitted, .replied = RECORD_NEVER,
		.from_received = received, .from_replied = replied,
	});
}

void
oracle_end(struct oracle *oracle, size_t index, uint64_t completed,
    int64_t result)
{
	struct event *event = &oracle->events[index];

	assert(index < oracle->events_count);
	assert(completed > event->received && event->replied == RECORD_NEVER);
	event->replied = completed;
	event->failed = result < 0;
	oracle->is_settled = false;
}

void
oracle_add_log(struct oracle *oracle, const struct record_log *log)
{
	for (size_t i = 0; i < record_log_count(log); i++) {
		const struct record *entry = record_log_at(log, i);
		size_t index;

		if (entry->kind < RECORD_REQUEST_READ ||
		    entry->kind == RECORD_REQUEST_OTHER)
			continue;
		index = oracle_begin(oracle, entry);
		if (entry->completed != RECORD_NEVER)
			oracle_end(oracle, index, entry->completed,
			    entry->result);
	}
}

/* ---- what follows from it ---- */

static bool
can_be_required(const struct event *event)
{
	return (event->kind == RECORD_REQUEST_WRITE ||
	    event->kind == RECORD_REQUEST_ZERO ||
	    event->kind == RECORD_REQUEST_OTHER) &&
	    !event->failed && event->replied != RECORD_NEVER;
}

static uint64_t
stable_number(const struct oracle *oracle, const struct event *event)
{
	uint64_t stable = event->has_fua ? event->replied : RECORD_NEVER;

	for (size_t i = 0; i < oracle->events_count; i++) {
		const struct event *flush = &oracle->events[i];

		if (flush->kind == RECORD_REQUEST_FLUSH && !flush->failed &&
		    flush->received > event->replied &&
		    flush->replied < stable)
			stable = flush->replied;
	}
	return stable;
}

static void
settle(struct oracle *oracle)
{
	if (oracle->is_settled)
		return;
	for (size_t i = 0; i < oracle->events_count; i++) {
		struct event *event = &oracle->events[i];

		event->stable = can_be_required(event) ?
		    stable_number(oracle, event) : RECORD_NEVER;
	}
	oracle->is_settled = true;
}

static bool
covers(const struct event *event, uint64_t offset)
{
	return offset >= event->offset &&
	    offset - event->offset < event->length;
}

/* What was replied to before this number is gone for good. */
static uint64_t
cutoff(const struct oracle *oracle, const struct bucket *bucket,
    const struct view *view, uint64_t offset)
{
	uint64_t latest = 0;

	for (size_t i = 0; i < bucket->count; i++) {
		const struct event *event = &oracle->events[bucket->events[i]];
		uint64_t number = view->is_crash ? event->stable :
		    event->replied;

		if (covers(event, offset) && can_be_required(event) &&
		    number < view->required && event->received > latest)
			latest = event->received;
	}
	return latest;
}

/* The read whose result a copy writes; what it saw came before the copy. */
static struct view
view_of(const struct event *copy)
{
	return (struct view){
		.horizon = copy->from_replied,
		.required = copy->from_received,
	};
}

static enum oracle_verdict judge_value(const struct oracle *oracle,
    const struct view *view, uint64_t offset, enum sector_kind kind,
    uint64_t value);

static bool
event_wrote(const struct oracle *oracle, const struct event *event,
    uint64_t offset, enum sector_kind kind, uint64_t value)
{
	struct view view;

	switch (event->kind) {
	case RECORD_REQUEST_WRITE:
		return kind == SECTOR_LABELLED && event->value == value;
	case RECORD_REQUEST_OTHER:
		view = view_of(event);
		return judge_value(oracle, &view, offset, kind, value) ==
		    ORACLE_GOOD;
	default:
		return kind == SECTOR_ZERO;
	}
}

static enum oracle_verdict
judge_value(const struct oracle *oracle, const struct view *view,
    uint64_t offset, enum sector_kind kind, uint64_t value)
{
	const struct bucket *bucket = &oracle->buckets[offset / BUCKET_BYTES];
	uint64_t gone = cutoff(oracle, bucket, view, offset);
	bool has_initial = false;
	bool was_here = false;

	for (size_t i = 0; i < bucket->count; i++) {
		const struct event *event = &oracle->events[bucket->events[i]];

		if (!covers(event, offset))
			continue;
		has_initial |= event->received == 0;
		if (event->received >= view->horizon ||
		    !event_wrote(oracle, event, offset, kind, value))
			continue;
		if (event->replied >= gone)
			return ORACLE_GOOD;
		was_here = true;
	}
	if (kind == SECTOR_ZERO && !has_initial && gone == 0)
		return ORACLE_GOOD;
	if (was_here || (kind == SECTOR_ZERO && !has_initial))
		return ORACLE_LOST;
	return ORACLE_FOREIGN;
}

static enum oracle_verdict
judge(struct oracle *oracle, const struct view *view, uint64_t offset,
    const uint8_t *data, size_t length, struct oracle_finding *finding)
{
	assert((offset | length) % SECTOR_BYTES == 0);
	assert(offset <= oracle->bytes && length <= oracle->bytes - offset);
	for (size_t done = 0; done < length; done += SECTOR_BYTES) {
		struct sector_label label = {0};
		enum sector_kind kind = sector_parse(data + done, &label);
		enum oracle_verdict verdict;

		if (kind == SECTOR_GARBAGE)
			verdict = ORACLE_GARBAGE;
		else if (kind == SECTOR_LABELLED &&
		    (label.seed != oracle->seed ||
		    label.offset != offset + done))
			verdict = ORACLE_FOREIGN;
		else
			verdict = judge_value(oracle, view, offset + done,
			    kind, label.value);
		if (verdict == ORACLE_GOOD)
			continue;
		*finding = (struct oracle_finding){
			.verdict = verdict, .offset = offset + done,
			.kind = kind, .label = label,
		};
		return verdict;
	}
	return ORACLE_GOOD;
}

enum oracle_verdict
oracle_judge_crash(struct oracle *oracle, uint64_t point, uint64_t offset,
    const void *data, size_t length, struct oracle_finding *finding)
{
	struct view view = {
		.horizon = point, .required = point, .is_crash = true,
	};

	settle(oracle);
	return judge(oracle, &view, offset, data, length, finding);
}

bool
oracle_is_untouched(const struct oracle *oracle, uint64_t offset,
    uint64_t length)
{
	assert(length > 0 && length <= BUCKET_BYTES);
	return oracle->buckets[offset / BUCKET_BYTES].count == 0 &&
	    oracle->buckets[(offset + length - 1) / BUCKET_BYTES].count == 0;
}

/* ---- all that is allowed, as a number ---- */

static int
compare_numbers(const void *a, const void *b)
{
	const uint64_t *x = a;
	const uint64_t *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Sorts numbers and leaves one of each; how many. */
static size_t
sort_unique(uint64_t *numbers, size_t count)
{
	size_t kept = 0;

	qsort(numbers, count, sizeof(*numbers), compare_numbers);
	for (size_t i = 0; i < count; i++) {
		if (kept == 0 || numbers[i] != numbers[kept - 1])
			numbers[kept++] = numbers[i];
	}
	return kept;
}

static uint64_t allowed_at(const struct oracle *oracle,
    const struct view *view, uint64_t offset);

/* Zeros are the value 0 here, which no write has; a copy's is all it may be. */
static uint64_t
value_of(const struct oracle *oracle, const struct event *event,
    uint64_t offset)
{
	struct view view;

	switch (event->kind) {
	case RECORD_REQUEST_WRITE:
		return event->value;
	case RECORD_REQUEST_OTHER:
		view = view_of(event);
		return allowed_at(oracle, &view, offset);
	default:
		return 0;
	}
}

/* values has room for all. */
static uint64_t
mix_allowed(const struct oracle *oracle, const struct view *view,
    uint64_t offset, uint64_t *values)
{
	const struct bucket *bucket = &oracle->buckets[offset / BUCKET_BYTES];
	uint64_t gone = cutoff(oracle, bucket, view, offset);
	bool has_initial = false;
	size_t count = 0;
	uint64_t hash = 0;

	for (size_t i = 0; i < bucket->count; i++) {
		const struct event *event = &oracle->events[bucket->events[i]];

		if (!covers(event, offset))
			continue;
		has_initial |= event->received == 0;
		if (event->received < view->horizon && event->replied >= gone)
			values[count++] = value_of(oracle, event, offset);
	}
	if (!has_initial && gone == 0)
		values[count++] = 0;
	count = sort_unique(values, count);
	for (size_t i = 0; i < count; i++)
		hash = random_mix(hash ^ random_mix(values[i] + i));
	return hash;
}

static uint64_t
allowed_at(const struct oracle *oracle, const struct view *view,
    uint64_t offset)
{
	uint64_t *values = calloc(oracle->events_count + 1, sizeof(*values));
	uint64_t hash;

	if (!values)
		abort();
	hash = mix_allowed(oracle, view, offset, values);
	free(values);
	return hash;
}

/* Where something else may be allowed than one sector before. */
static size_t
find_borders(const struct oracle *oracle, uint64_t *borders)
{
	size_t count = 0;

	borders[count++] = 0;
	for (size_t i = 0; i < oracle->events_count; i++) {
		const struct event *event = &oracle->events[i];

		borders[count++] = event->offset;
		borders[count++] = event->offset + event->length;
	}
	return sort_unique(borders, count);
}

uint64_t
oracle_allowed(struct oracle *oracle, uint64_t point)
{
	struct view view = {
		.horizon = point, .required = point, .is_crash = true,
	};
	uint64_t hash = 0, last = 0;
	uint64_t *borders;
	size_t count;

	settle(oracle);
	borders = calloc(2 * oracle->events_count + 1, sizeof(*borders));
	if (!borders)
		abort();
	count = find_borders(oracle, borders);
	for (size_t i = 0; i < count && borders[i] < oracle->bytes; i++) {
		uint64_t allowed = allowed_at(oracle, &view, borders[i]);

		if (allowed == last)
			continue;
		hash = random_mix(hash ^ random_mix(allowed ^ borders[i]));
		last = allowed;
	}
	free(borders);
	return hash;
}

enum oracle_verdict
oracle_judge_read(struct oracle *oracle, uint64_t received, uint64_t replied,
    uint64_t offset, const void *data, size_t length,
    struct oracle_finding *finding)
{
	struct view view = {.horizon = replied, .required = received};

	return judge(oracle, &view, offset, data, length, finding);
}

const char *
oracle_explain(const struct oracle_finding *finding, char *text, size_t size)
{
	static const char *const verdicts[] = {
		[ORACLE_GOOD] = "is good",
		[ORACLE_LOST] = "lost what was written there last",
		[ORACLE_FOREIGN] = "holds foreign data",
		[ORACLE_GARBAGE] = "holds garbage",
	};
	int length = snprintf(text, size, "the sector at 0x%" PRIx64 " %s",
	    finding->offset, verdicts[finding->verdict]);

	if (length < 0 || (size_t)length >= size)
		return text;
	if (finding->kind == SECTOR_ZERO)
		snprintf(text + length, size - (size_t)length,
		    ": it reads as zeros");
	else if (finding->kind == SECTOR_LABELLED)
		snprintf(text + length, size - (size_t)length,
		    ": value %" PRIu64 " of seed %" PRIu64
		    ", written for 0x%" PRIx64, finding->label.value,
		    finding->label.seed, finding->label.offset);
	return text;
}
