/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the loop share, and the one that needs a process of its
 * own.  Guards against: no way to run where io_uring is refused.
 */
#include "tests/unit/test_loop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "runtime/loop.h"
#include "tests/refuse_uring.h"

void
select_engine(int engine)
{
	int selected = loop_engine_select(engine ? LOOP_THREADS : LOOP_AUTO);

	ck_assert_int_gt(selected, 0);
	if (!engine && selected != LOOP_URING)
		fprintf(stderr, "io_uring is refused here: only the thread "
		    "engine is tested\n");
}

void
run_on_engine(int engine, void (*fn)(void *arg))
{
	select_engine(engine);
	test_run(fn, NULL);
}

void
make_pair(int fds[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX,
	    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

void
put(int fd, const char *text)
{
	ssize_t length = (ssize_t)strlen(text);

	ck_assert_int_eq(write(fd, text, (size_t)length), length);
}

co_fn int64_t
receive(int fd, void *data, size_t size)
{
	struct iovec iov = { data, size };
	struct op op = {
		.kind = OP_RECV, .fd = fd, .iov = &iov, .iov_count = 1,
	};

	return loop_wait(&op);
}

co_fn void
receive_x(void *arg)
{
	char data[8];

	ck_assert_int_eq(receive(*(int *)arg, data, sizeof(data)), 1);
	ck_assert_int_eq(data[0], 'x');
}

co_fn void
write_later(void *arg)
{
	loop_sleep(5 * MILLISECOND_NS);
	put(*(int *)arg, "x");
}

/* ---- where io_uring is refused ---- */

static co_fn void
receive_something(void *unused)
{
	int fds[2];

	(void)unused;
	make_pair(fds);
	test_spawn(write_later, &fds[1]);
	receive_x(&fds[0]);
	close(fds[0]);
	close(fds[1]);
}

START_TEST(test_uring_refused)
{
	ck_assert_int_eq(refuse_uring(), 0);
	ck_assert_int_eq(loop_engine_select(LOOP_URING), -EPERM);
	ck_assert_int_eq(loop_engine_select(LOOP_AUTO), LOOP_THREADS);
	ck_assert_str_eq(loop_engine_name(), "threads");
	test_run(receive_something, NULL);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("loop");
	TCase *refused = tcase_create("refused");

	suite_add_tcase(suite, test_loop_turn());
	suite_add_tcase(suite, test_loop_socket());
	suite_add_tcase(suite, test_loop_pooled());
	suite_add_tcase(suite, test_loop_cancel());
	suite_add_tcase(suite, test_loop_file());
	/* The last, because without a fork there is no way back. */
	tcase_add_test(refused, test_uring_refused);
	suite_add_tcase(suite, refused);
	return test_main(suite);
}
