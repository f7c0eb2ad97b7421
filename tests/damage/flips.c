/* SPDX-License-Identifier: MIT */
/*
 * Turns over every bit of the tables that an image begins with, one by one.
 *
 *	flips IMAGE...
 *
 * The bits are those of the header with its extensions, the L1 table, the
 * refcount table and the snapshot table; of a table that is longer than what
 * is in use, the next few entries count, too.  With each bit turned over,
 * reading must be refused, fail, or give what the sound image holds; and a
 * write, a write to a new cluster, a discard and a flush must not change any
 * other cluster: not as the damaged image reads, nor as it reads when the bit
 * is turned back.
 *
 * Some bits say where the data is, and what they say may make as much sense
 * as before: no program can tell.  These are the functions below TOLERATED.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/entry.h"
#include "qcow2/header.h"
#include "qcow2/image.h"
#include "qcow2/snapshot.h"
#include "runtime/file_sim.h"
#include "runtime/log.h"
#include "runtime/sim.h"

#define DISK_BYTES_MAX (4u * 1024 * 1024)
#define CLUSTERS_MAX (DISK_BYTES_MAX / 512)
/* Entries of a table behind the last that is in use. */
#define SPARE_ENTRIES 4u
#define FAILURES_MAX 20u

enum region {
	REGION_HEADER,
	REGION_L1,
	REGION_REFCOUNT_TABLE,
	REGION_SNAPSHOTS,
	REGIONS,
};

static const char *const region_names[] = {
	"header", "L1 table", "refcount table", "snapshot table",
};

struct place {
	uint64_t offset;
	uint64_t bytes;
};

/* What a disk reads as, cluster by cluster. */
struct view {
	bool opened;
	uint64_t size_bytes;
	uint32_t cluster_bytes;
	bool readable[CLUSTERS_MAX];
	uint8_t data[DISK_BYTES_MAX];
};

struct counts {
	uint64_t bits, refused, failed, right, tolerated, read_only;
};

struct flips {
	const char *path;
	struct file *sound;		/* in plain mode */
	struct header header;
	uint64_t file_bytes;
	struct place places[REGIONS];
	struct counts counts[REGIONS];
	unsigned failures;

	/* The bit at work. */
	enum region region;
	uint64_t offset;
	unsigned bit;
	struct file *disk;
	bool was_written;
	uint64_t written[3];		/* guest clusters of the sound image */
};

static struct sim *sim;
static struct view sound, before, after;

/* ---- in the world ---- */

struct job {
	struct flips *flips;
	void (*fn)(struct job *job);
	struct co_start start;
	struct view *view;
};

co_fn static int
open_image(struct flips *flips, bool writable, struct image **imagep)
{
	const struct image_options options = {
		.format = IMAGE_QCOW2, .writable = writable,
		.no_backing = true, .loops = 1,
		.metadata_cache_bytes = 65536,
	};
	struct file *handle;
	struct error error;

	assert(!file_sim_open(flips->disk, &handle));
	return image_open_file(handle, &options, imagep, &error);
}

co_fn static void
read_cluster(struct image *image, struct view *view, uint64_t guest)
{
	uint64_t length = view->size_bytes - guest;

	if (length > view->cluster_bytes)
		length = view->cluster_bytes;
	view->readable[guest / view->cluster_bytes] = !image_read(image,
	    guest, view->data + guest, length, NULL);
}

co_fn static void
look(struct job *job)
{
	struct view *view = job->view;
	struct image *image;

	view->opened = !open_image(job->flips, false, &image);
	if (!view->opened)
		return;
	view->size_bytes = image_size_bytes(image);
	view->cluster_bytes = image_cluster_bytes(image);
	if (view->size_bytes > DISK_BYTES_MAX)
		view->size_bytes = DISK_BYTES_MAX;
	memset(view->readable, true, sizeof(view->readable));
	/* All at once, and by the cluster only if that fails. */
	if (image_read(image, 0, view->data, view->size_bytes, NULL))
		for (uint64_t guest = 0; guest < view->size_bytes;
		    guest += view->cluster_bytes)
			read_cluster(image, view, guest);
	assert(!image_close(image));
}

/* Whatever fails, fails. */
co_fn static void
change(struct job *job)
{
	struct flips *flips = job->flips;
	static uint8_t data[512];
	struct image *image;

	flips->was_written = !open_image(flips, true, &image);
	if (!flips->was_written)
		return;
	memset(data, 0xc5, sizeof(data));
	for (unsigned i = 0; i < 3; i++) {
		uint64_t guest = flips->written[i] * sound.cluster_bytes;

		if (guest + sound.cluster_bytes > image_size_bytes(image))
			continue;
		if (i < 2)
			image_write(image, guest, data, sizeof(data), 0);
		else
			image_discard(image, guest, sound.cluster_bytes, 0);
	}
	image_flush(image);
	image_close(image);
}

co_fn static void
run_job(void *arg)
{
	struct job *job = arg;

	job->fn(job);
}

static void
in_world(struct flips *flips, void (*fn)(struct job *job), struct view *view)
{
	struct job job = {.flips = flips, .fn = fn, .view = view};

	sim_set_steps_max(sim, 3000000);
	sim_start(sim, 0, &job.start, run_job, &job);
	assert(sim_run(sim) == SIM_DONE);
}

/* ---- TOLERATED ---- */

static bool
in_field(const struct flips *flips, unsigned offset, unsigned bytes)
{
	return flips->offset >= offset && flips->offset < offset + bytes;
}

/* The header says something else, and that can be. */
static bool
other_geometry(const struct flips *flips)
{
	return flips->region == REGION_HEADER && (
	    in_field(flips, 4, 4) ||	/* version */
	    in_field(flips, 20, 4) ||	/* cluster_bits */
	    in_field(flips, 24, 8) ||	/* size */
	    in_field(flips, 36, 4) ||	/* l1_size */
	    in_field(flips, 40, 8));	/* l1_table_offset */
}

static uint64_t
entry_at(const struct flips *flips)
{
	uint64_t entry;

	file_sim_peek(flips->disk, &entry, sizeof(entry),
	    flips->offset & ~7ull);
	return be64toh(entry);
}

/* An entry of the L1 table names another cluster of the file, or none. */
static bool
other_l2(const struct flips *flips)
{
	uint64_t host = entry_host(entry_at(flips));

	return flips->region == REGION_L1 && host < flips->file_bytes &&
	    host % header_cluster_bytes(&flips->header) == 0;
}

static bool
is_tolerated(const struct flips *flips)
{
	return other_geometry(flips) || other_l2(flips);
}

/* ---- verdicts ---- */

static void
tell(struct flips *flips, const char *what, uint64_t guest)
{
	if (flips->failures++ >= FAILURES_MAX)
		return;
	printf("%s: bit %u of byte 0x%llx, in the %s: %s at 0x%llx\n",
	    flips->path, flips->bit, (unsigned long long)flips->offset,
	    region_names[flips->region], what, (unsigned long long)guest);
}

static bool
is_written(const struct flips *flips, uint64_t guest)
{
	for (unsigned i = 0; i < 3; i++)
		if (guest / sound.cluster_bytes == flips->written[i])
			return true;
	return false;
}

/*
 * The first byte at which seen is not what expected is, but for clusters that
 * were written and those that cannot be read; UINT64_MAX: there is none.
 */
static uint64_t
first_wrong(const struct flips *flips, const struct view *expected,
    const struct view *seen, bool but_written)
{
	uint64_t size = expected->size_bytes < seen->size_bytes ?
	    expected->size_bytes : seen->size_bytes;

	for (uint64_t guest = 0; guest < size; guest += 512) {
		uint64_t length = size - guest < 512 ? size - guest : 512;

		if ((but_written && is_written(flips, guest)) ||
		    !expected->readable[guest / expected->cluster_bytes] ||
		    !seen->readable[guest / seen->cluster_bytes])
			continue;
		if (memcmp(expected->data + guest, seen->data + guest, length))
			return guest;
	}
	return UINT64_MAX;
}

static bool
all_readable(const struct view *view)
{
	for (uint64_t guest = 0; guest < view->size_bytes;
	    guest += view->cluster_bytes)
		if (!view->readable[guest / view->cluster_bytes])
			return false;
	return true;
}

static void
judge_reading(struct flips *flips)
{
	struct counts *counts = &flips->counts[flips->region];
	uint64_t wrong;

	if (!before.opened) {
		counts->refused++;
		return;
	}
	wrong = first_wrong(flips, &sound, &before, false);
	if (wrong == UINT64_MAX && all_readable(&before))
		counts->right++;
	else if (wrong == UINT64_MAX)
		counts->failed++;
	else if (is_tolerated(flips))
		counts->tolerated++;
	else
		tell(flips, "other data is read", wrong);
}

static void
turn_over(struct flips *flips)
{
	uint8_t byte;

	file_sim_peek(flips->disk, &byte, 1, flips->offset);
	byte ^= (uint8_t)(1u << flips->bit);
	file_sim_poke(flips->disk, &byte, 1, flips->offset);
}

/* The bit may be turned back if nobody has written there meanwhile. */
static bool
is_still_there(struct flips *flips)
{
	uint8_t was, is;

	file_sim_peek(flips->sound, &was, 1, flips->offset);
	file_sim_peek(flips->disk, &is, 1, flips->offset);
	return (was ^ is) == 1u << flips->bit;
}

static void
judge_writing(struct flips *flips)
{
	uint64_t wrong;

	if (!flips->was_written) {
		flips->counts[flips->region].read_only++;
		return;
	}
	if (is_tolerated(flips))
		return;
	in_world(flips, look, &after);
	if (before.opened && after.opened) {
		wrong = first_wrong(flips, &before, &after, true);
		if (wrong != UINT64_MAX)
			tell(flips, "a write elsewhere changes data", wrong);
	}
	if (!is_still_there(flips))
		return;
	turn_over(flips);
	in_world(flips, look, &after);
	if (!after.opened) {
		tell(flips, "a write spoils the image", 0);
		return;
	}
	wrong = first_wrong(flips, &sound, &after, true);
	if (wrong != UINT64_MAX)
		tell(flips, "a write elsewhere harms hidden data", wrong);
}

static void
try_bit(struct flips *flips)
{
	flips->counts[flips->region].bits++;
	assert(!file_sim_clone(flips->sound, sim, &flips->disk));
	turn_over(flips);
	in_world(flips, look, &before);
	judge_reading(flips);
	in_world(flips, change, NULL);
	judge_writing(flips);
	file_close(flips->disk);
}

/* ---- what there is ---- */

/* Where the extensions end, with their end mark. */
static uint64_t
header_end(const struct header *header)
{
	uint64_t end = (header->version == 2 ? HEADER_V2_BYTES :
	    HEADER_V3_BYTES + header->additional_bytes) + 8;

	for (unsigned i = 0; i < header->extension_count; i++)
		end += 8 + ((header->extensions[i].bytes + 7ull) & ~7ull);
	return end;
}

static uint64_t
used_bytes(struct flips *flips, uint64_t table, uint64_t bytes)
{
	uint64_t entry, used = 0;

	for (uint64_t at = 0; at < bytes; at += sizeof(entry)) {
		file_sim_peek(flips->sound, &entry, sizeof(entry), table + at);
		if (entry)
			used = at + sizeof(entry);
	}
	used += SPARE_ENTRIES * sizeof(entry);
	return used < bytes ? used : bytes;
}

static void
find_places(struct flips *flips)
{
	const struct header *header = &flips->header;
	struct snapshot_table snapshots;
	struct error error;
	uint64_t bytes;

	file_sim_plain();
	assert(!snapshot_table_load(flips->sound, header, &snapshots,
	    &error));
	flips->places[REGION_HEADER].bytes = header_end(header);
	bytes = (uint64_t)header->l1_entries * ENTRY_BYTES;
	flips->places[REGION_L1] = (struct place){header->l1_offset,
	    used_bytes(flips, header->l1_offset, bytes)};
	bytes = (uint64_t)header->refcount_table_clusters <<
	    header->cluster_bits;
	flips->places[REGION_REFCOUNT_TABLE] = (struct place){
	    header->refcount_table_offset,
	    used_bytes(flips, header->refcount_table_offset, bytes)};
	flips->places[REGION_SNAPSHOTS] = (struct place){
	    header->snapshots_offset, snapshots.bytes};
	snapshot_table_free(&snapshots);
}

/* One with data, one without, and another with data. */
co_fn static void
choose_clusters(struct job *job)
{
	struct flips *flips = job->flips;
	uint64_t clusters = sound.size_bytes / sound.cluster_bytes;
	unsigned found = 0;
	struct image *image;

	assert(!open_image(flips, false, &image));
	for (uint64_t i = 0; i < clusters && found < 3; i++) {
		struct image_extent extent;
		unsigned count;

		assert(!image_status(image, i * sound.cluster_bytes, 1,
		    &extent, 1, &count));
		if ((found == 1) == !extent.allocated)
			flips->written[found++] = i;
	}
	assert(found == 3);
	assert(!image_close(image));
}

static void
open_sound(struct flips *flips)
{
	struct error error;

	assert(!file_sim_create(NULL, "sound", 0, &flips->sound));
	if (file_sim_load(flips->sound, flips->path)) {
		fprintf(stderr, "%s: cannot be read\n", flips->path);
		exit(1);
	}
	file_sim_plain();
	flips->file_bytes = (uint64_t)file_size(flips->sound);
	assert(!header_load(flips->sound, &flips->header, &error));
	find_places(flips);
	assert(!file_sim_clone(flips->sound, sim, &flips->disk));
	in_world(flips, look, &sound);
	assert(sound.opened && all_readable(&sound));
	in_world(flips, choose_clusters, NULL);
	file_close(flips->disk);
}

static unsigned
flip_image(const char *path)
{
	static struct flips flips;

	flips = (struct flips){.path = path};
	open_sound(&flips);
	for (unsigned region = 0; region < REGIONS; region++) {
		const struct place *place = &flips.places[region];
		const struct counts *counts = &flips.counts[region];

		flips.region = region;
		for (uint64_t bit = 0; bit < place->bytes * 8; bit++) {
			flips.offset = place->offset + bit / 8;
			flips.bit = bit % 8;
			try_bit(&flips);
		}
		printf("%s: %s: %llu bits: refused %llu, failed %llu, right "
		    "%llu, tolerated %llu; not written %llu\n", path,
		    region_names[region], (unsigned long long)counts->bits,
		    (unsigned long long)counts->refused,
		    (unsigned long long)counts->failed,
		    (unsigned long long)counts->right,
		    (unsigned long long)counts->tolerated,
		    (unsigned long long)counts->read_only);
	}
	header_free(&flips.header);
	file_close(flips.sound);
	return flips.failures;
}

int
main(int argc, char **argv)
{
	unsigned failures = 0;

	log_set_level((enum log_level)0);
	assert(!sim_create(1, 1, &sim));
	for (int i = 1; i < argc; i++)
		failures += flip_image(argv[i]);
	sim_free(sim);
	printf("%d images, %u faults\n", argc - 1, failures);
	return failures > 0 || argc < 2;
}
