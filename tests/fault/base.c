/* SPDX-License-Identifier: MIT */
/*
 * The lower files of a chain: a qcow2 of 384 KiB that has data of its own from
 * 64 to 128 KiB, of which the first cluster is compressed, over a raw file of
 * 256 KiB that is all data.
 */
#include "tests/fault/base.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/create.h"
#include "qcow2/entry.h"

#define MIDDLE_CLUSTER_BYTES 4096u
#define MIDDLE_BYTES (384u << 10)
#define MIDDLE_DATA (64u << 10)
#define BOTTOM_BYTES (256u << 10)

#define BITMAPS_EXTENSION 0x23852875u
#define BITMAPS_AUTOCLEAR 1u

/* ---- new files ---- */

static void
create(const struct layout *layout, struct file **filep)
{
	struct create_options options = {
		.version = layout->version ? layout->version : 3,
		.size_bytes = layout->disk_bytes,
		.cluster_bytes = layout->cluster_bytes,
		.refcount_bits = layout->refcount_bits ?
		    layout->refcount_bits : CREATE_REFCOUNT_BITS_DEFAULT,
		.encrypted = layout->flags & LAYOUT_ENCRYPTED,
	};
	struct error error;

	if (layout->flags & LAYOUT_CHAIN) {
		options.backing_name = "middle";
		options.backing_format = "qcow2";
	}
	ck_assert_int_eq(file_sim_create(NULL, "disk", 0, filep), 0);
	file_sim_plain();
	if (create_image(*filep, "disk", &options, &error))
		ck_abort_msg("%s", error.message);
}

static void
put_on_device(struct file **filep, uint64_t device_bytes)
{
	uint64_t bytes = (uint64_t)file_size(*filep);
	void *data = malloc(bytes);
	struct file *device;

	ck_assert_ptr_nonnull(data);
	ck_assert_int_eq(file_sim_create_device(NULL, "disk", device_bytes,
	    0xa5, &device), 0);
	file_sim_peek(*filep, data, bytes, 0);
	file_sim_poke(device, data, bytes, 0);
	free(data);
	file_close(*filep);
	*filep = device;
}

static void
create_raw(uint64_t bytes, uint64_t filled, uint8_t value,
    struct file **filep)
{
	void *data = malloc(filled);

	ck_assert_ptr_nonnull(data);
	memset(data, value, filled);
	ck_assert_int_eq(file_sim_create(NULL, "disk", bytes, filep), 0);
	file_sim_poke(*filep, data, filled, 0);
	free(data);
}

/* ---- filling them ---- */

struct filling {
	uint64_t guest;
	uint64_t length;
	uint8_t value;
};

co_fn static void
fill(struct world *world)
{
	const struct filling *filling = world->arg;

	world_write(world, filling->guest, filling->length, filling->value);
}

/* *filep is written through an image, and is the world's disk after. */
static void
fill_file(struct world *world, struct file *file, const struct layout *layout,
    struct filling filling)
{
	struct world_options options = {
		.seed = 1, .cluster_bytes = layout->cluster_bytes,
		.encrypted = layout->flags & LAYOUT_ENCRYPTED,
	};

	world_clone(world, &options, file);
	file_close(file);
	world->arg = &filling;
	ck_assert_int_eq(world_open(world), 0);
	world_run(world, fill);
	ck_assert_int_eq(world_close(world), 0);
}

/* ---- by hand ---- */

static void
add_reference(struct world *world, uint64_t host)
{
	uint64_t at = world_refcount(world, host);
	uint16_t count;

	file_sim_peek(world->disk, &count, sizeof(count), at);
	count = htobe16((uint16_t)(be16toh(count) + 1));
	file_sim_poke(world->disk, &count, sizeof(count), at);
}

/* A new cluster of zeros at the end of the file. */
static uint64_t
add_cluster(struct world *world)
{
	uint64_t cluster_bytes = world->options.cluster_bytes;
	uint64_t size = (uint64_t)file_size(world->disk);
	uint64_t host = (size + cluster_bytes - 1) & ~(cluster_bytes - 1);
	void *zeros = calloc(1, cluster_bytes);

	ck_assert_ptr_nonnull(zeros);
	file_sim_poke(world->disk, zeros, cluster_bytes, host);
	free(zeros);
	add_reference(world, host);
	return host;
}

/* Whatever the entries of the table point to is shared from now on. */
static void
share_table(struct world *world, uint64_t table)
{
	uint64_t end = table + world->options.cluster_bytes;

	for (uint64_t at = table; at < end; at += ENTRY_BYTES) {
		uint64_t entry = world_peek64(world, at);

		if (!entry)
			continue;
		if (entry_kind(entry) == CLUSTER_COMPRESSED)
			add_reference(world, entry_compressed(entry,
			    (unsigned)__builtin_ctzll(
			    world->options.cluster_bytes)).host &
			    ~(world->options.cluster_bytes - 1));
		else
			add_reference(world, entry_host(entry));
		world_poke64(world, at, entry & ~ENTRY_COPIED);
	}
}

#define SNAPSHOT_EXTRA_BYTES 16u

static void
add_snapshot(struct world *world)
{
	uint64_t l1 = world_peek64(world, 40), copy = add_cluster(world);
	uint64_t table = add_cluster(world);
	uint32_t entries = world_peek32(world, 36);
	static const char names[] = "1s";

	for (uint32_t i = 0; i < entries; i++) {
		uint64_t at = l1 + i * ENTRY_BYTES;
		uint64_t entry = world_peek64(world, at) & ~ENTRY_COPIED;

		if (!entry)
			continue;
		share_table(world, entry_host(entry));
		add_reference(world, entry_host(entry));
		world_poke64(world, at, entry);
		world_poke64(world, copy + i * ENTRY_BYTES, entry);
	}
	world_poke64(world, table, copy);
	world_poke32(world, table + 8, entries);
	world_poke32(world, table + 12, 1u << 16 | 1);	/* of id and name */
	world_poke32(world, table + 36, SNAPSHOT_EXTRA_BYTES);
	world_poke64(world, table + 48, world_peek64(world, 24));
	file_sim_poke(world->disk, names, 2, table + 56);
	world_poke32(world, 60, 1);
	world_poke64(world, 64, table);
}

void
base_judge_snapshot(struct world *world)
{
	uint64_t cluster_bytes = world->options.cluster_bytes;
	uint64_t l1 = world_peek64(world, world_peek64(world, 64));
	uint64_t l2 = entry_host(world_peek64(world, l1));
	uint8_t *data = malloc(cluster_bytes);
	unsigned found = 0;

	ck_assert_ptr_nonnull(data);
	for (uint64_t i = 0; i < cluster_bytes / ENTRY_BYTES; i++) {
		uint64_t entry = world_peek64(world, l2 + i * ENTRY_BYTES);

		if (!entry || entry_kind(entry) == CLUSTER_COMPRESSED)
			continue;
		file_sim_peek(world->disk, data, cluster_bytes,
		    entry_host(entry));
		ck_assert_msg(is_all(data, cluster_bytes, FOUND_TOP),
		    "cluster %llu of the snapshot has changed",
		    (unsigned long long)i);
		found++;
	}
	ck_assert_uint_gt(found, 0);
	free(data);
}

/* Longer than any table has the same byte, unless it is 0 or 0xff. */
#define TELLING_BYTES 64u

void
base_judge_encrypted(struct world *world)
{
	uint64_t end = (uint64_t)file_size(world->disk);
	uint8_t data[MIDDLE_CLUSTER_BYTES];

	for (uint64_t at = 0; at < end; at += TELLING_BYTES) {
		const uint8_t *here = data + at % sizeof(data);

		if (here == data)
			file_sim_peek(world->disk, data, sizeof(data), at);
		if (*here > 0 && *here < VALUES &&
		    is_all(here, TELLING_BYTES, *here))
			ck_abort_msg("0x%02x stands at 0x%llx in the file",
			    *here, (unsigned long long)at);
	}
}

static void
add_bitmap(struct world *world)
{
	uint64_t table = add_cluster(world);
	uint64_t directory = add_cluster(world);
	uint32_t extension = world_peek32(world, 100);	/* where they begin */

	while (world_peek32(world, extension) != 0)
		extension += 8 + ((world_peek32(world, extension + 4) + 7) &
		    ~7u);
	world_poke64(world, directory, table);
	world_poke32(world, directory + 8, 1);		/* entries */
	world_poke32(world, directory + 16, 1u << 24 | 16u << 16 | 1);
	file_sim_poke(world->disk, "b", 1, directory + 24);
	world_poke32(world, extension, BITMAPS_EXTENSION);
	world_poke32(world, extension + 4, 24);
	world_poke32(world, extension + 8, 1);		/* bitmaps */
	world_poke64(world, extension + 16, 32);
	world_poke64(world, extension + 24, directory);
	world_poke64(world, 88, BITMAPS_AUTOCLEAR);
}

/* ---- layers ---- */

static void
finish_top(struct base *base, struct world *world)
{
	const struct layout *layout = base->layout;
	uint64_t cluster_bytes = layout->cluster_bytes;

	if (layout->flags & LAYOUT_COMPRESSED)
		world_compress(world, cluster_bytes, FOUND_TOP);
	if (layout->flags & LAYOUT_SHARED) {
		for (unsigned i = 8; i < 11; i++)
			world_share(world, 2 * cluster_bytes,
			    i * cluster_bytes);
		model_add(&base->model, 8 * cluster_bytes, 3 * cluster_bytes,
		    FOUND_TOP, true);
	}
	if (layout->flags & LAYOUT_SNAPSHOT)
		add_snapshot(world);
	if (layout->flags & LAYOUT_BITMAP)
		add_bitmap(world);
}

static void
take_disk(struct base *base, struct world *world)
{
	ck_assert_int_eq(file_sim_clone(world->disk, NULL,
	    &base->disks[base->layers++]), 0);
	world_free(world);
}

static void
create_top(struct base *base)
{
	const struct layout *layout = base->layout;
	struct file *file;
	struct world world;

	create(layout, &file);
	if (layout->device_bytes)
		put_on_device(&file, layout->device_bytes);
	fill_file(&world, file, layout, (struct filling){
		0, layout->filled_bytes, FOUND_TOP,
	});
	finish_top(base, &world);
	take_disk(base, &world);
}

static void
create_lower(struct base *base)
{
	struct layout layout = {
		.cluster_bytes = MIDDLE_CLUSTER_BYTES,
		.disk_bytes = MIDDLE_BYTES,
	};
	struct model *model = &base->model;
	struct world world;
	struct file *file;

	create(&layout, &file);
	fill_file(&world, file, &layout, (struct filling){
		MIDDLE_DATA, MIDDLE_DATA, FOUND_MIDDLE,
	});
	world_compress(&world, MIDDLE_DATA, FOUND_MIDDLE);
	take_disk(base, &world);
	create_raw(BOTTOM_BYTES, BOTTOM_BYTES, FOUND_BOTTOM,
	    &base->disks[base->layers++]);
	model_add(model, 0, BOTTOM_BYTES, FOUND_BOTTOM, true);
	model_add(model, MIDDLE_DATA, MIDDLE_DATA, FOUND_MIDDLE, true);
}

void
base_create(struct base *base, const struct layout *layout)
{
	*base = (struct base){.layout = layout};
	model_create(&base->model, layout->disk_bytes);
	if (layout->flags & LAYOUT_RAW)
		create_raw(layout->disk_bytes, layout->filled_bytes,
		    FOUND_TOP, &base->disks[base->layers++]);
	else
		create_top(base);
	if (layout->flags & LAYOUT_CHAIN)
		create_lower(base);
	model_add(&base->model, 0, layout->filled_bytes, FOUND_TOP, true);
	model_keep(&base->model, 0, layout->disk_bytes);
}

void
base_free(struct base *base)
{
	for (unsigned i = 0; i < base->layers; i++)
		file_close(base->disks[i]);
	model_free(&base->model);
}

enum image_format
base_format(const struct layout *layout, unsigned layer)
{
	return layer == 2 || layout->flags & LAYOUT_RAW ? IMAGE_RAW :
	    IMAGE_QCOW2;
}
