/* SPDX-License-Identifier: MIT */
/* qnbd compare: whether two images hold the same disk. */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "qcow2/image.h"
#include "runtime/buf.h"
#include "server/commands.h"
#include "server/progress.h"
#include "server/source.h"
#include "server/walk.h"

/* As of qemu-img compare: 1 is that they differ. */
#define EXIT_DIFFER 1
#define EXIT_FAILED 2

/* Small enough for the processor's caches. */
#define PIECE_BYTES (256u * 1024)
#define COROUTINES 4

struct compare_arguments {
	struct source_arguments sources[2];
	bool strict;
	bool quiet;
	int64_t threads;		/* 0: not said */
	int64_t progress_fd;		/* 0: not said */
};

#define FIELD(name) .offset = offsetof(struct compare_arguments, name)

static const struct option_spec compare_specs[] = {
	SOURCE_OPTIONS(struct compare_arguments, sources[0], "A"),
	KEY_OPTIONS(struct compare_arguments, sources[0].keys),
	{ "second-format", 'F', OPTION_CHOICE, "qcow2|raw",
	  "what B is (qcow2)", FIELD(sources[1].format),
	  .choices = source_formats },
	{ "second-snapshot", 'L', OPTION_TEXT, "NAME",
	  "read this snapshot of B", FIELD(sources[1].snapshot) },
	{ "second-backing-format", 0, OPTION_CHOICE, "qcow2|raw",
	  "what the backing file of B is, if it is not said",
	  FIELD(sources[1].backing_format), .choices = source_formats },
	{ "second-key-file", 0, OPTION_TEXTS, "FILE",
	  "the key of B, if it is encrypted, repeatable",
	  FIELD(sources[1].keys.files) },
	{ "strict", 's', OPTION_FLAG, NULL,
	  "sizes and what is allocated must be equal, too", FIELD(strict) },
	{ "quiet", 'q', OPTION_FLAG, NULL,
	  "say nothing but errors", FIELD(quiet) },
	PROGRESS_OPTION(struct compare_arguments, progress_fd),
	{ "threads", 0, OPTION_NUMBER, "N",
	  "processors to use; default: all", FIELD(threads),
	  .min = 1, .max = COMMAND_LOOPS_MAX },
	{ .name = NULL },
};

enum outcome {
	OUTCOME_SAME,
	OUTCOME_SIZE,
	OUTCOME_CONTENT,
	OUTCOME_ALLOCATION,
	OUTCOME_UNREADABLE,
};

struct compare_call {
	const struct compare_arguments *arguments;
	const char *paths[2];
	struct key_ring keys[2];
	struct loop *loops[COMMAND_LOOPS_MAX];
	unsigned loops_count;
	struct image *images[2];
	bool sizes_differ;
	struct walk walk;
	uint64_t data_end;	/* look(): up to here there is data */
	struct progress progress;

	/* The first that was found; guarded. */
	struct monitor monitor;
	enum outcome outcome;
	uint64_t guest;

	struct error error;
	int err;
};

static uint64_t
smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/*
 * What comes behind it does not matter any more; what is before it may still
 * be under way.
 */
co_fn static void
note(struct compare_call *call, enum outcome outcome, uint64_t guest)
{
	monitor_enter(&call->monitor);
	if (call->outcome == OUTCOME_SAME || guest < call->guest) {
		call->outcome = outcome;
		call->guest = guest;
	}
	monitor_leave(&call->monitor);
	walk_end_at(&call->walk, guest);
}

co_fn static void
note_unreadable(struct compare_call *call, int err, unsigned which,
    uint64_t guest)
{
	note(call, OUTCOME_UNREADABLE, guest);
	monitor_enter(&call->monitor);
	if (call->outcome == OUTCOME_UNREADABLE && call->guest == guest)
		error_set(&call->error, err, "cannot read %s at byte %" PRIu64
		    ": %s", call->paths[which], guest, strerror(-err));
	monitor_leave(&call->monitor);
}

/* ---- what comes next ---- */

/* What an image says, which is zeros behind its end. */
co_fn static int
ask(struct compare_call *call, unsigned which, uint64_t guest,
    struct image_extent *extent)
{
	struct image *image = call->images[which];
	uint64_t end = image_size_bytes(image);
	unsigned count;
	int err;

	*extent = (struct image_extent){
		.length = call->walk.size_bytes - guest, .zero = true,
	};
	if (guest >= end)
		return 0;
	err = image_status(image, guest, end - guest, extent, 1, &count);
	if (err)
		note_unreadable(call, err, which, guest);
	return err;
}

static bool
same_allocation(const struct image_extent *a, const struct image_extent *b)
{
	return a->zero == b->zero && a->allocated == b->allocated &&
	    a->present == b->present;
}

static co_fn int
look(void *arg, struct walk_piece *piece)
{
	struct compare_call *call = arg;
	uint64_t guest = piece->guest;
	struct image_extent a, b;
	uint64_t length;

	piece->length = smaller(call->walk.size_bytes - guest,
	    PIECE_BYTES - guest % PIECE_BYTES);
	if (guest + piece->length <= call->data_end)
		return 0;
	/* An end that was noted makes this the last piece. */
	piece->is_empty = true;
	if (ask(call, 0, guest, &a) || ask(call, 1, guest, &b))
		return 0;
	if (call->arguments->strict && !same_allocation(&a, &b)) {
		note(call, OUTCOME_ALLOCATION, guest);
		return 0;
	}
	length = smaller(a.length, b.length);
	if (a.zero && b.zero) {
		piece->length = length;
		return 0;
	}
	piece->is_empty = false;
	if (!a.zero && !b.zero)
		call->data_end = guest + length;
	/* The next one may be allocated otherwise. */
	if (call->arguments->strict)
		piece->length = smaller(piece->length, length);
	return 0;
}

/* ---- comparing ---- */

/* The first byte that is another; length: none. */
static size_t
find_difference(const char *a, const char *b, size_t length)
{
	size_t offset = 0;

	if (!memcmp(a, b, length))
		return length;
	while (length - offset > 512 && !memcmp(a + offset, b + offset, 512))
		offset += 512;
	while (a[offset] == b[offset])
		offset++;
	return offset;
}

co_fn static int
read_piece(struct compare_call *call, unsigned which,
    const struct walk_piece *piece, char *data)
{
	struct image *image = call->images[which];
	uint64_t end = image_size_bytes(image);
	size_t inside = 0;
	int err = 0;

	if (end > piece->guest)
		inside = smaller(end - piece->guest, piece->length);
	if (inside > 0)
		err = image_read(image, piece->guest, data, inside, NULL);
	if (err)
		note_unreadable(call, err, which, piece->guest);
	else
		memset(data + inside, 0, piece->length - inside);
	return err;
}

static co_fn int
work(void *arg, const struct walk_piece *piece)
{
	struct compare_call *call = arg;
	char *data;
	size_t offset;

	if (piece->is_empty)
		return 0;
	data = buf_get(2 * PIECE_BYTES);
	if (!data) {
		note_unreadable(call, -ENOMEM, 0, piece->guest);
		return 0;
	}
	if (!read_piece(call, 0, piece, data) &&
	    !read_piece(call, 1, piece, data + PIECE_BYTES)) {
		offset = find_difference(data, data + PIECE_BYTES,
		    piece->length);
		if (offset < piece->length)
			note(call, OUTCOME_CONTENT, piece->guest + offset);
	}
	buf_put(data, 2 * PIECE_BYTES);
	return 0;
}

static void
show_progress(void *arg, uint64_t done, uint64_t total)
{
	struct compare_call *call = arg;

	progress_set(&call->progress, done, total);
}

co_fn static void
compare_images(struct compare_call *call)
{
	uint64_t sizes[2] = {
		image_size_bytes(call->images[0]),
		image_size_bytes(call->images[1]),
	};

	call->sizes_differ = sizes[0] != sizes[1];
	if (call->arguments->strict && call->sizes_differ) {
		call->outcome = OUTCOME_SIZE;
		return;
	}
	call->walk = (struct walk){
		.size_bytes = sizes[0] > sizes[1] ? sizes[0] : sizes[1],
		.coroutines = COROUTINES,
		.look = look, .work = work, .progress = show_progress,
		.arg = call,
	};
	progress_begin(&call->progress, "comparing",
	    call->arguments->progress_fd);
	call->err = walk_run(&call->walk, call->loops, call->loops_count);
	progress_clear(&call->progress);
	if (call->err)
		error_set(&call->error, call->err, "out of memory");
}

static co_fn void
compare_main(void *arg)
{
	struct compare_call *call = arg;
	const struct compare_arguments *arguments = call->arguments;
	unsigned opened = 0;

	monitor_init(&call->monitor);
	for (; opened < 2 && !call->err; opened += !call->err) {
		const struct image_options options = source_image_options(
		    &arguments->sources[opened], &call->keys[opened],
		    call->loops_count);

		call->err = image_open(call->paths[opened], &options,
		    &call->images[opened], &call->error);
	}
	if (!call->err)
		compare_images(call);
	while (opened > 0)
		image_close(call->images[--opened]);
	monitor_destroy(&call->monitor);
}

/* ---- afterwards ---- */

static int
fail(const struct compare_call *call)
{
	int exit_code = error_print(&call->error);

	return exit_code == EXIT_DIFFER ? EXIT_FAILED : exit_code;
}

static int
print_outcome(const struct compare_call *call)
{
	const char *a = call->paths[0], *b = call->paths[1];

	if (call->err || call->outcome == OUTCOME_UNREADABLE)
		return fail(call);
	if (call->arguments->quiet)
		return call->outcome == OUTCOME_SAME ? 0 : EXIT_DIFFER;
	switch (call->outcome) {
	case OUTCOME_SIZE:
		printf("%s and %s are not of the same size\n", a, b);
		break;
	case OUTCOME_CONTENT:
		printf("%s and %s differ from byte %" PRIu64 " on\n", a, b,
		    call->guest);
		break;
	case OUTCOME_ALLOCATION:
		printf("%s and %s are allocated differently from byte %"
		    PRIu64 " on\n", a, b, call->guest);
		break;
	default:
		printf("%s and %s hold the same%s\n", a, b,
		    call->sizes_differ ? "; the longer one ends with zeros" :
		    "");
		return 0;
	}
	return EXIT_DIFFER;
}

static int
load_keys_and_compare(const struct command *command,
    struct compare_call *call)
{
	int exit_code = 0;

	for (unsigned i = 0; i < 2 && !exit_code; i++)
		exit_code = key_ring_load(command,
		    &call->arguments->sources[i].keys, &call->keys[i]);
	call->loops_count = command_loops(call->arguments->threads);
	if (!exit_code && command_run_on(call->loops_count, call->loops,
	    compare_main, call))
		exit_code = EXIT_FAILED;
	else if (!exit_code)
		exit_code = print_outcome(call);
	key_ring_free(&call->keys[0]);
	key_ring_free(&call->keys[1]);
	return exit_code;
}

static int
compare_run(const struct command *command, int argc, char **argv)
{
	struct compare_arguments arguments = {
		.sources = {
			SOURCE_ARGUMENTS_DEFAULT, SOURCE_ARGUMENTS_DEFAULT,
		},
	};
	struct compare_call call = { .arguments = &arguments };
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &arguments, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 2)
		return options_complain(command, "compare takes an A and a B");
	call.paths[0] = argv[first];
	call.paths[1] = argv[first + 1];
	arguments.sources[1].force_share = arguments.sources[0].force_share;
	arguments.sources[1].backing_dirs = arguments.sources[0].backing_dirs;
	return load_keys_and_compare(command, &call);
}

const struct command compare_command = {
	.name = "compare",
	.arguments = "[OPTIONS] A B",
	.summary = "see whether two images hold the same disk",
	.options = compare_specs,
	.run = compare_run,
};
