/* SPDX-License-Identifier: MIT */
/*
 * What is common to all files: whole results, zeros past the end.
 *
 * Cost above the back end's own: none; short results loop.
 */
#include "runtime/file.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include "runtime/log.h"

/* Drops the first bytes of *iov; how many iovecs are left. */
static unsigned
iov_advance(struct iovec **iov, unsigned iov_count, size_t bytes)
{
	while (iov_count > 0 && bytes >= (*iov)->iov_len) {
		bytes -= (*iov)->iov_len;
		(*iov)++;
		iov_count--;
	}
	if (iov_count > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
		(*iov)->iov_len -= bytes;
	}
	return iov_count;
}

static void
iov_clear(const struct iovec *iov, unsigned iov_count)
{
	for (unsigned i = 0; i < iov_count; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
}

/* Whatever the limit is, callers know one name for it. */
static int
plain_errno(int64_t result)
{
	return result == -EDQUOT || result == -EFBIG ? -ENOSPC : (int)result;
}

/*
 * What did not happen and may be tried again: a signal, no resources just now,
 * a ring whose worker was taken away.  Never a sync that was tried and failed.
 */
static bool
is_transient(int64_t result)
{
	return result == -EINTR || result == -EAGAIN || result == -ECANCELED;
}

void
file_make_draft(struct file *file)
{
	file->is_draft = true;
}

/* ---- the end of the file ---- */

void
file_expect_size(struct file *file)
{
	int64_t size = file->is_regular ? file_size(file) : 0;

	atomic_store(&file->end_bytes, size > 0 ? (uint64_t)size : 0);
}

bool
file_is_cut(const struct file *file)
{
	return atomic_load_explicit(&file->is_cut, memory_order_relaxed);
}

static void
expect_end(struct file *file, uint64_t end)
{
	uint64_t old = atomic_load_explicit(&file->end_bytes,
	    memory_order_relaxed);

	while (old < end && !atomic_compare_exchange_weak(&file->end_bytes,
	    &old, end))
		;
}

/* The file ends at offset, or before: may it? */
static int
judge_end(struct file *file, uint64_t offset)
{
	if (offset >= atomic_load(&file->end_bytes))
		return 0;
	if (!atomic_exchange(&file->is_cut, true))
		log_error("the file was made shorter under us: there is "
		    "nothing at 0x%llx any more; what is gone cannot be read, "
		    "and nothing is written file=%s",
		    (unsigned long long)offset, file->name);
	return -EIO;
}

/* ---- reading and writing ---- */

int
file_preadv(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset)
{
	iov_count = iov_advance(&iov, iov_count, 0);
	while (iov_count > 0) {
		unsigned batch = iov_count < IOV_MAX ? iov_count : IOV_MAX;
		int64_t got = file->ops->preadv(file, iov, batch, offset);

		if (is_transient(got))
			continue;
		if (got < 0)
			return (int)got;
		if (got == 0) {
			iov_clear(iov, iov_count);
			return judge_end(file, offset);
		}
		iov_count = iov_advance(&iov, iov_count, (size_t)got);
		offset += (uint64_t)got;
	}
	return 0;
}

int
file_pread(struct file *file, void *data, size_t length, uint64_t offset)
{
	struct iovec iov = {.iov_base = data, .iov_len = length};

	return file_preadv(file, &iov, 1, offset);
}

int
file_pwritev(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset, unsigned flags)
{
	assert(file->writable);
	if (file->is_draft)
		flags &= ~FILE_DSYNC;
	iov_count = iov_advance(&iov, iov_count, 0);
	while (iov_count > 0) {
		unsigned batch = iov_count < IOV_MAX ? iov_count : IOV_MAX;
		int64_t put = file->ops->pwritev(file, iov, batch, offset,
		    flags);

		if (is_transient(put))
			continue;
		if (put < 0)
			return plain_errno(put);
		if (put == 0)
			return -EIO;
		iov_count = iov_advance(&iov, iov_count, (size_t)put);
		offset += (uint64_t)put;
	}
	if (file->is_regular)
		expect_end(file, offset);
	return 0;
}

int
file_pwrite(struct file *file, const void *data, size_t length,
    uint64_t offset, unsigned flags)
{
	struct iovec iov = {
		.iov_base = (void *)(uintptr_t)data, .iov_len = length,
	};

	return file_pwritev(file, &iov, 1, offset, flags);
}

int
file_fdatasync(struct file *file)
{
	int err;

	if (file->is_draft)
		return 0;
	do
		err = file->ops->fdatasync(file);
	while (is_transient(err));
	return err;
}

int
file_fallocate(struct file *file, enum file_fallocate mode, uint64_t offset,
    uint64_t length)
{
	int err;

	assert(file->writable && length > 0);
	do
		err = file->ops->fallocate(file, mode, offset, length);
	while (is_transient(err));
	return err == -ENOSYS ? -EOPNOTSUPP : plain_errno(err);
}

int
file_truncate(struct file *file, uint64_t size)
{
	int err;

	assert(file->writable);
	if (size < atomic_load(&file->end_bytes))
		atomic_store(&file->end_bytes, size);
	do
		err = file->ops->truncate(file, size);
	while (is_transient(err));
	return plain_errno(err);
}

int
file_make_room(struct file *file, uint64_t offset, uint64_t length)
{
	int64_t left;
	int err;

	if (!file->is_draft || !file->wants_room)
		return -EOPNOTSUPP;
	left = file->ops->bytes_left ? file->ops->bytes_left(file) : INT64_MAX;
	if (left < (int64_t)(length + FILE_ROOM_BYTES_SPARED))
		return -EOPNOTSUPP;
	err = file_fallocate(file, FILE_ALLOCATE, offset, length);
	if (err != -ENOSPC)
		return err;
	/* A quota: what has been taken of it until there was no more. */
	file->wants_room = false;
	file_fallocate(file, FILE_PUNCH, offset, length);
	return -EOPNOTSUPP;
}

int64_t
file_size(struct file *file)
{
	return file->ops->size(file);
}

int64_t
file_seek_data(struct file *file, uint64_t offset)
{
	return file->ops->seek(file, offset, true);
}

int64_t
file_seek_hole(struct file *file, uint64_t offset)
{
	return file->ops->seek(file, offset, false);
}

bool
file_is_cached(struct file *file, uint64_t offset, size_t length)
{
	return file->can_splice &&
	    offset + length <= atomic_load_explicit(&file->end_bytes,
	    memory_order_relaxed) &&
	    file->ops->is_cached(file, offset, length);
}

int64_t
file_splice(struct file *file, int pipe_fd, uint64_t offset, size_t length)
{
	int64_t moved;

	assert(file->can_splice);
	do
		moved = file->ops->splice(file, pipe_fd, offset, length);
	while (moved == -EINTR);
	return moved;
}

int
file_open_again(struct file *file, unsigned flags, struct file **filep)
{
	return file->ops->open_again(file, flags, filep);
}

void
file_forget(struct file *file)
{
	if (file->ops->forget)
		file->ops->forget(file);
}

void
file_close(struct file *file)
{
	if (file)
		file->ops->close(file);
}
