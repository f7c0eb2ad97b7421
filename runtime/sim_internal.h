/* SPDX-License-Identifier: MIT */
/*
 * What the simulator, its sockets and its files share.
 *
 * An event is something that happens at a time: it stands in a heap, ordered
 * by time and then by its number.  Completions never run anything: they append
 * to their loop's completed list, which a turn of that loop takes over, as
 * the other engines do.
 */
#ifndef RUNTIME_SIM_INTERNAL_H
#define RUNTIME_SIM_INTERNAL_H

#include "runtime/loop_internal.h"
#include "runtime/random.h"
#include "runtime/sim.h"

/* Something that happens later; the owner's memory, zeros before its use. */
struct sim_event {
	uint64_t due_ns;
	uint64_t number;
	unsigned heap_index;	/* 1-based, 0: not started */
	void (*fire)(struct sim_event *event);
};

struct sim_loop {
	struct sim *sim;
	struct loop *loop;
	unsigned index;
	uint64_t runs_at_ns;		/* it is busy until then */
	struct task_list completed;	/* taken at the start of a turn */
	struct co *preempted;		/* stands still before a monitor */
	unsigned pooled_free;		/* buffers for OP_RECV_POOLED */
};

struct sim {
	struct random random;
	uint64_t now_ns;
	uint64_t hash;
	FILE *trace;
	bool running;
	bool stopping;
	uint64_t steps_max;
	unsigned preempt_one_in;
	unsigned operation_powers;
	unsigned step_powers;
	uint64_t events_started;
	struct sim_event **events;	/* a heap, [0] is the earliest */
	unsigned events_count;
	unsigned events_room;
	unsigned files_count;		/* numbers files in the log */
	unsigned held_count;		/* operations that tests hold */
	struct sim_socket **sockets;	/* by descriptor */
	unsigned sockets_count;
	unsigned loops_count;
	struct sim_loop loops[];
};

/* How things are called in the event log; the numbers go into the hash. */
enum sim_log_kind {
	SIM_LOG_STEP = 1,	/* a loop runs one task */
	SIM_LOG_PREEMPT,
	SIM_LOG_NOTE,
	SIM_LOG_SOCKET,		/* plus enum op_kind */
	SIM_LOG_FILE = 64,	/* plus FILE_SIM_... */
};

struct sim_log_entry {
	unsigned kind;		/* enum sim_log_kind, or above */
	const char *name;	/* for the trace */
	unsigned loop_index;
	unsigned object;	/* a file's number, a descriptor */
	uint64_t offset;
	uint64_t length;
	int64_t result;
};

void sim_log(struct sim *sim, const struct sim_log_entry *entry);

/*
 * A time from least_ns on, spread evenly over the powers of two, so that long
 * ones are as common as short ones; and one that an operation takes.
 */
uint64_t sim_draw_ns(struct sim *sim, uint64_t least_ns, unsigned powers);
uint64_t sim_operation_ns(struct sim *sim);

/* The event's fire is set.  Stopping one that is not started is fine. */
void sim_event_start(struct sim *sim, struct sim_event *event,
    uint64_t delay_ns);
void sim_event_stop(struct sim *sim, struct sim_event *event);

static inline struct sim_loop *
sim_loop_of(struct loop *loop)
{
	return loop->engine;
}

/* Like calloc() and realloc(), but they end the process. */
void *sim_calloc(size_t count, size_t bytes);
void *sim_realloc(void *memory, size_t bytes);

/* Called by the engine. */
void sim_socket_submit(struct sim_loop *loop, struct op *op);
void sim_socket_cancel(struct sim_loop *loop, struct op *op);
void sim_socket_recv_put(struct sim_loop *loop, struct op *op);
void sim_sockets_free(struct sim *sim);

#endif
