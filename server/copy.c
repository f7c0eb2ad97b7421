/* SPDX-License-Identifier: MIT */
/*
 * Data is looked at, and written, right after it was read, while the caches of
 * the processor have it.  Yet pieces are large: the kernel takes writes to a
 * file one after the other, and spends less on those of a megabyte.  They begin
 * at multiples of the target's clusters, so that no two of them meet in one.
 */
#include "server/copy.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "qcow2/zeros_only.h"
#include "runtime/buf.h"

#define PIECE_BYTES (1024u * 1024)
#define GRANULE_BYTES 4096u
/* Of a piece, which is one cluster of 2 MiB at most, in the smallest units. */
#define GRANULES_MAX (PIECE_BYTES / GRANULE_BYTES)
/* Compressed, a cluster is a granule, so pieces of small ones are smaller. */
#define PIECE_BYTES_COMPRESSED (64u * 1024)
/* On each loop; those that compress wait for workers. */
#define COROUTINES 4
#define COROUTINES_COMPRESSED 8
/* Zeros that a source names; further ones are found by looking. */
#define HOLES_MAX 64

enum content {
	CONTENT_DATA,
	CONTENT_ZERO,
	CONTENT_SAME,		/* as in the target */
};

/* A piece on its way. */
struct part {
	uint64_t guest;
	size_t length;
	char *data;
	uint8_t contents[GRANULES_MAX];	/* enum content */
};

static size_t
smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int
fail(struct copy *copy, int err, const char *what, const struct image *image,
    uint64_t guest)
{
	if (!atomic_exchange(&copy->failed, true))
		error_set(copy->error, err, "cannot %s %s at byte %" PRIu64
		    ": %s", what, image_path(image), guest, strerror(-err));
	return err;
}

/* ---- what comes next ---- */

/* How many bytes from guest on read as zeros, as far as the source knows. */
co_fn static int
count_zeros(struct copy *copy, uint64_t guest, uint64_t *lengthp)
{
	uint64_t source_bytes = image_size_bytes(copy->source);
	struct image_extent extent;
	unsigned count;
	int err;

	*lengthp = copy->walk.size_bytes - guest;
	if (guest >= source_bytes)
		return 0;
	err = image_status(copy->source, guest, source_bytes - guest, &extent,
	    1, &count);
	if (err)
		return fail(copy, err, "read", copy->source, guest);
	if (!extent.zero) {
		copy->data_end = guest + extent.length;
		*lengthp = 0;
	} else if (guest + extent.length < source_bytes) {
		*lengthp = extent.length;
	}
	return 0;
}

static co_fn int
look(void *arg, struct walk_piece *piece)
{
	struct copy *copy = arg;
	uint64_t rest = copy->walk.size_bytes - piece->guest;
	uint64_t zeros = 0;
	int err;

	if (copy->stop && copy->stop())
		return -EINTR;
	piece->length = smaller(rest, copy->piece_bytes -
	    piece->guest % copy->piece_bytes);
	if (piece->guest + piece->length <= copy->data_end)
		return 0;
	err = count_zeros(copy, piece->guest, &zeros);
	if (err || zeros < piece->length)
		return err;
	piece->length = zeros;
	if (zeros < rest)
		piece->length -= (piece->guest + zeros) % copy->piece_bytes;
	piece->is_empty = true;
	return 0;
}

/* ---- reading ---- */

static size_t
granule_length(const struct copy *copy, const struct part *part,
    size_t offset)
{
	return smaller(copy->granule, part->length - offset);
}

/*
 * Whether the range is all in one hole.  If not, what it has of holes is
 * filled with zeros.  Holes that end before the range are left behind.
 */
static bool
is_hole(const struct image_holes *holes, unsigned *firstp, char *data,
    size_t from, size_t end)
{
	const struct image_hole *hole;

	for (; *firstp < holes->count; ++*firstp) {
		hole = &holes->list[*firstp];
		if (hole->offset + hole->length > from)
			break;
	}
	for (unsigned i = *firstp; i < holes->count; i++) {
		size_t hole_from, hole_end;

		hole = &holes->list[i];
		hole_from = hole->offset > from ? hole->offset : from;
		hole_end = smaller(hole->offset + hole->length, end);
		if (hole_from >= hole_end)
			break;
		if (hole_from == from && hole_end == end)
			return true;
		memset(data + hole_from, 0, hole_end - hole_from);
	}
	return false;
}

/* Notes which granules are zeros. */
static void
find_zeros(const struct copy *copy, struct part *part,
    const struct image_holes *holes)
{
	unsigned first_hole = 0;
	size_t offset = 0;

	for (unsigned i = 0; offset < part->length; i++) {
		size_t length = granule_length(copy, part, offset);

		if (is_hole(holes, &first_hole, part->data, offset,
		    offset + length) ||
		    zeros_only(part->data + offset, length))
			part->contents[i] = CONTENT_ZERO;
		else
			part->contents[i] = CONTENT_DATA;
		offset += length;
	}
}

co_fn static int
read_source(struct copy *copy, struct part *part)
{
	uint64_t source_bytes = image_size_bytes(copy->source);
	struct image_hole list[HOLES_MAX];
	struct image_holes holes = { .max = HOLES_MAX, .list = list };
	size_t inside = part->length;
	int err;

	if (part->guest + inside > source_bytes)
		inside = source_bytes > part->guest ?
		    source_bytes - part->guest : 0;
	err = image_read(copy->source, part->guest, part->data, inside,
	    &holes);
	if (err)
		return fail(copy, err, "read", copy->source, part->guest);
	memset(part->data + inside, 0, part->length - inside);
	find_zeros(copy, part, &holes);
	return 0;
}

/* Notes what the target holds already. */
co_fn static int
compare_target(struct copy *copy, struct part *part)
{
	char *old = buf_get(part->length);
	size_t offset = 0;
	int err = -ENOMEM;

	if (old)
		err = image_read(copy->target, part->guest, old, part->length,
		    NULL);
	if (err) {
		buf_put(old, part->length);
		return fail(copy, err, "read", copy->target, part->guest);
	}
	for (unsigned i = 0; offset < part->length; i++) {
		size_t length = granule_length(copy, part, offset);

		if (part->contents[i] == CONTENT_ZERO ?
		    zeros_only(old + offset, length) :
		    !memcmp(old + offset, part->data + offset, length))
			part->contents[i] = CONTENT_SAME;
		offset += length;
	}
	buf_put(old, part->length);
	return 0;
}

/* ---- writing ---- */

/* Zeros a range of the target, but for what reads as zeros there. */
co_fn static int
zero_target(struct copy *copy, uint64_t guest, uint64_t length)
{
	while (length > 0) {
		struct image_extent extent;
		unsigned count;
		int err = image_status(copy->target, guest, length, &extent,
		    1, &count);

		if (!err && !extent.zero)
			err = image_zero(copy->target, guest, extent.length,
			    0);
		if (err)
			return fail(copy, err, "write", copy->target, guest);
		guest += extent.length;
		length -= extent.length;
	}
	return 0;
}

co_fn static int
write_data(struct copy *copy, const struct part *part, size_t offset,
    size_t length)
{
	int err = 0;

	if (!copy->compresses)
		return image_write(copy->target, part->guest + offset,
		    part->data + offset, length, 0);
	while (length > 0 && !err) {
		size_t cluster_bytes = granule_length(copy, part, offset);

		err = image_write_compressed(copy->target,
		    part->guest + offset, part->data + offset, cluster_bytes);
		offset += cluster_bytes;
		length -= cluster_bytes;
	}
	return err;
}

co_fn static int
write_run(struct copy *copy, const struct part *part, size_t offset,
    size_t length)
{
	uint64_t guest = part->guest + offset;
	int err;

	switch ((enum content)part->contents[offset / copy->granule]) {
	case CONTENT_SAME:
		return 0;
	case CONTENT_ZERO:
		return copy->holds_other ? zero_target(copy, guest, length) :
		    0;
	case CONTENT_DATA:
		break;
	}
	err = write_data(copy, part, offset, length);
	return err ? fail(copy, err, "write", copy->target, guest) : 0;
}

/* Granules of the same content go together. */
co_fn static int
write_part(struct copy *copy, const struct part *part)
{
	size_t start = 0;

	while (start < part->length) {
		size_t end = start;
		int err;

		while (end < part->length &&
		    part->contents[end / copy->granule] ==
		    part->contents[start / copy->granule])
			end += granule_length(copy, part, end);
		err = write_run(copy, part, start, end - start);
		if (err)
			return err;
		start = end;
	}
	return 0;
}

static co_fn int
work(void *arg, const struct walk_piece *piece)
{
	struct copy *copy = arg;
	struct part part = { .guest = piece->guest, .length = piece->length };
	int err;

	if (piece->is_empty)
		return copy->holds_other ? zero_target(copy, piece->guest,
		    piece->length) : 0;
	part.data = buf_get(part.length);
	if (!part.data)
		return fail(copy, -ENOMEM, "read", copy->source, part.guest);
	err = read_source(copy, &part);
	if (!err && copy->compares)
		err = compare_target(copy, &part);
	if (!err)
		err = write_part(copy, &part);
	buf_put(part.data, part.length);
	return err;
}

static void
tell_progress(void *arg, uint64_t done, uint64_t total)
{
	struct copy *copy = arg;

	copy->progress(copy->progress_arg, done, total);
}

static void
choose_sizes(struct copy *copy)
{
	size_t cluster_bytes = image_cluster_bytes(copy->target);
	size_t piece_bytes = PIECE_BYTES;

	copy->granule = cluster_bytes;
	if (copy->compresses) {
		piece_bytes = GRANULES_MAX * cluster_bytes;
		if (piece_bytes > PIECE_BYTES_COMPRESSED)
			piece_bytes = PIECE_BYTES_COMPRESSED;
	} else if (copy->target_format == IMAGE_RAW ||
	    cluster_bytes < GRANULE_BYTES) {
		copy->granule = GRANULE_BYTES;
	}
	copy->piece_bytes = copy->granule < piece_bytes ? piece_bytes :
	    copy->granule;
}

co_fn int
copy_run(struct copy *copy, struct loop *const *loops, unsigned loops_count,
    struct error *error)
{
	int err;

	assert(copy->size_bytes <= image_size_bytes(copy->target));
	choose_sizes(copy);
	copy->data_end = 0;
	atomic_init(&copy->failed, false);
	copy->error = error;
	copy->walk = (struct walk){
		.size_bytes = copy->size_bytes,
		.coroutines = copy->compresses ? COROUTINES_COMPRESSED :
		    COROUTINES,
		.look = look, .work = work,
		.progress = copy->progress ? tell_progress : NULL,
		.arg = copy,
	};
	err = walk_run(&copy->walk, loops, loops_count);
	if (err && !atomic_load(&copy->failed))
		error_set(error, err, "%s", err == -EINTR ? "interrupted" :
		    strerror(-err));
	return err;
}
