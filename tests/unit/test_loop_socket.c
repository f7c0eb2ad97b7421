/* SPDX-License-Identifier: MIT */
/*
 * Socket operations.  Guards against: bytes lost or moved when both directions
 * are busy, short results taken for whole ones, waits that never end, and a
 * loop kept busy by what nobody asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "runtime/loop.h"
#include "tests/unit/test_loop.h"

/* ---- both directions of one socket at once ---- */

#define DUPLEX_BYTES (32u * 1024 * 1024)

struct side {
	int fd;
	unsigned seed;
	char *data;
	int64_t result;
};

static co_fn void
send_side(void *arg)
{
	struct side *side = arg;
	struct iovec iov[2] = {
		{ side->data, 12345 },
		{ side->data + 12345, DUPLEX_BYTES - 12345 },
	};
	struct op op = {
		.kind = OP_SEND, .fd = side->fd, .iov = iov, .iov_count = 2,
	};

	test_fill(side->data, DUPLEX_BYTES, side->seed);
	side->result = loop_wait(&op);
	ck_assert_uint_eq(iov[0].iov_len, 12345);
}

static co_fn void
receive_side(void *arg)
{
	struct side *side = arg;
	struct iovec iov = { side->data, DUPLEX_BYTES };
	struct op op = {
		.kind = OP_RECV, .fd = side->fd, .iov = &iov, .iov_count = 1,
		.flags = OP_WAIT_ALL,
	};

	side->result = loop_wait(&op);
	test_verify(side->data, DUPLEX_BYTES, side->seed);
}

static struct side sides[4];

static co_fn void
run_duplex(void *arg)
{
	const int *fds = arg;

	for (unsigned i = 0; i < 4; i++) {
		sides[i] = (struct side){
			.fd = fds[i % 2], .seed = i == 0 || i == 3,
			.data = malloc(DUPLEX_BYTES),
		};
		ck_assert_ptr_nonnull(sides[i].data);
		test_spawn(i < 2 ? send_side : receive_side, &sides[i]);
	}
}

START_TEST(test_duplex)
{
	int fds[2];

	select_engine(_i);
	make_pair(fds);
	test_run(run_duplex, fds);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(sides[i].result, DUPLEX_BYTES);
		free(sides[i].data);
	}
}
END_TEST

/* A send that the peer ends in the middle says how far it got, or why. */
static co_fn void
hang_up(void *arg)
{
	char data[1000];

	ck_assert_int_eq(receive(*(int *)arg, data, sizeof(data)), 1000);
	close(*(int *)arg);
}

static co_fn void
send_to_leaver(void *unused)
{
	struct iovec iov = { calloc(1, DUPLEX_BYTES), DUPLEX_BYTES };
	struct op op = { .kind = OP_SEND, .iov = &iov, .iov_count = 1 };
	int64_t result;
	int fds[2];

	(void)unused;
	make_pair(fds);
	op.fd = fds[0];
	test_spawn(hang_up, &fds[1]);
	result = loop_wait(&op);
	ck_assert(result < 0 || result < DUPLEX_BYTES);
	result = loop_wait(&op);
	ck_assert_int_eq(result, -EPIPE);
	close(fds[0]);
	free(iov.iov_base);
}

START_TEST(test_short_send)
{
	run_on_engine(_i, send_to_leaver);
}
END_TEST

static co_fn void
receive_until_end(void *unused)
{
	char data[16];
	struct iovec iov = { data, sizeof(data) };
	struct op op = {
		.kind = OP_RECV, .iov = &iov, .iov_count = 1,
		.flags = OP_WAIT_ALL,
	};
	int fds[2];

	(void)unused;
	make_pair(fds);
	op.fd = fds[0];
	put(fds[1], "abc");
	close(fds[1]);
	ck_assert_int_eq(loop_wait(&op), 3);
	ck_assert_int_eq(loop_wait(&op), 0);
	close(fds[0]);
}

START_TEST(test_short_receive)
{
	run_on_engine(_i, receive_until_end);
}
END_TEST

/* A poll, a receive and a send wait for the same socket. */
static unsigned polled;

static co_fn void
poll_in(void *arg)
{
	struct op op = { .kind = OP_POLL_IN, .fd = *(int *)arg };

	ck_assert_int_eq(loop_wait(&op), 0);
	polled++;
}

static co_fn void
poll_and_receive(void *unused)
{
	static int fds[2];

	(void)unused;
	make_pair(fds);
	test_spawn(poll_in, &fds[0]);
	test_spawn(poll_in, &fds[0]);
	loop_sleep(10 * MILLISECOND_NS);
	ck_assert_uint_eq(polled, 0);
	put(fds[1], "x");
	loop_sleep(10 * MILLISECOND_NS);
	ck_assert_uint_eq(polled, 2);
	receive_x(&fds[0]);
	test_spawn(poll_in, &fds[0]);
	close(fds[1]);
	loop_sleep(10 * MILLISECOND_NS);
	ck_assert_uint_eq(polled, 3);
	close(fds[0]);
}

START_TEST(test_poll)
{
	run_on_engine(_i, poll_and_receive);
}
END_TEST

/* Bytes that nobody waits for do not keep the loop busy. */
static co_fn void
ignore_bytes(void *unused)
{
	struct loop_stats before, after;
	int fds[2];

	(void)unused;
	make_pair(fds);
	test_spawn(write_later, &fds[1]);
	receive_x(&fds[0]);
	put(fds[1], "y");
	loop_stats(loop_self(), &before);
	loop_sleep(50 * MILLISECOND_NS);
	loop_stats(loop_self(), &after);
	ck_assert_uint_lt(after.turns - before.turns, 10);
	close(fds[0]);
	close(fds[1]);
}

START_TEST(test_idle)
{
	run_on_engine(_i, ignore_bytes);
}
END_TEST

static co_fn void
shut_down(void *arg)
{
	loop_sleep(MILLISECOND_NS);
	shutdown(*(int *)arg, SHUT_RDWR);
}

static co_fn void
receive_until_shutdown(void *unused)
{
	char data[8];
	int fds[2];

	(void)unused;
	make_pair(fds);
	test_spawn(shut_down, &fds[0]);
	ck_assert_int_eq(receive(fds[0], data, sizeof(data)), 0);
	close(fds[0]);
	close(fds[1]);
}

START_TEST(test_shutdown)
{
	run_on_engine(_i, receive_until_shutdown);
}
END_TEST

static co_fn void
use_bad_descriptors(void *unused)
{
	static const enum op_kind kinds[] = {
		OP_READV, OP_WRITEV, OP_FDATASYNC, OP_FALLOCATE, OP_ACCEPT,
		OP_RECV, OP_RECV_POOLED, OP_SEND, OP_POLL_IN,
	};
	static const int bad[] = { -1, 12345 };
	char data[8] = "";
	struct iovec iov = { data, sizeof(data) };

	(void)unused;
	for (unsigned i = 0; i < 2 * sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct op op = {
			.kind = kinds[i / 2], .fd = bad[i % 2],
			.iov = &iov, .iov_count = 1, .length = 1,
		};

		ck_assert_int_eq(loop_wait(&op), -EBADF);
	}
}

START_TEST(test_bad_descriptors)
{
	run_on_engine(_i, use_bad_descriptors);
}
END_TEST

TCase *
test_loop_socket(void)
{
	TCase *tcase = tcase_create("socket");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_duplex, 0, 2);
	tcase_add_loop_test(tcase, test_short_send, 0, 2);
	tcase_add_loop_test(tcase, test_short_receive, 0, 2);
	tcase_add_loop_test(tcase, test_poll, 0, 2);
	tcase_add_loop_test(tcase, test_idle, 0, 2);
	tcase_add_loop_test(tcase, test_shutdown, 0, 2);
	tcase_add_loop_test(tcase, test_bad_descriptors, 0, 2);
	return tcase;
}
