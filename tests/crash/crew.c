/* SPDX-License-Identifier: MIT */
#include "tests/crash/crew.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/check.h"
#include "runtime/file_record.h"

struct client {
	struct crew *crew;
	unsigned number;
	struct co_start start;
	uint8_t *data;
};

void
crew_fail(struct crew *crew, const char *format, ...)
{
	va_list arguments;

	if (crew->failure[0])
		return;
	va_start(arguments, format);
	vsnprintf(crew->failure, sizeof(crew->failure), format, arguments);
	va_end(arguments);
}

static void
must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-err));
	exit(1);
}

void
crew_create(struct crew *crew, const struct crew_options *options,
    struct file *base)
{
	*crew = (struct crew){.options = *options, .values = 1};
	must(sim_create(options->seed, options->loops + options->served,
	    &crew->sim), "sim");
	must(record_log_create(&crew->log), "record");
	must(file_sim_clone(base, crew->sim, &crew->disk), "clone");
}

void
crew_free(struct crew *crew)
{
	file_close(crew->disk);
	oracle_free(crew->oracle);
	record_log_free(crew->log);
	sim_free(crew->sim);
}

static void
run(struct crew *crew, const char *what)
{
	enum sim_end end = sim_run(crew->sim);

	if (end == SIM_DEADLOCK)
		crew_fail(crew, "deadlock while %s", what);
	else if (end != SIM_DONE)
		crew_fail(crew, "the world stopped (%d) while %s", end, what);
}

/* ---- opening, closing ---- */

static uint64_t
prepared_bytes(const struct crew *crew)
{
	return image_size_bytes(crew->image) / 4 * 3 & ~511ull;
}

co_fn static void
open_image(void *arg)
{
	struct crew *crew = arg;
	struct image_options options = {
		.format = IMAGE_QCOW2, .writable = true, .no_backing = true,
		.loops = crew->options.loops,
	};
	struct file *handle, *recorded;
	struct error error;

	must(file_sim_open(crew->disk, &handle), "handle");
	must(file_record_open(crew->log, CREW_DISK, handle, false, &recorded),
	    "record");
	if (image_open_file(recorded, &options, &crew->image, &error)) {
		crew->image = NULL;
		crew_fail(crew, "open: %s", error.message);
		return;
	}
	if (crew->oracle)
		return;
	crew->size_bytes = image_size_bytes(crew->image);
	crew->cluster_bytes = image_cluster_bytes(crew->image);
	must(oracle_create(CREW_SECTOR_SEED, image_size_bytes(crew->image),
	    &crew->oracle), "oracle");
	if (crew->options.prepared)
		oracle_set_initial(crew->oracle, 0, prepared_bytes(crew), 1);
}

void
crew_open(struct crew *crew)
{
	struct co_start start;

	sim_start(crew->sim, 0, &start, open_image, crew);
	run(crew, "opening");
}

co_fn static void
close_image(void *arg)
{
	struct crew *crew = arg;
	int err = image_close(crew->image);

	crew->image = NULL;
	if (err)
		crew_fail(crew, "close: %s", strerror(-err));
}

void
crew_close(struct crew *crew)
{
	struct co_start start;

	if (!crew->image)
		return;
	sim_start(crew->sim, 0, &start, close_image, crew);
	run(crew, "closing");
}

/* ---- requests ---- */

static enum record_kind
choose_kind(struct crew *crew)
{
	const struct crew_options *options = &crew->options;
	uint64_t draw = sim_below(crew->sim, options->reads +
	    options->writes + options->zeros + options->trims +
	    options->flushes);

	if (draw < options->reads)
		return RECORD_REQUEST_READ;
	draw -= options->reads;
	if (draw < options->writes)
		return RECORD_REQUEST_WRITE;
	draw -= options->writes;
	if (draw < options->zeros)
		return RECORD_REQUEST_ZERO;
	draw -= options->zeros;
	if (draw < options->trims)
		return RECORD_REQUEST_TRIM;
	return RECORD_REQUEST_FLUSH;
}

/* Whole sectors in one of the places; often whole clusters. */
static void
choose_range(struct crew *crew, struct record *request)
{
	const struct crew_options *options = &crew->options;
	uint64_t size = crew->size_bytes & ~511ull;
	uint64_t place = sim_below(crew->sim, options->places) *
	    (size / options->places) & ~511ull;
	uint64_t unit = SECTOR_BYTES;

	if (sim_below(crew->sim, 2))
		unit = crew->cluster_bytes;
	request->length = unit * (1 + sim_below(crew->sim,
	    (options->length_max + unit - 1) / unit));
	request->offset = place + sim_below(crew->sim,
	    options->place_bytes / unit + 1) * unit;
	if (request->offset >= size)
		request->offset = size - SECTOR_BYTES;
	if (request->length > size - request->offset)
		request->length = size - request->offset;
}

struct record
crew_choose(struct crew *crew, unsigned client)
{
	unsigned one_in = crew->options.fua_one_in;
	struct record request = {
		.kind = choose_kind(crew), .source = client,
	};

	if (request.kind == RECORD_REQUEST_FLUSH)
		return request;
	choose_range(crew, &request);
	if (request.kind != RECORD_REQUEST_READ && one_in &&
	    sim_below(crew->sim, one_in) == 0)
		request.flags = RECORD_FUA;
	if (request.kind == RECORD_REQUEST_WRITE)
		request.value = ++crew->values;
	return request;
}

co_fn static int
carry_out(struct crew *crew, const struct record *request, uint8_t *data)
{
	unsigned flags = request->flags & RECORD_FUA ? IMAGE_FUA : 0;
	struct image *image = crew->image;

	switch (request->kind) {
	case RECORD_REQUEST_READ:
		return image_read(image, request->offset, data,
		    request->length, NULL);
	case RECORD_REQUEST_WRITE:
		sector_fill(data, request->length, CREW_SECTOR_SEED,
		    request->value, request->offset);
		return image_write(image, request->offset, data,
		    request->length, flags);
	case RECORD_REQUEST_ZERO:
		if (sim_below(crew->sim, 2))
			flags |= IMAGE_NO_HOLE;
		return image_zero(image, request->offset, request->length,
		    flags);
	case RECORD_REQUEST_TRIM:
		return image_discard(image, request->offset,
		    request->length, flags);
	default:
		return image_flush(image);
	}
}

void
crew_judge(struct crew *crew, uint64_t received, uint64_t replied,
    uint64_t offset, const void *data, size_t length)
{
	struct oracle_finding finding;
	char text[256];

	if (oracle_judge_read(crew->oracle, received, replied, offset, data,
	    length, &finding) == ORACLE_GOOD)
		return;
	/* A write that failed may have torn a sector. */
	if (crew->options.troubled && finding.verdict == ORACLE_GARBAGE)
		return;
	crew_fail(crew, "a read of 0x%llx+%zu: %s",
	    (unsigned long long)offset, length,
	    oracle_explain(&finding, text, sizeof(text)));
}

co_fn static void
send_one(struct client *client)
{
	struct crew *crew = client->crew;
	struct record request = crew_choose(crew, client->number);
	size_t index, in_oracle;
	const struct record *entry;
	int err;

	index = record_begin(crew->log, &request);
	entry = record_log_at(crew->log, index);
	in_oracle = oracle_begin(crew->oracle, entry);
	err = carry_out(crew, &request, client->data);
	record_end(crew->log, index, err);
	oracle_end(crew->oracle, in_oracle, entry->completed, err);
	if (err)
		crew->errors++;
	else if (request.kind == RECORD_REQUEST_READ)
		crew_judge(crew, entry->submitted, entry->completed,
		    request.offset, client->data, request.length);
}

co_fn static void
client_main(void *arg)
{
	struct client *client = arg;

	for (unsigned i = 0; i < client->crew->options.requests; i++)
		send_one(client);
	client->crew->clients_left--;
}

void
crew_work(struct crew *crew)
{
	const struct crew_options *options = &crew->options;
	struct client clients[CREW_CLIENTS_MAX];
	size_t data_bytes;

	if (!crew->image)
		return;
	/* A length is rounded up to whole clusters. */
	data_bytes = options->length_max + image_cluster_bytes(crew->image);
	crew->clients_left = options->clients;
	for (unsigned i = 0; i < options->clients; i++) {
		clients[i] = (struct client){
			.crew = crew, .number = i,
			.data = malloc(data_bytes),
		};
		must(clients[i].data ? 0 : -12, "memory");
		sim_start(crew->sim, i % options->loops, &clients[i].start,
		    client_main, &clients[i]);
	}
	run(crew, "working");
	for (unsigned i = 0; i < options->clients; i++)
		free(clients[i].data);
}

co_fn static void
prepare(void *arg)
{
	struct crew *crew = arg;
	uint64_t bytes = prepared_bytes(crew);
	uint8_t *data = malloc(bytes);

	must(data ? 0 : -12, "memory");
	sector_fill(data, bytes, CREW_SECTOR_SEED, 1, 0);
	must(image_write(crew->image, 0, data, bytes, 0), "write");
	free(data);
}

void
crew_prepare(struct crew *crew)
{
	struct co_start start;

	sim_start(crew->sim, 0, &start, prepare, crew);
	run(crew, "preparing");
}

/* ---- looking at all of it ---- */

co_fn static void
read_all(void *arg)
{
	struct crew *crew = arg;
	uint64_t size = image_size_bytes(crew->image) & ~511ull;
	size_t piece = 65536;
	uint8_t *data = malloc(piece);

	must(data ? 0 : -12, "memory");
	for (uint64_t offset = 0; offset < size; offset += piece) {
		size_t length = size - offset < piece ? size - offset : piece;
		uint64_t now = record_log_next(crew->log);
		int err = image_read(crew->image, offset, data, length, NULL);

		if (err)
			crew_fail(crew, "a read of 0x%llx+%zu: %s",
			    (unsigned long long)offset, length,
			    strerror(-err));
		else
			crew_judge(crew, now, now + 1, offset, data,
			    length);
	}
	free(data);
}

void
crew_read_all(struct crew *crew)
{
	struct co_start start;

	if (!crew->image)
		return;
	sim_start(crew->sim, 0, &start, read_all, crew);
	run(crew, "reading");
}

struct checking {
	struct file *file;
	struct crew *crew;
};

co_fn static void
check_file_of(void *arg)
{
	struct checking *checking = arg;
	struct check_result result;
	struct error error;

	if (check_file(checking->file, "disk", &result, &error)) {
		crew_fail(checking->crew, "check: %s", error.message);
		return;
	}
	if (checking->crew->options.troubled)
		result.leaks = 0;
	if (result.corruptions || result.check_errors || result.leaks)
		crew_fail(checking->crew, "check: %llu corruptions, %llu "
		    "leaks, %llu errors",
		    (unsigned long long)result.corruptions,
		    (unsigned long long)result.leaks,
		    (unsigned long long)result.check_errors);
}

void
crew_check(struct crew *crew)
{
	struct checking checking = {.crew = crew};
	struct co_start start;

	must(file_sim_clone(crew->disk, NULL, &checking.file), "clone");
	sim_start(crew->sim, 0, &start, check_file_of, &checking);
	sim_run(crew->sim);
	file_close(checking.file);
}

/* ---- for people ---- */

static void
print_entry(const struct record *entry)
{
	static const char *const names[] = {
		"  read", "  write", "  sync", "  punch", "  zero",
		"  allocate", "  truncate", "READ", "WRITE", "ZERO", "TRIM",
		"FLUSH",
	};

	printf("%5llu-%-5lld %-9s 0x%llx+%llu",
	    (unsigned long long)entry->submitted,
	    entry->completed == RECORD_NEVER ? -1ll :
	    (long long)entry->completed, names[entry->kind],
	    (unsigned long long)entry->offset,
	    (unsigned long long)entry->length);
	if (entry->kind >= RECORD_REQUEST_READ)
		printf(" client %u", entry->source);
	if (entry->value)
		printf(" value %llu", (unsigned long long)entry->value);
	if (entry->flags)
		printf(" %s", entry->flags & RECORD_FUA ? "FUA" : "DSYNC");
	printf("%s\n", entry->result < 0 ? " FAILED" : "");
}

void
crew_print(const struct crew *crew)
{
	for (size_t i = 0; i < record_log_count(crew->log); i++)
		print_entry(record_log_at(crew->log, i));
}
