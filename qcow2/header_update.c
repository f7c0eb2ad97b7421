/* SPDX-License-Identifier: MIT */
#include "qcow2/header_update.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/bytes.h"
#include "qcow2/internal.h"
#include "runtime/log.h"

#define NAME_FIELDS	8u	/* where the name is, and how long */
#define NAME_FIELDS_BYTES 12u

/* ---- which bytes of a header cluster are about something ---- */

struct meaning {
	uint32_t extensions_end;
	uint32_t name, name_end;
};

static struct meaning
meaning_of(const uint8_t *cluster, const struct header *header)
{
	uint64_t end = header_extensions_end(header);
	uint32_t name = (uint32_t)bytes_get64(cluster + NAME_FIELDS);
	struct meaning meaning = {.name = name};

	/* A mark for the end is not needed where the name follows. */
	if (name && end > name)
		end = name;
	if (end > header_cluster_bytes(header))
		end = header_cluster_bytes(header);
	meaning.extensions_end = (uint32_t)end;
	meaning.name_end = name + bytes_get32(cluster + NAME_FIELDS + 8);
	return meaning;
}

static bool
means(const struct meaning *meaning, uint32_t offset)
{
	return offset < meaning->extensions_end ||
	    (offset >= meaning->name && offset < meaning->name_end);
}

static uint32_t
meaning_end(const struct meaning *meaning)
{
	return meaning->extensions_end > meaning->name_end ?
	    meaning->extensions_end : meaning->name_end;
}

/* Whether after would change what before's first sector leads to. */
static bool
clashes(const uint8_t *before, const struct meaning *old,
    const uint8_t *after, const struct meaning *new)
{
	uint32_t end = meaning_end(old);

	for (uint32_t i = HEADER_SECTOR_BYTES; i < end; i++)
		if (means(old, i) && means(new, i) && before[i] != after[i])
			return true;
	return false;
}

/* ---- planning ---- */

/* Puts the name behind all that before's first sector leads to. */
static int
move_name(uint8_t *cluster, const struct meaning *old, struct meaning *new,
    uint32_t cluster_bytes)
{
	uint32_t bytes = new->name_end - new->name;
	uint32_t target = meaning_end(old);

	if (target < new->extensions_end)
		target = new->extensions_end;
	if (bytes == 0 || bytes > cluster_bytes - target)
		return -ENOSPC;
	memmove(cluster + target, cluster + new->name, bytes);
	memset(cluster + new->name, 0, target - new->name);
	bytes_put64(cluster + NAME_FIELDS, target);
	new->name = target;
	new->name_end = target + bytes;
	return 0;
}

/*
 * Builds the cluster of header, which differs from that of before in the
 * extensions and the name alone, so that it can follow before.
 */
static int
build_after(const uint8_t *before, const struct header *before_header,
    const struct header *header, uint8_t *cluster)
{
	uint32_t cluster_bytes = header_cluster_bytes(header);
	uint8_t name_fields[NAME_FIELDS_BYTES];
	struct meaning old, new;
	int err;

	err = header_build(header, cluster, cluster_bytes);
	if (err)
		return err;
	memcpy(name_fields, cluster + NAME_FIELDS, NAME_FIELDS_BYTES);
	memcpy(cluster, before, header_fields_bytes(header));
	memcpy(cluster + NAME_FIELDS, name_fields, NAME_FIELDS_BYTES);
	old = meaning_of(before, before_header);
	new = meaning_of(cluster, header);
	if (!clashes(before, &old, cluster, &new))
		return 0;
	err = move_name(cluster, &old, &new, cluster_bytes);
	if (!err && clashes(before, &old, cluster, &new))
		err = -ENOSPC;
	return err;
}

/* One that shares all with header but the list of extensions: room more. */
static int
share(const struct header *header, unsigned room, struct header *copy)
{
	size_t bytes = header->extension_count * sizeof(*copy->extensions);

	*copy = *header;
	copy->extensions = malloc(bytes + room * sizeof(*copy->extensions) +
	    1);
	if (!copy->extensions)
		return -ENOMEM;
	if (bytes)
		memcpy(copy->extensions, header->extensions, bytes);
	return 0;
}

/* What is after the first extension of that type comes before it. */
static void
remove_extension(struct header *header, uint32_t type)
{
	struct header_extension *list = header->extensions;
	unsigned i = 0;

	while (i < header->extension_count && list[i].type != type)
		i++;
	if (i == header->extension_count)
		return;
	header->extension_count--;
	memmove(list + i, list + i + 1,
	    (header->extension_count - i) * sizeof(*list));
}

static int
share_without_names(const struct header *header, struct header *lean)
{
	int err = share(header, 0, lean);

	if (!err)
		remove_extension(lean, HEADER_EXTENSION_FEATURE_NAMES);
	return err;
}

/* At the place of the old one, or last. */
static int
set_format(struct header *header, const char *format)
{
	struct header_extension extension = {
		.type = HEADER_EXTENSION_BACKING_FORMAT,
		.bytes = (uint32_t)strlen(format),
		.data = (uint8_t *)(uintptr_t)format,
	};
	unsigned i = 0;

	while (i < header->extension_count &&
	    header->extensions[i].type != extension.type)
		i++;
	if (i == HEADER_EXTENSIONS_MAX)
		return -ENOSPC;
	header->extensions[i] = extension;
	if (i == header->extension_count)
		header->extension_count++;
	return 0;
}

/* header with another backing file; shares its memory, and backing's. */
static int
share_with_backing(const struct header *header,
    const struct header_backing *backing, struct header *changed)
{
	int err = share(header, 1, changed);

	if (err)
		return err;
	changed->backing = backing->name;
	memset(changed->backing_name, 0, sizeof(changed->backing_name));
	if (backing->name) {
		memcpy(changed->backing_name, backing->name,
		    strlen(backing->name));
		err = set_format(changed, backing->format);
	} else {
		remove_extension(changed, HEADER_EXTENSION_BACKING_FORMAT);
	}
	if (err)
		free(changed->extensions);
	return err;
}

/* By way of the header via, if there is one. */
static int
plan_way(const uint8_t *cluster, const struct header *header,
    const struct header *via, const struct header *target,
    struct header_plan *plan)
{
	int err = 0;

	plan->count = 0;
	if (via) {
		err = build_after(cluster, header, via, plan->clusters[0]);
		cluster = plan->clusters[plan->count++];
		header = via;
	}
	if (!err)
		err = build_after(cluster, header, target,
		    plan->clusters[plan->count++]);
	return err;
}

static int
allocate_plan(uint32_t cluster_bytes, struct header_plan *plan)
{
	*plan = (struct header_plan){
		.clusters = {malloc(cluster_bytes), malloc(cluster_bytes)},
	};
	if (plan->clusters[0] && plan->clusters[1])
		return 0;
	header_plan_free(plan);
	return -ENOMEM;
}

/* The names of features stay if that can be. */
static int
plan_ways(const uint8_t *cluster, const struct header *header,
    const struct header *changed, struct header_plan *plan)
{
	struct header lean, changed_lean;
	int err;

	err = plan_way(cluster, header, NULL, changed, plan);
	if (err != -ENOSPC || !header_find_extension(header,
	    HEADER_EXTENSION_FEATURE_NAMES))
		return err;
	err = share_without_names(header, &lean);
	if (err)
		return err;
	err = share_without_names(changed, &changed_lean);
	if (err)
		goto free_lean;
	err = plan_way(cluster, header, &lean, changed, plan);
	if (err == -ENOSPC)
		err = plan_way(cluster, header, NULL, &changed_lean, plan);
	if (err == -ENOSPC)
		err = plan_way(cluster, header, &lean, &changed_lean, plan);
	free(changed_lean.extensions);
free_lean:
	free(lean.extensions);
	return err;
}

int
header_plan(const uint8_t *cluster, const struct header *header,
    const struct header_backing *backing, struct header_plan *plan)
{
	struct header changed;
	int err;

	err = share_with_backing(header, backing, &changed);
	if (err)
		return err;
	err = allocate_plan(header_cluster_bytes(header), plan);
	if (err)
		goto free_changed;
	err = plan_ways(cluster, header, &changed, plan);
	if (err)
		header_plan_free(plan);
free_changed:
	free(changed.extensions);
	return err;
}

void
header_plan_free(struct header_plan *plan)
{
	free(plan->clusters[0]);
	free(plan->clusters[1]);
	*plan = (struct header_plan){0};
}

/* ---- writing ---- */

/* Writes the sectors behind the first that differ; *wrotep: there are any. */
co_fn static int
write_rest(struct image *image, const uint8_t *before, const uint8_t *after,
    bool *wrotep)
{
	uint32_t begin = HEADER_SECTOR_BYTES, end = image->cluster_bytes;
	int err;

	while (begin < end && !memcmp(before + begin, after + begin,
	    HEADER_SECTOR_BYTES))
		begin += HEADER_SECTOR_BYTES;
	while (begin < end && !memcmp(before + end - HEADER_SECTOR_BYTES,
	    after + end - HEADER_SECTOR_BYTES, HEADER_SECTOR_BYTES))
		end -= HEADER_SECTOR_BYTES;
	*wrotep = begin < end;
	if (begin == end)
		return 0;
	err = file_pwrite(image->file, after + begin, end - begin, begin, 0);
	atomic_store(&image->unsynced, true);
	return err;
}

co_fn static int
sync_header(struct image *image)
{
	int err = image->failed ? -EIO : file_fdatasync(image->file);

	if (err)
		image_fail(image, "fdatasync failed", err);
	return err;
}

/* With the features as they are at that moment: see guard_write_features(). */
co_fn static int
write_first(struct image *image, const uint8_t *after)
{
	uint8_t sector[HEADER_SECTOR_BYTES];
	struct header_patch patch;
	int err;

	memcpy(sector, after, sizeof(sector));
	co_mutex_lock(&image->features_writing);
	patch = header_patch_incompatible(image->header.incompatible);
	if (image->header.version >= 3)
		memcpy(sector + patch.offset, patch.data, patch.bytes);
	err = image->failed ? -EIO : file_pwrite(image->file, sector,
	    sizeof(sector), 0, 0);
	if (err)
		image_fail(image, "the header cannot be written", err);
	else
		err = sync_header(image);
	co_mutex_unlock(&image->monitor, &image->features_writing);
	return err;
}

/* From before to after, with middle as a buffer. */
co_fn static int
write_step(struct image *image, const struct header *header,
    const uint8_t *before, const uint8_t *after, uint8_t *middle)
{
	struct meaning meaning = meaning_of(after, header);
	bool wrote;
	int err;

	memcpy(middle, before, image->cluster_bytes);
	for (uint32_t i = HEADER_SECTOR_BYTES; i < image->cluster_bytes; i++)
		if (means(&meaning, i))
			middle[i] = after[i];
	err = write_rest(image, before, middle, &wrote);
	if (!err && wrote)
		err = sync_header(image);
	if (!err)
		err = write_first(image, after);
	/* What nobody is led to may wait for the next barrier, and may fail. */
	if (!err && write_rest(image, middle, after, &wrote))
		log_warning("what is left of the old header could not be "
		    "wiped file=%s", image->path);
	return err;
}

/* Each cluster of the plan is parsed before it is written. */
co_fn static int
carry_out(struct image *image, const struct header_plan *plan,
    uint8_t *cluster, uint8_t *middle, struct error *error)
{
	int64_t file_bytes = file_size(image->file);
	int err = 0;

	for (unsigned i = 0; i < plan->count && !err; i++) {
		struct header header;

		err = header_parse(image->path, plan->clusters[i],
		    (uint64_t)file_bytes, &header, error);
		if (err)
			return err;
		err = write_step(image, &header, cluster, plan->clusters[i],
		    middle);
		if (err) {
			header_free(&header);
			return error_set(error, err, "cannot write the header "
			    "of %s: %s", image->path, strerror(-err));
		}
		memcpy(cluster, plan->clusters[i], image->cluster_bytes);
		header.incompatible = image->header.incompatible;
		header_free(&image->header);
		image->header = header;
	}
	return 0;
}

static int
refuse_room(const struct image *image, const struct header_backing *backing,
    struct error *error)
{
	error_set(error, -ENOSPC, "the first cluster of %s, of %u bytes, has "
	    "no room for a header with %s", image->path, image->cluster_bytes,
	    backing->name ? "this name beside the one it has" :
	    "other extensions beside those it has");
	if (backing->name && image->header.backing)
		error_hint(error, "a shorter name may fit, as a relative one");
	return -ENOSPC;
}

/* In the monitor, with nobody else writing to the header. */
co_fn static int
update(struct image *image, const struct header_backing *backing,
    struct error *error)
{
	size_t bytes = image->cluster_bytes;
	uint8_t *cluster = malloc(bytes), *middle = malloc(bytes);
	struct header_plan plan;
	int err = -ENOMEM;

	if (!cluster || !middle) {
		error_set(error, err, "out of memory");
		goto free_buffers;
	}
	err = guard_table(image, METADATA_HEADER, 0, bytes);
	if (!err)
		err = file_pread(image->file, cluster, bytes, 0);
	if (err) {
		error_set(error, err, "cannot read the header of %s: %s",
		    image->path, strerror(-err));
		goto free_buffers;
	}
	err = header_plan(cluster, &image->header, backing, &plan);
	if (err == -ENOSPC)
		refuse_room(image, backing, error);
	else if (err)
		error_set(error, err, "out of memory");
	if (err)
		goto free_buffers;
	err = carry_out(image, &plan, cluster, middle, error);
	header_plan_free(&plan);
free_buffers:
	free(cluster);
	free(middle);
	return err;
}

int
header_update(struct image *image, const struct header_backing *backing,
    struct error *error)
{
	int err;

	monitor_enter(&image->monitor);
	gate_close(image);
	co_mutex_lock(&image->header_writing);
	err = update(image, backing, error);
	co_mutex_unlock(&image->monitor, &image->header_writing);
	gate_open(image);
	monitor_leave(&image->monitor);
	return err;
}
