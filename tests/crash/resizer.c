/* SPDX-License-Identifier: MIT */
#include "tests/crash/resizer.h"

#include <errno.h>
#include "qcow2/image_resize.h"
#include "qcow2/internal.h"
#include "tests/crash/crew.h"

/* The longest pause between two. */
#define PAUSE_NS_MAX 20000000ull

/* Clusters that are set aside, or filled, at most. */
#define ROOM_CLUSTERS_MAX 40

const char *
resizer_preallocation_name(uint64_t preallocation)
{
	static const char *const names[] = {
		[CREATE_OFF] = "off", [CREATE_METADATA] = "metadata",
		[CREATE_FALLOC] = "falloc", [CREATE_FULL] = "full",
	};

	return preallocation <= CREATE_FULL ? names[preallocation] : "?";
}

/* ---- what the oracle is told ---- */

/* An event of its own, which has ended if it is certain. */
static size_t
tell_zeros(struct crew *crew, uint64_t begin, uint64_t end, uint64_t received,
    bool certain)
{
	struct record zeros = {
		.kind = certain ? RECORD_REQUEST_ZERO : RECORD_REQUEST_TRIM,
		.flags = RECORD_FUA, .submitted = received,
		.offset = (begin + SECTOR_BYTES - 1) & ~(SECTOR_BYTES - 1ull),
	};

	end &= ~(SECTOR_BYTES - 1ull);
	if (end > zeros.offset)
		zeros.length = end - zeros.offset;
	return oracle_begin(crew->oracle, &zeros);
}

/* The shortest that the disk, or a snapshot of it, has been so far. */
static uint64_t
shortest(const struct crew *crew)
{
	uint64_t min = UINT64_MAX;

	for (unsigned i = 0; i < crew->lengths.count; i++) {
		const struct length_change *change = &crew->lengths.list[i];

		if (!change->is_copy && change->bytes < min)
			min = change->bytes;
	}
	return min;
}

/* How long it may be before it begins, for all that others do beside it. */
static void
bounds_now(const struct crew *crew, uint64_t *minp, uint64_t *maxp)
{
	uint64_t now = record_log_next(crew->log);

	lengths_bounds(&crew->lengths, (struct length_view){now, now}, minp,
	    maxp);
	if (crew->keeper.running > 0 || crew->options.operations > 0)
		*minp = shortest(crew);
}

/* ---- one of them ---- */

static bool
may_fail(struct crew *crew, int err)
{
	if (err == -ENOTSUP && crew->image_version < 3) {
		crew->keeper.refused++;
		return true;
	}
	return crew->options.troubled ||
	    (err == -ENOSPC && crew->options.may_fill);
}

co_fn static int
ask(struct crew *crew, uint64_t bytes, unsigned preallocation,
    struct error *error)
{
	struct image_resize how = {
		.size_bytes = bytes, .shrink = true,
		.preallocation = (enum create_preallocation)preallocation,
	};

	return image_resize(crew->image, &how, error);
}

/* What it has done to the content, from old bytes on if that is known. */
static void
tell_end(struct crew *crew, const struct record *entry, uint64_t old_bytes,
    bool certain)
{
	uint64_t bytes = entry->offset, end = crew->size_bytes;
	uint64_t at = entry->completed;
	size_t zeros;

	if (certain && bytes > old_bytes) {
		zeros = tell_zeros(crew, old_bytes, bytes, entry->submitted,
		    true);
		oracle_end(crew->oracle, zeros, at, 0);
	} else if (bytes < end) {
		zeros = tell_zeros(crew, bytes, end, at, certain);
		oracle_end(crew->oracle, zeros, at + 1, 0);
	}
}

void
resizer_do(struct crew *crew, uint64_t bytes, unsigned preallocation)
{
	struct record request = {
		.kind = RECORD_REQUEST_OTHER, .source = RESIZER_SOURCE,
		.value = preallocation, .offset = bytes,
	};
	struct keeper *keeper = &crew->keeper;
	uint64_t min_bytes, max_bytes;
	const struct record *entry;
	struct error error;
	size_t index, zeros;
	unsigned change, begun;
	bool alone;
	int err;

	bounds_now(crew, &min_bytes, &max_bytes);
	index = record_begin(crew->log, &request);
	entry = record_log_at(crew->log, index);
	change = lengths_change(&crew->lengths, entry->submitted, bytes);
	zeros = tell_zeros(crew, min_bytes, bytes, entry->submitted, false);
	alone = keeper->running++ == 0;
	begun = ++keeper->begun;
	err = ask(crew, bytes, preallocation, &error);
	alone = alone && keeper->begun == begun;
	keeper->running--;
	record_end(crew->log, index, err);
	oracle_end(crew->oracle, zeros, entry->completed, err);
	lengths_end(&crew->lengths, change, entry->completed, !err ?
	    LENGTH_CHANGED : err == -ENOTSUP ? LENGTH_KEPT : LENGTH_UNKNOWN);
	keeper->done += !err;
	if (!err && bytes != max_bytes)
		tell_end(crew, entry, max_bytes, alone);
	else if (err != -ENOTSUP && bytes < max_bytes)
		tell_end(crew, entry, max_bytes, false);
	if (err && !may_fail(crew, err))
		crew_fail(crew, "%s", error.message);
}

/* ---- at random ---- */

/* To any sector, to clusters, near the borders of tables, or a little. */
static uint64_t
choose_length(struct crew *crew)
{
	uint64_t max = crew->size_bytes & ~511ull;
	uint64_t cluster = crew->cluster_bytes;
	uint64_t span = cluster * (cluster / ENTRY_BYTES);
	uint64_t bytes;

	switch (sim_below(crew->sim, 4)) {
	case 0:
		bytes = sim_below(crew->sim, max / SECTOR_BYTES) *
		    SECTOR_BYTES;
		break;
	case 1:
		bytes = sim_below(crew->sim, max / cluster + 1) * cluster;
		break;
	case 2:
		bytes = sim_below(crew->sim, max / span + 1) * span +
		    sim_below(crew->sim, 3) * SECTOR_BYTES;
		break;
	default:
		bytes = image_size_bytes(crew->image) + 2 * cluster -
		    sim_below(crew->sim, 4 * cluster / SECTOR_BYTES) *
		    SECTOR_BYTES;
		break;
	}
	bytes &= ~(SECTOR_BYTES - 1ull);
	/* It has wrapped. */
	if (bytes > 2 * max || bytes < SECTOR_BYTES)
		return SECTOR_BYTES;
	return bytes < max ? bytes : max;
}

static unsigned
choose_preallocation(struct crew *crew, uint64_t bytes)
{
	uint64_t draw = sim_below(crew->sim, 2 * (CREATE_FULL + 1));

	return draw > CREATE_FULL || bytes > image_size_bytes(crew->image) +
	    ROOM_CLUSTERS_MAX * crew->cluster_bytes ? CREATE_OFF :
	    (unsigned)draw;
}

void
resizer_work(struct crew *crew)
{
	for (unsigned i = 0; i < crew->options.resizes; i++) {
		uint64_t bytes;

		loop_sleep(sim_below(crew->sim, PAUSE_NS_MAX));
		bytes = choose_length(crew);
		resizer_do(crew, bytes, choose_preallocation(crew, bytes));
	}
}
