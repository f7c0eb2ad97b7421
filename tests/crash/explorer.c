/* SPDX-License-Identifier: MIT */
/*
 * Cost of a state: a clone of the floor (which holds what is stable and older
 * than anything pending) and the rest of the operations on top of it; the
 * content shares its pages with the floor, and so does its hash.
 */
#include "tests/crash/explorer.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/random.h"

static void *
allocate(size_t count, size_t bytes)
{
	void *memory = calloc(count + 1, bytes);

	if (!memory)
		abort();
	return memory;
}

/* ---- reading the log ---- */

static int
compare_numbers(const void *a, const void *b)
{
	const uint64_t *x = a;
	const uint64_t *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int
compare_moments(const void *a, const void *b)
{
	const struct moment *x = a;
	const struct moment *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static bool
is_sync_done(const struct record *record)
{
	return record->kind == RECORD_SYNC &&
	    record->completed != RECORD_NEVER && record->result == 0;
}

/* When an operation became stable; syncs are those of its file. */
static uint64_t
stable_number(const struct record *record, const struct record *const *syncs,
    size_t syncs_count)
{
	uint64_t stable = RECORD_NEVER;

	if (record->completed == RECORD_NEVER || record->result < 0)
		return RECORD_NEVER;
	if (record->flags & RECORD_DSYNC)
		stable = record->completed;
	for (size_t i = 0; i < syncs_count; i++) {
		if (record->completed < syncs[i]->submitted &&
		    syncs[i]->completed < stable)
			stable = syncs[i]->completed;
	}
	return stable;
}

static void
add_moment(struct explorer *explorer, uint64_t number, bool is_file)
{
	explorer->moments[explorer->moments_count++] =
	    (struct moment){number, is_file};
}

/* Before a request comes, more has been replied and less may show. */
static void
add_request(struct explorer *explorer, const struct record *record)
{
	explorer->requests[explorer->requests_count++] = record->submitted;
	add_moment(explorer, record->submitted, false);
	if (record->completed != RECORD_NEVER)
		explorer->requests[explorer->requests_count++] =
		    record->completed;
}

/*
 * The state just before a sync's completion, nothing lost, is also the one
 * after it, before anybody is told.
 */
static void
add_file_events(struct explorer *explorer, const struct record *record)
{
	add_moment(explorer, record->submitted, true);
	if (record->completed != RECORD_NEVER)
		add_moment(explorer, record->completed, true);
}

static void
add_operation(struct explorer *explorer, const struct record *record)
{
	explorer->operations[explorer->operations_count++] =
	    (struct operation){.record = record};
}

static void
set_stable(struct explorer *explorer, const struct record_log *log,
    unsigned source)
{
	const struct record **syncs = allocate(record_log_count(log),
	    sizeof(*syncs));
	size_t count = 0;

	for (size_t i = 0; i < record_log_count(log); i++) {
		const struct record *record = record_log_at(log, i);

		if (record->source == source && is_sync_done(record))
			syncs[count++] = record;
	}
	for (size_t i = 0; i < explorer->operations_count; i++)
		explorer->operations[i].stable = stable_number(
		    explorer->operations[i].record, syncs, count);
	free(syncs);
}

/* Which operations make the file longer, if none before them is lost. */
static void
set_growing(struct explorer *explorer)
{
	uint64_t size = (uint64_t)file_size(explorer->floor);

	if (!explorer->floor->is_regular)
		return;
	for (size_t i = 0; i < explorer->operations_count; i++) {
		struct operation *operation = &explorer->operations[i];
		uint64_t end = variant_end(operation->record);

		if (operation->record->kind == RECORD_TRUNCATE)
			size = operation->record->offset;
		operation->grows_file = end > size;
		if (end > size)
			size = end;
	}
}

void
explorer_open(struct explorer *explorer, const struct record_log *log,
    unsigned source, struct file *base)
{
	size_t entries = record_log_count(log);
	int err = file_sim_clone(base, NULL, &explorer->floor);

	assert(!err);
	explorer->operations = allocate(entries, sizeof(struct operation));
	explorer->live = allocate(entries, sizeof(*explorer->live));
	explorer->pending = allocate(entries, sizeof(*explorer->pending));
	explorer->moments = allocate(2 * entries + 1,
	    sizeof(*explorer->moments));
	explorer->requests = allocate(2 * entries, sizeof(uint64_t));
	for (size_t i = 0; i < entries; i++) {
		const struct record *record = record_log_at(log, i);

		if (record->kind >= RECORD_REQUEST_READ) {
			add_request(explorer, record);
			continue;
		}
		if (record->source != source || record->kind == RECORD_READ)
			continue;
		add_file_events(explorer, record);
		if (record->kind != RECORD_SYNC)
			add_operation(explorer, record);
	}
	add_moment(explorer, record_log_next(log), true);
	qsort(explorer->moments, explorer->moments_count,
	    sizeof(*explorer->moments), compare_moments);
	qsort(explorer->requests, explorer->requests_count, sizeof(uint64_t),
	    compare_numbers);
	set_stable(explorer, log, source);
	set_growing(explorer);
}

void
explorer_close(struct explorer *explorer)
{
	file_close(explorer->floor);
	free(explorer->operations);
	free(explorer->live);
	free(explorer->pending);
	free(explorer->moments);
	free(explorer->requests);
	seen_free(&explorer->seen);
}

/* How many request events happened before the point. */
static size_t
requests_before(const struct explorer *explorer)
{
	size_t low = 0, high = explorer->requests_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (explorer->requests[middle] < explorer->point)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* ---- states that were seen ---- */

/* True the first time. */
static bool
is_new(struct explorer *explorer, uint64_t hash)
{
	struct seen *seen = explorer->options->seen ?
	    explorer->options->seen : &explorer->seen;

	return seen_add(seen, random_mix(hash ^
	    random_mix(explorer->context)));
}

/* ---- the point ---- */

/* Completed ones by completion, then those in flight by submission. */
static bool
is_before(const struct operation *a, const struct operation *b, uint64_t point)
{
	bool a_done = a->record->completed < point;
	bool b_done = b->record->completed < point;

	if (a_done && b_done)
		return a->record->completed < b->record->completed;
	if (a_done != b_done)
		return a_done;
	return a->record->submitted < b->record->submitted;
}

/* Insertion: it is nearly sorted already. */
static void
live_insert(struct explorer *explorer, struct operation *operation)
{
	size_t at = explorer->live_count++;

	while (at > 0 && is_before(operation, explorer->live[at - 1],
	    explorer->point)) {
		explorer->live[at] = explorer->live[at - 1];
		at--;
	}
	explorer->live[at] = operation;
}

/* What is stable and has nothing pending before it stays for ever. */
static void
raise_floor(struct explorer *explorer)
{
	size_t count = 0;

	while (count < explorer->live_count &&
	    explorer->live[count]->stable < explorer->point) {
		variant_apply(explorer->floor, explorer->live[count]->record,
		    VARIANT_WHOLE, explorer->options);
		explorer->live[count]->in_floor = true;
		count++;
	}
	explorer->live_count -= count;
	memmove(explorer->live, explorer->live + count,
	    explorer->live_count * sizeof(*explorer->live));
}

void
explorer_go_to(struct explorer *explorer, uint64_t point)
{
	const struct crash_options *options = explorer->options;

	explorer->point = point;
	explorer->context = options->context ?
	    options->context(point, options->context_arg) :
	    requests_before(explorer);
	explorer->live_count = 0;
	while (explorer->first_live < explorer->operations_count &&
	    explorer->operations[explorer->first_live].in_floor)
		explorer->first_live++;
	for (size_t i = explorer->first_live;
	    i < explorer->operations_count; i++) {
		struct operation *operation = &explorer->operations[i];

		if (operation->record->submitted >= point)
			break;
		if (!operation->in_floor)
			live_insert(explorer, operation);
	}
	raise_floor(explorer);
	explorer->pending_count = 0;
	for (size_t i = 0; i < explorer->live_count; i++) {
		if (explorer->live[i]->stable >= point)
			explorer->pending[explorer->pending_count++] =
			    explorer->live[i];
	}
}

/* ---- building one state ---- */

void
explorer_set_pending(struct explorer *explorer, enum variant variant)
{
	for (size_t i = 0; i < explorer->pending_count; i++)
		explorer->pending[i]->variant = variant;
}

static enum variant
variant_at(const struct explorer *explorer, const struct operation *operation)
{
	return operation->stable < explorer->point ? VARIANT_WHOLE :
	    operation->variant;
}

/*
 * The other order: of operations that overlap in place and in time, the one
 * that came first is applied last.  Others keep their order.
 */
static void
build_reversed(struct explorer *explorer, struct file *file)
{
	size_t count = explorer->live_count;
	bool *applied = allocate(count, sizeof(*applied));

	for (size_t done = 0; done < count; done++) {
		size_t pick = count;

		while (pick-- > 0) {
			size_t i = 0;

			if (applied[pick])
				continue;
			while (i < pick && (applied[i] || !variant_must_precede(
			    explorer->live[i]->record,
			    explorer->live[pick]->record)))
				i++;
			if (i == pick)
				break;
		}
		applied[pick] = true;
		variant_apply(file, explorer->live[pick]->record,
		    variant_at(explorer, explorer->live[pick]),
		    explorer->options);
	}
	free(applied);
}

static void
build(struct explorer *explorer, struct file *file)
{
	for (size_t i = 0; i < explorer->live_count; i++)
		variant_apply(file, explorer->live[i]->record,
		    variant_at(explorer, explorer->live[i]),
		    explorer->options);
}

/* Whether the state that is next has one of the numbers asked for. */
static bool
is_asked_for(const struct explorer *explorer)
{
	const struct crash_options *options = explorer->options;
	uint64_t number = explorer->counts.states;

	return number >= options->first &&
	    (options->count == 0 || number - options->first < options->count);
}

int
explorer_try(struct explorer *explorer, bool reversed, const char *what,
    const struct operation *operation)
{
	struct crash_state state = {
		.number = explorer->counts.states, .point = explorer->point,
	};
	char about[160] = "";
	char text[256];
	int result = 0;
	int err;

	if (!is_asked_for(explorer)) {
		explorer->counts.states++;
		return 0;
	}
	explorer->counts.states++;
	err = file_sim_clone(explorer->floor, NULL, &state.file);
	assert(!err);
	if (reversed)
		build_reversed(explorer, state.file);
	else
		build(explorer, state.file);
	state.hash = file_sim_hash(state.file);
	if (is_new(explorer, state.hash)) {
		explorer->counts.distinct++;
		if (operation)
			variant_describe(operation->record, about,
			    sizeof(about));
		snprintf(text, sizeof(text), "state %" PRIu64 ", crash at %"
		    PRIu64 ": %s%s", state.number, state.point, what,
		    about);
		state.text = text;
		result = explorer->visit(&state, explorer->arg);
	}
	file_close(state.file);
	return result;
}
