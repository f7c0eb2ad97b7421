/* SPDX-License-Identifier: MIT */
#include "runtime/file_record.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/iov.h"
#include "runtime/sim_internal.h"

struct record_file {
	struct file file;
	struct file *inner;
	struct record_log *log;
	unsigned source;
	bool with_reads;
	atomic_uint_fast64_t changed;
};

static struct record_file *
record_file_of(struct file *file)
{
	return container_of(file, struct record_file, file);
}

static uint8_t *
iov_gather(const struct iovec *iov, unsigned iov_count)
{
	uint8_t *data = sim_calloc(1, iov_bytes(iov, iov_count) + 1);
	uint8_t *target = data;

	for (unsigned i = 0; i < iov_count; i++) {
		memcpy(target, iov[i].iov_base, iov[i].iov_len);
		target += iov[i].iov_len;
	}
	return data;
}

static bool
iov_equal(const struct iovec *iov, unsigned iov_count, const uint8_t *data)
{
	for (unsigned i = 0; i < iov_count; i++) {
		if (memcmp(iov[i].iov_base, data, iov[i].iov_len))
			return false;
		data += iov[i].iov_len;
	}
	return true;
}

static size_t
begin(struct record_file *record, enum record_kind kind, uint64_t offset,
    uint64_t length)
{
	return record_begin(record->log, &(struct record){
		.kind = kind, .source = record->source,
		.offset = offset, .length = length,
	});
}

co_fn static int64_t
record_preadv(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset)
{
	struct record_file *record = record_file_of(file);
	struct file *inner = record->inner;
	size_t index;
	int64_t result;

	if (!record->with_reads)
		return inner->ops->preadv(inner, iov, iov_count, offset);
	index = begin(record, RECORD_READ, offset, iov_bytes(iov, iov_count));
	result = inner->ops->preadv(inner, iov, iov_count, offset);
	record_end(record->log, index, result);
	return result;
}

/* The iovecs may be clobbered below, so they are handed on as copies. */
co_fn static int64_t
record_pwritev(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset, unsigned flags)
{
	struct record_file *record = record_file_of(file);
	struct file *inner = record->inner;
	struct record entry = {
		.kind = RECORD_WRITE, .source = record->source,
		.flags = flags & FILE_DSYNC ? RECORD_DSYNC : 0,
		.offset = offset, .length = iov_bytes(iov, iov_count),
		.data = iov_gather(iov, iov_count),
	};
	struct iovec *handed = sim_calloc(iov_count + 1, sizeof(*handed));
	size_t index = record_begin(record->log, &entry);
	int64_t result;

	memcpy(handed, iov, iov_count * sizeof(*iov));
	result = inner->ops->pwritev(inner, handed, iov_count, offset, flags);
	record_end(record->log, index, result);
	if (!iov_equal(iov, iov_count, entry.data))
		atomic_fetch_add(&record->changed, 1);
	free(handed);
	free(entry.data);
	return result;
}

co_fn static int
record_fdatasync(struct file *file)
{
	struct record_file *record = record_file_of(file);
	size_t index = begin(record, RECORD_SYNC, 0, 0);
	int result = record->inner->ops->fdatasync(record->inner);

	record_end(record->log, index, result);
	return result;
}

co_fn static int
record_fallocate(struct file *file, enum file_fallocate mode, uint64_t offset,
    uint64_t length)
{
	struct record_file *record = record_file_of(file);
	struct file *inner = record->inner;
	size_t index = begin(record, mode == FILE_PUNCH ? RECORD_PUNCH :
	    mode == FILE_ZERO ? RECORD_ZERO : RECORD_ALLOCATE, offset, length);
	int result = inner->ops->fallocate(inner, mode, offset, length);

	record_end(record->log, index, result);
	return result;
}

co_fn static int
record_truncate(struct file *file, uint64_t size)
{
	struct record_file *record = record_file_of(file);
	size_t index = begin(record, RECORD_TRUNCATE, size, 0);
	int result = record->inner->ops->truncate(record->inner, size);

	record_end(record->log, index, result);
	return result;
}

static int64_t
record_size(struct file *file)
{
	return file_size(record_file_of(file)->inner);
}

static int64_t
record_seek(struct file *file, uint64_t offset, bool data)
{
	struct file *inner = record_file_of(file)->inner;

	return inner->ops->seek(inner, offset, data);
}

static int
record_open_again(struct file *file, unsigned flags, struct file **filep)
{
	struct record_file *record = record_file_of(file);
	struct file *inner;
	int err = file_open_again(record->inner, flags, &inner);

	return err ? err : file_record_open(record->log, record->source,
	    inner, record->with_reads, filep);
}

static int64_t
record_bytes_left(struct file *file)
{
	struct file *inner = record_file_of(file)->inner;

	return inner->ops->bytes_left(inner);
}

static void
record_close(struct file *file)
{
	struct record_file *record = record_file_of(file);

	file_close(record->inner);
	free(record->file.name);
	free(record);
}

static const struct file_ops record_ops = {
	.preadv = record_preadv,
	.pwritev = record_pwritev,
	.fdatasync = record_fdatasync,
	.fallocate = record_fallocate,
	.truncate = record_truncate,
	.size = record_size,
	.seek = record_seek,
	.bytes_left = record_bytes_left,
	.open_again = record_open_again,
	.close = record_close,
};

int
file_record_open(struct record_log *log, unsigned source, struct file *inner,
    bool with_reads, struct file **filep)
{
	struct record_file *record = sim_calloc(1, sizeof(*record));

	record->file = *inner;
	record->file.ops = &record_ops;
	record->file.name = strcpy(sim_calloc(1, strlen(inner->name) + 1),
	    inner->name);
	record->inner = inner;
	record->log = log;
	record->source = source;
	record->with_reads = with_reads;
	*filep = &record->file;
	return 0;
}

uint64_t
file_record_changed(struct file *file)
{
	return atomic_load(&record_file_of(file)->changed);
}
