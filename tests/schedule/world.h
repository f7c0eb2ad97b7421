/* SPDX-License-Identifier: MIT */
/*
 * A simulated world with one image in it, for tests that decide themselves
 * what happens in which order.
 *
 * A test runs as a coroutine on loop 0, the director: it starts requests on
 * either loop, holds operations of the disk (file_sim_hold()) and lets them
 * go.  Data is one byte repeated, so a wrong byte tells whose it is.  What
 * must not fail is asserted here.
 */
#ifndef TESTS_SCHEDULE_WORLD_H
#define TESTS_SCHEDULE_WORLD_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include "qcow2/check.h"
#include "qcow2/image.h"
#include "qcow2/inflate.h"
#include "runtime/file_sim.h"
#include "runtime/record.h"
#include "runtime/sim.h"

/* The number of the disk in the record. */
#define WORLD_DISK 1

/* Long enough for whatever is under way and is not held. */
#define WORLD_PAUSE_NS 3000000000ull

struct world_options {
	uint64_t seed;
	unsigned loops;			/* 0: two */
	uint64_t cluster_bytes;		/* 0: 4 KiB */
	uint64_t disk_bytes;		/* 0: 256 clusters */
	uint64_t device_bytes;		/* 0: a regular file */
	uint64_t cache_bytes;		/* 0: the default */
	uint64_t refcount_bits;		/* 0: 16 */
	enum compression compression;
	enum image_discard discard;
	enum image_detect_zeroes detect_zeroes;
	bool recorded;
	bool encrypted;
};

struct world {
	struct world_options options;
	struct sim *sim;
	struct file *disk;		/* the test's own handle */
	struct record_log *log;		/* NULL: not recorded */
	struct file *recorder;		/* while it is open and recorded */
	struct image *image;		/* NULL: closed */
	struct error error;		/* of the last opening that failed */
	void *arg;			/* the test's own */
	/* What the running coroutine of world_run() is about. */
	void (*fn)(struct world *world);
	struct co_start start;
	int result;
};

/* A world with an empty image that is not open; and its end, closed again. */
void world_create(struct world *world, const struct world_options *options);
void world_free(struct world *world);

/* The same, with the content of disk. */
void world_clone(struct world *world, const struct world_options *options,
    struct file *disk);

/* Runs fn as a coroutine on loop 0 until it returns. */
void world_run(struct world *world, void (*fn)(struct world *world));

/*
 * A world whose disk has been through prepare and closed: for changes by hand,
 * and for requests that find nothing cached.  The record begins after.
 */
void world_prepare(struct world *world, const struct world_options *options,
    void (*prepare)(struct world *world));

/* Closes the image, which must be clean then, and ends the world. */
void world_finish(struct world *world);

/* A world from its beginning through fn to its clean end. */
void world_play(const struct world_options *options,
    void (*fn)(struct world *world));

/* 0 or what the image says.  From outside the world. */
int world_open(struct world *world);
int world_close(struct world *world);

/* What the check says of the disk as it is, printing corruptions. */
struct check_result world_check(struct world *world);
/* No corruption, no leak. */
void world_assert_clean(struct world *world);

/* ---- on the disk of a closed image ---- */

/* Lets the entry of a mapped cluster be the compressed kind, all of value. */
void world_compress(struct world *world, uint64_t guest, uint8_t value);

/* Lets the unmapped cluster of other have the host cluster of guest, too. */
void world_share(struct world *world, uint64_t guest, uint64_t other);

/* Where the L2 entry and the (16-bit) refcount stand in the file. */
uint64_t world_l2_entry(struct world *world, uint64_t guest);
uint64_t world_refcount(struct world *world, uint64_t host);

uint32_t world_peek32(struct world *world, uint64_t offset);
void world_poke32(struct world *world, uint64_t offset, uint32_t value);
uint64_t world_peek64(struct world *world, uint64_t offset);
void world_poke64(struct world *world, uint64_t offset, uint64_t value);

/* ---- requests ---- */

enum action {
	ACTION_READ,	/* and expects value */
	ACTION_WRITE,
	ACTION_COMPRESS,	/* image_write_compressed() */
	ACTION_ZERO,
	ACTION_DISCARD,
	ACTION_FLUSH,
	ACTION_STATUS,
	/* To guest bytes, longer or shorter; value: preallocation. */
	ACTION_RESIZE,
	/* Of the snapshot with the number guest. */
	ACTION_SNAPSHOT_CREATE,
	ACTION_SNAPSHOT_DELETE,
	ACTION_SNAPSHOT_APPLY,
};

struct request {
	enum action action;
	uint64_t guest;
	size_t length;
	uint8_t value;
	unsigned flags;

	/* Results. */
	bool done;
	int err;
	uint8_t *data;		/* ACTION_READ */

	/* Private. */
	struct world *world;
	struct co *waiter;
	struct co_start start;
};

/* One that was not started; a read has to find value, flags are IMAGE_.... */
static inline struct request
request_of(enum action action, uint64_t guest, size_t length, uint8_t value,
    unsigned flags)
{
	return (struct request){
		.action = action, .guest = guest, .length = length,
		.value = value, .flags = flags,
	};
}

/* Starts a request on a loop of the world. */
void request_start(struct world *world, unsigned loop,
    struct request *request);

/* Waits for its end; its result. */
co_fn int request_wait(struct request *request);

/* Waits; it must have worked, and a read must have found its value. */
co_fn void request_finish(struct request *request);

/* Carries a request out on the caller's loop; it must work. */
co_fn void world_do(struct world *world, enum action action, uint64_t guest,
    size_t length, uint8_t value, unsigned flags);

#define world_write(world, guest, length, value) \
	world_do(world, ACTION_WRITE, guest, length, value, 0)
#define world_write_compressed(world, guest, value) \
	world_do(world, ACTION_COMPRESS, guest, \
	    (world)->options.cluster_bytes, value, 0)
#define world_zero(world, guest, length, flags) \
	world_do(world, ACTION_ZERO, guest, length, 0, flags)
#define world_discard(world, guest, length) \
	world_do(world, ACTION_DISCARD, guest, length, 0, 0)
#define world_flush(world) world_do(world, ACTION_FLUSH, 0, 0, 0, 0)
#define world_expect(world, guest, length, value) \
	world_do(world, ACTION_READ, guest, length, value, 0)

#define world_resize(world, bytes, preallocation) \
	world_do(world, ACTION_RESIZE, bytes, 0, preallocation, 0)
#define world_snapshot(world, action, number) \
	world_do(world, ACTION_SNAPSHOT_ ## action, number, 0, 0, 0)

/* Whether the disk, as it is in the file, has the snapshot. */
co_fn bool world_has_snapshot(struct world *world, unsigned number);

/* How long its disk is. */
co_fn uint64_t world_snapshot_bytes(struct world *world, unsigned number);

/* Reads of it, as it is in the file; and the same as world_expect(). */
co_fn void world_read_snapshot(struct world *world, unsigned number,
    uint64_t guest, void *data, size_t length);
co_fn void world_expect_snapshot(struct world *world, unsigned number,
    uint64_t guest, size_t length, uint8_t value);

/* The host offset of a mapped guest cluster; 0: it has none. */
co_fn uint64_t world_host(struct world *world, uint64_t guest);

/* Whether data, of a byte at least, is nothing but value. */
bool is_all(const uint8_t *data, size_t length, uint8_t value);

/* Lets everything go on that is not held. */
co_fn void pause_world(void);

/* Barriers until the quarantine is empty, if nothing is held. */
co_fn void flush_all(struct world *world);

/* Runs the suite, forking for each test; what main() returns. */
int world_main(Suite *suite);

#endif
