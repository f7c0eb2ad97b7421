/* SPDX-License-Identifier: MIT */
/*
 * Faults in a real server, by LD_PRELOAD: allocations, and operations on files
 * that go through the C library (all do with --io threads; reads mostly do with
 * io_uring as well).
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "tests/fault/control.h"

/* ---- allocations ---- */

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *data, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *
malloc(size_t bytes)
{
	return control_fails_allocation() ? NULL : __libc_malloc(bytes);
}

void *
calloc(size_t count, size_t bytes)
{
	return control_fails_allocation() ? NULL : __libc_calloc(count, bytes);
}

void *
realloc(void *data, size_t bytes)
{
	return control_fails_allocation() ? NULL : __libc_realloc(data, bytes);
}

void *
aligned_alloc(size_t alignment, size_t bytes)
{
	return control_fails_allocation() ? NULL :
	    __libc_memalign(alignment, bytes);
}

int
posix_memalign(void **datap, size_t alignment, size_t bytes)
{
	void *data;

	if (control_fails_allocation())
		return ENOMEM;
	data = __libc_memalign(alignment, bytes);
	if (!data)
		return ENOMEM;
	*datap = data;
	return 0;
}

/* ---- files ---- */

static int
is_the_file(int fd)
{
	struct stat st;

	return !fstat(fd, &st) &&
	    st.st_ino == atomic_load(&fault_control->inode);
}

static int
touches(const struct iovec *iov, int count, off_t offset)
{
	uint64_t begin = (uint64_t)offset, end = begin;
	uint64_t bad = atomic_load(&fault_control->offset);

	for (int i = 0; i < count; i++)
		end += iov[i].iov_len;
	return begin < bad + atomic_load(&fault_control->length) && bad < end;
}

/* Sets errno and counts if an operation on fd shall fail. */
static int
hit(int fd, atomic_ullong *error)
{
	int number = (int)atomic_load(error);

	if (!number || !is_the_file(fd))
		return 0;
	atomic_fetch_add(&fault_control->hits, 1);
	errno = number;
	return 1;
}

typedef ssize_t vector_fn(int fd, const struct iovec *iov, int count,
    off_t offset, int flags);

static vector_fn *
next_vector_fn(const char *name)
{
	/* POSIX wants it to be possible, C does not. */
	union {
		void *data;
		vector_fn *fn;
	} next = {dlsym(RTLD_NEXT, name)};

	return next.fn;
}

ssize_t
preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	static vector_fn *next;

	if (fault_control && touches(iov, count, offset) &&
	    hit(fd, &fault_control->read_errno))
		return -1;
	if (!next)
		next = next_vector_fn("preadv2");
	return next(fd, iov, count, offset, flags);
}

ssize_t
preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	return preadv2(fd, iov, count, offset, 0);
}

ssize_t
pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	static vector_fn *next;

	if (fault_control && touches(iov, count, offset) &&
	    hit(fd, &fault_control->write_errno))
		return -1;
	if (!next)
		next = next_vector_fn("pwritev2");
	return next(fd, iov, count, offset, flags);
}

int
fdatasync(int fd)
{
	static int (*next)(int fd);
	union {
		void *data;
		int (*fn)(int fd);
	} found;

	if (fault_control && hit(fd, &fault_control->sync_errno))
		return -1;
	if (!next) {
		found.data = dlsym(RTLD_NEXT, "fdatasync");
		next = found.fn;
	}
	return next(fd);
}
