/* SPDX-License-Identifier: MIT */
/*
 * File operations.  Guards against: results that go to the wrong operation or
 * the wrong loop, an end of file that is not told, and a monitor that all wait
 * for while one looks for room.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "runtime/file.h"
#include "runtime/loop.h"
#include "runtime/monitor.h"
#include "tests/unit/test_loop.h"

#define BLOCK_BYTES 4096
#define BLOCKS 500

static int file_fd;
static atomic_uint blocks_done;

static int
open_file(void)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/file", test_directory());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static co_fn int64_t
file_op(enum op_kind kind, unsigned flags, char *data, size_t length,
    uint64_t offset)
{
	struct iovec iov[2] = {
		{ data, length / 3 },
		{ data + length / 3, length - length / 3 },
	};
	struct op op = {
		.kind = kind, .fd = file_fd, .flags = flags,
		.iov = iov, .iov_count = 2, .offset = offset, .length = length,
	};

	return loop_wait(&op);
}

static co_fn void
write_and_read_block(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;
	unsigned flags = number % 8 == 4 ? OP_DSYNC : 0;
	uint64_t offset = (uint64_t)number * BLOCK_BYTES;
	char data[BLOCK_BYTES];

	test_fill(data, sizeof(data), number);
	ck_assert_int_eq(file_op(OP_WRITEV, flags, data, sizeof(data),
	    offset), BLOCK_BYTES);
	if (number % 64 == 0)
		ck_assert_int_eq(file_op(OP_FDATASYNC, 0, NULL, 0, 0), 0);
	memset(data, 0, sizeof(data));
	ck_assert_int_eq(file_op(OP_READV, 0, data, sizeof(data), offset),
	    BLOCK_BYTES);
	test_verify(data, sizeof(data), number);
	blocks_done++;
}

static co_fn void
use_file(void *unused)
{
	(void)unused;
	for (uintptr_t i = 0; i < BLOCKS; i++)
		test_spawn(write_and_read_block, (void *)i);
}

START_TEST(test_file)
{
	file_fd = open_file();
	run_on_engine(_i, use_file);
	ck_assert_uint_eq(blocks_done, BLOCKS);
	close(file_fd);
}
END_TEST

static co_fn void
read_past_end(void *unused)
{
	static const char zeros[1000];
	char data[1000];
	int64_t result;

	(void)unused;
	memset(data, 'x', sizeof(data));
	ck_assert_int_eq(file_op(OP_WRITEV, 0, data, 1000, 0), 1000);
	ck_assert_int_eq(file_op(OP_READV, 0, data, 1000, 900), 100);
	ck_assert_int_eq(file_op(OP_READV, 0, data, 1000, 1000), 0);
	ck_assert_int_eq(file_op(OP_READV, 0, data, 1000, 1 << 30), 0);
	result = file_op(OP_FALLOCATE,
	    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, data, 500, 0);
	if (result == -EOPNOTSUPP) {
		fprintf(stderr, "no holes in files here: not tested\n");
		return;
	}
	ck_assert_int_eq(result, 0);
	ck_assert_int_eq(file_op(OP_READV, 0, data, 1000, 0), 1000);
	ck_assert_mem_eq(data, zeros, 500);
	ck_assert_int_eq(data[500], 'x');
}

START_TEST(test_file_end)
{
	file_fd = open_file();
	run_on_engine(_i, read_past_end);
	close(file_fd);
}
END_TEST

/* ---- room for a draft ---- */

static struct monitor room_monitor;
static unsigned rooms_taken;

/* In the place of the C library's, for the calls that keep their thread. */
int
fallocate(int fd, int mode, off_t offset, off_t length)
{
	ck_assert_int_eq(pthread_mutex_trylock(&room_monitor.lock), 0);
	pthread_mutex_unlock(&room_monitor.lock);
	rooms_taken++;
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

static co_fn void
make_room_in_monitor(void *unused)
{
	struct file *file;
	int err;

	(void)unused;
	ck_assert_int_eq(file_open_fd(file_fd, "file", FILE_WRITE, &file), 0);
	file_make_draft(file);
	monitor_enter(&room_monitor);
	err = file_fallocate(file, FILE_ALLOCATE, 0, BLOCK_BYTES);
	ck_assert(monitor_entered(&room_monitor));
	monitor_leave(&room_monitor);
	ck_assert(!err || err == -EOPNOTSUPP);
	file_close(file);
}

START_TEST(test_file_room)
{
	file_fd = open_file();
	monitor_init(&room_monitor);
	run_on_engine(_i, make_room_in_monitor);
	monitor_destroy(&room_monitor);
	ck_assert_uint_eq(rooms_taken, 1);
}
END_TEST

/* Two loops share the file threads, and each gets its own results. */
static void *
file_thread(void *unused)
{
	test_run(use_file, unused);
	return NULL;
}

START_TEST(test_file_loops)
{
	pthread_t threads[2];

	file_fd = open_file();
	select_engine(_i);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
		    file_thread, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(blocks_done, 2 * BLOCKS);
	close(file_fd);
}
END_TEST

TCase *
test_loop_file(void)
{
	TCase *tcase = tcase_create("file");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_file, 0, 2);
	tcase_add_loop_test(tcase, test_file_end, 0, 2);
	tcase_add_loop_test(tcase, test_file_loops, 0, 2);
	tcase_add_loop_test(tcase, test_file_room, 0, 2);
	return tcase;
}
