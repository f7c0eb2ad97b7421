/* SPDX-License-Identifier: MIT */
/*
 * A file: everything the engine does to a file goes through here.
 *
 * The seam for crash, fault and schedule tests.  Back ends: os (a real file or
 * block device; operations run on the calling coroutine's loop), sim (memory,
 * seeded order and faults), record (wraps another and logs what it did).
 * Image files are never mapped into memory.
 *
 * All offsets and lengths are in bytes.  The wrappers here finish short
 * results and retry EINTR, EAGAIN and ECANCELED, so a back end may be plain;
 * callers see all or an error.
 */
#ifndef RUNTIME_FILE_H
#define RUNTIME_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "runtime/co.h"

struct file;

/* How a file is opened, or-ed. */
#define FILE_WRITE	1u	/* for reading and writing */
#define FILE_CREATE	2u	/* must not exist yet; needs FILE_WRITE */

/* Flags of file_pwritev(). */
#define FILE_DSYNC	1u	/* stable before it completes (RWF_DSYNC) */

enum file_fallocate {
	FILE_PUNCH,	/* deallocate; reads as zeros after; size kept */
	FILE_ZERO,	/* reads as zeros after, stays allocated */
	FILE_ALLOCATE,	/* gets room on disk; the file may grow */
};

/* Who a file is, for loops in a backing chain. */
struct file_id {
	dev_t dev;
	ino_t ino;
};

/* What a back end does; results as the system calls', -errno on failure. */
struct file_ops {
	/* Bytes moved, possibly fewer than asked; 0 from preadv is the end. */
	int64_t (*preadv)(struct file *file, struct iovec *iov,
	    unsigned iov_count, uint64_t offset);
	int64_t (*pwritev)(struct file *file, struct iovec *iov,
	    unsigned iov_count, uint64_t offset, unsigned flags);
	int (*fdatasync)(struct file *file);
	int (*fallocate)(struct file *file, enum file_fallocate mode,
	    uint64_t offset, uint64_t length);
	int (*truncate)(struct file *file, uint64_t size);
	int64_t (*size)(struct file *file);
	/* Offset of the next data (or hole) at or after offset, or -ENXIO. */
	int64_t (*seek)(struct file *file, uint64_t offset, bool data);
	/* NULL where can_splice is false; inside the file. */
	bool (*is_cached)(struct file *file, uint64_t offset, size_t length);
	int64_t (*splice)(struct file *file, int pipe_fd, uint64_t offset,
	    size_t length);
	/* Bytes that may still be had of the file system; NULL: unknown. */
	int64_t (*bytes_left)(struct file *file);
	int (*open_again)(struct file *file, unsigned flags,
	    struct file **filep);
	void (*forget)(struct file *file);	/* NULL: it caches nothing */
	void (*close)(struct file *file);
};

/* The common head of every back end's struct. */
struct file {
	const struct file_ops *ops;
	char *name;		/* for messages */
	struct file_id id;
	bool is_regular;	/* else a block device */
	bool writable;
	bool can_splice;	/* file_splice() may work */
	bool is_draft;		/* see file_make_draft() */
	atomic_bool wants_room;	/* see file_make_room() */
	uint32_t request_alignment; /* of offset, length, memory; 1: none */
	/* See file_expect_size(). */
	_Atomic uint64_t end_bytes;
	atomic_bool is_cut;
};

/*
 * Opens a regular file or block device; anything else is -EINVAL, and a FIFO
 * does not hang it.  Blocks (it is for start-up and workers), does not
 * suspend.  directory_fd as openat(2)'s; resolve is openat2(2)'s, 0 for none.
 */
int file_open(int directory_fd, const char *path, unsigned flags,
    uint64_t resolve, struct file **filep);

/* The same for a descriptor, which the file owns from then on. */
int file_open_fd(int fd, const char *name, unsigned flags,
    struct file **filep);

/*
 * Another handle of the same file, whatever its name leads to by now, with
 * locks of its own; flags are FILE_WRITE or 0.  Blocks, does not suspend.
 */
int file_open_again(struct file *file, unsigned flags, struct file **filep);

/*
 * Lets the system forget what it has cached of the file, so that it is read
 * from where it lies, if others write to it there; only what is not on disk yet
 * stays.  (After a sync that failed this is what was to be written, too.)
 */
co_fn void file_forget(struct file *file);

/* Frees; whatever is not synced is not made so.  NULL is fine. */
void file_close(struct file *file);

/*
 * Says right after the opening that the file is a draft: a new file that is
 * worth nothing before it is complete, and that nobody else waits for.  So
 * nothing of it is made stable on the way, file_fdatasync() and FILE_DSYNC or
 * not, and writes keep the calling thread, which saves waking another one.
 */
void file_make_draft(struct file *file);

/*
 * From here on a regular file is expected to be as long as now, or as what is
 * written to it: only file_truncate() makes it shorter.  If somebody else does,
 * reading what is gone is -EIO, not zeros, and the file is cut from then on.
 */
void file_expect_size(struct file *file);
bool file_is_cut(const struct file *file);

/*
 * Reads exactly the iovecs' sum of bytes at offset; what lies past the end of
 * the file reads as zeros.  iov is clobbered.
 */
co_fn int file_preadv(struct file *file, struct iovec *iov,
    unsigned iov_count, uint64_t offset);
co_fn int file_pread(struct file *file, void *data, size_t length,
    uint64_t offset);

/*
 * Writes all of it or fails; how much of a failed write stands is unknown.
 * -ENOSPC also where a quota or a limit of the file's size is met.
 */
co_fn int file_pwritev(struct file *file, struct iovec *iov,
    unsigned iov_count, uint64_t offset, unsigned flags);
co_fn int file_pwrite(struct file *file, const void *data, size_t length,
    uint64_t offset, unsigned flags);

/* Makes stable every write that completed before this call; not of a draft. */
co_fn int file_fdatasync(struct file *file);

/* -EOPNOTSUPP where the file system cannot: callers must have another way. */
co_fn int file_fallocate(struct file *file, enum file_fallocate mode,
    uint64_t offset, uint64_t length);
co_fn int file_truncate(struct file *file, uint64_t size);

/*
 * Takes the room of a draft that is to be written to soon, where that makes the
 * writes cheaper, by a third on ext4; -EOPNOTSUPP elsewhere, having taken none,
 * and so where little is left: room that waits here is what others need.  The
 * range is the caller's alone and holds nothing; the file may grow.
 */
#define FILE_ROOM_BYTES_SPARED (64u * 1024 * 1024)
co_fn int file_make_room(struct file *file, uint64_t offset, uint64_t length);

/* The length now.  Does not suspend; may be called outside coroutines. */
int64_t file_size(struct file *file);

/*
 * The start of the first data (or hole) at or after offset; -ENXIO if there is
 * none.  A file that cannot tell is all data.  Does not suspend.
 */
int64_t file_seek_data(struct file *file, uint64_t offset);
int64_t file_seek_hole(struct file *file, uint64_t offset);

/*
 * Whether file_splice() of this range would neither wait nor meet the end that
 * is expected of the file.  Does not suspend; takes no lock.
 */
bool file_is_cached(struct file *file, uint64_t offset, size_t length);

/*
 * Puts the pages of the page cache that hold the range into a pipe, without
 * copying; offset need not be aligned.  Does not suspend.  What is in the pipe,
 * and then on its way to a socket, changes when the file is changed there, by
 * writes and by punches.  Bytes moved, which may be fewer than length (the pipe
 * is full, or the file has been cut short); -errno if none.
 */
int64_t file_splice(struct file *file, int pipe_fd, uint64_t offset,
    size_t length);

/*
 * Locks as QEMU holds them, so that both programs exclude each other: OFD read
 * locks on single bytes, taken first, then a look for conflicting ones.
 */
enum file_lock {
	FILE_LOCK_READ,		/* reads; others may read */
	FILE_LOCK_WRITE,	/* writes; others may not even read */
	FILE_LOCK_SHARED,	/* beside a writer (force-share): no lock */
};

/*
 * -EAGAIN if another process holds a conflicting lock, after retrying for
 * up to patience_ms (a killed io_uring process holds its locks a little
 * longer).  Blocks; os files only (others always succeed).
 */
int file_lock(struct file *file, enum file_lock lock, unsigned patience_ms);

/*
 * Goes from a lock that is held to another and holds what both have all the
 * while.  -EAGAIN, at once: another process has one that conflicts, and from is
 * held as before.
 */
int file_relock(struct file *file, enum file_lock from, enum file_lock to);

/*
 * For a second handle of a file, the other handle of which has such a lock, or
 * a stronger one: takes it without looking at what others hold.
 */
int file_lock_again(struct file *file, enum file_lock lock);

#endif
