/* SPDX-License-Identifier: MIT */
#include "tests/unit/test_qcow2.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "qcow2/bytes.h"
#include "qcow2/header.h"
#include "runtime/file.h"
#include "tests/unit/test_runtime.h"

size_t
make_header(uint8_t cluster[MADE_CLUSTER_BYTES], unsigned version)
{
	memset(cluster, 0, MADE_CLUSTER_BYTES);
	bytes_put32(cluster, HEADER_MAGIC);
	bytes_put32(cluster + 4, version);
	bytes_put32(cluster + 20, 12);
	bytes_put64(cluster + 24, 8u << 20);
	bytes_put32(cluster + 36, 4);
	bytes_put64(cluster + 40, MADE_L1);
	bytes_put64(cluster + 48, MADE_REFCOUNT_TABLE);
	bytes_put32(cluster + 56, 1);
	if (version == 2)
		return HEADER_V2_BYTES;
	bytes_put32(cluster + 96, 4);
	bytes_put32(cluster + 100, 112);
	return 112;
}

size_t
make_extension(uint8_t *cluster, size_t offset, uint32_t type,
    const void *data, uint32_t bytes)
{
	bytes_put32(cluster + offset, type);
	bytes_put32(cluster + offset + 4, bytes);
	memmove(cluster + offset + 8, data, bytes);
	return offset + 8 + ((bytes + 7) & ~(size_t)7);
}

void
make_backing(uint8_t cluster[MADE_CLUSTER_BYTES], const char *name)
{
	size_t bytes = strlen(name);

	memcpy(cluster + MADE_CLUSTER_BYTES - bytes, name, bytes);
	bytes_put64(cluster + 8, MADE_CLUSTER_BYTES - bytes);
	bytes_put32(cluster + 16, (uint32_t)bytes);
}

void
with_file(const void *data, size_t bytes, size_t file_bytes,
    void (*fn)(void *file))
{
	struct file *file;
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/x.qcow2", test_directory());
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, bytes), (int)bytes);
	ck_assert_int_eq(ftruncate(fd, (off_t)file_bytes), 0);
	close(fd);
	ck_assert_int_eq(file_open(AT_FDCWD, path, 0, 0, &file), 0);
	test_run(fn, file);
	file_close(file);
}
