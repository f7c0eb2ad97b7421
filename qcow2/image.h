/* SPDX-License-Identifier: MIT */
/*
 * An image: one virtual disk that serves many requests at once.
 *
 * A qcow2 file with its backing chain, or a raw file.  Requests of any number
 * of coroutines on any number of loops may be in an image at the same time; a
 * request has its payload in memory, so an image never waits for a socket.
 *
 * Offsets called guest are bytes of the virtual disk.  Requests may begin and
 * end at any byte.  Every request returns 0 or -errno: -EINVAL if it does not
 * lie inside the disk (which may have become shorter a moment ago), -EIO for a
 * damaged image or device (logged once where it was found), -ENOSPC when the
 * host is full, -ENOMEM.
 */
#ifndef QCOW2_IMAGE_H
#define QCOW2_IMAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"
#include "runtime/error.h"
#include "runtime/splice_pipe.h"

struct check_listener;
struct file;
struct image;

enum image_format {
	IMAGE_QCOW2,
	IMAGE_RAW,
};

enum image_discard {
	IMAGE_DISCARD_UNMAP,	/* frees clusters and gives room back */
	IMAGE_DISCARD_IGNORE,	/* does nothing */
	/*
	 * Gives room back, but clusters keep their place in the file, so that
	 * it does not get fragmented.  Not for version 2.
	 */
	IMAGE_DISCARD_NO_UNREF,
};

/* What image_write() does with data that is nothing but zeros. */
enum image_detect_zeroes {
	IMAGE_DETECT_OFF,	/* writes it */
	IMAGE_DETECT_ON,	/* image_zero() with IMAGE_LEAVE_ROOM */
	IMAGE_DETECT_UNMAP,	/* image_zero() */
};

/* Images below the top that one chain may have. */
#define IMAGE_CHAIN_MAX 64

/* A passphrase.  In use until image_open() returns. */
struct image_key {
	const char *text;
	size_t bytes;
};

struct image_options {
	enum image_format format; /* told, never probed */
	bool writable;
	unsigned writable_depth; /* so many below it is another; 0: none */
	bool force_share;	/* read beside a writer, without locks */
	bool no_backing;	/* open this one file only (info, check) */
	const char *snapshot;	/* its id or name: the disk is what it has;
				 * for reading alone.  NULL: the present */
	bool draft;		/* a new file, see file_make_draft(); what is
				 * below it is none */
	bool refuse_bitmaps;	/* rather than invalidate them */
	bool backing_format_told; /* backing_format rules over the file's */
	enum image_format backing_format;
	enum image_discard discard;
	enum image_detect_zeroes detect_zeroes;
	const char *const *backing_dirs; /* allowed besides the file's own */
	unsigned backing_dirs_count;
	/*
	 * Of the encrypted files, from the top of the chain down; the last one
	 * is for all that are below.  More keys than such files are an error.
	 */
	const struct image_key *keys;
	unsigned keys_count;
	bool keys_spare;	/* more keys are fine */
	bool no_data;		/* only the mapping is wanted: no keys */
	uint64_t metadata_cache_bytes; /* a file of the chain; 0: 64 MiB */
	unsigned loops;		/* how many loops will use it */
	/* Hears of the repair of a dirty image while it runs; or NULL. */
	const struct check_listener *repair_listener;
};

/*
 * Opens path and its chain, locks it, validates every table it has to trust.
 * On failure *error tells a person what is wrong and what to type.
 */
co_fn int image_open(const char *path, const struct image_options *options,
    struct image **imagep, struct error *error);

/* The same on a file the caller opened (tests); the image owns it then. */
co_fn int image_open_file(struct file *file,
    const struct image_options *options, struct image **imagep,
    struct error *error);

/*
 * Waits for requests to end, makes everything stable, frees.  The image is
 * gone even on failure, which says what could not be made stable.
 */
co_fn int image_close(struct image *image);

/*
 * Facts.  While it is open only resizing, applying a snapshot and opening anew
 * change any: the length, whether it is writable, what is below.
 */
uint64_t image_size_bytes(const struct image *image);
uint32_t image_cluster_bytes(const struct image *image); /* raw: 64 KiB */
bool image_writable(const struct image *image);
const char *image_path(const struct image *image);
/* The image below, or NULL. */
const struct image *image_backing(const struct image *image);

/* A part of a read that is zeros and was left out, relative to its start. */
struct image_hole {
	uint32_t offset;
	uint32_t length;
};

/* Where image_read() may note holes instead of filling in zeros. */
struct image_holes {
	unsigned count;
	unsigned max;
	struct image_hole *list;	/* ascending, not touching each other */
};

/*
 * Reads length bytes at guest into data.  With holes, up to holes->max runs of
 * zeros are noted there and their bytes in data left alone; all others are
 * filled in.
 */
co_fn int image_read(struct image *image, uint64_t guest, void *data,
    size_t length, struct image_holes *holes);

/* Ranges that one plan may have; what is more scattered is read. */
#define IMAGE_PLAN_RANGES_MAX 32

/* Where a part of the disk lies; on the caller's stack. */
struct image_plan {
	atomic_uint *ticket;		/* image_plan_end() takes it back */
	unsigned count;
	struct file_range ranges[IMAGE_PLAN_RANGES_MAX];
};

/*
 * For readers that pass data on without copying it, as file_splice() does: 1
 * if all of the range is plain data that nobody changes, and plan says where,
 * until image_plan_end().  0: it is to be read.  -EIO, -ENOMEM.
 *
 * Nobody changes images that are open for reading alone, such as the lower
 * ones of a chain.  In one that is written to, clusters are freed and reused,
 * and a page that is on its way to a socket would then show other data: a punch
 * does not part it from its file, since pages come in large folios.
 */
co_fn int image_plan(struct image *image, uint64_t guest, uint64_t length,
    struct image_plan *plan);

/*
 * After a plan, which the caller has carried out or given up.  Until then the
 * image is not opened anew; so he waits for nothing meanwhile, nor for the
 * image.
 */
void image_plan_end(struct image_plan *plan);

#define IMAGE_FUA	1u	/* stable before the return */
#define IMAGE_NO_HOLE	2u	/* image_zero(): keep the room allocated */
#define IMAGE_FAST	4u	/* image_zero(): -ENOTSUP rather than write */
#define IMAGE_LEAVE_ROOM 8u	/* image_zero(): keep what is allocated so */

co_fn int image_write(struct image *image, uint64_t guest, const void *data,
    size_t length, unsigned flags);

/*
 * Compresses and writes one whole guest cluster, or what the disk has of its
 * last one, that has no host cluster in this image yet: -EIO if it has one.  A
 * cluster that does not shrink is written as it is.  Many may be under way.
 * -ENOTSUP for a raw or an encrypted image.
 */
co_fn int image_write_compressed(struct image *image, uint64_t guest,
    const void *data, size_t length);

/* Makes the range read as zeros. */
co_fn int image_zero(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags);

/*
 * Gives whole clusters inside the range back; they read as zeros afterwards
 * (or, in a version 2 image with a backing file, keep their content).
 */
co_fn int image_discard(struct image *image, uint64_t guest, uint64_t length,
    unsigned flags);

/* Everything answered before this call is stable at the return. */
co_fn int image_flush(struct image *image);

/*
 * Reads what the range has of data into the host's cache, as far as
 * IMAGE_PREFETCH_BYTES_MAX of it go: more would drive out what came first.
 */
#define IMAGE_PREFETCH_BYTES_MAX (UINT64_C(1) << 30)
co_fn int image_prefetch(struct image *image, uint64_t guest,
    uint64_t length);

/* What the guest range consists of. */
struct image_extent {
	uint64_t length;	/* bytes */
	bool zero;		/* reads as zeros */
	bool allocated;		/* a host cluster stands behind it somewhere */
	bool compressed;
	bool host_valid;	/* host says where the data is */
	/* 0: this image has it; else layers below.  Of what no layer has, the
	 * last one that is long enough to have it. */
	uint8_t depth;
	bool present;		/* some layer says what it is */
	uint64_t host;		/* host offset in the file of that layer */
};

/*
 * Describes the range from guest on, neighbours with equal facts merged, until
 * length is covered, max extents are used or the work is bounded; *countp is
 * at least 1.  The last extent may not overrun the range.
 */
co_fn int image_status(struct image *image, uint64_t guest, uint64_t length,
    struct image_extent *extents, unsigned max, unsigned *countp);

#endif
