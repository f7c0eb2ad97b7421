/* SPDX-License-Identifier: MIT */
#include "server/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "qcow2/check.h"
#include "runtime/file.h"
#include "server/cells.h"
#include "server/map.h"
#include "server/progress.h"
#include "server/size.h"
#include "server/svg.h"

/* How each of our pictures begins, and others that may be replaced. */
#define SVG_BEGIN "<svg "

/* ---- the disk ---- */

/* Layers below the top that have colours of their own. */
#define LAYERS_MAX 3u

enum disk_kind {
	DISK_DATA,
	DISK_COMPRESSED,
	DISK_BELOW,		/* data of the first LAYERS_MAX layers */
	DISK_ROOM = DISK_BELOW + LAYERS_MAX,
	DISK_ZERO,
	DISK_ABSENT,
	DISK_KINDS,
};

static const struct svg_kind disk_kinds[DISK_KINDS] = {
	[DISK_DATA] = { "data", "#0969da", "#4493f8" },
	[DISK_COMPRESSED] = { "data, compressed", "#bf3989", "#db61a2" },
	[DISK_BELOW] = { "", "#1b7c83", "#39b0b8" },
	[DISK_BELOW + 1] = { "", "#5cb3b9", "#1f7d84" },
	[DISK_BELOW + 2] = { "", "#a9d8db", "#12484d" },
	[DISK_ROOM] = { "zeros, with room kept", "#bf8700", "#d29922" },
	[DISK_ZERO] = { "zeros", "#eac54f", "#845306" },
	[DISK_ABSENT] = { "nothing, reads as zeros", "#e4e8ec", "#262c34" },
};

static unsigned
kind_of(const struct image_extent *extent)
{
	if (!extent->present)
		return DISK_ABSENT;
	if (extent->zero)
		return extent->allocated && extent->depth == 0 ? DISK_ROOM :
		    DISK_ZERO;
	if (extent->depth > LAYERS_MAX)
		return DISK_BELOW + LAYERS_MAX - 1;
	if (extent->depth > 0)
		return DISK_BELOW + extent->depth - 1u;
	return extent->compressed ? DISK_COMPRESSED : DISK_DATA;
}

static void
add_extent(void *arg, uint64_t guest, const struct image_extent *extent)
{
	cells_add(arg, kind_of(extent), guest, extent->length);
}

static const char *
name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The kinds, with the names of the layers below. */
static void
name_layers(const struct image *image, struct svg_kind kinds[DISK_KINDS])
{
	const struct image *layer = image;

	memcpy(kinds, disk_kinds, sizeof(disk_kinds));
	for (unsigned i = 0; i < LAYERS_MAX; i++) {
		layer = layer ? image_backing(layer) : NULL;
		if (!layer)
			return;
		snprintf(kinds[DISK_BELOW + i].label, SVG_LABEL_BYTES,
		    "data in %.32s%s", name_of(image_path(layer)),
		    i == LAYERS_MAX - 1 && image_backing(layer) ?
		    ", or below" : "");
	}
}

/* ---- the file ---- */

#define FILE_FREE CHECK_CONTENTS
#define FILE_KINDS (CHECK_CONTENTS + 1)

static const struct svg_kind file_kinds[FILE_KINDS] = {
	[CHECK_CONTENT_LEAKED] = { "leaked", "#d1242f", "#f85149" },
	[CHECK_CONTENT_SNAPSHOT] = { "data of snapshots only", "#1a7f37",
	    "#3fb950" },
	[CHECK_CONTENT_ROOM] = { "room kept for zeros", "#bf8700",
	    "#d29922" },
	[CHECK_CONTENT_DATA] = { "data", "#0969da", "#4493f8" },
	[CHECK_CONTENT_COMPRESSED] = { "data, compressed", "#bf3989",
	    "#db61a2" },
	[CHECK_CONTENT_BITMAPS] = { "bitmaps", "#9e6b4a", "#b98862" },
	[CHECK_CONTENT_SNAPSHOT_TABLE] = { "snapshot table", "#82b366",
	    "#a5d48a" },
	[CHECK_CONTENT_L2] = { "L2 tables", "#bc4c00", "#f0883e" },
	[CHECK_CONTENT_L1] = { "L1 tables", "#ff9c5b", "#ffc299" },
	[CHECK_CONTENT_REFCOUNTS] = { "refcounts", "#8250df", "#ab7df8" },
	[CHECK_CONTENT_HEADER] = { "header", "#1f2328", "#e6edf3" },
	[FILE_FREE] = { "free", "#e4e8ec", "#262c34" },
};

/* What each cluster of the file holds; the most peculiar of its contents. */
struct contents {
	uint8_t *list;		/* check_content, or FILE_FREE */
	uint64_t clusters;
	uint64_t cluster_bytes;
};

static void
note_content(void *arg, enum check_content content, uint64_t host,
    uint64_t bytes)
{
	struct contents *contents = arg;
	uint64_t cluster = host / contents->cluster_bytes, end;

	if (bytes == 0 || cluster >= contents->clusters)
		return;
	end = bytes > UINT64_MAX - host ? contents->clusters :
	    (host + bytes - 1) / contents->cluster_bytes + 1;
	for (; cluster < end && cluster < contents->clusters; cluster++)
		if (contents->list[cluster] == FILE_FREE ||
		    contents->list[cluster] < content)
			contents->list[cluster] = (uint8_t)content;
}

static void
add_contents(struct cells *cells, const struct contents *contents)
{
	for (uint64_t cluster = 0; cluster < contents->clusters; cluster++)
		cells_add(cells, contents->list[cluster],
		    cluster * contents->cluster_bytes,
		    contents->cluster_bytes);
}

co_fn static int
look_into(struct file *file, const char *name, uint64_t cluster_bytes,
    struct cells *cells, struct error *error)
{
	int64_t file_bytes = file_size(file);
	struct contents contents = { .cluster_bytes = cluster_bytes };
	struct check_listener listener = {
		.content = note_content, .arg = &contents,
	};
	struct check_result result;
	int err;

	if (file_bytes < 0)
		return error_set(error, (int)file_bytes, "cannot tell the "
		    "length of %s: %s", name, strerror((int)-file_bytes));
	contents.clusters = ((uint64_t)file_bytes + cluster_bytes - 1) /
	    cluster_bytes;
	err = cells_init(cells, (uint64_t)file_bytes, cluster_bytes,
	    FILE_KINDS);
	contents.list = malloc(contents.clusters);
	if (err || !contents.list) {
		err = error_set(error, -ENOMEM, "out of memory");
		goto free_contents;
	}
	memset(contents.list, FILE_FREE, contents.clusters);
	err = check_file_listen(file, name, &listener, &result, error);
	if (!err)
		add_contents(cells, &contents);
free_contents:
	free(contents.list);
	return err;
}

co_fn static int
gather_file(const struct image *image, struct cells *cells,
    struct error *error)
{
	const char *path = image_path(image);
	struct file *file;
	int err = file_open(AT_FDCWD, path, 0, 0, &file);

	if (err)
		return error_set(error, err, "cannot open %s: %s", path,
		    strerror(-err));
	err = look_into(file, path, image_cluster_bytes(image), cells, error);
	file_close(file);
	return err;
}

/* ---- the picture ---- */

static void
draw(FILE *out, const struct image *image, const struct cells *disk,
    const struct cells *file)
{
	struct svg_kind kinds[DISK_KINDS];
	char disk_text[SIZE_TEXT_BYTES], file_text[SIZE_TEXT_BYTES];
	char cluster[SIZE_TEXT_BYTES], subtitle[SVG_LABEL_BYTES + 32];
	const struct svg_chart charts[] = {
		{ "The disk, as the guest sees it",
		  size_print(disk_text, disk->total_bytes), disk, kinds },
		{ "The file", size_print(file_text, file->total_bytes), file,
		  file_kinds },
	};
	bool is_raw = file->kinds == 0;

	name_layers(image, kinds);
	if (is_raw)
		snprintf(subtitle, sizeof(subtitle), "raw: the file is the "
		    "disk, byte for byte");
	else
		snprintf(subtitle, sizeof(subtitle), "qcow2, clusters of %s; "
		    "whatever is in a cell has a part of it, the least, too",
		    size_print(cluster, image_cluster_bytes(image)));
	svg_draw(out, name_of(image_path(image)), subtitle, charts,
	    is_raw ? 1 : 2);
}

/* What is no picture of ours stays; pipes and terminals take anything. */
static int
check_path(const char *path, struct error *error)
{
	char begin[sizeof(SVG_BEGIN) - 1];
	bool is_picture = false;
	struct stat st;
	int fd;

	if (stat(path, &st) || S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		return 0;	/* opening it for writing will say why not */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		is_picture = S_ISREG(st.st_mode) && (st.st_size == 0 ||
		    (read(fd, begin, sizeof(begin)) == sizeof(begin) &&
		    !memcmp(begin, SVG_BEGIN, sizeof(begin))));
		close(fd);
	}
	return is_picture ? 0 : error_set(error, -EEXIST,
	    "%s is there already, and is no picture", path);
}

static int
write_picture(const char *path, const char *text, size_t bytes,
    struct error *error)
{
	FILE *out = fopen(path, "we");
	int err = 0;

	if (!out)
		return error_set(error, -errno, "cannot write %s: %s", path,
		    strerror(errno));
	if (fwrite(text, 1, bytes, out) != bytes)
		err = -errno;
	if (fclose(out) && !err)
		err = -errno;
	return !err ? 0 : error_set(error, err, "cannot write %s: %s", path,
	    strerror(-err));
}

/* All is drawn in memory first, so that half a picture is left nowhere. */
static int
save(const struct image *image, const struct cells *disk,
    const struct cells *file, const char *path, struct error *error)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);
	int err;

	if (!out)
		return error_set(error, -ENOMEM, "out of memory");
	draw(out, image, disk, file);
	if (fclose(out))
		err = error_set(error, -ENOMEM, "out of memory");
	else
		err = write_picture(path, text, bytes, error);
	free(text);
	return err;
}

co_fn int
picture_draw(struct image *image, enum image_format format, const char *path,
    struct progress *progress, struct error *error)
{
	struct cells disk = {0}, file = {0};
	int err = check_path(path, error);

	if (err)
		return err;
	if (cells_init(&disk, image_size_bytes(image),
	    image_cluster_bytes(image), DISK_KINDS))
		err = error_set(error, -ENOMEM, "out of memory");
	if (!err)
		err = map_walk(image, add_extent, &disk, progress, error);
	progress_clear(progress);
	if (!err && format == IMAGE_QCOW2)
		err = gather_file(image, &file, error);
	if (!err)
		err = save(image, &disk, &file, path, error);
	cells_free(&file);
	cells_free(&disk);
	return err;
}
