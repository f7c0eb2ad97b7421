/* SPDX-License-Identifier: MIT */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "bench/workload.h"
#include "proto/error.h"

/* In the model's words, beside the generation. */
#define MODEL_BUSY	(1ull << 63)

/* Any 64-bit state will do as a seed. */
static uint64_t
random_next(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t
random_below(struct workload *workload, uint64_t limit)
{
	unsigned __int128 product = random_next(&workload->random);

	return (uint64_t)(product * limit >> 64);
}

/*
 * A permutation of the numbers below 2^stride_bits, keyed by the seed: a
 * Feistel network of four rounds.
 */
static uint64_t
permute(const struct workload *workload, uint64_t value)
{
	unsigned half_bits = workload->stride_bits / 2, round;
	uint64_t mask = (1ull << half_bits) - 1;
	uint64_t left = value >> half_bits, right = value & mask;
	uint64_t state, next;

	for (round = 0; round < 4; round++) {
		state = workload->plan.seed ^ right << 8 ^ round;
		next = left ^ (random_next(&state) & mask);
		left = right;
		right = next;
	}
	return left << half_bits | right;
}

/* A block in the nth stride of a random order that meets each stride once. */
static uint64_t
pick_by_stride(struct workload *workload, uint64_t n)
{
	uint64_t stride = n % workload->strides;

	/* The permutation is of a power of two; walk until it is inside. */
	do {
		stride = permute(workload, stride);
	} while (stride >= workload->strides);
	return stride * workload->blocks_per_stride +
		random_below(workload, workload->blocks_per_stride);
}

static uint64_t
pick_block(struct workload *workload)
{
	uint64_t block;

	switch (workload->plan.operation) {
	case WORKLOAD_RANDOM_READ:
	case WORKLOAD_RANDOM_WRITE:
	case WORKLOAD_MIXED:
		if (workload->strides)
			block = pick_by_stride(workload, workload->issued);
		else
			block = random_below(workload, workload->blocks);
		break;
	default:
		block = workload->issued % workload->blocks;
	}
	/* There are more blocks than requests in flight, so this ends. */
	while (workload->model && workload->model[block] & MODEL_BUSY)
		block = (block + 1) % workload->blocks;
	return block;
}

static uint16_t
pick_command(struct workload *workload)
{
	switch (workload->plan.operation) {
	case WORKLOAD_READ:
	case WORKLOAD_RANDOM_READ:
		return NBD_CMD_READ;
	case WORKLOAD_WRITE:
	case WORKLOAD_RANDOM_WRITE:
		return NBD_CMD_WRITE;
	case WORKLOAD_TRIM:
		return NBD_CMD_TRIM;
	case WORKLOAD_ZERO:
		return NBD_CMD_WRITE_ZEROES;
	case WORKLOAD_MIXED:
		break;
	}
	return random_below(workload, 100) < workload->plan.read_percent ?
		NBD_CMD_READ : NBD_CMD_WRITE;
}

/* Derives the blocks and strides; false, with a message, if it cannot be. */
static bool
lay_out(struct workload *workload, unsigned requests_in_flight)
{
	const struct workload_plan *plan = &workload->plan;

	workload->blocks = plan->span_bytes / plan->block_bytes;
	if (workload->blocks == 0) {
		warnx("the span of %" PRIu64 " bytes holds no block of %"
			PRIu32, plan->span_bytes, plan->block_bytes);
		return false;
	}
	if (plan->stride_bytes) {
		workload->strides = plan->span_bytes / plan->stride_bytes;
		workload->blocks_per_stride =
			plan->stride_bytes / plan->block_bytes;
		if (!workload->strides || !workload->blocks_per_stride ||
		    plan->stride_bytes % plan->block_bytes) {
			warnx("a stride is a multiple of the block size, "
				"and fits in the span");
			return false;
		}
		workload->stride_bits = 2;
		while (workload->strides > 1ull << workload->stride_bits)
			workload->stride_bits += 2;
	}
	if (plan->verify && plan->block_bytes % PATTERN_SECTOR_BYTES) {
		warnx("verification wants blocks of whole %u-byte sectors",
			PATTERN_SECTOR_BYTES);
		return false;
	}
	if (plan->verify && workload->blocks <= requests_in_flight) {
		warnx("verification wants more blocks than requests in flight"
			" (%" PRIu64 " and %u)", workload->blocks,
			requests_in_flight);
		return false;
	}
	return true;
}

int
workload_create(const struct workload_plan *plan, unsigned requests_in_flight,
	struct workload **workloadp)
{
	struct workload *workload;

	workload = calloc(1, sizeof(*workload));
	if (!workload)
		return -ENOMEM;
	workload->plan = *plan;
	workload->random = plan->seed;
	if (!lay_out(workload, requests_in_flight)) {
		workload_free(workload);
		return -EINVAL;
	}
	if (plan->verify) {
		workload->model = calloc(workload->blocks, sizeof(uint64_t));
		if (!workload->model) {
			workload_free(workload);
			return -ENOMEM;
		}
	}
	*workloadp = workload;
	return 0;
}

void
workload_free(struct workload *workload)
{
	if (!workload)
		return;
	free(workload->model);
	free(workload);
}

bool
workload_next(struct workload *workload, uint64_t now_ns,
	struct workload_request *request)
{
	const struct workload_plan *plan = &workload->plan;
	uint64_t block;

	if (plan->deadline_ns && now_ns >= plan->deadline_ns)
		workload->stopped = true;
	if (workload->stopped)
		return false;
	*request = (struct workload_request){ 0 };
	if (plan->flush_every && workload->unflushed >= plan->flush_every) {
		workload->unflushed = 0;
		request->command = NBD_CMD_FLUSH;
		return true;
	}
	if (plan->requests_max && workload->issued == plan->requests_max)
		return false;

	block = pick_block(workload);
	workload->issued++;
	request->offset = block * plan->block_bytes;
	request->bytes = plan->block_bytes;
	request->command = pick_command(workload);
	if (request->command != NBD_CMD_READ) {
		workload->unflushed++;
		request->flags = plan->fua ? NBD_CMD_FLAG_FUA : 0;
	}
	if (workload->model) {
		request->generation = request->command == NBD_CMD_WRITE ?
			++workload->generation : workload->model[block];
		workload->model[block] |= MODEL_BUSY;
	}
	return true;
}

void
workload_fill(const struct workload *workload,
	const struct workload_request *request, void *payload)
{
	pattern_fill(payload, request->bytes, request->offset,
		workload->plan.seed, request->generation);
}

/*
 * A block that this run has not written may hold any generation of the same
 * seed.  It may also hold zeros in a mixed run, which begins on whatever is
 * there; a run that only reads is told where data must be.
 */
static void
verify_read(struct workload *workload, const struct workload_request *request,
	const void *data)
{
	const struct pattern_expectation expected = {
		.seed = workload->plan.seed,
		.generation = request->generation,
		.zeros_allowed = !request->generation &&
			workload->plan.operation == WORKLOAD_MIXED,
	};
	struct pattern_mismatch first;
	uint64_t faults;

	faults = pattern_check(data, request->bytes, request->offset,
		&expected, &workload->counters.zero_sectors, &first);
	if (!faults)
		return;
	workload->counters.mismatches += faults;
	if (workload->mismatches_shown++ >= WORKLOAD_MISMATCHES_SHOWN)
		return;
	warnx("mismatch at 0x%" PRIx64 ": %s (generation %" PRIu64
		" expected; found %016" PRIx64 " offset 0x%" PRIx64
		" seed %" PRIu64 " generation %" PRIu64 ")",
		first.offset, first.reason, expected.generation,
		first.found[0], first.found[1], first.found[2],
		first.found[3]);
}

/* Takes the request out of the model; what a failed write left is unknown. */
static void
settle_model(struct workload *workload, const struct workload_request *request,
	uint32_t error)
{
	uint64_t *word;

	word = &workload->model[request->offset / workload->plan.block_bytes];
	if (request->command == NBD_CMD_WRITE)
		*word = error ? 0 : request->generation;
	else
		*word &= ~MODEL_BUSY;
}

static void
count(struct workload_counters *counters, uint16_t command)
{
	switch (command) {
	case NBD_CMD_READ:
		counters->reads++;
		break;
	case NBD_CMD_WRITE:
		counters->writes++;
		break;
	case NBD_CMD_TRIM:
		counters->trims++;
		break;
	case NBD_CMD_WRITE_ZEROES:
		counters->zeroes++;
		break;
	default:
		counters->flushes++;
	}
}

void
workload_done(struct workload *workload,
	const struct workload_request *request, uint64_t latency_ns,
	uint32_t error, const void *data)
{
	struct workload_counters *counters = &workload->counters;

	count(counters, request->command);
	if (request->command == NBD_CMD_FLUSH)
		histogram_add(&workload->flush_latency, latency_ns);
	else
		histogram_add(&workload->latency, latency_ns);
	if (error) {
		if (counters->errors++ < WORKLOAD_ERRORS_SHOWN)
			warnx("%s of %" PRIu32 " bytes at 0x%" PRIx64
				" failed: %s (%" PRIu32 ")",
				nbd_request_name(request->command),
				request->bytes, request->offset,
				nbd_error_name(error), error);
	} else {
		counters->bytes += request->bytes;
		if (data && request->command == NBD_CMD_READ)
			verify_read(workload, request, data);
	}
	if (workload->model && request->command != NBD_CMD_FLUSH)
		settle_model(workload, request, error);
}
