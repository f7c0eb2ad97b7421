/* SPDX-License-Identifier: MIT */
/*
 * Files in memory: sparse, up to 256 TiB, cheap to clone, and full of trouble.
 *
 * In a world (sim.h) every operation suspends and completes in seeded order.
 * Data takes effect at a moment drawn per operation, anywhere between its
 * submission and its completion, sometimes in two pieces with other operations
 * in between.  Without a world (plain mode) all happens at once and nothing
 * suspends.
 *
 * A disk is the content; handles are what is opened on it.  Closing the last
 * handle frees the disk, so a test keeps one of its own while the engine opens
 * and closes others.  All functions below take any handle, and what they set
 * holds for the disk.  One thread only.  Running out of memory ends the
 * process.
 */
#ifndef RUNTIME_FILE_SIM_H
#define RUNTIME_FILE_SIM_H

#include "runtime/file.h"
#include "runtime/sim.h"

#define FILE_SIM_BYTES_MAX (UINT64_C(1) << 48)

/* Kinds of operations, or-ed. */
#define FILE_SIM_READ		1u
#define FILE_SIM_WRITE		2u
#define FILE_SIM_SYNC		4u
#define FILE_SIM_PUNCH		8u
#define FILE_SIM_ZERO		16u
#define FILE_SIM_ALLOCATE	32u
#define FILE_SIM_TRUNCATE	64u
#define FILE_SIM_ANY		127u

/* "read", "write", ... of one kind. */
const char *file_sim_kind_name(unsigned kind);

/*
 * Says to clang's check of co_fn that what the caller does from here on does
 * not suspend, because its files are in plain mode.
 */
static inline void file_sim_plain(void)
#ifdef __clang__
    __attribute__((assert_capability(co_context)))
#endif
    ;

static inline void
file_sim_plain(void)
{
}

/* A new regular file of size bytes, all hole.  sim is NULL for plain mode. */
int file_sim_create(struct sim *sim, const char *name, uint64_t size,
    struct file **filep);

/*
 * A new block device: it never changes its size, writes past the end are
 * -ENOSPC, and what was never written reads as fill.
 */
int file_sim_create_device(struct sim *sim, const char *name, uint64_t size,
    uint8_t fill, struct file **filep);

/* Another handle of the same disk. */
int file_sim_open(struct file *file, struct file **filep);

/*
 * A new disk with the same content (shared until written), for another world
 * or plain mode.  Faults, holds, chances and the budget are not taken along.
 */
int file_sim_clone(struct file *file, struct sim *sim, struct file **filep);

/* A real file's whole content into the disk, and back, holes as holes. */
int file_sim_load(struct file *file, const char *path);
int file_sim_save(struct file *file, const char *path);

/* At once and without faults, in any mode; peek past the end reads zeros. */
void file_sim_peek(struct file *file, void *data, size_t length,
    uint64_t offset);
void file_sim_poke(struct file *file, const void *data, size_t length,
    uint64_t offset);

/* Of size and content; holes and zeros are the same. */
uint64_t file_sim_hash(struct file *file);

/* What is not a hole; a multiple of 4,096. */
uint64_t file_sim_allocated_bytes(struct file *file);

/* Operations of the or-ed kinds that were submitted so far. */
uint64_t file_sim_count(struct file *file, unsigned kinds);

/* ---- trouble ---- */

/* A misaligned offset, length or address is -EINVAL from now on. */
void file_sim_set_alignment(struct file *file, uint32_t request_alignment);

/* At most this many bytes are allocated; past it -ENOSPC.  UINT64_MAX: any. */
void file_sim_set_budget(struct file *file, uint64_t bytes);

/* One in how many reads and writes is short, one in how many is -EINTR. */
void file_sim_set_chances(struct file *file, unsigned short_one_in,
    unsigned transient_one_in);

#define FILE_SIM_FAULTS_MAX 16

/*
 * Lets the nth (from 1) matching operation from now on fail, and if
 * from_then_on all after it.  Of a failed write, none, all or some of its
 * sectors take effect, as drawn.  result above 0 makes a read or write short
 * instead: that many bytes are moved at most.
 */
struct file_sim_fault {
	unsigned kinds;
	uint64_t offset;	/* operations that touch this range; */
	uint64_t length;	/* 0: anywhere */
	uint64_t nth;
	bool from_then_on;	/* not with what file.h tries again */
	int result;		/* -errno, or bytes */
};

void file_sim_fail(struct file *file, const struct file_sim_fault *fault);

/* Takes all faults off. */
void file_sim_heal(struct file *file);

/* How many operations were failed or cut by file_sim_fail() so far. */
uint64_t file_sim_failed(struct file *file);

/* ---- holding operations, in a world only ---- */

/* An operation as file_sim_hold.match sees it. */
struct file_sim_op {
	unsigned kind;		/* one of FILE_SIM_... */
	unsigned flags;		/* FILE_DSYNC */
	uint64_t offset;
	uint64_t length;
	const struct iovec *iov;
	unsigned iov_count;
	unsigned loop_index;
};

struct file_sim_request;

/* Which operations to hold; the test's memory until it is released. */
struct file_sim_hold {
	const char *name;	/* for the trace, may be NULL */
	unsigned kinds;
	uint64_t offset;	/* operations that touch this range; */
	uint64_t length;	/* 0: anywhere */
	bool (*match)(const struct file_sim_op *op, void *arg);	/* or NULL */
	void *arg;
	unsigned skip;		/* let so many matching ones pass first */
	unsigned limit;		/* hold at most so many, 0: any number */
	bool after_effect;	/* hold back the completion, not the effect */

	/* Results. */
	unsigned caught;	/* in all */

	/* Private. */
	struct file_sim_hold *next;
	struct file_sim_request *first;
	struct file_sim_request *last;
	struct co *waiter;
	unsigned waiter_wants;
};

/* Holds matching operations that are submitted from now on. */
void file_sim_hold(struct file *file, struct file_sim_hold *hold);

/* Suspends until hold has caught count operations in all. */
co_fn void file_sim_await(struct file_sim_hold *hold, unsigned count);

/* Lets the oldest that hold has caught go on; it keeps on holding others. */
void file_sim_release_one(struct file *file, struct file_sim_hold *hold);

/* Lets all go on and takes hold off. */
void file_sim_release(struct file *file, struct file_sim_hold *hold);

#endif
