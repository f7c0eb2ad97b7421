/* SPDX-License-Identifier: MIT */
#include "tests/crash/keeper.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/image_snapshot.h"
#include "qcow2/internal.h"
#include "runtime/random.h"
#include "tests/crash/crew.h"

/* Alive at a time; the narrowest refcounts count less. */
#define ALIVE_MAX 5

/* The longest pause between two operations. */
#define PAUSE_NS_MAX 20000000ull

/* Whether one must be there after a crash at some point. */
enum presence {
	PRESENCE_MUST,
	PRESENCE_MAY,
	PRESENCE_GONE,
};

const char *
keeper_operation_name(enum keeper_operation operation)
{
	static const char *const names[] = {
		[KEEPER_CREATE] = "create",
		[KEEPER_DELETE] = "delete",
		[KEEPER_APPLY] = "apply",
	};

	return operation < KEEPER_OPERATIONS ? names[operation] : "?";
}

/* ---- what must be there ---- */

static bool
has_begun(const struct kept_event *event, uint64_t point)
{
	return event->replied != 0 && event->received < point;
}

/* Returned, and it worked. */
static bool
has_happened(const struct kept_event *event, uint64_t point)
{
	return has_begun(event, point) && event->replied < point &&
	    !event->err;
}

/* Returned with an error, after which it has not happened. */
static bool
has_failed(const struct crew *crew, const struct kept_event *event,
    uint64_t point)
{
	return has_begun(event, point) && event->replied < point &&
	    event->err && !crew->options.troubled;
}

static enum presence
presence_of(const struct crew *crew, const struct kept *kept, uint64_t point)
{
	if (!has_begun(&kept->creation, point) ||
	    has_failed(crew, &kept->creation, point) ||
	    has_happened(&kept->deletion, point))
		return PRESENCE_GONE;
	if (!has_happened(&kept->creation, point) ||
	    (has_begun(&kept->deletion, point) &&
	    !has_failed(crew, &kept->deletion, point)))
		return PRESENCE_MAY;
	return PRESENCE_MUST;
}

bool
keeper_is_busy(const struct crew *crew, uint64_t point)
{
	const struct keeper *keeper = &crew->keeper;

	for (unsigned i = 0; i < keeper->spans_count; i++)
		if (keeper->spans[i].received < point &&
		    keeper->spans[i].replied >= point)
			return true;
	return false;
}

uint64_t
keeper_allowed(const struct crew *crew, uint64_t point)
{
	const struct keeper *keeper = &crew->keeper;
	uint64_t hash = keeper_is_busy(crew, point) ^
	    lengths_allowed(&crew->lengths, point);

	for (unsigned i = 0; i < keeper->count; i++) {
		const struct kept *kept = &keeper->list[i];
		uint64_t number = presence_of(crew, kept, point);

		/* What it holds is one thing, once it is known. */
		if (number == PRESENCE_MAY && kept->creation.replied >= point)
			number += point << 2;
		hash = random_mix(hash ^ random_mix(number + 1));
	}
	return hash;
}

/* ---- operations ---- */

void
keeper_begin(struct crew *crew)
{
	const struct snapshot_table *table = &crew->image->snapshots;
	struct keeper *keeper = &crew->keeper;

	for (unsigned i = 0; i < table->count &&
	    i < KEEPER_SNAPSHOTS_MAX; i++) {
		struct kept *kept = &keeper->list[keeper->count++];

		snprintf(kept->name, sizeof(kept->name), "%s",
		    table->list[i].name);
		kept->creation.replied = 1;
	}
}

/* Index of the nth that is there, or -1. */
static int
find_alive(const struct crew *crew, unsigned nth)
{
	const struct keeper *keeper = &crew->keeper;

	for (unsigned i = 0; i < keeper->count; i++)
		if (presence_of(crew, &keeper->list[i], RECORD_NEVER) ==
		    PRESENCE_MUST && nth-- == 0)
			return (int)i;
	return -1;
}

static unsigned
count_alive(const struct crew *crew)
{
	unsigned count = 0;

	while (find_alive(crew, count) >= 0)
		count++;
	return count;
}

/* Those that are there, as the image tells. */
co_fn static void
compare_list(struct crew *crew)
{
	const struct keeper *keeper = &crew->keeper;
	struct image *image = crew->image;

	monitor_enter(&image->monitor);
	for (unsigned i = 0; i < keeper->count; i++) {
		const struct kept *kept = &keeper->list[i];
		enum presence presence = presence_of(crew, kept,
		    RECORD_NEVER);
		bool found = snapshot_find(&image->snapshots, kept->name);

		if (found ? presence == PRESENCE_GONE :
		    presence == PRESENCE_MUST)
			crew_fail(crew, "the snapshot %s is %s", kept->name,
			    found ? "there" : "not there");
	}
	monitor_leave(&image->monitor);
}

/* Whether the operation may fail that way. */
static bool
may_fail(struct crew *crew, int err)
{
	const struct crew_options *options = &crew->options;

	if (err == -ERANGE && crew->image->refcounts.order < 3) {
		crew->keeper.refused++;
		return true;
	}
	return options->troubled || (err == -ENOSPC && options->may_fill);
}

co_fn static int
ask(struct crew *crew, enum keeper_operation operation, const char *name,
    struct error *error)
{
	static const struct timespec date = {.tv_sec = 1};

	switch (operation) {
	case KEEPER_CREATE:
		return image_snapshot_create(crew->image, name, &date, NULL,
		    error);
	case KEEPER_DELETE:
		return image_snapshot_delete(crew->image, name, NULL, error);
	default:
		return image_snapshot_apply(crew->image, name, NULL, error);
	}
}

static void
note_end(struct crew *crew, const struct record *entry)
{
	struct keeper *keeper = &crew->keeper;

	assert(keeper->spans_count < KEEPER_OPERATIONS_MAX);
	keeper->spans[keeper->spans_count++] = (struct kept_event){
		.received = entry->submitted, .replied = entry->completed,
	};
}

co_fn static void
carry_out(struct crew *crew, enum keeper_operation operation, unsigned which)
{
	struct kept *kept = &crew->keeper.list[which];
	struct record request = {
		.kind = RECORD_REQUEST_OTHER, .source = KEEPER_SOURCE,
		.value = operation, .offset = which,
	};
	struct kept_event ignored, *event = &ignored;
	const struct record *entry;
	struct error error;
	size_t index, copy = 0;
	unsigned change = 0;
	int err;

	if (operation == KEEPER_CREATE)
		event = &kept->creation;
	else if (operation == KEEPER_DELETE)
		event = &kept->deletion;
	index = record_begin(crew->log, &request);
	entry = record_log_at(crew->log, index);
	*event = (struct kept_event){entry->submitted, RECORD_NEVER, 0};
	if (operation == KEEPER_APPLY)
		copy = oracle_begin_copy(crew->oracle, entry->submitted,
		    kept->creation.received, kept->creation.replied);
	if (operation == KEEPER_APPLY)
		change = lengths_copy(&crew->lengths, entry->submitted,
		    kept->creation.received, kept->creation.replied);
	crew->keeper.running++;
	crew->keeper.begun++;
	err = ask(crew, operation, kept->name, &error);
	crew->keeper.running--;
	record_end(crew->log, index, err);
	event->replied = entry->completed;
	event->err = err;
	note_end(crew, entry);
	if (operation == KEEPER_APPLY)
		oracle_end(crew->oracle, copy, entry->completed, err);
	if (operation == KEEPER_APPLY)
		lengths_end(&crew->lengths, change, entry->completed, !err ?
		    LENGTH_CHANGED : err == -ERANGE ? LENGTH_KEPT :
		    LENGTH_UNKNOWN);
	crew->keeper.done += !err;
	if (err && !may_fail(crew, err))
		crew_fail(crew, "%s", error.message);
	compare_list(crew);
}

co_fn static void
create(struct crew *crew)
{
	struct keeper *keeper = &crew->keeper;
	struct kept *kept;

	if (keeper->count == KEEPER_SNAPSHOTS_MAX)
		return;
	kept = &keeper->list[keeper->count];
	snprintf(kept->name, sizeof(kept->name), "s%u", keeper->count);
	carry_out(crew, KEEPER_CREATE, keeper->count++);
}

void
keeper_do(struct crew *crew, enum keeper_operation operation)
{
	int which;

	if (operation == KEEPER_CREATE) {
		create(crew);
		return;
	}
	which = find_alive(crew, 0);
	if (which >= 0)
		carry_out(crew, operation, (unsigned)which);
}

static enum keeper_operation
choose(struct crew *crew)
{
	const struct crew_options *options = &crew->options;
	uint64_t draw = sim_below(crew->sim, options->creates +
	    options->deletes + options->applies);

	if (draw < options->creates)
		return KEEPER_CREATE;
	return draw < options->creates + options->deletes ? KEEPER_DELETE :
	    KEEPER_APPLY;
}

void
keeper_work(struct crew *crew)
{
	for (unsigned i = 0; i < crew->options.operations; i++) {
		enum keeper_operation operation = choose(crew);
		unsigned alive = count_alive(crew);

		loop_sleep(sim_below(crew->sim, PAUSE_NS_MAX));
		if (alive >= ALIVE_MAX && operation == KEEPER_CREATE)
			operation = KEEPER_DELETE;
		if (operation == KEEPER_CREATE)
			create(crew);
		else if (alive > 0)
			carry_out(crew, operation, (unsigned)find_alive(crew,
			    (unsigned)sim_below(crew->sim, alive)));
	}
}

/* ---- judging ---- */

/* The snapshots of a disk, as its table has them. */
co_fn static int
load_table(struct file *disk, struct snapshot_table *table,
    struct error *error)
{
	struct header header;
	int err = header_load(disk, &header, error);

	if (err)
		return err;
	err = snapshot_table_load(disk, &header, table, error);
	header_free(&header);
	return err;
}

static const struct kept *
find_kept(const struct keeper *keeper, const char *name)
{
	for (unsigned i = 0; i < keeper->count; i++)
		if (!strcmp(keeper->list[i].name, name))
			return &keeper->list[i];
	return NULL;
}

static int
complain(char *failure, size_t size, const char *name, const char *what)
{
	snprintf(failure, size, "the snapshot %s: %s", name, what);
	return -EIO;
}

co_fn static int
judge_content(struct crew *crew, struct image *image,
    const struct kept *kept, uint64_t point, char *failure, size_t size)
{
	uint64_t end = image_size_bytes(image) & ~511ull;
	uint64_t replied = kept->creation.replied < point ?
	    kept->creation.replied : point;
	uint8_t *data = malloc(65536);
	struct oracle_finding finding;
	char text[256];
	int err = 0;

	crew_must(data ? 0 : -ENOMEM, "memory");
	for (uint64_t offset = 0; offset < end && !err; offset += 65536) {
		size_t length = end - offset < 65536 ? end - offset : 65536;
		bool is_empty;

		err = crew_read_piece(crew, image, offset, data, length,
		    &is_empty);
		if (err)
			complain(failure, size, kept->name, strerror(-err));
		else if (!is_empty && oracle_judge_read(crew->oracle,
		    kept->creation.received, replied, offset, data, length,
		    &finding) != ORACLE_GOOD)
			err = complain(failure, size, kept->name,
			    oracle_explain(&finding, text, sizeof(text)));
	}
	free(data);
	return err;
}

co_fn static int
judge_one(struct crew *crew, struct file *disk, const struct kept *kept,
    uint64_t point, char *failure, size_t size)
{
	struct crew_options options = crew->options;
	struct image *image;
	struct file *handle;
	struct error error;
	struct length_view view = {
		kept->creation.replied < point ? kept->creation.replied :
		    point, kept->creation.received,
	};
	int err;

	options.snapshot = kept->name;
	crew_must(file_sim_open(disk, &handle), "handle");
	if (crew_open_image(&options, sim_self(), handle, &image, &error))
		return complain(failure, size, kept->name, error.message);
	if (!lengths_may_be(&crew->lengths, view, image_size_bytes(image)))
		err = complain(failure, size, kept->name,
		    "it has another length");
	else
		err = judge_content(crew, image, kept, point, failure, size);
	image_close(image);
	return err;
}

/* One that must be there and is not. */
static int
find_missing(const struct crew *crew, const struct snapshot_table *table,
    uint64_t point, char *failure, size_t size)
{
	const struct keeper *keeper = &crew->keeper;

	for (unsigned i = 0; i < keeper->count; i++)
		if (presence_of(crew, &keeper->list[i], point) ==
		    PRESENCE_MUST &&
		    !snapshot_find(table, keeper->list[i].name))
			return complain(failure, size, keeper->list[i].name,
			    "it is not there");
	return 0;
}

int
keeper_judge(struct crew *crew, struct file *disk, uint64_t point,
    char *failure, size_t size)
{
	struct snapshot_table table;
	struct error error;
	int err = load_table(disk, &table, &error);

	if (err)
		return complain(failure, size, "table", error.message);
	err = find_missing(crew, &table, point, failure, size);
	for (unsigned i = 0; i < table.count && !err; i++) {
		const char *name = table.list[i].name;
		const struct kept *kept = find_kept(&crew->keeper, name);

		if (!kept || presence_of(crew, kept, point) == PRESENCE_GONE)
			err = complain(failure, size, name, "it is there");
		else
			err = judge_one(crew, disk, kept, point, failure,
			    size);
	}
	snapshot_table_free(&table);
	return err;
}
