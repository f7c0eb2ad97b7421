/* SPDX-License-Identifier: MIT */
/*
 * A workload: which request comes next, and what came of those before.
 *
 * One workload feeds all connections of a run.  With verification it keeps a
 * model, one word for each block: the generation that was written last, and
 * whether a request is on its way there.  No two requests in flight meet in a
 * block, so what a read must return is always known.
 */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include "bench/histogram.h"
#include "bench/pattern.h"
#include "proto/request.h"

#define WORKLOAD_MISMATCHES_SHOWN	10
#define WORKLOAD_ERRORS_SHOWN		3

enum workload_operation {
	WORKLOAD_READ,		/* in order, from the start again at the end */
	WORKLOAD_WRITE,
	WORKLOAD_RANDOM_READ,
	WORKLOAD_RANDOM_WRITE,
	WORKLOAD_MIXED,		/* random reads and writes */
	WORKLOAD_TRIM,		/* in order */
	WORKLOAD_ZERO,		/* in order */
};

/* What is asked for; filled in by the caller of workload_create(). */
struct workload_plan {
	enum workload_operation operation;
	uint32_t block_bytes;
	uint64_t span_bytes;	/* the part of the export used, from 0 */
	uint64_t stride_bytes;	/* random: one block in each, 0 = anywhere */
	uint64_t requests_max;	/* 0: until the deadline */
	uint64_t deadline_ns;	/* of CLOCK_MONOTONIC, 0: none */
	uint64_t seed;
	unsigned read_percent;	/* of WORKLOAD_MIXED */
	unsigned flush_every;	/* one flush after so many writes, 0: none */
	bool fua;
	bool verify;
};

struct workload_counters {
	uint64_t reads, writes, trims, zeroes;	/* replied, good or not */
	uint64_t flushes;
	uint64_t bytes;		/* of requests that succeeded */
	uint64_t errors;	/* error replies */
	uint64_t mismatches;	/* sectors that were not as expected */
	uint64_t zero_sectors;	/* zeros where nothing was known */
};

struct workload {
	struct workload_plan plan;
	uint64_t blocks;
	uint64_t blocks_per_stride, strides;	/* 0 unless a stride is set */
	unsigned stride_bits;	/* of the permutation of strides, even */
	uint64_t random;	/* state of the generator */
	uint64_t issued;	/* requests without the flushes */
	uint64_t unflushed;	/* writes since the last flush */
	uint64_t generation;	/* of the last write */
	uint64_t *model;	/* NULL without verification */
	bool stopped;		/* the deadline is over */
	unsigned mismatches_shown;
	struct workload_counters counters;
	struct histogram latency;	/* of all but flushes, in ns */
	struct histogram flush_latency;
};

/* One request, from workload_next() to workload_done(). */
struct workload_request {
	uint64_t offset;
	uint32_t bytes;
	uint16_t command;	/* NBD_CMD_ */
	uint16_t flags;		/* NBD_CMD_FLAG_ */
	uint64_t generation;	/* a write's own, a read's expected, or 0 */
};

/*
 * Makes a workload; requests_in_flight is how many there can be at a time.
 * -EINVAL if the plan does not hold together, after a message on standard
 * error; -ENOMEM if the model does not fit in memory.
 */
int workload_create(const struct workload_plan *plan,
	unsigned requests_in_flight, struct workload **workloadp);
void workload_free(struct workload *workload);

/* Says what comes next; false if nothing does any more. */
bool workload_next(struct workload *workload, uint64_t now_ns,
	struct workload_request *request);

/* Fills the payload of a write as verification wants it. */
void workload_fill(const struct workload *workload,
	const struct workload_request *request, void *payload);

/*
 * Takes the reply into account.  error is 0 or a value of the wire; data is
 * what a read returned, or NULL where nobody looks at it.
 */
void workload_done(struct workload *workload,
	const struct workload_request *request, uint64_t latency_ns,
	uint32_t error, const void *data);

/* All requests that were replied to, without the flushes. */
static inline uint64_t
workload_requests(const struct workload_counters *counters)
{
	return counters->reads + counters->writes + counters->trims +
		counters->zeroes;
}

#endif
