/* SPDX-License-Identifier: MIT */
/* qnbd info: what an image file says about itself, without locking it. */
#include "server/info.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "runtime/file.h"
#include "server/commands.h"
#include "server/json_text.h"
#include "server/source.h"

struct info_options {
	bool json;
	bool chain;
	struct source_arguments source;
};

#define FIELD(name) .offset = offsetof(struct info_options, name)

static const struct option_spec info_specs[] = {
	{ "json", 0, OPTION_FLAG, NULL,
	  "print the JSON that qemu-img prints", FIELD(json) },
	{ "chain", 0, OPTION_FLAG, NULL,
	  "tell about the backing files, too", FIELD(chain) },
	SOURCE_FORMAT_OPTION(struct info_options, source.format,
	    "the file"),
	SOURCE_BACKING_OPTIONS(struct info_options, source, "", ""),
	{ .name = NULL },
};

/* ---- one file ---- */

/* A relative name is meant from the directory of the image that has it. */
static char *
join_names(const char *filename, const char *backing)
{
	const char *slash = strrchr(filename, '/');
	char *joined;

	if (!slash || backing[0] == '/')
		return strdup(backing);
	if (asprintf(&joined, "%.*s/%s", (int)(slash - filename), filename,
	    backing) < 0)
		return NULL;
	return joined;
}

static co_fn int
load_qcow2(struct file *file, struct info *info, struct error *error)
{
	int err;

	err = header_load(file, &info->header, error);
	if (err)
		return err;
	info->virtual_bytes = info->header.size_bytes;
	err = snapshot_table_load(file, &info->header, &info->snapshots,
	    error);
	if (err)
		return err;
	if (header_bitmaps_valid(&info->header)) {
		err = bitmap_directory_load(file, &info->header,
		    &info->bitmaps, error);
		if (err)
			return err;
	}
	if (!info->header.backing)
		return 0;
	info->backing_filename = join_names(info->filename,
	    info->header.backing_name);
	if (!info->backing_filename)
		return error_set(error, -ENOMEM, "out of memory");
	return 0;
}

static co_fn int
load_facts(struct file *file, const char *path, struct info *info,
    struct error *error)
{
	int64_t size_bytes = file_size(file);
	struct stat st;

	if (size_bytes < 0 || stat(path, &st) < 0)
		return error_set(error, -errno, "cannot look at %s: %s", path,
		    strerror(errno));
	info->virtual_bytes = (uint64_t)size_bytes;
	info->actual_bytes = (uint64_t)st.st_blocks * 512;
	/* A reader's lock is refused only where somebody writes. */
	if (file_lock(file, FILE_LOCK_READ, 0) == -EAGAIN) {
		info->in_use = true;
		file_holder(file, info->holder);
	}
	if (info->format == IMAGE_RAW)
		return 0;
	return load_qcow2(file, info, error);
}

int
info_load(const char *path, const char *filename, enum image_format format,
    struct info *info, struct error *error)
{
	struct file *file;
	int err;

	*info = (struct info){.format = format};
	info->filename = strdup(filename);
	if (!info->filename)
		return error_set(error, -ENOMEM, "out of memory");
	err = file_open(AT_FDCWD, path, 0, 0, &file);
	if (err)
		return error_set(error, err, "cannot open %s: %s", path,
		    strerror(-err));
	err = load_facts(file, path, info, error);
	file_close(file);
	return err;
}

void
info_free(struct info *info)
{
	free(info->filename);
	free(info->backing_filename);
	header_free(&info->header);
	snapshot_table_free(&info->snapshots);
	bitmap_directory_free(&info->bitmaps);
}

/* ---- the chain ---- */

struct info_call {
	const struct info_options *options;
	const char *path;
	struct info *list;
	unsigned count;
	struct error error;
	int err;
};

static int
add_room(struct info_call *call)
{
	struct info *list = realloc(call->list,
	    (call->count + 1) * sizeof(*list));

	if (!list)
		return error_set(&call->error, -ENOMEM, "out of memory");
	call->list = list;
	list[call->count++] = (struct info){0};
	return 0;
}

/* Of the backing file of list[index]. */
static enum image_format
backing_format(const struct info_call *call, unsigned index)
{
	const char *name = call->list[index].header.backing_format;

	if (index == 0 && call->options->source.backing_format >= 0)
		return (enum image_format)call->options->source.backing_format;
	return strcmp(name, "raw") ? IMAGE_QCOW2 : IMAGE_RAW;
}

static co_fn int
load_backing(struct info_call *call, const struct image *image)
{
	unsigned index = call->count;
	int err = add_room(call);

	if (err)
		return err;
	return info_load(image_path(image),
	    call->list[index - 1].backing_filename,
	    backing_format(call, index - 1), &call->list[index],
	    &call->error);
}

/* Opened by the engine first, so that its rules for backing files hold. */
static co_fn int
load_chain(struct info_call *call)
{
	struct image_options options =
	    source_image_options(&call->options->source, NULL, 1);
	const struct image *image;
	struct image *top;
	int err;

	options.force_share = true;
	options.no_data = true;
	err = image_open(call->path, &options, &top, &call->error);
	if (err)
		return err;
	for (image = image_backing(top); image && !err;
	    image = image_backing(image))
		err = load_backing(call, image);
	image_close(top);
	return err;
}

static co_fn void
info_main(void *arg)
{
	struct info_call *call = arg;

	call->err = add_room(call);
	if (!call->err)
		call->err = info_load(call->path, call->path,
		    (enum image_format)call->options->source.format, call->list,
		    &call->error);
	if (!call->err && call->options->chain)
		call->err = load_chain(call);
}

/* ---- output ---- */

static int
print_json(const struct info_call *call)
{
	json_t *whole;

	json_text_begin();
	whole = call->options->chain ? json_array() : NULL;
	for (unsigned i = 0; i < call->count; i++) {
		json_t *object = info_to_json(&call->list[i]);

		if (!call->options->chain)
			whole = object;
		else
			json_array_append_new(whole, object);
	}
	return json_text_print(whole) ? 1 : 0;
}

static int
print_all(const struct info_call *call)
{
	if (call->options->json)
		return print_json(call);
	for (unsigned i = 0; i < call->count; i++) {
		if (i > 0)
			putchar('\n');
		info_print(&call->list[i], stdout);
	}
	return 0;
}

static int
info_run(const struct command *command, int argc, char **argv)
{
	struct info_options options = {
		.source = SOURCE_ARGUMENTS_DEFAULT,
	};
	struct info_call call = {.options = &options};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 1)
		return options_complain(command, "info takes one FILE");
	call.path = argv[first];
	exit_code = command_run(info_main, &call);
	if (!exit_code)
		exit_code = call.err ? error_print(&call.error) :
		    print_all(&call);
	for (unsigned i = 0; i < call.count; i++)
		info_free(&call.list[i]);
	free(call.list);
	return exit_code;
}

const struct command info_command = {
	.name = "info",
	.arguments = "[OPTIONS] FILE",
	.summary = "tell what an image file says about itself",
	.options = info_specs,
	.run = info_run,
};
