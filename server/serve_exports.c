/* SPDX-License-Identifier: MIT */
#include "server/serve_exports.h"

#include <string.h>
#include "qcow2/check.h"
#include "qcow2/image.h"
#include "runtime/log.h"
#include "server/export.h"
#include "server/progress.h"
#include "server/serve_options.h"
#include "server/server.h"
#include "server/size.h"

/* ---- while a dirty image is repaired ---- */

struct repair {
	struct progress progress;
	const bool *stop;
};

static void
repair_progress(void *arg, uint64_t done, uint64_t total)
{
	struct repair *repair = arg;

	progress_set(&repair->progress, done, total);
}

static bool
repair_stop(void *arg)
{
	const struct repair *repair = arg;

	return *repair->stop;
}

/* Opens the image, and shows how a repair comes on. */
static co_fn int
open_image(const char *path, struct image_options *options, const bool *stop,
    struct image **imagep, struct error *error)
{
	struct repair repair = {.stop = stop};
	const struct check_listener listener = {
		.progress = repair_progress, .stop = repair_stop,
		.arg = &repair,
	};
	int err;

	options->repair_listener = &listener;
	progress_begin(&repair.progress, "repairing", 0);
	err = image_open(path, options, imagep, error);
	progress_clear(&repair.progress);
	return err;
}

/* ---- one after the other ---- */

static void
log_export(const struct export *export)
{
	const struct image *image = export->image;
	char size[SIZE_TEXT_BYTES];
	char name[128];

	log_info("serving export=\"%s\" image=%s size=\"%s\"%s",
	    log_quote(name, sizeof(name), export->name,
	    (int)strlen(export->name)), image_path(image),
	    size_print(size, image_size_bytes(image)),
	    image_writable(image) ? "" : " read-only=yes");
	while ((image = image_backing(image)))
		log_info("opened as backing file image=%s export=\"%s\"",
		    image_path(image), name);
}

static co_fn int
open_export(const struct serve_options *options, unsigned index,
    const struct key_ring *keys, const bool *stop, struct server *server,
    struct error *error)
{
	const char *path = options->images[index];
	struct image_options image_options = source_image_options(
	    &options->source, keys, server->loops_count);
	struct export *export;
	struct image *image;
	int err;

	image_options.writable = !options->read_only;
	image_options.refuse_bitmaps = options->refuse_bitmaps;
	image_options.discard = (enum image_discard)options->discard;
	image_options.detect_zeroes =
	    (enum image_detect_zeroes)options->detect_zeroes;
	image_options.metadata_cache_bytes =
	    (uint64_t)options->metadata_cache_bytes;
	err = open_image(path, &image_options, stop, &image, error);
	if (err)
		return err;
	err = export_add(&server->exports, options->names[index],
	    options->description, image);
	if (err) {
		image_close(image);
		return error_set(error, err, "cannot serve %s: %s", path,
		    strerror(-err));
	}
	export = server->exports.list[index];
	export->needs_tls = serve_has_tls(options) &&
	    !serve_allows_plain(options, export->name);
	log_export(export);
	return 0;
}

int
serve_exports_open(const struct serve_options *options,
    const struct key_ring *keys, const bool *stop, struct server *server,
    struct error *error)
{
	for (unsigned i = 0; i < options->images_count; i++) {
		int err = open_export(options, i, keys, stop, server, error);

		if (err)
			return err;
	}
	if (options->allow_resize)
		export_allow_resize(&server->exports);
	return 0;
}
