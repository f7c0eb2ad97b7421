/* SPDX-License-Identifier: MIT */
/* qnbd snapshot: makes, applies, deletes and lists internal snapshots. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "qcow2/image.h"
#include "qcow2/image_snapshot.h"
#include "server/commands.h"
#include "server/finish.h"
#include "server/info.h"
#include "server/json_text.h"
#include "server/progress.h"

enum verb {
	VERB_CREATE,
	VERB_APPLY,
	VERB_DELETE,
	VERB_LIST,
};

static const char *const verb_names[] = {
	[VERB_CREATE] = "create",
	[VERB_APPLY] = "apply",
	[VERB_DELETE] = "delete",
	[VERB_LIST] = "list",
	NULL,
};

struct snapshot_options {
	bool json;
	bool refuse_bitmaps;
	int64_t progress_fd;	/* 0: not said */
};

#define FIELD(name) .offset = offsetof(struct snapshot_options, name)

static const struct option_spec snapshot_specs[] = {
	{ "json", 0, OPTION_FLAG, NULL,
	  "list: print the JSON that qemu-img info prints", FIELD(json) },
	{ "refuse-bitmaps", 0, OPTION_FLAG, NULL,
	  "rather than make persistent bitmaps invalid",
	  FIELD(refuse_bitmaps) },
	PROGRESS_OPTION(struct snapshot_options, progress_fd),
	{ .name = NULL },
};

struct snapshot_call {
	enum verb verb;
	const struct snapshot_options *options;
	const char *path;
	const char *name;
	struct info info;
	struct progress progress;
	struct error error;
	int err;
};

static co_fn int
change_image(struct snapshot_call *call, struct image *image)
{
	static const char *const titles[] = {
		[VERB_CREATE] = "making a snapshot",
		[VERB_APPLY] = "applying a snapshot",
		[VERB_DELETE] = "deleting a snapshot",
	};
	struct image_progress progress = progress_stoppable(&call->progress,
	    titles[call->verb], call->options->progress_fd);
	struct timespec now;
	int err;

	if (call->verb == VERB_CREATE) {
		clock_gettime(CLOCK_REALTIME, &now);
		err = image_snapshot_create(image, call->name, &now,
		    &progress, &call->error);
	} else if (call->verb == VERB_APPLY) {
		err = image_snapshot_apply(image, call->name, &progress,
		    &call->error);
	} else {
		err = image_snapshot_delete(image, call->name, &progress,
		    &call->error);
	}
	progress_clear(&call->progress);
	return err;
}

/* The chain below is not needed: clusters only get other owners. */
static co_fn int
change_file(struct snapshot_call *call)
{
	const struct image_options options = {
		.format = IMAGE_QCOW2,
		.writable = true,
		.no_backing = true,
		.no_data = true,
		.refuse_bitmaps = call->options->refuse_bitmaps,
		.loops = 1,
	};
	struct image *image;
	int err;

	err = image_open(call->path, &options, &image, &call->error);
	if (err)
		return err;
	err = change_image(call, image);
	return finish_image(image, call->path, err, &call->error);
}

static co_fn void
snapshot_main(void *arg)
{
	struct snapshot_call *call = arg;

	if (call->verb == VERB_LIST)
		call->err = info_load(call->path, call->path, IMAGE_QCOW2,
		    &call->info, &call->error);
	else
		call->err = change_file(call);
}

static int
print_list(const struct snapshot_call *call)
{
	if (!call->options->json) {
		info_print_snapshots(&call->info.snapshots, stdout);
		return 0;
	}
	json_text_begin();
	return json_text_print(info_snapshots_to_json(
	    &call->info.snapshots)) ? 1 : 0;
}

/* What the words after the options say: an exit code, or 0. */
static int
take_words(const struct command *command, int argc, char **argv,
    struct snapshot_call *call)
{
	int verb = 0;

	if (argc == 0)
		return options_complain(command,
		    "snapshot needs create, apply, delete or list");
	while (verb_names[verb] && strcmp(argv[0], verb_names[verb]))
		verb++;
	if (!verb_names[verb]) {
		const char *nearest = options_nearest(argv[0], verb_names,
		    sizeof(verb_names[0]));

		return options_complain(command, nearest ?
		    "unknown word %s; did you mean %s?" : "unknown word %s",
		    argv[0], nearest);
	}
	call->verb = (enum verb)verb;
	if (call->verb == VERB_LIST && argc != 2)
		return options_complain(command,
		    "snapshot list takes one FILE");
	if (call->verb != VERB_LIST && argc != 3)
		return options_complain(command,
		    "snapshot %s takes FILE and NAME", argv[0]);
	call->path = argv[1];
	call->name = argc > 2 ? argv[2] : NULL;
	return 0;
}

static int
snapshot_run(const struct command *command, int argc, char **argv)
{
	struct snapshot_options options = {0};
	struct snapshot_call call = {.options = &options};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	exit_code = take_words(command, argc - first, argv + first, &call);
	if (exit_code)
		return exit_code;
	exit_code = command_run(snapshot_main, &call);
	if (!exit_code && call.err)
		exit_code = error_print(&call.error);
	else if (!exit_code && call.verb == VERB_LIST)
		exit_code = print_list(&call);
	info_free(&call.info);
	return exit_code;
}

const struct command snapshot_command = {
	.name = "snapshot",
	.arguments = "create|apply|delete|list [OPTIONS] FILE [NAME]",
	.summary = "keep states of a disk inside its image",
	.options = snapshot_specs,
	.run = snapshot_run,
};
