/* SPDX-License-Identifier: MIT */
/* qnbd map: which parts of a disk are where, without locking the image. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "qcow2/image.h"
#include "runtime/file.h"
#include "runtime/file_holder.h"
#include "server/commands.h"
#include "server/map.h"
#include "server/picture.h"
#include "server/progress.h"
#include "server/source.h"

struct map_options {
	bool json;
	const char *svg;
	struct source_arguments source;
	int64_t progress_fd;	/* 0: not said */
};

#define FIELD(name) .offset = offsetof(struct map_options, name)

static const struct option_spec map_specs[] = {
	{ "json", 0, OPTION_FLAG, NULL,
	  "print the JSON that qemu-img prints", FIELD(json) },
	{ "svg", 0, OPTION_TEXT, "PICTURE",
	  "draw the disk and the file into PICTURE instead", FIELD(svg) },
	SOURCE_FORMAT_OPTION(struct map_options, source.format,
	    "the file"),
	SOURCE_BACKING_OPTIONS(struct map_options, source, "", ""),
	PROGRESS_OPTION(struct map_options, progress_fd),
	{ .name = NULL },
};

/* Extents are printed when the next one shows that they are over. */
struct map {
	const struct map_options *options;
	const char *path;
	struct image *image;
	uint64_t start;			/* of last */
	struct image_extent last;	/* none yet if its length is 0 */
	bool any_printed;
	bool on_terminal;
	struct progress progress;
	struct error error;
	int err;
};

/* ---- output ---- */

const char *
map_layer_path(const struct image *image, unsigned depth)
{
	while (depth-- > 0 && image_backing(image))
		image = image_backing(image);
	return image_path(image);
}

static const char *
word(bool value)
{
	return value ? "true" : "false";
}

static void
print_json_extent(struct map *map)
{
	const struct image_extent *extent = &map->last;

	printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
	    ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s"
	    ", \"compressed\": %s", map->any_printed ? ",\n" : "", map->start,
	    extent->length, extent->depth, word(extent->present),
	    word(extent->zero), word(!extent->zero), word(extent->compressed));
	if (extent->host_valid)
		printf(", \"offset\": %" PRIu64, extent->host);
	printf("}");
}

static const char *
kind(const struct image_extent *extent)
{
	if (!extent->present)
		return "absent";
	if (extent->zero)
		return extent->allocated ? "zero, kept" : "zero";
	return extent->compressed ? "compressed" : "data";
}

static void
print_text_extent(struct map *map)
{
	const struct image_extent *extent = &map->last;
	const char *file = extent->present ?
	    map_layer_path(map->image, extent->depth) : "";
	char host[24] = "-";

	if (extent->host_valid)
		snprintf(host, sizeof(host), "%" PRIu64, extent->host);
	if (!map->on_terminal) {
		printf("%" PRIu64 "\t%" PRIu64 "\t%s\t%s\t%s\n", map->start,
		    extent->length, kind(extent), host, file);
		return;
	}
	if (!map->any_printed)
		printf("%16s %16s  %-11s%16s  %s\n", "START", "LENGTH",
		    "KIND", "HOST OFFSET", "FILE");
	printf("%16" PRIu64 " %16" PRIu64 "  %-11s%16s  %s\n", map->start,
	    extent->length, kind(extent), host, file);
}

static void
print_last(struct map *map)
{
	if (map->last.length == 0)
		return;
	if (map->options->json)
		print_json_extent(map);
	else
		print_text_extent(map);
	map->any_printed = true;
}

/* ---- walking ---- */

static bool
same_facts(const struct image_extent *a, const struct image_extent *b)
{
	return a->zero == b->zero && a->allocated == b->allocated &&
	    a->compressed == b->compressed && a->depth == b->depth &&
	    a->present == b->present && a->host_valid == b->host_valid &&
	    (!a->host_valid || a->host + a->length == b->host);
}

static void
add_extent(void *arg, uint64_t start, const struct image_extent *extent)
{
	struct map *map = arg;

	if (map->last.length > 0 && same_facts(&map->last, extent)) {
		map->last.length += extent->length;
		return;
	}
	print_last(map);
	map->start = start;
	map->last = *extent;
}

co_fn int
map_walk(struct image *image, void (*take)(void *arg, uint64_t guest,
    const struct image_extent *extent), void *arg, struct progress *progress,
    struct error *error)
{
	uint64_t size_bytes = image_size_bytes(image);
	uint64_t guest = 0;

	while (guest < size_bytes) {
		struct image_extent extents[MAP_BATCH];
		unsigned count;
		int err;

		progress_set(progress, guest, size_bytes);
		err = image_status(image, guest, size_bytes - guest,
		    extents, MAP_BATCH, &count);

		if (err)
			return error_set(error, err, "cannot map %s from "
			    "byte %" PRIu64 " on: %s", image_path(image),
			    guest, strerror(-err));
		for (unsigned i = 0; i < count; i++) {
			take(arg, guest, &extents[i]);
			guest += extents[i].length;
		}
	}
	return 0;
}

static co_fn int
print_all(struct map *map)
{
	int err;

	if (map->options->json)
		printf("[");
	err = map_walk(map->image, add_extent, map, &map->progress,
	    &map->error);
	progress_clear(&map->progress);
	if (err)
		return err;
	print_last(map);
	if (map->options->json)
		printf("]\n");
	return 0;
}

/* Somebody who writes may change the map while it is drawn. */
static void
warn_if_in_use(const char *path)
{
	char holder[FILE_HOLDER_BYTES];
	struct file *file;

	if (file_open(AT_FDCWD, path, 0, 0, &file))
		return;		/* opening the image will say why */
	if (file_lock(file, FILE_LOCK_READ, 0) == -EAGAIN) {
		file_holder(file, holder);
		fprintf(stderr, "qnbd: %s is in use: %s writes to it, so the "
		    "map may be out of date\n", path, holder);
	}
	file_close(file);
}

static co_fn void
map_main(void *arg)
{
	struct map *map = arg;
	const char *svg = map->options->svg;
	struct image_options options =
	    source_image_options(&map->options->source, NULL, 1);

	options.force_share = true;
	options.no_data = true;
	warn_if_in_use(map->path);
	map->err = image_open(map->path, &options, &map->image,
	    &map->error);
	if (map->err)
		return;
	map->err = svg ?
	    picture_draw(map->image, options.format, svg, &map->progress,
	    &map->error) :
	    print_all(map);
	image_close(map->image);
}

static int
map_run(const struct command *command, int argc, char **argv)
{
	struct map_options options = {
		.source = SOURCE_ARGUMENTS_DEFAULT,
	};
	struct map map = {
		.options = &options,
		.on_terminal = isatty(STDOUT_FILENO),
	};
	int first, exit_code;

	exit_code = options_parse(command, argc, argv, &options, &first);
	if (exit_code)
		return exit_code < 0 ? 0 : exit_code;
	if (argc - first != 1)
		return options_complain(command, "map takes one FILE");
	if (options.json && options.svg)
		return options_complain(command,
		    "--json does not go with --svg");
	map.path = argv[first];
	progress_begin(&map.progress, options.svg ? "drawing" : "mapping",
	    options.progress_fd);
	/* The list itself shows how far it is. */
	if (map.on_terminal && !options.svg)
		map.progress.is_shown = false;
	exit_code = command_run(map_main, &map);
	if (exit_code)
		return exit_code;
	fflush(stdout);
	return map.err ? error_print(&map.error) : 0;
}

const struct command map_command = {
	.name = "map",
	.arguments = "[OPTIONS] FILE",
	.summary = "list, or draw, which parts of a disk hold data, and where",
	.options = map_specs,
	.run = map_run,
};
