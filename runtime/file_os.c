/* SPDX-License-Identifier: MIT */
/*
 * The os back end: a real file or block device.
 *
 * Reads that the page cache can answer are done at once, by one preadv2 with
 * RWF_NOWAIT and without a suspension; that costs the same as through the ring
 * and saves a turn.  So are all reads and writes of memory file systems, which
 * know no RWF_NOWAIT but never wait for a disk, and what is written to a draft,
 * even if it waits.  So are writes where the file system knows RWF_NOWAIT for
 * them; where it does not (ext4), they go to the file's writer thread.
 * Everything else is an operation of the calling coroutine's loop.  A monitor
 * the caller is in is left during all of them.
 *
 * Pages are spliced only where no disk has to be waited for.
 *
 * Truncation goes to a worker: the kernels' io_uring learned it late.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include "runtime/file.h"
#include "runtime/file_os.h"
#include "runtime/loop.h"
#include "runtime/monitor.h"
#include "runtime/worker.h"
#include "runtime/writer.h"

struct os_file {
	struct file file;
	int fd;
	bool in_memory;		/* tmpfs: never waits for a disk */
	/* RWF_NOWAIT has not been refused so far; any loop may find out. */
	atomic_bool reads_nowait;
	atomic_bool writes_nowait;
	struct writer *writer;	/* once it has; see os_pwritev() */
	pthread_mutex_t writer_lock;
};

static const struct file_ops os_ops;

static struct os_file *
os_file_of(struct file *file)
{
	return container_of(file, struct os_file, file);
}

/* ---- reading and writing ---- */

/* Moved at once before others on the loop get a turn. */
#define NOW_BYTES_MAX ((size_t)1 << 20)

/* An iovec that was shortened for the time of one system call. */
struct clip {
	struct iovec *last;	/* NULL: none was */
	size_t length;		/* what it was */
};

/* Lets iov end at NOW_BYTES_MAX; how many of it are left. */
static unsigned
clip(struct iovec *iov, unsigned iov_count, struct clip *clip)
{
	size_t room = NOW_BYTES_MAX;

	for (unsigned i = 0; i < iov_count; i++) {
		if (iov[i].iov_len > room) {
			*clip = (struct clip){&iov[i], iov[i].iov_len};
			iov[i].iov_len = room;
			return room > 0 ? i + 1 : i;
		}
		room -= iov[i].iov_len;
	}
	clip->last = NULL;
	return iov_count;
}

co_fn static void
unclip(const struct clip *clip)
{
	if (!clip->last)
		return;
	clip->last->iov_len = clip->length;
	co_yield();
}

/* -EAGAIN where the answer would have to be waited for. */
co_fn static int64_t
read_now(struct os_file *os, struct iovec *iov, unsigned iov_count,
    uint64_t offset)
{
	struct monitor *monitor = co_monitor();
	int flags = os->in_memory ? 0 : RWF_NOWAIT;
	struct clip clipped;
	ssize_t got;

	iov_count = clip(iov, iov_count, &clipped);
	if (monitor)
		monitor_unlock(monitor);
	got = preadv2(os->fd, iov, (int)iov_count, (off_t)offset, flags);
	if (got < 0)
		got = -errno;
	if (monitor)
		monitor_lock(monitor);
	unclip(&clipped);
	if (got == -EOPNOTSUPP && !os->in_memory) {
		atomic_store(&os->reads_nowait, false);
		return -EAGAIN;
	}
	return got;
}

/* Whether a write is done at once, even if it has to wait for the disk. */
static bool
may_block(const struct os_file *os)
{
	return os->in_memory || os->file.is_draft;
}

/* -EAGAIN where the write might have to wait. */
co_fn static int64_t
write_now(struct os_file *os, struct iovec *iov, unsigned iov_count,
    uint64_t offset, unsigned flags)
{
	struct monitor *monitor = co_monitor();
	struct clip clipped;
	ssize_t put;

	iov_count = clip(iov, iov_count, &clipped);
	if (monitor)
		monitor_unlock(monitor);
	put = pwritev2(os->fd, iov, (int)iov_count, (off_t)offset,
	    (flags & FILE_DSYNC ? RWF_DSYNC : 0) |
	    (may_block(os) ? 0 : RWF_NOWAIT));
	if (put < 0)
		put = -errno;
	if (monitor)
		monitor_lock(monitor);
	unclip(&clipped);
	if (put == -EOPNOTSUPP && !may_block(os)) {
		atomic_store(&os->writes_nowait, false);
		return -EAGAIN;
	}
	return put;
}

/* The file's writer, started with the first write; NULL: there is none. */
static struct writer *
get_writer(struct os_file *os)
{
	struct writer *writer;

	pthread_mutex_lock(&os->writer_lock);
	if (!os->writer)
		writer_start(&os->writer);
	writer = os->writer;
	pthread_mutex_unlock(&os->writer_lock);
	return writer;
}

co_fn static int64_t
os_preadv(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset)
{
	struct os_file *os = os_file_of(file);
	struct op op = {
		.kind = OP_READV, .fd = os->fd,
		.iov = iov, .iov_count = iov_count, .offset = offset,
	};

	if (atomic_load_explicit(&os->reads_nowait,
	    memory_order_relaxed)) {
		int64_t got = read_now(os, iov, iov_count, offset);

		if (got != -EAGAIN)
			return got;
	}
	return loop_wait(&op);
}

co_fn static int64_t
os_pwritev(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset, unsigned flags)
{
	struct os_file *os = os_file_of(file);
	struct op op = {
		.kind = OP_WRITEV, .fd = os->fd,
		.iov = iov, .iov_count = iov_count, .offset = offset,
		.flags = flags & FILE_DSYNC ? OP_DSYNC : 0,
	};
	struct writer *writer;

	if (may_block(os))
		return write_now(os, iov, iov_count, offset, flags);
	/* A stable write waits for the disk: kernel workers do several. */
	if (flags & FILE_DSYNC)
		return loop_wait(&op);
	if (atomic_load_explicit(&os->writes_nowait,
	    memory_order_relaxed)) {
		int64_t put = write_now(os, iov, iov_count, offset, flags);

		if (put != -EAGAIN)
			return put;
	}
	writer = get_writer(os);
	return writer ? loop_wait_writer(writer, &op) : loop_wait(&op);
}

co_fn static int
os_fdatasync(struct file *file)
{
	struct op op = {.kind = OP_FDATASYNC, .fd = os_file_of(file)->fd};

	return (int)loop_wait(&op);
}

static int
fallocate_mode(const struct file *file, enum file_fallocate mode)
{
	switch (mode) {
	case FILE_PUNCH:
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	case FILE_ZERO:
		return file->is_regular ? FALLOC_FL_ZERO_RANGE :
		    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	case FILE_ALLOCATE:
		return 0;
	}
	assert(!"a fallocate mode");
	return 0;
}

/* As write_now() for a draft: at once, and nobody waits for the monitor. */
co_fn static int
fallocate_now(const struct op *op)
{
	struct monitor *monitor = co_monitor();
	int err = 0;

	if (monitor)
		monitor_unlock(monitor);
	if (fallocate(op->fd, (int)op->flags, (off_t)op->offset,
	    (off_t)op->length))
		err = -errno;
	if (monitor)
		monitor_lock(monitor);
	return err;
}

co_fn static int
os_fallocate(struct file *file, enum file_fallocate mode, uint64_t offset,
    uint64_t length)
{
	struct op op = {
		.kind = OP_FALLOCATE, .fd = os_file_of(file)->fd,
		.flags = (unsigned)fallocate_mode(file, mode),
		.offset = offset, .length = length,
	};

	return file->is_draft ? fallocate_now(&op) : (int)loop_wait(&op);
}

struct truncation {
	int fd;
	uint64_t size;
	int result;
};

static void
truncate_job(void *arg)
{
	struct truncation *truncation = arg;

	truncation->result = 0;
	if (ftruncate(truncation->fd, (off_t)truncation->size))
		truncation->result = -errno;
}

co_fn static int
os_truncate(struct file *file, uint64_t size)
{
	struct truncation truncation = {
		.fd = os_file_of(file)->fd, .size = size,
	};

	worker_run(truncate_job, &truncation);
	return truncation.result;
}

/* ---- size, holes ---- */

static int64_t
os_size(struct file *file)
{
	int fd = os_file_of(file)->fd;
	struct stat st;
	uint64_t size;

	if (!file->is_regular)
		return ioctl(fd, BLKGETSIZE64, &size) ? -errno : (int64_t)size;
	return fstat(fd, &st) ? -errno : st.st_size;
}

static int64_t
os_seek(struct file *file, uint64_t offset, bool data)
{
	off_t found = lseek(os_file_of(file)->fd, (off_t)offset,
	    data ? SEEK_DATA : SEEK_HOLE);
	int64_t size;

	if (found >= 0)
		return found;
	if (errno == ENXIO)
		return -ENXIO;
	/* It cannot tell: all is data up to the end. */
	size = os_size(file);
	if (size < 0 || offset >= (uint64_t)size)
		return -ENXIO;
	return data ? (int64_t)offset : size;
}

/* ---- splicing ---- */

/* cachestat(2) came with kernel 6.5; the numbers are the kernel's. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cachestat_range {
	uint64_t offset;
	uint64_t length;
};

struct cachestat_counts {
	uint64_t cached;
	uint64_t dirty;
	uint64_t writeback;
	uint64_t evicted;
	uint64_t recently_evicted;
};

#define PAGE_BYTES 4096u

/* The page is there and filled: a byte of it can be read without waiting. */
static bool
page_is_filled(struct os_file *os, uint64_t offset)
{
	char byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};

	return preadv2(os->fd, &iov, 1, (off_t)offset,
	    os->in_memory ? 0 : RWF_NOWAIT) == 1;
}

/* Pages of the range in the cache, filled or on their way from the disk. */
static uint64_t
count_cached(struct os_file *os, uint64_t offset, size_t length)
{
	struct cachestat_range range = {.offset = offset, .length = length};
	struct cachestat_counts counts;

	if (syscall(SYS_cachestat, os->fd, &range, &counts, 0))
		return 0;
	return counts.cached;
}

/*
 * Pages read ahead come from the disk in order, so that if the last one is
 * filled the others are.
 */
static bool
os_is_cached(struct file *file, uint64_t offset, size_t length)
{
	struct os_file *os = os_file_of(file);
	uint64_t pages = (offset + length - 1) / PAGE_BYTES -
	    offset / PAGE_BYTES + 1;

	/* If the file was made shorter, it is not even there. */
	if (!page_is_filled(os, offset + length - 1))
		return false;
	return os->in_memory ||
	    ((pages < 2 || page_is_filled(os, offset)) &&
	    (pages < 3 || count_cached(os, offset, length) == pages));
}

static int64_t
os_splice(struct file *file, int pipe_fd, uint64_t offset, size_t length)
{
	off_t position = (off_t)offset;
	ssize_t moved = splice(os_file_of(file)->fd, &position, pipe_fd, NULL,
	    length, SPLICE_F_NONBLOCK);

	return moved < 0 ? -errno : moved;
}

/* ---- opening ---- */

static int64_t
os_bytes_left(struct file *file)
{
	struct statfs fs;

	if (fstatfs(os_file_of(file)->fd, &fs))
		return -errno;
	return (int64_t)(fs.f_bavail * (uint64_t)fs.f_bsize);
}

static void
find_file_system(struct os_file *os)
{
	struct statfs fs;

	if (!os->file.is_regular || fstatfs(os->fd, &fs))
		return;
	os->in_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
	/* It looks for the room of a write block by block, file locked. */
	os->file.wants_room = fs.f_type == EXT4_SUPER_MAGIC;
}

int
file_open_fd(int fd, const char *name, unsigned flags, struct file **filep)
{
	struct os_file *os;
	struct stat st;
	int err;

	if (fstat(fd, &st)) {
		err = -errno;
		goto close_fd;
	}
	err = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		goto close_fd;
	err = -ENOMEM;
	os = calloc(1, sizeof(*os));
	if (!os)
		goto close_fd;
	os->file.name = strdup(name);
	if (!os->file.name)
		goto free_os;
	os->file.ops = &os_ops;
	os->file.is_regular = S_ISREG(st.st_mode);
	/* A device is itself, whatever node it was opened by. */
	os->file.id.dev = os->file.is_regular ? st.st_dev : st.st_rdev;
	os->file.id.ino = os->file.is_regular ? st.st_ino : 0;
	os->file.writable = flags & FILE_WRITE;
	os->file.request_alignment = 1;
	os->fd = fd;
	find_file_system(os);
	os->file.can_splice = os->file.is_regular &&
	    sysconf(_SC_PAGESIZE) == PAGE_BYTES;
	atomic_init(&os->reads_nowait, true);
	atomic_init(&os->writes_nowait, true);
	pthread_mutex_init(&os->writer_lock, NULL);
	*filep = &os->file;
	return 0;
free_os:
	free(os);
close_fd:
	close(fd);
	return err;
}

/* O_NONBLOCK keeps a FIFO from hanging us; regular files ignore it. */
static int
open_path(int directory_fd, const char *path, const char *name,
    unsigned flags, uint64_t resolve, struct file **filep)
{
	struct open_how how = {
		.flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOATIME |
		    (flags & FILE_WRITE ? O_RDWR : O_RDONLY) |
		    (flags & FILE_CREATE ? O_CREAT | O_EXCL : 0),
		.mode = flags & FILE_CREATE ? 0644 : 0,
		.resolve = resolve,
	};
	long fd = syscall(SYS_openat2, directory_fd, path, &how, sizeof(how));
	int status_flags;

	/* Only the owner may spare a file the time of its last read. */
	if (fd < 0 && errno == EPERM) {
		how.flags &= ~(uint64_t)O_NOATIME;
		fd = syscall(SYS_openat2, directory_fd, path, &how,
		    sizeof(how));
	}
	if (fd < 0)
		return -errno;
	/* io_uring would take O_NONBLOCK as leave to fail with EAGAIN. */
	status_flags = fcntl((int)fd, F_GETFL);
	if (status_flags < 0 ||
	    fcntl((int)fd, F_SETFL, status_flags & ~O_NONBLOCK)) {
		int err = -errno;

		close((int)fd);
		return err;
	}
	return file_open_fd((int)fd, name, flags, filep);
}

int
file_open(int directory_fd, const char *path, unsigned flags,
    uint64_t resolve, struct file **filep)
{
	return open_path(directory_fd, path, path, flags, resolve, filep);
}

/* ---- opening again, closing ---- */

static int
os_open_again(struct file *file, unsigned flags, struct file **filep)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d",
	    os_file_of(file)->fd);
	return open_path(AT_FDCWD, path, file->name, flags, 0, filep);
}

static void
forget_job(void *arg)
{
	posix_fadvise(*(const int *)arg, 0, 0, POSIX_FADV_DONTNEED);
}

co_fn static void
os_forget(struct file *file)
{
	worker_run(forget_job, &os_file_of(file)->fd);
}

static void
os_close(struct file *file)
{
	writer_stop(os_file_of(file)->writer);
	pthread_mutex_destroy(&os_file_of(file)->writer_lock);
	close(os_file_of(file)->fd);
	free(file->name);
	free(os_file_of(file));
}

static const struct file_ops os_ops = {
	.preadv = os_preadv,
	.pwritev = os_pwritev,
	.fdatasync = os_fdatasync,
	.fallocate = os_fallocate,
	.truncate = os_truncate,
	.size = os_size,
	.seek = os_seek,
	.is_cached = os_is_cached,
	.splice = os_splice,
	.bytes_left = os_bytes_left,
	.open_again = os_open_again,
	.forget = os_forget,
	.close = os_close,
};

int
file_os_fd(struct file *file)
{
	return file->ops == &os_ops ? os_file_of(file)->fd : -1;
}
