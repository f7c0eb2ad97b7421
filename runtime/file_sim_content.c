/* SPDX-License-Identifier: MIT */
/* Simulated files: the content seen and set from outside. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runtime/file_sim_internal.h"

#define CHUNK_BYTES (1024 * 1024)

void
file_sim_peek(struct file *file, void *data, size_t length, uint64_t offset)
{
	const struct disk *disk = disk_of(file);
	size_t there = 0;

	if (offset < disk->size)
		there = disk->size - offset < length ?
		    (size_t)(disk->size - offset) : length;
	pages_read(&disk->pages, data, there, offset);
	memset((char *)data + there, 0, length - there);
}

void
file_sim_poke(struct file *file, const void *data, size_t length,
    uint64_t offset)
{
	struct disk *disk = disk_of(file);

	assert(!disk->is_device || offset + length <= disk->size);
	pages_write(&disk->pages, data, length, offset);
	if (offset + length > disk->size)
		disk->size = offset + length;
}

uint64_t
file_sim_hash(struct file *file)
{
	const struct disk *disk = disk_of(file);

	return random_mix(disk->size) ^ pages_hash(&disk->pages);
}

uint64_t
file_sim_allocated_bytes(struct file *file)
{
	return disk_of(file)->pages.allocated * PAGE_BYTES;
}

/* ---- from and to real files ---- */

static int
load_range(struct file *file, int fd, uint64_t offset, uint64_t end,
    char *chunk)
{
	while (offset < end) {
		size_t bytes = end - offset < CHUNK_BYTES ?
		    (size_t)(end - offset) : CHUNK_BYTES;
		ssize_t got = pread(fd, chunk, bytes, (off_t)offset);

		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		file_sim_poke(file, chunk, (size_t)got, offset);
		offset += (size_t)got;
	}
	return 0;
}

static int
load_fd(struct file *file, int fd, char *chunk)
{
	struct disk *disk = disk_of(file);
	off_t data = 0, hole = 0;
	struct stat st;
	int err;

	if (fstat(fd, &st))
		return -errno;
	if ((uint64_t)st.st_size > FILE_SIM_BYTES_MAX ||
	    (disk->is_device && (uint64_t)st.st_size > disk->size))
		return -EFBIG;
	pages_free(&disk->pages);
	if (!disk->is_device)
		disk->size = (uint64_t)st.st_size;
	/* On a device a file's holes are zeros, not what was there before. */
	if (disk->pages.fill != 0)
		pages_zero(&disk->pages, 0, (uint64_t)st.st_size, false);
	for (;;) {
		data = lseek(fd, hole, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		err = load_range(file, fd, (uint64_t)data, (uint64_t)hole,
		    chunk);
		if (err)
			return err;
	}
}

int
file_sim_load(struct file *file, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *chunk;
	int err;

	if (fd < 0)
		return -errno;
	chunk = sim_calloc(1, CHUNK_BYTES);
	err = load_fd(file, fd, chunk);
	free(chunk);
	close(fd);
	return err;
}

static int
save_range(struct file *file, int fd, uint64_t offset, uint64_t end,
    char *chunk)
{
	while (offset < end) {
		size_t bytes = end - offset < CHUNK_BYTES ?
		    (size_t)(end - offset) : CHUNK_BYTES;
		ssize_t put;

		file_sim_peek(file, chunk, bytes, offset);
		put = pwrite(fd, chunk, bytes, (off_t)offset);
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		offset += (size_t)put;
	}
	return 0;
}

static int
save_fd(struct file *file, int fd, char *chunk)
{
	int64_t size = file_size(file);
	int64_t data, hole = 0;
	int err;

	if (ftruncate(fd, (off_t)size))
		return -errno;
	while ((data = file_seek_data(file, (uint64_t)hole)) >= 0) {
		hole = file_seek_hole(file, (uint64_t)data);
		err = save_range(file, fd, (uint64_t)data, (uint64_t)hole,
		    chunk);
		if (err)
			return err;
	}
	return 0;
}

int
file_sim_save(struct file *file, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char *chunk;
	int err;

	if (fd < 0)
		return -errno;
	chunk = sim_calloc(1, CHUNK_BYTES);
	err = save_fd(file, fd, chunk);
	free(chunk);
	if (close(fd) && !err)
		err = -errno;
	return err;
}
