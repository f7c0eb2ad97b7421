/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes the engine with images that lie: image.h and all below it, check.h.
 *
 * The input begins with a head of four bytes: which template (template.h) the
 * image is made from, flags, the seed of the simulated world, and how many
 * patches follow.  Each patch damages the image; what is left of the input are
 * commands, carried out one after the other.  make-image-corpus.py describes
 * the bytes of both.
 *
 * Beyond not crashing: what was written to a cluster reads back at once, if
 * nothing else is being freed.  An image that the check had nothing against
 * serves every request, always reads what was there and what was written, and
 * has nothing against it in the end.  The file does not grow out of proportion,
 * and everything comes to an end.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/check.h"
#include "qcow2/entry.h"
#include "qcow2/image.h"
#include "qcow2/internal.h"
#include "runtime/file_sim.h"
#include "runtime/log.h"
#include "runtime/sim_internal.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/template.h"
#include "tests/key.h"

#define PATCHES_MAX		32u
#define COMMANDS_MAX		48u
/* Commands name the disk in these. */
#define UNIT_BYTES		256u
/* What of the disk is compared, from its start. */
#define MODEL_BYTES		(192u * 1024)
#define REQUEST_BYTES_MAX	(256u * UNIT_BYTES)
#define STEPS_MAX		(1000u * 1000)
/* The reserve, and what the commands can write, with room for tables. */
#define GROWTH_BYTES_MAX	(64u * 1024 * 1024)

#define FLAG_READ_ONLY		1u
#define FLAG_SMALL_CACHE	2u
#define FLAG_FULL_DISK		4u
/* How much room a full disk has left; the rest of the flags, times this. */
#define ROOM_BYTES		16384u

enum command {
	COMMAND_READ,
	COMMAND_WRITE,
	COMMAND_WRITE_FUA,
	COMMAND_ZERO,
	COMMAND_ZERO_NO_HOLE,
	COMMAND_ZERO_FAST,
	COMMAND_DISCARD,
	COMMAND_FLUSH,
	COMMAND_STATUS,
	COMMAND_PREFETCH,
	COMMAND_REOPEN,
	COMMAND_CHECK,
	COMMAND_COMPRESS,
	COMMANDS,
};
/* The offset counts from the end of the disk. */
#define COMMAND_FROM_END	0x80u

struct fuzz {
	struct input input;
	const struct template *template;
	unsigned flags;
	struct sim *sim;
	struct co_start start;
	struct file *disk;
	struct image *image;
	uint64_t file_bytes;	/* of the damaged image */
	bool sound;		/* the check had nothing against it */
	bool was_full;
	bool counts_lie;	/* maybe, and of clusters past the end */
	uint64_t leaks;		/* it had at first */
	uint64_t size_bytes;
	uint64_t model_bytes;
	uint8_t model[MODEL_BYTES];
	bool known[MODEL_BYTES / UNIT_BYTES];
	bool bad[MODEL_BYTES / 512];	/* clusters that cannot be read */
	uint8_t data[REQUEST_BYTES_MAX];
};

struct range {
	uint64_t guest;
	uint64_t length;
};

static uint8_t
take8(struct input *input)
{
	uint8_t value;

	if (input->bytes == 0)
		return 0;
	value = *input->start++;
	input->bytes--;
	return value;
}

static uint16_t
take16(struct input *input)
{
	uint16_t low = take8(input);

	return (uint16_t)(low | take8(input) << 8);
}

/* ---- damage ---- */

static void
patch_bytes(struct fuzz *fuzz, uint64_t base, unsigned count)
{
	uint8_t bytes[8];
	uint64_t offset = base + take16(&fuzz->input) %
	    (fuzz->template->cluster_bytes - sizeof(bytes));

	for (unsigned i = 0; i < count; i++)
		bytes[i] = take8(&fuzz->input);
	file_sim_poke(fuzz->disk, bytes, count, offset);
}

/* An offset that means something, or nothing. */
static uint64_t
some_host(struct fuzz *fuzz)
{
	const struct template *template = fuzz->template;
	uint8_t choice = take8(&fuzz->input);

	if (choice < TEMPLATE_REGIONS)
		return template->host[choice];
	if (choice == 255)
		return 1ull << 40;
	/* Also a few behind the end. */
	return (choice - TEMPLATE_REGIONS) % (template->clusters + 8) *
	    template->cluster_bytes;
}

static void
patch_entry(struct fuzz *fuzz, uint64_t table)
{
	uint64_t index = take16(&fuzz->input) %
	    (fuzz->template->cluster_bytes / ENTRY_BYTES);
	uint8_t flags = take8(&fuzz->input);
	uint64_t entry = some_host(fuzz);

	entry |= (uint64_t)(flags & 0xc0) << 56 | (flags & ENTRY_ZERO);
	if (flags & 2)
		entry |= 512;
	if (flags & 4)
		entry |= 1ull << 57;
	if (flags & 8)
		entry |= 8;
	/* How many sectors, for those that are compressed. */
	if (flags & 16)
		entry |= 1ull << 54;
	entry = htobe64(entry);
	file_sim_poke(fuzz->disk, &entry, sizeof(entry),
	    table + index * ENTRY_BYTES);
}

static void
patch_bit(struct fuzz *fuzz, uint64_t base)
{
	uint64_t bit = take16(&fuzz->input) %
	    (fuzz->template->cluster_bytes * 8ull);
	uint8_t byte;

	file_sim_peek(fuzz->disk, &byte, 1, base + bit / 8);
	byte ^= (uint8_t)(1u << bit % 8);
	file_sim_poke(fuzz->disk, &byte, 1, base + bit / 8);
}

static void
patch_length(struct fuzz *fuzz)
{
	uint64_t bytes = (uint64_t)file_size(fuzz->disk) +
	    fuzz->template->cluster_bytes;

	file_sim_plain();
	file_truncate(fuzz->disk, take16(&fuzz->input) * 512ull % bytes);
}

static void
damage(struct fuzz *fuzz)
{
	uint8_t patch = take8(&fuzz->input);
	unsigned region = patch % 16 % TEMPLATE_REGIONS;
	uint64_t base = fuzz->template->host[region];

	if (base == 0 || region == TEMPLATE_REFCOUNT_TABLE ||
	    region == TEMPLATE_REFCOUNT_BLOCK || patch / 16 == 13)
		fuzz->counts_lie = true;
	switch (patch / 16) {
	case 8:
	case 9:
	case 10:
		patch_entry(fuzz, base);
		return;
	case 11:
	case 12:
		patch_bit(fuzz, base);
		return;
	case 13:
		patch_length(fuzz);
		return;
	default:
		patch_bytes(fuzz, base, patch / 16 % 8 + 1);
	}
}

/* ---- what the check says ---- */

static int
check(struct fuzz *fuzz, struct check_result *result)
{
	struct error error;
	struct file *copy;
	int err;

	assert(!file_sim_clone(fuzz->disk, NULL, &copy));
	file_sim_plain();
	err = check_file(copy, "x", result, &error);
	file_close(copy);
	return err;
}

static void
check_at_first(struct fuzz *fuzz)
{
	struct check_result result;

	if (check(fuzz, &result))
		return;
	fuzz->sound = !result.corruptions && !result.check_errors;
	fuzz->leaks = result.leaks;
}

/*
 * In between there may be leaks: the reserve, and what is in quarantine.  Those
 * past the end of the file come to light as it grows.
 */
static void
check_again(struct fuzz *fuzz, bool is_closed)
{
	struct check_result result;

	assert((uint64_t)file_size(fuzz->disk) <= fuzz->file_bytes +
	    GROWTH_BYTES_MAX);
	if (!fuzz->sound)
		return;
	assert(!check(fuzz, &result));
	assert(!result.corruptions && !result.check_errors);
	assert(!is_closed || fuzz->was_full || fuzz->counts_lie ||
	    result.leaks <= fuzz->leaks);
}

/* ---- what the disk holds ---- */

static uint32_t
cluster_bytes(const struct fuzz *fuzz)
{
	return image_cluster_bytes(fuzz->image);
}

static bool
is_modelled(const struct fuzz *fuzz, struct range range)
{
	return range.guest + range.length <= fuzz->model_bytes;
}

/* The whole clusters that the range touches, as far as the model goes. */
static struct range
touched(const struct fuzz *fuzz, struct range range)
{
	uint64_t mask = cluster_bytes(fuzz) - 1;
	uint64_t end = (range.guest + range.length + mask) & ~mask;
	struct range whole = {.guest = range.guest & ~mask};

	if (end > fuzz->model_bytes)
		end = fuzz->model_bytes;
	whole.length = end > whole.guest ? end - whole.guest : 0;
	return whole;
}

static bool
touches_bad(const struct fuzz *fuzz, struct range range)
{
	uint64_t end = range.guest + range.length;
	uint64_t guest = range.guest & ~(cluster_bytes(fuzz) - 1ull);

	for (; guest < end && guest < fuzz->model_bytes;
	    guest += cluster_bytes(fuzz))
		if (fuzz->bad[guest / cluster_bytes(fuzz)])
			return true;
	return false;
}

static void
set_known(struct fuzz *fuzz, struct range range, bool known)
{
	uint64_t end = range.guest + range.length;
	uint64_t first = range.guest / UNIT_BYTES;

	if (!known)
		end += UNIT_BYTES - 1;
	else if (end == fuzz->size_bytes)
		end += UNIT_BYTES - 1;
	for (uint64_t i = first; i < end / UNIT_BYTES &&
	    i < sizeof(fuzz->known); i++)
		fuzz->known[i] = known;
}

/* Whatever is known of the range must stand in data. */
static void
compare(const struct fuzz *fuzz, struct range range, const uint8_t *data)
{
	uint64_t end = range.guest + range.length;

	if (end > fuzz->model_bytes)
		end = fuzz->model_bytes;
	for (uint64_t guest = range.guest, next; guest < end; guest = next) {
		next = guest - guest % UNIT_BYTES + UNIT_BYTES;
		if (next > end)
			next = end;
		if (fuzz->known[guest / UNIT_BYTES])
			assert(!memcmp(fuzz->model + guest,
			    data + (guest - range.guest), next - guest));
	}
}

/* Reads the disk, cluster by cluster; it becomes, or must be, the model. */
co_fn static void
learn(struct fuzz *fuzz)
{
	uint64_t step = cluster_bytes(fuzz);

	for (uint64_t guest = 0; guest < fuzz->model_bytes; guest += step) {
		uint64_t length = fuzz->model_bytes - guest;
		struct range range = {guest, length < step ? length : step};

		fuzz->bad[guest / step] = image_read(fuzz->image, guest,
		    fuzz->model + guest, range.length, NULL) != 0;
		set_known(fuzz, range, !fuzz->bad[guest / step]);
	}
}

co_fn static void
compare_disk(struct fuzz *fuzz)
{
	for (uint64_t guest = 0; guest < fuzz->model_bytes;) {
		uint64_t length = fuzz->model_bytes - guest;
		struct range range = {guest, length < REQUEST_BYTES_MAX ?
		    length : REQUEST_BYTES_MAX};
		int err = image_read(fuzz->image, guest, fuzz->data,
		    range.length, NULL);

		if (!err)
			compare(fuzz, range, fuzz->data);
		else
			assert(touches_bad(fuzz, range));
		guest += range.length;
	}
}

/* ---- opening and closing ---- */

co_fn static int
open_image(struct fuzz *fuzz, bool writable)
{
	uint32_t method;
	struct image_options options = {
		.format = IMAGE_QCOW2, .writable = writable,
		.no_backing = true, .loops = 1,
		.metadata_cache_bytes = fuzz->flags & FLAG_SMALL_CACHE ?
		    1 : 65536,
		.keys = &test_key,
	};
	struct file *handle;
	struct error error;

	file_sim_peek(fuzz->disk, &method, sizeof(method),
	    CRYPT_METHOD_OFFSET);
	options.keys_count = be32toh(method) == CRYPT_METHOD_AES;

	assert(!file_sim_open(fuzz->disk, &handle));
	return image_open_file(handle, &options, &fuzz->image, &error);
}

co_fn static void
close_image(struct fuzz *fuzz)
{
	bool writable = image_writable(fuzz->image);
	int err = image_close(fuzz->image);

	fuzz->image = NULL;
	assert(!err || !fuzz->sound || fuzz->was_full);
	if (writable)
		check_again(fuzz, true);
}

/* What cannot be written may still be read. */
co_fn static bool
open_somehow(struct fuzz *fuzz)
{
	if (!(fuzz->flags & FLAG_READ_ONLY) && !open_image(fuzz, true))
		return true;
	return !open_image(fuzz, false);
}

co_fn static bool
open_first(struct fuzz *fuzz)
{
	if (!open_somehow(fuzz))
		return false;
	fuzz->size_bytes = image_size_bytes(fuzz->image);
	fuzz->model_bytes = fuzz->size_bytes < MODEL_BYTES ?
	    fuzz->size_bytes : MODEL_BYTES;
	/* So that no cluster is in it by half. */
	if (fuzz->model_bytes < fuzz->size_bytes)
		fuzz->model_bytes &= ~(cluster_bytes(fuzz) - 1ull);
	learn(fuzz);
	return true;
}

/* ---- commands ---- */

static struct range
take_range(struct fuzz *fuzz, bool from_end)
{
	uint64_t guest = take16(&fuzz->input) * (uint64_t)UNIT_BYTES;
	uint64_t length = (take8(&fuzz->input) + 1) * (uint64_t)UNIT_BYTES;

	if (fuzz->size_bytes == 0)
		return (struct range){0, 0};
	guest %= fuzz->size_bytes;
	if (from_end)
		guest = (fuzz->size_bytes - 1 - guest) & ~(UNIT_BYTES - 1ull);
	if (length > fuzz->size_bytes - guest)
		length = fuzz->size_bytes - guest;
	return (struct range){guest, length};
}

/* Whether a request may end as it did; what it leaves behind if it failed. */
static void
judge(struct fuzz *fuzz, struct range range, int err)
{
	if (!err && !touches_bad(fuzz, range))
		return;
	if (err == -ENOSPC)
		fuzz->was_full = true;
	if (err && fuzz->sound && is_modelled(fuzz, range) &&
	    !touches_bad(fuzz, range))
		assert(fuzz->was_full);
	set_known(fuzz, touched(fuzz, range), false);
}

/* Notes that the range holds value now. */
static void
note(struct fuzz *fuzz, struct range range, uint8_t value)
{
	uint64_t end = range.guest + range.length;

	if (end > fuzz->model_bytes)
		end = fuzz->model_bytes;
	if (range.guest >= end)
		return;
	memset(fuzz->model + range.guest, value, end - range.guest);
}

/*
 * Whether what a request is about to leave behind stays.  Where refcounts lie,
 * or two entries name one cluster, what somebody else gave up may be the one
 * that is written to, and is punched when it leaves the quarantine.
 */
static bool
is_settled(const struct fuzz *fuzz)
{
	return fuzz->sound || (fuzz->image->quarantine.count == 0 &&
	    !fuzz->image->barrier.running);
}

/* In one cluster, which no other can get into the way of. */
co_fn static void
read_back(struct fuzz *fuzz, struct range range, uint8_t value)
{
	uint64_t room = cluster_bytes(fuzz) - range.guest %
	    cluster_bytes(fuzz);
	uint64_t length = range.length < room ? range.length : room;

	if (!is_settled(fuzz))
		return;
	if (length != range.length || image_read(fuzz->image, range.guest,
	    fuzz->data, length, NULL))
		return;
	for (uint64_t i = 0; i < length; i++)
		assert(fuzz->data[i] == value);
}

co_fn static void
do_read(struct fuzz *fuzz, struct range range)
{
	int err;

	memset(fuzz->data, 0xdd, range.length);
	err = image_read(fuzz->image, range.guest, fuzz->data, range.length,
	    NULL);
	if (!err && fuzz->sound)
		compare(fuzz, range, fuzz->data);
	if (err && fuzz->sound && is_modelled(fuzz, range))
		assert(touches_bad(fuzz, range));
}

co_fn static void
do_write(struct fuzz *fuzz, struct range range, unsigned flags)
{
	uint8_t value = take8(&fuzz->input);
	bool was_settled = is_settled(fuzz);
	int err;

	memset(fuzz->data, value, range.length);
	err = image_write(fuzz->image, range.guest, fuzz->data, range.length,
	    flags);
	if (!err) {
		note(fuzz, range, value);
		if (was_settled)
			read_back(fuzz, range, value);
	}
	judge(fuzz, range, err);
}

/* Whether the cluster at guest has room of its own already, or may have. */
co_fn static bool
has_room(struct fuzz *fuzz, uint64_t guest)
{
	struct image_extent extent;
	unsigned count;

	return image_status(fuzz->image, guest, 1, &extent, 1, &count) ||
	    (extent.allocated && extent.depth == 0);
}

/* The whole cluster that the range begins in, which has no room yet. */
co_fn static void
do_compress(struct fuzz *fuzz, struct range range)
{
	uint8_t value = take8(&fuzz->input);
	bool was_settled = is_settled(fuzz);
	int err;

	range.guest &= ~(cluster_bytes(fuzz) - 1ull);
	range.length = cluster_bytes(fuzz);
	if (range.length > fuzz->size_bytes - range.guest)
		range.length = fuzz->size_bytes - range.guest;
	/* A header that lies makes clusters longer than any request. */
	if (range.length > sizeof(fuzz->data))
		return;
	memset(fuzz->data, value, range.length);
	if (fuzz->image->encrypted || has_room(fuzz, range.guest)) {
		assert(image_write_compressed(fuzz->image, range.guest,
		    fuzz->data, range.length));
		return;
	}
	err = image_write_compressed(fuzz->image, range.guest, fuzz->data,
	    range.length);
	if (!err) {
		note(fuzz, range, value);
		if (was_settled)
			read_back(fuzz, range, value);
	}
	judge(fuzz, range, err);
}

co_fn static void
do_zero(struct fuzz *fuzz, struct range range, unsigned flags)
{
	bool was_settled = is_settled(fuzz);
	int err = image_zero(fuzz->image, range.guest, range.length, flags);

	if (err == -ENOTSUP && flags & IMAGE_FAST)
		return;
	if (!err) {
		note(fuzz, range, 0);
		if (was_settled)
			read_back(fuzz, range, 0);
	}
	judge(fuzz, range, err);
}

/* Only whole clusters are discarded; the disk's last one counts as whole. */
co_fn static void
do_discard(struct fuzz *fuzz, struct range range)
{
	uint64_t mask = cluster_bytes(fuzz) - 1;
	uint64_t begin = (range.guest + mask) & ~mask;
	uint64_t end = range.guest + range.length;
	int err = image_discard(fuzz->image, range.guest, range.length, 0);

	if (end != fuzz->size_bytes)
		end &= ~mask;
	if (!err && begin < end)
		note(fuzz, (struct range){begin, end - begin}, 0);
	judge(fuzz, range, err);
}

co_fn static void
do_flush(struct fuzz *fuzz)
{
	int err = image_flush(fuzz->image);

	if (err == -ENOSPC)
		fuzz->was_full = true;
	assert(!err || !fuzz->sound || fuzz->was_full);
}

co_fn static void
do_status(struct fuzz *fuzz, struct range range)
{
	struct image_extent extents[8];
	uint64_t length = 0;
	unsigned count = 0;
	int err = image_status(fuzz->image, range.guest, range.length,
	    extents, 8, &count);

	if (err)
		return;
	assert(count >= 1 && count <= 8);
	for (unsigned i = 0; i < count; i++) {
		assert(extents[i].length > 0);
		length += extents[i].length;
	}
	assert(length <= range.length);
}

co_fn static bool
do_reopen(struct fuzz *fuzz)
{
	close_image(fuzz);
	if (!open_somehow(fuzz)) {
		assert(!fuzz->sound);
		return false;
	}
	if (fuzz->sound)
		compare_disk(fuzz);
	return true;
}

/* What the disk holds in the end, seen by one who cannot change it. */
co_fn static void
look_again(struct fuzz *fuzz)
{
	if (!fuzz->sound)
		return;
	assert(!open_image(fuzz, false));
	compare_disk(fuzz);
	close_image(fuzz);
}

/* Those that read nothing but the input need no range. */
co_fn static bool
do_command(struct fuzz *fuzz)
{
	uint8_t byte = take8(&fuzz->input);
	unsigned command = (byte & 0x7f) % COMMANDS;
	bool writes = command == COMMAND_COMPRESS ||
	    (command >= COMMAND_WRITE && command <= COMMAND_DISCARD);
	struct range range;

	if (command == COMMAND_REOPEN)
		return do_reopen(fuzz);
	if (command == COMMAND_CHECK || command == COMMAND_FLUSH) {
		do_flush(fuzz);
		if (command == COMMAND_CHECK)
			check_again(fuzz, false);
		return true;
	}
	range = take_range(fuzz, byte & COMMAND_FROM_END);
	if (range.length == 0 || (writes && !image_writable(fuzz->image)))
		return true;
	switch (command) {
	case COMMAND_READ:
		do_read(fuzz, range);
		break;
	case COMMAND_WRITE:
		do_write(fuzz, range, 0);
		break;
	case COMMAND_WRITE_FUA:
		do_write(fuzz, range, IMAGE_FUA);
		break;
	case COMMAND_ZERO:
		do_zero(fuzz, range, 0);
		break;
	case COMMAND_ZERO_NO_HOLE:
		do_zero(fuzz, range, IMAGE_NO_HOLE);
		break;
	case COMMAND_ZERO_FAST:
		do_zero(fuzz, range, IMAGE_FAST);
		break;
	case COMMAND_DISCARD:
		do_discard(fuzz, range);
		break;
	case COMMAND_COMPRESS:
		do_compress(fuzz, range);
		break;
	case COMMAND_STATUS:
		do_status(fuzz, range);
		break;
	default:
		image_prefetch(fuzz->image, range.guest, range.length);
	}
	return true;
}

co_fn static void
run(void *arg)
{
	struct fuzz *fuzz = arg;

	if (!open_first(fuzz))
		return;
	for (unsigned i = 0; i < COMMANDS_MAX && fuzz->input.bytes > 0; i++)
		if (!do_command(fuzz))
			return;
	close_image(fuzz);
	look_again(fuzz);
}

/* ---- the world ---- */

/* One for all inputs, since it takes time to make; as good as new for each. */
static struct sim *
renew_world(uint8_t seed)
{
	static struct sim *sim;

	if (!sim)
		assert(!sim_create(0, 1, &sim));
	random_seed(&sim->random, seed);
	sim_set_steps_max(sim, STEPS_MAX);
	return sim;
}

static void
set_up(struct fuzz *fuzz)
{
	uint8_t seed, patches;

	fuzz->template = template_get(take8(&fuzz->input) % TEMPLATE_COUNT);
	fuzz->flags = take8(&fuzz->input);
	seed = take8(&fuzz->input);
	patches = take8(&fuzz->input);
	fuzz->sim = renew_world(seed);
	/* Damage is done without a world, so that it takes no time. */
	assert(!file_sim_clone(fuzz->template->file, NULL, &fuzz->disk));
	for (unsigned i = 0; i < patches && i < PATCHES_MAX &&
	    fuzz->input.bytes > 0; i++)
		damage(fuzz);
}

static void
enter_world(struct fuzz *fuzz)
{
	struct file *damaged = fuzz->disk;

	assert(!file_sim_clone(damaged, fuzz->sim, &fuzz->disk));
	file_close(damaged);
	fuzz->file_bytes = (uint64_t)file_size(fuzz->disk);
	if (fuzz->flags & FLAG_FULL_DISK)
		file_sim_set_budget(fuzz->disk,
		    file_sim_allocated_bytes(fuzz->disk) +
		    fuzz->flags / 8 * ROOM_BYTES);
}

int
LLVMFuzzerTestOneInput(const uint8_t *start, size_t bytes)
{
	static struct fuzz fuzz;
	enum sim_end end;

	log_set_level((enum log_level)0);
	fuzz = (struct fuzz){.input = {start, bytes}};
	set_up(&fuzz);
	enter_world(&fuzz);
	check_at_first(&fuzz);
	sim_start(fuzz.sim, 0, &fuzz.start, run, &fuzz);
	end = sim_run(fuzz.sim);
	assert(end == SIM_DONE);
	file_close(fuzz.disk);
	return 0;
}
