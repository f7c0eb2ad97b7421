/* SPDX-License-Identifier: MIT */
#include "tests/crash/crew.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/check.h"
#include "qcow2/internal.h"
#include "runtime/file_record.h"
#include "tests/crash/reopener.h"
#include "tests/crash/resizer.h"
#include "tests/crash/sequence.h"
#include "tests/key.h"

struct client {
	struct crew *crew;
	unsigned number;
	struct co_start start;
	uint8_t *data;
	struct record request;		/* of crew_play() */
	struct client *next;		/* who begins after, or NULL */
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

void
crew_must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-err));
	exit(1);
}

static bool
is_encrypted(struct file *disk)
{
	uint8_t method[4];

	file_sim_peek(disk, method, sizeof(method), CRYPT_METHOD_OFFSET);
	return bytes_get32(method) == CRYPT_METHOD_AES;
}

void
crew_create(struct crew *crew, const struct crew_options *options,
    struct file *base)
{
	*crew = (struct crew){.options = *options, .values = 1};
	crew->options.encrypted = is_encrypted(base);
	crew_must(sim_create(options->seed, options->loops + options->served,
	    &crew->sim), "sim");
	crew_must(record_log_create(&crew->log), "record");
	crew_must(file_sim_clone(base, crew->sim, &crew->disk), "clone");
	if (options->room_bytes)
		file_sim_set_budget(crew->disk,
		    file_sim_allocated_bytes(crew->disk) +
		    options->room_bytes);
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
filled_bytes(const struct crew *crew)
{
	return image_size_bytes(crew->image) / 4 * 3 & ~511ull;
}

/* What shows through of the file below. */
static uint64_t
shown_bytes(const struct crew *crew)
{
	uint64_t size = image_size_bytes(crew->image) & ~511ull;
	uint64_t below = image_size_bytes(image_backing(crew->image));

	if (!crew->options.backing_is_raw)
		below = below / 4 * 3 & ~511ull;
	return below < size ? below : size;
}

/* The parts of the disk that are of value 1 at the beginning. */
static unsigned
initial_ranges(const struct crew *crew, struct sequence_range *ranges)
{
	switch (crew->options.content) {
	case CREW_FILLED:
		ranges[0] = (struct sequence_range){0, filled_bytes(crew)};
		return 1;
	case CREW_PLACES:
		for (unsigned i = 0; i < SEQUENCE_PLACES; i++)
			ranges[i] = sequence_full_cluster(i,
			    image_cluster_bytes(crew->image),
			    image_size_bytes(crew->image));
		return SEQUENCE_PLACES;
	default:
		return 0;
	}
}

static void
create_oracle(struct crew *crew)
{
	struct sequence_range ranges[SEQUENCE_PLACES];
	unsigned count = initial_ranges(crew, ranges);

	crew_must(oracle_create(CREW_SECTOR_SEED, crew->size_bytes,
	    &crew->oracle), "oracle");
	lengths_begin(&crew->lengths, image_size_bytes(crew->image));
	for (unsigned i = 0; i < count; i++)
		oracle_set_initial(crew->oracle, ranges[i].offset,
		    ranges[i].length, 1);
	if (crew->options.backing)
		oracle_set_initial(crew->oracle, 0, shown_bytes(crew), 1);
}

co_fn static int
open_backing(const struct crew_options *options, struct sim *sim,
    struct image **imagep, struct error *error)
{
	struct image_options how = {
		.format = options->backing_is_raw ? IMAGE_RAW : IMAGE_QCOW2,
		.no_backing = true, .loops = options->loops,
	};
	struct file *file;

	crew_must(file_sim_clone(options->backing, sim, &file), "clone");
	return image_open_file(file, &how, imagep, error);
}

int
crew_open_image(const struct crew_options *options, struct sim *sim,
    struct file *file, struct image **imagep, struct error *error)
{
	struct image_options how = {
		.format = IMAGE_QCOW2, .writable = !options->snapshot,
		.no_backing = true, .loops = options->loops,
		.keys = &test_key, .keys_count = options->encrypted,
		.discard = options->discard, .snapshot = options->snapshot,
	};
	struct image *image, *backing = NULL;
	int err = 0;

	if (options->backing)
		err = open_backing(options, sim, &backing, error);
	if (err) {
		file_close(file);
		return err;
	}
	err = image_open_file(file, &how, &image, error);
	if (err) {
		if (backing)
			image_close(backing);
		return err;
	}
	image->backing = backing;
	*imagep = image;
	return 0;
}

co_fn static void
open_image(void *arg)
{
	struct crew *crew = arg;
	struct file *handle, *recorded;
	struct error error;

	crew_must(file_sim_open(crew->disk, &handle), "handle");
	crew_must(file_record_open(crew->log, CREW_DISK, handle, false,
	    &recorded), "record");
	if (crew_open_image(&crew->options, crew->sim, recorded, &crew->image,
	    &error)) {
		crew->image = NULL;
		crew_fail(crew, "open: %s", error.message);
		return;
	}
	if (crew->oracle)
		return;
	crew->size_bytes = image_size_bytes(crew->image);
	if (crew->options.growth)
		crew->size_bytes *= crew->options.growth;
	crew->cluster_bytes = image_cluster_bytes(crew->image);
	crew->image_version = crew->image->header.version;
	create_oracle(crew);
	keeper_begin(crew);
}

void
crew_open(struct crew *crew)
{
	struct co_start start;

	sim_start(crew->sim, 0, &start, open_image, crew);
	run(crew, "opening");
}

bool
crew_is_failure(const struct crew *crew, int err)
{
	return err && !(err == -ENOSPC && crew->options.may_fill);
}

co_fn int
crew_record_flush(struct crew *crew, int (*fn)(struct crew *crew))
{
	struct record flush = {
		.kind = RECORD_REQUEST_FLUSH, .source = CREW_CLIENTS_MAX,
	};
	size_t index = record_begin(crew->log, &flush);
	const struct record *entry = record_log_at(crew->log, index);
	size_t in_oracle = oracle_begin(crew->oracle, entry);
	int err = fn(crew);

	record_end(crew->log, index, err);
	oracle_end(crew->oracle, in_oracle, entry->completed, err);
	return err;
}

co_fn static int
close_now(struct crew *crew)
{
	int err = image_close(crew->image);

	crew->image = NULL;
	return err;
}

co_fn static void
close_image(void *arg)
{
	struct crew *crew = arg;
	int err = crew_record_flush(crew, close_now);

	if (crew_is_failure(crew, err))
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

/* Where requests may go: of a disk that is resized, also behind its end. */
static uint64_t
choose_end(struct crew *crew)
{
	uint64_t size = crew->size_bytes;

	if (crew->options.growth && sim_below(crew->sim, 8))
		size = image_size_bytes(crew->image);
	return size & ~511ull;
}

/* Whole sectors in one of the places; often whole clusters. */
static void
choose_in_place(struct crew *crew, uint64_t size, struct record *request)
{
	const struct crew_options *options = &crew->options;
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
}

/* From the end of the one before on; at the end of the disk, once more. */
static void
choose_next(struct crew *crew, uint64_t size, struct record *request)
{
	if (crew->next >= size)
		crew->next = 0;
	request->offset = crew->next;
	request->length = SECTOR_BYTES * (1 + sim_below(crew->sim,
	    crew->options.length_max / SECTOR_BYTES));
	crew->next += request->length;
}

static void
choose_range(struct crew *crew, struct record *request)
{
	uint64_t size = choose_end(crew);
	unsigned bytes = crew->options.fixed_bytes;

	if (crew->options.sequential) {
		choose_next(crew, size, request);
	} else if (bytes) {
		request->offset = sim_below(crew->sim, size / bytes) * bytes;
		request->length = bytes;
	} else {
		choose_in_place(crew, size, request);
	}
	if (request->length > size - request->offset)
		request->length = size - request->offset;
}

/* Makes the write one of a cluster; of what the disk has of its last one. */
static void
choose_compressed(struct crew *crew, struct record *request)
{
	uint64_t begin = request->offset - request->offset %
	    crew->cluster_bytes;
	uint64_t end = image_size_bytes(crew->image), left = end - begin;

	if (end <= begin)
		return;
	/* A part of a sector at the end of the disk is nobody's. */
	if (left < crew->cluster_bytes && left % SECTOR_BYTES)
		return;
	request->offset = begin;
	request->length = left < crew->cluster_bytes ? left :
	    crew->cluster_bytes;
	request->flags = CREW_COMPRESSED;
}

struct record
crew_choose(struct crew *crew, unsigned client)
{
	unsigned one_in = crew->options.fua_one_in;
	unsigned compressed = crew->options.compressed_one_in;
	struct record request = {
		.kind = choose_kind(crew), .source = client,
	};

	if (request.kind == RECORD_REQUEST_FLUSH)
		return request;
	choose_range(crew, &request);
	if (request.kind != RECORD_REQUEST_READ && one_in &&
	    sim_below(crew->sim, one_in) == 0)
		request.flags = RECORD_FUA;
	if (request.kind == RECORD_REQUEST_ZERO && sim_below(crew->sim, 2))
		request.flags |= CREW_NO_HOLE;
	if (request.kind == RECORD_REQUEST_WRITE)
		request.value = ++crew->values;
	if (request.kind == RECORD_REQUEST_WRITE && compressed &&
	    sim_below(crew->sim, compressed) == 0)
		choose_compressed(crew, &request);
	return request;
}

co_fn static int
write_data(struct image *image, const struct record *request,
    const uint8_t *data, unsigned flags)
{
	int err = -EIO;

	if (request->flags & CREW_COMPRESSED)
		err = image_write_compressed(image, request->offset, data,
		    request->length);
	if (err == -EIO)
		err = image_write(image, request->offset, data,
		    request->length, flags);
	return err;
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
		return write_data(image, request, data, flags);
	case RECORD_REQUEST_ZERO:
		if (request->flags & CREW_NO_HOLE)
			flags |= IMAGE_NO_HOLE;
		else if (crew->options.leaves_room)
			flags |= IMAGE_LEAVE_ROOM;
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

/* Behind the end of the disk, and only there, it is refused. */
static void
judge_end(struct crew *crew, const struct record *entry, int err)
{
	struct length_view view = {entry->completed, entry->submitted};
	uint64_t end = entry->offset + entry->length, min, max;

	if (entry->kind == RECORD_REQUEST_FLUSH)
		return;
	lengths_bounds(&crew->lengths, view, &min, &max);
	/* What was the last cluster may not be so any more. */
	if (entry->flags & CREW_COMPRESSED && min < max)
		return;
	if (err == -EINVAL ? end <= min : !err && end > max)
		crew_fail(crew, "0x%llx+%llu is %s a disk of %llu bytes",
		    (unsigned long long)entry->offset,
		    (unsigned long long)entry->length,
		    err ? "behind the end of" : "inside",
		    (unsigned long long)(err ? min : max));
}

co_fn static void
send_one(struct client *client, struct record request)
{
	struct crew *crew = client->crew;
	size_t index, in_oracle;
	const struct record *entry;
	int err;

	if (request.kind == RECORD_REQUEST_OTHER &&
	    request.source == RESIZER_SOURCE) {
		resizer_do(crew, request.offset, (unsigned)request.value);
		return;
	}
	if (request.kind == RECORD_REQUEST_OTHER) {
		keeper_do(crew, (enum keeper_operation)request.value);
		return;
	}
	if (request.kind == RECORD_REQUEST_WRITE && !request.value)
		request.value = ++crew->values;
	index = record_begin(crew->log, &request);
	entry = record_log_at(crew->log, index);
	in_oracle = oracle_begin(crew->oracle, entry);
	err = carry_out(crew, &request, client->data);
	record_end(crew->log, index, err);
	oracle_end(crew->oracle, in_oracle, entry->completed, err);
	judge_end(crew, entry, err);
	if (crew_is_failure(crew, err) && err != -EINVAL)
		crew->errors++;
	else if (!err && request.kind == RECORD_REQUEST_READ)
		crew_judge(crew, entry->submitted, entry->completed,
		    request.offset, client->data, request.length);
}

/* The last one may close the image, with nothing left to be waited for. */
co_fn static void
leave(struct crew *crew)
{
	if (--crew->clients_left == 0 && crew->options.closes)
		close_image(crew);
}

co_fn static void
client_main(void *arg)
{
	struct client *client = arg;
	struct crew *crew = client->crew;
	unsigned requests = crew->options.requests;

	for (unsigned i = 0; i < requests; i++) {
		if (client->number == 0 && i == requests * 3 / 4)
			file_sim_set_budget(crew->disk, UINT64_MAX);
		send_one(client, crew_choose(crew, client->number));
	}
	leave(crew);
}

co_fn static void
keeper_main(void *arg)
{
	struct crew *crew = arg;

	keeper_work(crew);
	leave(crew);
}

co_fn static void
resizer_main(void *arg)
{
	struct crew *crew = arg;

	resizer_work(crew);
	leave(crew);
}

co_fn static void
reopener_main(void *arg)
{
	struct crew *crew = arg;

	reopener_work(crew);
	leave(crew);
}

static void
client_start(struct client *client, void (*fn)(void *arg))
{
	struct crew *crew = client->crew;

	sim_start(crew->sim, client->number % crew->options.loops,
	    &client->start, fn, client);
}

static void
clients_create(struct crew *crew, unsigned count, size_t data_bytes,
    struct client *clients)
{
	assert(count <= CREW_CLIENTS_MAX);
	crew->clients_left = count;
	for (unsigned i = 0; i < count; i++) {
		clients[i] = (struct client){
			.crew = crew, .number = i,
			.data = malloc(data_bytes),
		};
		crew_must(clients[i].data ? 0 : -ENOMEM, "memory");
	}
}

static void
clients_free(struct client *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		free(clients[i].data);
}

void
crew_work(struct crew *crew)
{
	const struct crew_options *options = &crew->options;
	struct client clients[CREW_CLIENTS_MAX];
	struct co_start keeper, resizer, reopener;

	if (!crew->image)
		return;
	/* A length is rounded up to whole clusters. */
	clients_create(crew, options->clients, options->length_max +
	    options->fixed_bytes + image_cluster_bytes(crew->image), clients);
	for (unsigned i = 0; i < options->clients; i++)
		client_start(&clients[i], client_main);
	if (options->operations > 0) {
		crew->clients_left++;
		sim_start(crew->sim, options->loops - 1, &keeper, keeper_main,
		    crew);
	}
	if (options->resizes > 0) {
		crew->clients_left++;
		sim_start(crew->sim, 0, &resizer, resizer_main, crew);
	}
	if (options->reopenings > 0) {
		crew->clients_left++;
		sim_start(crew->sim, 0, &reopener, reopener_main, crew);
	}
	run(crew, "working");
	clients_free(clients, options->clients);
}

/* ---- requests that were chosen by others ---- */

co_fn static void
play_one(void *arg)
{
	struct client *client = arg;

	send_one(client, client->request);
	if (client->next)
		client_start(client->next, play_one);
	leave(client->crew);
}

void
crew_play(struct crew *crew, const struct record *requests, unsigned count,
    bool at_once)
{
	struct client clients[CREW_CLIENTS_MAX];
	size_t data_bytes = 1;

	if (!crew->image)
		return;
	for (unsigned i = 0; i < count; i++) {
		if (data_bytes < requests[i].length)
			data_bytes = requests[i].length;
	}
	clients_create(crew, count, data_bytes, clients);
	for (unsigned i = 0; i < count; i++) {
		clients[i].number = requests[i].source;
		clients[i].request = requests[i];
		if (!at_once && i + 1 < count)
			clients[i].next = &clients[i + 1];
	}
	for (unsigned i = 0; i < count && (at_once || i == 0); i++)
		client_start(&clients[i], play_one);
	run(crew, "playing");
	clients_free(clients, count);
}

/* ---- preparing ---- */

co_fn static void
prepare(void *arg)
{
	struct crew *crew = arg;
	struct sequence_range ranges[SEQUENCE_PLACES];
	unsigned count = initial_ranges(crew, ranges);

	for (unsigned i = 0; i < count; i++) {
		uint8_t *data = malloc(ranges[i].length);

		crew_must(data ? 0 : -ENOMEM, "memory");
		sector_fill(data, ranges[i].length, CREW_SECTOR_SEED, 1,
		    ranges[i].offset);
		crew_must(image_write(crew->image, ranges[i].offset, data,
		    ranges[i].length, 0), "write");
		free(data);
	}
}

void
crew_prepare(struct crew *crew)
{
	struct co_start start;

	sim_start(crew->sim, 0, &start, prepare, crew);
	run(crew, "preparing");
}

/* ---- looking at all of it ---- */

co_fn int
crew_read_piece(const struct crew *crew, struct image *image, uint64_t offset,
    uint8_t *data, size_t length, bool *emptyp)
{
	struct image_hole hole = {0};
	struct image_holes holes = {.max = 1, .list = &hole};
	int err = image_read(image, offset, data, length, &holes);

	if (err)
		return err;
	*emptyp = hole.length == length &&
	    oracle_is_untouched(crew->oracle, offset, length);
	if (!*emptyp)
		memset(data + hole.offset, 0, hole.length);
	return 0;
}

co_fn static void
read_all(void *arg)
{
	struct crew *crew = arg;
	uint64_t size = image_size_bytes(crew->image) & ~511ull;
	size_t piece = 65536;
	uint8_t *data = malloc(piece);

	crew_must(data ? 0 : -ENOMEM, "memory");
	for (uint64_t offset = 0; offset < size; offset += piece) {
		size_t length = size - offset < piece ? size - offset : piece;
		uint64_t now = record_log_next(crew->log);
		bool is_empty;
		int err = crew_read_piece(crew, crew->image, offset, data,
		    length, &is_empty);

		if (err)
			crew_fail(crew, "a read of 0x%llx+%zu: %s",
			    (unsigned long long)offset, length,
			    strerror(-err));
		else if (!is_empty)
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

	crew_must(file_sim_clone(crew->disk, NULL, &checking.file), "clone");
	sim_start(crew->sim, 0, &start, check_file_of, &checking);
	sim_run(crew->sim);
	file_close(checking.file);
}
