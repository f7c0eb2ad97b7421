/* SPDX-License-Identifier: MIT */
#include "tests/crash/scene.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/check.h"
#include "qcow2/create.h"
#include "qcow2/header_update.h"
#include "qcow2/image_chain.h"
#include "qcow2/internal.h"
#include "runtime/file_record.h"

#define SECTOR 512u
/* Enough for all tables there are; the default costs time to allocate. */
#define CACHE_BYTES (1u << 20)
#define UNKNOWN_EXTENSION 0xfeedfaceu

/* ---- what there is ---- */

/* Both zeros that are written and such that are not there: see put(). */
static uint8_t
old_value(unsigned sector)
{
	return (uint8_t)(sector / 4 % 5);
}

/* Some as in the old one, some not. */
static uint8_t
new_value(unsigned sector)
{
	return sector / 12 % 2 ? old_value(sector) :
	    (uint8_t)(sector / 6 % 3 * 2);
}

/* 0 is for zeros that the overlay has of its own, -1 for nothing. */
static int
top_value(unsigned sector)
{
	if (sector % 32 >= 24)
		return 0;
	return sector % 5 < 2 ? 9 : -1;
}

static int
value_at(enum scene_file which, unsigned sector)
{
	switch (which) {
	case SCENE_TOP:
		return top_value(sector);
	case SCENE_OLD:
		return old_value(sector);
	default:
		return new_value(sector);
	}
}

static bool
is_raw(const struct scene *scene, enum scene_file which)
{
	return scene->options->raw && which != SCENE_TOP;
}

static const char *
format_name(const struct scene *scene)
{
	return scene->options->raw ? "raw" : "qcow2";
}

/* Names that tell by their first letter what they stand for. */
static const char *
name_of(const struct scene *scene, char letter, char name[1024])
{
	unsigned bytes = scene->options->name_bytes ?
	    scene->options->name_bytes : 4;

	memset(name, letter, bytes);
	name[bytes] = '\0';
	return name;
}

static void
settle_shown(struct scene *scene)
{
	for (unsigned i = 0; i < scene->options->sectors[SCENE_TOP]; i++) {
		int value = top_value(i);

		if (value < 0)
			value = i < scene->options->sectors[SCENE_OLD] ?
			    old_value(i) : 0;
		scene->shown[i] = (uint8_t)value;
	}
}

/* ---- worlds ---- */

/* The scene of the coroutine that runs. */
static struct scene *current;

static void
run(struct scene *scene, struct sim *sim, void (*fn)(void *arg))
{
	struct co_start start;

	current = scene;
	sim_start(sim, 0, &start, fn, scene);
	ck_assert_int_eq(sim_run(sim), SIM_DONE);
}

static void
run_plain(struct scene *scene, void (*fn)(void *arg))
{
	struct sim *sim;

	ck_assert_int_eq(sim_create(1, 1, &sim), 0);
	run(scene, sim, fn);
	sim_free(sim);
}

co_fn static struct image *
open_one(struct file *file, bool raw, bool writable)
{
	struct image_options options = {
		.format = raw ? IMAGE_RAW : IMAGE_QCOW2,
		.writable = writable, .no_backing = true,
		.metadata_cache_bytes = CACHE_BYTES,
	};
	struct error error;
	struct image *image;

	ck_assert_msg(!image_open_file(file, &options, &image, &error),
	    "%s", error.message);
	return image;
}

static struct file *
handle_of(struct file *file)
{
	struct file *handle;

	ck_assert_int_eq(file_sim_open(file, &handle), 0);
	return handle;
}

/* ---- the files ---- */

co_fn static void
put(struct image *image, enum scene_file which, unsigned sector)
{
	static uint8_t data[SECTOR];
	int value = value_at(which, sector);

	/* Of the backing files, half of the zeros are not there. */
	if (value < 0 || (value == 0 && which != SCENE_TOP && sector % 2))
		return;
	memset(data, value, SECTOR);
	if (value == 0 && which == SCENE_TOP)
		ck_assert_int_eq(image_zero(image,
		    (uint64_t)sector * SECTOR, SECTOR, 0), 0);
	else
		ck_assert_int_eq(image_write(image,
		    (uint64_t)sector * SECTOR, data, SECTOR, 0), 0);
}

/* Over the old file, so that what the overlay copies of it is right. */
co_fn static void
fill(void *arg)
{
	struct scene *scene = arg;

	for (unsigned which = SCENE_FILES; which-- > 0;) {
		struct image *image = open_one(
		    handle_of(scene->found[which]), is_raw(scene, which),
		    true);

		if (which == SCENE_TOP)
			image->backing = open_one(
			    handle_of(scene->found[SCENE_OLD]),
			    is_raw(scene, SCENE_OLD), false);
		for (unsigned i = 0; i < scene->options->sectors[which]; i++)
			put(image, which, i);
		ck_assert_int_eq(image_close(image), 0);
	}
}

/* An extension that nobody knows, in front of all others. */
static void
add_extension(struct scene *scene)
{
	const struct scene_options *options = scene->options;
	uint8_t *cluster = calloc(1, options->cluster_bytes);
	struct header_extension first;
	struct header header;
	struct error error;

	ck_assert_ptr_nonnull(cluster);
	file_sim_plain();
	ck_assert_int_eq(header_load(scene->found[SCENE_TOP], &header,
	    &error), 0);
	if (options->no_format)
		free(header.extensions[0].data);
	if (options->no_format)
		memmove(header.extensions, header.extensions + 1,
		    --header.extension_count * sizeof(first));
	if (options->extension_bytes) {
		ck_assert_int_eq(header_add_extension(&header,
		    UNKNOWN_EXTENSION, memset(cluster, 0x77,
		    options->extension_bytes), options->extension_bytes), 0);
		first = header.extensions[header.extension_count - 1];
		memmove(header.extensions + 1, header.extensions,
		    (header.extension_count - 1) * sizeof(first));
		header.extensions[0] = first;
	}
	ck_assert_int_eq(header_build(&header, cluster,
	    options->cluster_bytes), 0);
	file_sim_poke(scene->found[SCENE_TOP], cluster,
	    options->cluster_bytes, 0);
	header_free(&header);
	free(cluster);
}

static void
create_file(struct scene *scene, enum scene_file which)
{
	char name[1024];
	struct create_options options = {
		.size_bytes = (uint64_t)scene->options->sectors[which] *
		    SECTOR,
		.version = which == SCENE_TOP ? scene->options->version : 3,
		.cluster_bytes = scene->options->cluster_bytes,
		.refcount_bits = which == SCENE_TOP &&
		    scene->options->refcount_bits ?
		    scene->options->refcount_bits :
		    CREATE_REFCOUNT_BITS_DEFAULT,
	};
	struct error error;

	if (which == SCENE_TOP) {
		options.backing_name = name_of(scene, 'o', name);
		options.backing_format = format_name(scene);
	}
	ck_assert_int_eq(file_sim_create(NULL, "disk", is_raw(scene, which) ?
	    options.size_bytes : 0, &scene->found[which]), 0);
	if (is_raw(scene, which))
		return;
	file_sim_plain();
	ck_assert_msg(!create_image(scene->found[which], "disk", &options,
	    &error), "%s", error.message);
}

void
scene_create(struct scene *scene, const struct scene_options *options)
{
	*scene = (struct scene){.options = options};
	settle_shown(scene);
	for (unsigned i = 0; i < SCENE_FILES; i++)
		create_file(scene, i);
	run_plain(scene, fill);
	if (options->extension_bytes || options->no_format)
		add_extension(scene);
}

static void
end_world(struct scene *scene)
{
	for (unsigned i = 0; i < SCENE_FILES; i++)
		file_close(scene->files[i]);
	if (scene->log)
		record_log_free(scene->log);
	sim_free(scene->sim);
	scene->log = NULL;
}

void
scene_free(struct scene *scene)
{
	if (scene->sim)
		end_world(scene);
	for (unsigned i = 0; i < SCENE_FILES; i++)
		file_close(scene->found[i]);
}

void
scene_reset(struct scene *scene, uint64_t seed, bool recorded)
{
	if (scene->sim)
		end_world(scene);
	ck_assert_int_eq(sim_create(seed, 1, &scene->sim), 0);
	for (unsigned i = 0; i < SCENE_FILES; i++)
		ck_assert_int_eq(file_sim_clone(scene->found[i], scene->sim,
		    &scene->files[i]), 0);
	if (recorded)
		ck_assert_int_eq(record_log_create(&scene->log), 0);
}

/* ---- the work ---- */

/* NULL, with the error noted, if it cannot be opened. */
co_fn static struct image *
open_file(struct scene *scene, enum scene_file which, bool writable)
{
	struct image_options options = {
		.format = is_raw(scene, which) ? IMAGE_RAW : IMAGE_QCOW2,
		.writable = writable, .no_backing = true,
		.metadata_cache_bytes = CACHE_BYTES,
	};
	struct file *file = handle_of(scene->files[which]);
	struct image *image;

	if (scene->log)
		ck_assert_int_eq(file_record_open(scene->log, which, file,
		    false, &file), 0);
	scene->err = image_open_file(file, &options, &image, &scene->error);
	return scene->err ? NULL : image;
}

static bool
go_on(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	ck_assert_uint_lt(done, total);
	return false;
}

static const struct image_progress progress = {.report = go_on};

co_fn static void
commit(struct scene *scene, struct image *top)
{
	scene->err = image_commit(top, 1, &progress, &scene->error);
	if (scene->err)
		return;
	if (scene->log)
		scene->committed = record_log_next(scene->log);
	scene->err = image_empty(top, NULL, &scene->error);
}

co_fn static void
change(struct scene *scene, struct image *top, struct image *below)
{
	char name[1024];
	struct header_backing backing = {.format = format_name(scene)};

	switch (scene->options->work) {
	case SCENE_REBASE:
		backing.name = name_of(scene, 'n', name);
		scene->err = image_rebase(top, below, &backing, &progress,
		    &scene->error);
		break;
	case SCENE_FLATTEN:
		scene->err = image_flatten(top, &progress, &scene->error);
		break;
	case SCENE_COMMIT:
		commit(scene, top);
		break;
	case SCENE_RENAME:
		backing.name = name_of(scene, 'O', name);
		scene->err = image_set_backing(top, &backing, &scene->error);
		break;
	}
}

co_fn static void
work(void *arg)
{
	struct scene *scene = arg;
	struct image *top, *below = NULL;
	int err;

	top = open_file(scene, SCENE_TOP, true);
	if (!top)
		return;
	top->backing = open_file(scene, SCENE_OLD,
	    scene->options->work == SCENE_COMMIT);
	if (top->backing && scene->options->work == SCENE_REBASE)
		below = open_file(scene, SCENE_NEW, false);
	if (!scene->err)
		change(scene, top, below);
	err = image_close(top);
	if (!scene->err && err)
		scene->err = error_set(&scene->error, err, "closing");
	if (below)
		image_close(below);
}

void
scene_work(struct scene *scene)
{
	scene->err = 0;
	scene->error = (struct error){0};
	scene->committed = UINT64_MAX;
	run(scene, scene->sim, work);
}

/* ---- the verdict ---- */

co_fn static void
check_one(struct file *file)
{
	struct check_result result;
	struct error error;

	ck_assert_msg(!check_file(file, "disk", &result, &error), "%s",
	    error.message);
	ck_assert_uint_eq(result.corruptions, 0);
	ck_assert_uint_eq(result.check_errors, 0);
}

co_fn static void
compare(const struct scene *scene, struct image *image)
{
	static uint8_t data[SCENE_SECTORS_MAX * SECTOR];
	unsigned sectors = scene->options->sectors[SCENE_TOP];

	ck_assert_uint_ge(image_size_bytes(image),
	    (uint64_t)sectors * SECTOR);
	ck_assert_int_eq(image_read(image, 0, data, (size_t)sectors * SECTOR,
	    NULL), 0);
	/* Each assertion is told to the parent, which takes time. */
	for (unsigned i = 0; i < sectors * SECTOR; i++)
		if (data[i] != scene->shown[i / SECTOR])
			ck_abort_msg("sector %u is %u, not %u", i / SECTOR,
			    data[i], scene->shown[i / SECTOR]);
}

/* What the unknown extension holds, and where. */
static void
judge_extension(const struct scene *scene, const struct header *header)
{
	uint32_t bytes = scene->options->extension_bytes;
	const struct header_extension *first = header->extensions;

	if (!bytes)
		return;
	ck_assert_uint_gt(header->extension_count, 0);
	ck_assert_uint_eq(first->type, UNKNOWN_EXTENSION);
	ck_assert_uint_eq(first->bytes, bytes);
	for (uint32_t i = 0; i < bytes; i++)
		if (first->data[i] != 0x77)
			ck_abort_msg("the extension is not what it was");
}

/* Each name with its format, all of it old or all of it new. */
static void
judge_header(const struct scene *scene, const struct header *header)
{
	char name[1024];

	judge_extension(scene, header);
	if (!header->backing) {
		ck_assert_int_eq(scene->options->work, SCENE_FLATTEN);
		ck_assert_str_eq(header->backing_format, "");
		return;
	}
	ck_assert_ptr_nonnull(strchr("onO", header->backing_name[0]));
	ck_assert_str_eq(header->backing_name, name_of(scene,
	    header->backing_name[0], name));
	ck_assert_str_eq(header->backing_format,
	    scene->options->no_format && name[0] == 'o' ? "" :
	    format_name(scene));
}

co_fn static void
judge(void *arg)
{
	struct scene *scene = arg;
	enum scene_file below = SCENE_OLD;
	struct image *top;

	for (unsigned i = 0; i < SCENE_NEW; i++)
		if (!is_raw(scene, i))
			check_one(scene->judged[i]);
	top = open_one(handle_of(scene->judged[SCENE_TOP]), false, false);
	judge_header(scene, &top->header);
	strcpy(scene->name, top->header.backing_name);
	if (scene->name[0] == 'n')
		below = SCENE_NEW;
	if (scene->name[0])
		top->backing = open_one(handle_of(scene->judged[below]),
		    is_raw(scene, below), false);
	compare(scene, top);
	ck_assert_int_eq(image_close(top), 0);
}

void
scene_judge(struct scene *scene, struct file *const files[SCENE_FILES],
    bool *finishedp)
{
	static const char letters[] = {
		[SCENE_REBASE] = 'n', [SCENE_FLATTEN] = '\0',
		[SCENE_COMMIT] = 'o', [SCENE_RENAME] = 'O',
	};

	for (unsigned i = 0; i < SCENE_FILES; i++)
		scene->judged[i] = files[i] ? files[i] : scene->found[i];
	run_plain(scene, judge);
	*finishedp = scene->name[0] == letters[scene->options->work];
}

co_fn static void
judge_old(void *arg)
{
	struct scene *scene = arg;
	struct image *image = open_one(handle_of(scene->judged[SCENE_OLD]),
	    is_raw(scene, SCENE_OLD), false);

	compare(scene, image);
	ck_assert_int_eq(image_close(image), 0);
}

void
scene_judge_committed(struct scene *scene, struct file *old)
{
	scene->judged[SCENE_OLD] = old;
	run_plain(scene, judge_old);
}
