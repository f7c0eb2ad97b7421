/* SPDX-License-Identifier: MIT */
/*
 * Splicing.  Guards against: bytes out of order or lost where pieces meet, a
 * pipe that takes more than it holds, and replies that promise what a file has
 * not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "runtime/splice_pipe.h"
#include "tests/unit/test_runtime.h"

#define PAGE 4096u
#define FILE_BYTES (64 * PAGE)

static struct file *file;
static struct splice_pipe *pipe_made;
static int sockets[2];
static char content[FILE_BYTES];

co_fn static void
write_content(void *unused)
{
	(void)unused;
	test_fill(content, sizeof(content), 1);
	ck_assert_int_eq(file_pwrite(file, content, sizeof(content), 0, 0), 0);
}

static void
set_up(void)
{
	char path[] = "./splice-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(file_open_fd(fd, path, FILE_WRITE, &file), 0);
	test_any_engine();
	test_run(write_content, NULL);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC |
	    SOCK_NONBLOCK, 0, sockets), 0);
	pipe_made = splice_pipe_get();
	ck_assert_ptr_nonnull(pipe_made);
}

static void
tear_down(void)
{
	splice_pipe_put(pipe_made);
	splice_pipe_drain();
	file_close(file);
	close(sockets[0]);
	close(sockets[1]);
}

static struct file_range
range_of(uint64_t offset, size_t length)
{
	return (struct file_range){file, offset, length};
}

static void
put_text(const char *text)
{
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};

	ck_assert_int_eq(splice_pipe_write(pipe_made, &iov, 1), 0);
}

/* Everything in the pipe, through the socket. */
static void
expect(const void *data, size_t length)
{
	static char got[2 * FILE_BYTES];
	size_t have = 0;

	ck_assert_uint_eq(pipe_made->bytes, length);
	while (have < length) {
		ssize_t bytes;

		if (pipe_made->bytes > 0)
			ck_assert_int_ge(splice_pipe_send(pipe_made,
			    sockets[0], pipe_made->bytes), -EAGAIN);
		bytes = recv(sockets[1], got + have, sizeof(got) - have, 0);
		ck_assert_int_gt(bytes, 0);
		have += (size_t)bytes;
	}
	ck_assert_uint_eq(have, length);
	ck_assert_mem_eq(got, data, length);
	ck_assert_uint_eq(pipe_made->pieces, 0);
}

START_TEST(heads_and_ranges_stay_in_order)
{
	struct file_range ranges[] = {
		range_of(100, 3 * PAGE), range_of(7 * PAGE, PAGE),
		range_of(PAGE - 1, 2),
	};
	static char expected[FILE_BYTES];
	char *put = expected;

	put_text("head");
	ck_assert_int_eq(splice_pipe_fill(pipe_made, ranges, 3), 0);
	put_text("tail");
	put = mempcpy(put, "head", 4);
	for (int i = 0; i < 3; i++)
		put = mempcpy(put, content + ranges[i].offset,
		    ranges[i].length);
	put = mempcpy(put, "tail", 4);
	expect(expected, (size_t)(put - expected));
}
END_TEST

START_TEST(a_full_pipe_takes_nothing)
{
	struct iovec iov = {(void *)(uintptr_t)"x", 1};
	unsigned count = 0;
	char *expected;

	while (!splice_pipe_write(pipe_made, &iov, 1))
		count++;
	ck_assert_uint_eq(count, pipe_made->pieces_max);
	ck_assert_uint_eq(pipe_made->bytes, count);
	expected = malloc(count);
	ck_assert_ptr_nonnull(expected);
	memset(expected, 'x', count);
	expect(expected, count);
	free(expected);
	ck_assert_int_eq(splice_pipe_write(pipe_made, &iov, 1), 0);
	expect("x", 1);
}
END_TEST

START_TEST(past_the_end_nothing_is_cached)
{
	ck_assert(file_is_cached(file, 0, FILE_BYTES));
	ck_assert(file_is_cached(file, FILE_BYTES - 1, 1));
	ck_assert(!file_is_cached(file, FILE_BYTES - 1, 2));
	ck_assert(!file_is_cached(file, FILE_BYTES, 1));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("splice_pipe");
	TCase *tests = tcase_create("splice_pipe");

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, heads_and_ranges_stay_in_order);
	tcase_add_test(tests, a_full_pipe_takes_nothing);
	tcase_add_test(tests, past_the_end_nothing_is_cached);
	suite_add_tcase(suite, tests);
	return test_main(suite);
}
