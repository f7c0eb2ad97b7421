/* SPDX-License-Identifier: MIT */
/* The simulator's draws, its event log, and the heap of what is to come. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include "runtime/sim_internal.h"

/* The least time of an operation. */
#define OPERATION_NS 1000

/* ---- memory ---- */

void *
sim_calloc(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);

	if (!memory) {
		fprintf(stderr, "the simulation is out of memory\n");
		abort();
	}
	return memory;
}

void *
sim_realloc(void *memory, size_t bytes)
{
	memory = realloc(memory, bytes);
	if (!memory) {
		fprintf(stderr, "the simulation is out of memory\n");
		abort();
	}
	return memory;
}

/* ---- the log and the draws ---- */

static void
hash_add(struct sim *sim, uint64_t value)
{
	sim->hash = random_mix(sim->hash ^ value) + value;
}

void
sim_log(struct sim *sim, const struct sim_log_entry *entry)
{
	hash_add(sim, sim->now_ns);
	hash_add(sim, (uint64_t)entry->kind << 32 | entry->loop_index);
	hash_add(sim, entry->object);
	hash_add(sim, entry->offset);
	hash_add(sim, entry->length);
	hash_add(sim, (uint64_t)entry->result);
	if (!sim->trace)
		return;
	fprintf(sim->trace, "%14" PRIu64 " loop %u %s %u 0x%" PRIx64 "+%" PRIu64
	    " = %" PRId64 "\n", sim->now_ns, entry->loop_index, entry->name,
	    entry->object, entry->offset, entry->length, entry->result);
}

void
sim_note(struct sim *sim, const char *text, uint64_t value)
{
	struct loop *loop = loop_self();

	sim_log(sim, &(struct sim_log_entry){
		.kind = SIM_LOG_NOTE, .name = text, .result = (int64_t)value,
		.loop_index = loop ? sim_loop_of(loop)->index : 0,
	});
}

uint64_t
sim_draw_ns(struct sim *sim, uint64_t least_ns, unsigned powers)
{
	uint64_t base_ns = least_ns << random_below(&sim->random, powers + 1);

	return base_ns + random_below(&sim->random, base_ns);
}

uint64_t
sim_operation_ns(struct sim *sim)
{
	return sim_draw_ns(sim, OPERATION_NS, sim->operation_powers);
}

/* ---- events: a binary heap of pointers ---- */

static bool
is_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->due_ns < b->due_ns ||
	    (a->due_ns == b->due_ns && a->number < b->number);
}

static void
heap_set(struct sim *sim, unsigned index, struct sim_event *event)
{
	sim->events[index] = event;
	event->heap_index = index + 1;
}

static void
heap_up(struct sim *sim, unsigned index)
{
	struct sim_event *event = sim->events[index];

	while (index > 0) {
		unsigned parent = (index - 1) / 2;

		if (!is_before(event, sim->events[parent]))
			break;
		heap_set(sim, index, sim->events[parent]);
		index = parent;
	}
	heap_set(sim, index, event);
}

static void
heap_down(struct sim *sim, unsigned index)
{
	struct sim_event *event = sim->events[index];

	for (;;) {
		unsigned child = 2 * index + 1;

		if (child >= sim->events_count)
			break;
		if (child + 1 < sim->events_count &&
		    is_before(sim->events[child + 1], sim->events[child]))
			child++;
		if (!is_before(sim->events[child], event))
			break;
		heap_set(sim, index, sim->events[child]);
		index = child;
	}
	heap_set(sim, index, event);
}

void
sim_event_start(struct sim *sim, struct sim_event *event, uint64_t delay_ns)
{
	assert(event->heap_index == 0);
	if (sim->events_count == sim->events_room) {
		sim->events_room = 2 * sim->events_room + 64;
		sim->events = sim_realloc(sim->events,
		    sim->events_room * sizeof(*sim->events));
	}
	event->due_ns = sim->now_ns + delay_ns;
	event->number = sim->events_started++;
	sim->events[sim->events_count++] = event;
	heap_up(sim, sim->events_count - 1);
}

void
sim_event_stop(struct sim *sim, struct sim_event *event)
{
	unsigned index = event->heap_index - 1;
	struct sim_event *last;

	if (event->heap_index == 0)
		return;
	event->heap_index = 0;
	last = sim->events[--sim->events_count];
	if (last == event)
		return;
	heap_set(sim, index, last);
	heap_up(sim, index);
	heap_down(sim, last->heap_index - 1);
}
