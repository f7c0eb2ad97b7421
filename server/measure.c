/* SPDX-License-Identifier: MIT */
/* qnbd measure: how large a file an image needs. */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "qcow2/image.h"
#include "runtime/file.h"
#include "server/commands.h"
#include "server/create_options.h"
#include "server/info.h"
#include "server/json_text.h"
#include "server/map.h"
#include "server/progress.h"
#include "server/size.h"
#include "server/source.h"

/* Of the directory of bitmaps, without the name. */
#define BITMAP_RECORD_BYTES 24u

struct measure_arguments {
	struct source_arguments source;
	bool json;
	int output_format;
	int64_t size;			/* -1: not said */
	struct option_texts options;
	int64_t progress_fd;		/* 0: not said */
};

#define FIELD(name) .offset = offsetof(struct measure_arguments, name)

static const struct option_spec measure_specs[] = {
	{ "json", 0, OPTION_FLAG, NULL,
	  "print the JSON that qemu-img prints", FIELD(json) },
	{ "output-format", 'O', OPTION_CHOICE, "qcow2|raw",
	  "what is to be made (qcow2)", FIELD(output_format),
	  .choices = source_formats },
	{ "option", 'o', OPTION_TEXTS, "NAME=VALUE,...",
	  "its settings, as of create", FIELD(options) },
	{ "size", 0, OPTION_SIZE, "SIZE",
	  "of an empty disk, without a SRC", FIELD(size),
	  .min = 0, .max = INT64_MAX },
	PROGRESS_OPTION(struct measure_arguments, progress_fd),
	SOURCE_OPTIONS(struct measure_arguments, source, "SRC"),
	{ .name = NULL },
};

struct measure_call {
	const struct measure_arguments *arguments;
	const char *path;		/* NULL: an empty disk */
	struct create_options options;
	struct image *image;
	struct file *files[IMAGE_CHAIN_MAX + 1]; /* of the chain, or NULL */
	uint64_t counted_end;		/* up to here all is counted */
	uint64_t data_bytes;		/* in whole clusters */
	uint64_t required_bytes;
	uint64_t full_bytes;
	bool has_bitmaps;		/* there may be any */
	uint64_t bitmaps_bytes;		/* not in the other two */
	struct progress progress;
	struct error error;
	int err;
};

static uint64_t
round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

static uint64_t
divide_up(uint64_t value, uint64_t divisor)
{
	return value / divisor + (value % divisor != 0);
}

/* ---- what the source holds ---- */

/* Counts the clusters of the new image that have data. */
static void
count_data(struct measure_call *call, uint64_t guest, uint64_t length)
{
	uint64_t cluster_bytes = call->options.cluster_bytes;
	uint64_t start = guest - guest % cluster_bytes;
	uint64_t end = round_up(guest + length, cluster_bytes);

	if (start < call->counted_end)
		start = call->counted_end;
	if (end <= start)
		return;
	call->data_bytes += end - start;
	call->counted_end = end;
}

/* The file of that layer of the chain, opened once; NULL: it cannot be. */
static struct file *
layer_file(struct measure_call *call, unsigned depth)
{
	struct file **filep = &call->files[depth];

	if (!*filep && file_open(AT_FDCWD, map_layer_path(call->image, depth),
	    0, 0, filep))
		*filep = NULL;
	return *filep;
}

/* Of clusters that have their place, the holes of their file are no data. */
static void
count_host(struct measure_call *call, struct file *file, uint64_t guest,
    uint64_t host, uint64_t length)
{
	uint64_t end = host + length;

	while (host < end) {
		int64_t data = file_seek_data(file, host), hole;

		if (data < 0 || (uint64_t)data >= end)
			return;
		hole = file_seek_hole(file, (uint64_t)data);
		if (hole < 0 || (uint64_t)hole > end)
			hole = (int64_t)end;
		guest += (uint64_t)data - host;
		count_data(call, guest, (uint64_t)(hole - data));
		guest += (uint64_t)(hole - data);
		host = (uint64_t)hole;
	}
}

static void
count_extent(void *arg, uint64_t guest, const struct image_extent *extent)
{
	struct measure_call *call = arg;
	uint64_t size_bytes = call->options.size_bytes;
	uint64_t length = extent->length;
	struct file *file = NULL;

	if (extent->zero || guest >= size_bytes)
		return;
	if (length > size_bytes - guest)
		length = size_bytes - guest;
	if (extent->host_valid)
		file = layer_file(call, extent->depth);
	if (file)
		count_host(call, file, guest, extent->host, length);
	else
		count_data(call, guest, length);
}

/* If all of them were copied, too, each full. */
static void
measure_bitmaps(struct measure_call *call, const struct info *info)
{
	uint64_t cluster_bytes = call->options.cluster_bytes;
	uint64_t directory_bytes = 0;

	for (unsigned i = 0; i < info->bitmaps.count; i++) {
		const struct bitmap *bitmap = &info->bitmaps.list[i];
		uint64_t bits, clusters;

		if (bitmap->flags & BITMAP_IN_USE)
			continue;
		bits = divide_up(info->virtual_bytes,
		    1ull << bitmap->granularity_bits);
		clusters = divide_up(divide_up(bits, 8), cluster_bytes);
		call->bitmaps_bytes += clusters * cluster_bytes +
		    round_up(clusters * 8, cluster_bytes);
		directory_bytes += round_up(BITMAP_RECORD_BYTES +
		    strlen(bitmap->name), 8);
	}
	call->bitmaps_bytes += round_up(directory_bytes, cluster_bytes);
}

co_fn static int
look_for_bitmaps(struct measure_call *call)
{
	struct info info;
	int err = info_load(call->path, call->path, IMAGE_QCOW2, &info,
	    &call->error);

	if (!err && info.header.version >= 3) {
		call->has_bitmaps = true;
		measure_bitmaps(call, &info);
	}
	info_free(&info);
	return err;
}

co_fn static int
look_at_source(struct measure_call *call)
{
	const struct measure_arguments *arguments = call->arguments;
	struct image_options options = source_image_options(
	    &arguments->source, NULL, 1);
	int err;

	options.no_data = true;
	err = image_open(call->path, &options, &call->image, &call->error);
	if (err)
		return err;
	/* Of a qcow2 other tools do not see the part of a sector at its end. */
	call->options.size_bytes = image_size_bytes(call->image);
	if (arguments->source.format == IMAGE_QCOW2)
		call->options.size_bytes &= ~511ull;
	progress_begin(&call->progress, "measuring", arguments->progress_fd);
	err = map_walk(call->image, count_extent, call, &call->progress,
	    &call->error);
	progress_clear(&call->progress);
	for (unsigned i = 0; i <= IMAGE_CHAIN_MAX; i++)
		file_close(call->files[i]);
	image_close(call->image);
	if (!err && arguments->source.format == IMAGE_QCOW2 &&
	    arguments->output_format == IMAGE_QCOW2)
		err = look_for_bitmaps(call);
	return err;
}

/* ---- what that takes ---- */

static int
measure_qcow2(struct measure_call *call)
{
	uint64_t disk_bytes;
	int err = create_measure(&call->options, &call->full_bytes,
	    &call->error);

	if (err)
		return err;
	disk_bytes = round_up(call->options.size_bytes,
	    call->options.cluster_bytes);
	if (call->options.preallocation == CREATE_FALLOC ||
	    call->options.preallocation == CREATE_FULL)
		call->data_bytes = disk_bytes;
	/* The tables of a full disk are counted in any case. */
	call->required_bytes = call->full_bytes - disk_bytes +
	    call->data_bytes;
	return 0;
}

static co_fn void
measure_main(void *arg)
{
	struct measure_call *call = arg;
	/* With no size yet: whether there can be such an image at all. */
	int err = call->path ? measure_qcow2(call) : 0;

	if (!err && call->path)
		err = look_at_source(call);
	if (!err && call->arguments->output_format == IMAGE_RAW)
		call->required_bytes = call->full_bytes =
		    round_up(call->options.size_bytes, 512);
	else if (!err)
		err = measure_qcow2(call);
	call->err = err;
}

/* ---- output ---- */

static int
print_json(const struct measure_call *call)
{
	json_t *object;

	json_text_begin();
	object = json_object();
	if (call->has_bitmaps)
		json_object_set_new(object, "bitmaps",
		    json_integer((json_int_t)call->bitmaps_bytes));
	json_object_set_new(object, "required",
	    json_integer((json_int_t)call->required_bytes));
	json_object_set_new(object, "fully-allocated",
	    json_integer((json_int_t)call->full_bytes));
	return json_text_print(object);
}

static int
print_text(const struct measure_call *call)
{
	size_print_row(stdout, "required", call->required_bytes);
	size_print_row(stdout, "fully allocated", call->full_bytes);
	if (call->bitmaps_bytes > 0)
		size_print_row(stdout, "bitmaps", call->bitmaps_bytes);
	return 0;
}

/* ---- the command line ---- */

static int
take_arguments(const struct command *command, struct measure_call *call,
    int count, char **words)
{
	const struct measure_arguments *arguments = call->arguments;

	if (count + (arguments->size >= 0) != 1)
		return options_complain(command,
		    "measure takes a SRC, or --size SIZE");
	if (count == 1)
		call->path = words[0];
	else
		call->options.size_bytes = (uint64_t)arguments->size;
	if (arguments->output_format == IMAGE_RAW &&
	    arguments->options.count > 0)
		return options_complain(command, "a raw image has no settings");
	return create_options_parse(command, &arguments->options,
	    &call->options);
}

static int
measure_run(const struct command *command, int argc, char **argv)
{
	struct measure_arguments arguments = {
		.source = SOURCE_ARGUMENTS_DEFAULT,
		.output_format = IMAGE_QCOW2, .size = -1,
	};
	struct measure_call call = {
		.arguments = &arguments, .options = create_options_default,
	};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &arguments, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	exit_code = take_arguments(command, &call, argc - first,
	    argv + first);
	if (exit_code)
		return exit_code;
	exit_code = command_run(measure_main, &call);
	if (exit_code)
		return exit_code;
	if (call.err)
		return error_print(&call.error);
	return arguments.json ? print_json(&call) : print_text(&call);
}

const struct command measure_command = {
	.name = "measure",
	.arguments = "[OPTIONS] SRC | --size SIZE",
	.summary = "say how large a file an image needs",
	.options = measure_specs,
	.run = measure_run,
};
