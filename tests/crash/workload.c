/* SPDX-License-Identifier: MIT */
#include "tests/crash/workload.h"

#include <string.h>
#include "tests/crash/sequence.h"
#include "tests/schedule/server_crew.h"

enum play {
	PLAY_RANDOM,
	PLAY_SEQUENCE,	/* one request after the other */
	PLAY_BURST,	/* all at once */
};

struct workload {
	const char *name;
	enum play play;
	/* What is enumerated, and how many there are. */
	unsigned (*sequence)(uint64_t number, uint64_t cluster_bytes,
	    uint64_t disk_bytes, struct record requests[SEQUENCE_LENGTH_MAX]);
	uint64_t sequences;
	struct crew_options options;
};

#define ENUMERATED .sequence = sequence_requests, .sequences = SEQUENCE_COUNT
#define ENUMERATED_SNAPSHOT .sequence = sequence_with_snapshot, \
	.sequences = SEQUENCE_SNAPSHOT_COUNT
#define ENUMERATED_RESIZE .sequence = sequence_with_resize, \
	.sequences = SEQUENCE_RESIZE_COUNT

static const struct workload workloads[] = {
	/* Allocation, and flushes of others. */
	{.name = "fill", .options = {
		.loops = 2, .clients = 3, .requests = 8,
		.writes = 6, .flushes = 2, .fua_one_in = 6,
		.length_max = 8192, .places = 3, .place_bytes = 16384,
	}},
	/* From the first sector to the last. */
	{.name = "sequential", .options = {
		.loops = 2, .clients = 2, .requests = 10, .sequential = true,
		.writes = 6, .flushes = 1, .fua_one_in = 12,
		.length_max = 65536,
	}},
	/* 4 KiB anywhere. */
	{.name = "random", .options = {
		.loops = 2, .clients = 3, .requests = 8, .fixed_bytes = 4096,
		.writes = 6, .flushes = 1, .fua_one_in = 12,
	}},
	/* Clusters come and go: copy-on-write, zeros, trims, reuse. */
	{.name = "churn", .options = {
		.loops = 2, .clients = 3, .requests = 10,
		.writes = 5, .zeros = 2, .trims = 2, .flushes = 3,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192,
	}},
	/* The same few clusters at a time, given back and taken again. */
	{.name = "collide", .options = {
		.loops = 2, .clients = 4, .requests = 8,
		.writes = 4, .zeros = 3, .trims = 3, .flushes = 2,
		.fua_one_in = 8, .length_max = 8192,
		.places = 1, .place_bytes = 4096,
	}},
	/* Hardly anything but zeros and holes. */
	{.name = "zero", .options = {
		.loops = 2, .clients = 3, .requests = 8,
		.writes = 2, .zeros = 5, .trims = 3, .flushes = 2,
		.fua_one_in = 4, .length_max = 16384,
		.places = 2, .place_bytes = 16384,
	}},
	/* Much at once: new refcount blocks, larger tables, new reserves. */
	{.name = "grow", .options = {
		.loops = 2, .clients = 2, .requests = 10,
		.writes = 6, .zeros = 1, .trims = 1, .flushes = 3,
		.fua_one_in = 8, .length_max = 400000,
		.places = 8, .place_bytes = 65536,
	}},
	/* On content that is there: shared, compressed, of a backing file. */
	{.name = "overwrite", .options = {
		.loops = 2, .clients = 3, .requests = 8,
		.writes = 5, .zeros = 1, .trims = 1, .flushes = 4,
		.fua_one_in = 4, .length_max = 4096,
		.places = 4, .place_bytes = 8192, .content = CREW_FILLED,
	}},
	/* The same on what stands below an empty image. */
	{.name = "cover", .options = {
		.loops = 2, .clients = 3, .requests = 8,
		.writes = 5, .zeros = 1, .trims = 1, .flushes = 4,
		.fua_one_in = 4, .length_max = 4096,
		.places = 4, .place_bytes = 8192,
	}},
	/* The same few clusters, a flush after most writes. */
	{.name = "flush", .options = {
		.loops = 2, .clients = 4, .requests = 8,
		.writes = 4, .zeros = 1, .trims = 1, .flushes = 5,
		.fua_one_in = 2, .length_max = 4096,
		.places = 2, .place_bytes = 4096,
	}},
	/* Compressed clusters, packed, freed and written over. */
	{.name = "pack", .options = {
		.loops = 2, .clients = 3, .requests = 12,
		.writes = 7, .zeros = 1, .trims = 3, .flushes = 3,
		.compressed_one_in = 2, .fua_one_in = 8, .length_max = 4096,
		.places = 2, .place_bytes = 16384,
	}},
	/* Clusters that keep their place, and are punched. */
	{.name = "stay", .options = {
		.loops = 2, .clients = 3, .requests = 10,
		.discard = IMAGE_DISCARD_NO_UNREF,
		.writes = 5, .zeros = 2, .trims = 3, .flushes = 3,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192,
	}},
	/* The same on content that is there, of which some cannot stay. */
	{.name = "stay-full", .options = {
		.loops = 2, .clients = 3, .requests = 10,
		.discard = IMAGE_DISCARD_NO_UNREF,
		.writes = 5, .zeros = 2, .trims = 3, .flushes = 3,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192, .content = CREW_FILLED,
	}},
	/* Zeros that leave clusters where they are, as found in writes. */
	{.name = "detect", .options = {
		.loops = 2, .clients = 3, .requests = 10, .leaves_room = true,
		.writes = 5, .zeros = 4, .trims = 1, .flushes = 3,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192,
	}},
	{.name = "detect-full", .options = {
		.loops = 2, .clients = 3, .requests = 10, .leaves_room = true,
		.writes = 5, .zeros = 4, .trims = 1, .flushes = 3,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192, .content = CREW_FILLED,
	}},
	/* Closed with everything in the air. */
	{.name = "close", .options = {
		.loops = 2, .clients = 3, .requests = 5, .closes = true,
		.writes = 5, .zeros = 2, .trims = 3, .flushes = 1,
		.length_max = 8192, .places = 2, .place_bytes = 8192,
	}},
	/* The disk is full, and then it has room again. */
	{.name = "full", .options = {
		.loops = 2, .clients = 3, .requests = 12,
		.may_fill = true, .room_bytes = 65536,
		.writes = 6, .zeros = 2, .trims = 2, .flushes = 2,
		.fua_one_in = 8, .length_max = 16384,
		.places = 3, .place_bytes = 16384,
	}},
	/* Four connections with sixteen requests each. */
	{.name = "crowd", .options = {
		.loops = 4, .clients = 64, .requests = 1,
		.writes = 6, .zeros = 1, .trims = 1, .flushes = 4,
		.fua_one_in = 4, .length_max = 4096,
		.places = 3, .place_bytes = 16384,
	}},
	/* Snapshots come and go, and come back. */
	{.name = "snapshots", .options = {
		.loops = 2, .clients = 3, .requests = 6,
		.writes = 6, .zeros = 1, .trims = 2, .flushes = 3,
		.fua_one_in = 6, .length_max = 4096,
		.places = 2, .place_bytes = 8192,
		.operations = 4, .creates = 4, .deletes = 2, .applies = 2,
	}},
	/* The same on content that is there, and on a snapshot of it. */
	{.name = "snapshots-full", .options = {
		.loops = 2, .clients = 3, .requests = 6,
		.writes = 6, .zeros = 1, .trims = 2, .flushes = 3,
		.fua_one_in = 6, .length_max = 4096,
		.places = 2, .place_bytes = 8192, .content = CREW_FILLED,
		.operations = 4, .creates = 3, .deletes = 3, .applies = 2,
	}},
	/* The disk becomes longer and shorter. */
	{.name = "resize", .options = {
		.loops = 2, .clients = 3, .requests = 6,
		.writes = 6, .zeros = 1, .trims = 2, .flushes = 3,
		.fua_one_in = 6, .length_max = 4096,
		.places = 3, .place_bytes = 8192,
		.resizes = 4, .growth = 3,
	}},
	{.name = "resize-full", .options = {
		.loops = 2, .clients = 3, .requests = 6,
		.writes = 6, .zeros = 1, .trims = 2, .flushes = 3,
		.fua_one_in = 6, .length_max = 4096,
		.places = 3, .place_bytes = 8192, .content = CREW_FILLED,
		.resizes = 4, .growth = 3,
	}},
	/* While snapshots of it come and go. */
	{.name = "resize-snapshots", .options = {
		.loops = 2, .clients = 2, .requests = 6,
		.writes = 6, .zeros = 1, .trims = 2, .flushes = 3,
		.fua_one_in = 6, .length_max = 4096,
		.places = 2, .place_bytes = 8192,
		.operations = 3, .creates = 3, .deletes = 2, .applies = 2,
		.resizes = 3, .growth = 3,
	}},
	/* Closed as soon as all that has returned. */
	{.name = "resize-close", .options = {
		.loops = 2, .clients = 2, .requests = 4, .closes = true,
		.writes = 5, .zeros = 2, .trims = 3, .flushes = 1,
		.length_max = 8192, .places = 2, .place_bytes = 8192,
		.resizes = 3, .growth = 3,
	}},
	/* Where it is full, and then has room again. */
	{.name = "resize-tight", .options = {
		.loops = 2, .clients = 2, .requests = 8,
		.may_fill = true, .room_bytes = 49152,
		.writes = 6, .zeros = 2, .trims = 2, .flushes = 2,
		.fua_one_in = 8, .length_max = 8192,
		.places = 3, .place_bytes = 16384,
		.resizes = 6, .growth = 3,
	}},
	/* Opened anew again and again, in place. */
	{.name = "reopen", .options = {
		.loops = 2, .clients = 3, .requests = 10, .reopenings = 3,
		.writes = 6, .zeros = 1, .trims = 2, .flushes = 1,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192,
	}},
	{.name = "reopen-full", .options = {
		.loops = 2, .clients = 3, .requests = 10, .reopenings = 3,
		.writes = 6, .zeros = 1, .trims = 2, .flushes = 1,
		.fua_one_in = 8, .length_max = 8192,
		.places = 2, .place_bytes = 8192, .content = CREW_FILLED,
	}},
	/* Through the server: what counts are its replies. */
	{.name = "served", .options = {
		.loops = 2, .clients = 3, .requests = 10,
		.reads = 1, .writes = 5, .zeros = 1, .trims = 1, .flushes = 4,
		.fua_one_in = 4, .length_max = 4096,
		.places = 2, .place_bytes = 4096, .served = true,
	}},
	/* One client that never flushes, but leaves, and comes again. */
	{.name = "leave", .options = {
		.loops = 2, .clients = 1, .requests = 12,
		.reads = 1, .writes = 6, .zeros = 1, .trims = 1,
		.length_max = 8192,
		.places = 2, .place_bytes = 8192, .served = true,
	}},
	{.name = "sequences", .play = PLAY_SEQUENCE, ENUMERATED, .options = {
		.loops = 2, .content = CREW_PLACES,
	}},
	{.name = "bursts", .play = PLAY_BURST, ENUMERATED, .options = {
		.loops = 2, .content = CREW_PLACES,
	}},
	{.name = "snapshot-sequences", .play = PLAY_SEQUENCE,
	    ENUMERATED_SNAPSHOT, .options = {
		.loops = 2, .content = CREW_PLACES,
	}},
	{.name = "snapshot-bursts", .play = PLAY_BURST,
	    ENUMERATED_SNAPSHOT, .options = {
		.loops = 2, .content = CREW_PLACES,
	}},
	{.name = "resize-sequences", .play = PLAY_SEQUENCE,
	    ENUMERATED_RESIZE, .options = {
		.loops = 2, .content = CREW_PLACES, .growth = 3,
	}},
	{.name = "resize-bursts", .play = PLAY_BURST,
	    ENUMERATED_RESIZE, .options = {
		.loops = 2, .content = CREW_PLACES, .growth = 3,
	}},
};

const struct workload *
workload_find(const char *name)
{
	for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++)
		if (!strcmp(workloads[i].name, name))
			return &workloads[i];
	return NULL;
}

static void
play(const struct workload *workload, uint64_t number, struct crew *crew)
{
	struct record requests[SEQUENCE_LENGTH_MAX];
	unsigned count;

	if (!crew->image)
		return;
	count = workload->sequence(number, image_cluster_bytes(crew->image),
	    image_size_bytes(crew->image), requests);
	crew_play(crew, requests, count, workload->play == PLAY_BURST);
}

void
workload_run(const struct workload *workload, uint64_t seed,
    struct file *base, struct file *backing, bool backing_is_raw,
    struct crew *crew)
{
	struct crew_options options = workload->options;
	bool is_random = workload->play == PLAY_RANDOM;
	uint64_t sequences = is_random ? 1 : workload->sequences;
	uint64_t round = seed / sequences;

	options.seed = is_random ? seed : round;
	if (!is_random)
		options.closes = round % 2 == 1;
	options.backing = backing;
	options.backing_is_raw = backing_is_raw;
	crew_create(crew, &options, base);
	crew_open(crew);
	if (options.served)
		server_crew_work(crew, NULL);
	else if (is_random)
		crew_work(crew);
	else
		play(workload, seed % sequences, crew);
	crew_close(crew);
	if (crew->errors)
		crew_fail(crew, "%u requests failed", crew->errors);
}
