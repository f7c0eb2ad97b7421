/* SPDX-License-Identifier: MIT */
/*
 * The simulator's sockets.  Guards against: streams that lose, mix or invent
 * bytes, orders and piece sizes that no seed ever tries, buffers without end,
 * an end or a cancelled wait that nobody is told of, taps that miss bytes, and
 * bytes that arrive though a test holds them.
 */
#include "tests/unit/test_sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/loop_internal.h"
#include "runtime/sim.h"
#include "runtime/sock.h"
#include "tests/unit/test_runtime.h"

struct socket_test {
	struct sim *sim;
	int fds[2];
	int listener;
	unsigned pieces;
	int64_t result;
	struct co_start starts[8];
};

static void
socket_test_run(uint64_t seed, struct socket_test *test,
    void (*one)(void *arg), void (*two)(void *arg))
{
	ck_assert_int_eq(sim_create(seed, 2, &test->sim), 0);
	sim_socketpair(test->sim, test->fds);
	test->listener = sim_listen(test->sim);
	sim_start(test->sim, 0, &test->starts[0], one, test);
	if (two)
		sim_start(test->sim, 1, &test->starts[1], two, test);
	ck_assert_int_eq(sim_run(test->sim), SIM_DONE);
	sim_free(test->sim);
}

#define STREAM_BYTES 300000

co_fn static void
send_stream(void *arg)
{
	struct socket_test *test = arg;
	char *data = malloc(STREAM_BYTES);
	char first;
	struct iovec iov[3] = {
		{.iov_base = &first, .iov_len = 1},
		{.iov_base = data, .iov_len = 0},
		{.iov_base = data + 1, .iov_len = STREAM_BYTES - 1},
	};
	struct op op = {
		.kind = OP_SEND, .fd = test->fds[0], .iov = iov, .iov_count = 3,
	};

	test_fill(data, STREAM_BYTES, 5);
	first = data[0];
	ck_assert_int_eq(loop_wait(&op), STREAM_BYTES);
	sim_shutdown_send(test->sim, test->fds[0]);
	free(data);
}

co_fn static void
receive_stream(void *arg)
{
	struct socket_test *test = arg;
	char *data = malloc(STREAM_BYTES);
	size_t got = 0;
	int64_t result;

	do {
		struct iovec iov = {
			.iov_base = data + got, .iov_len = STREAM_BYTES - got,
		};
		struct op op = {
			.kind = OP_RECV, .fd = test->fds[1],
			.iov = &iov, .iov_count = 1,
		};

		result = loop_wait(&op);
		ck_assert_int_ge(result, 0);
		got += (size_t)result;
		test->pieces++;
	} while (result > 0 && got < STREAM_BYTES);
	ck_assert_uint_eq(got, STREAM_BYTES);
	test_verify(data, STREAM_BYTES, 5);
	free(data);
}

START_TEST(test_stream_is_whole_and_in_pieces)
{
	unsigned pieces = 0;

	for (uint64_t seed = 0; seed < 10; seed++) {
		struct socket_test test = {0};

		socket_test_run(seed, &test, send_stream, receive_stream);
		pieces += test.pieces;
	}
	ck_assert_uint_gt(pieces, 40);
}
END_TEST

#define POOLED 8

static void
count_pooled(struct task *task)
{
	struct op *op = container_of(task, struct op, task);

	ck_assert_int_eq(op->result, 1);
	ck_assert_int_eq(*(char *)op->pooled, 'x');
	/* This is the receiver's, too. */
	memset((char *)op->pooled - LOOP_RECV_HEADROOM_BYTES, 0xee,
	    LOOP_RECV_HEADROOM_BYTES);
	++*(unsigned *)op->iov;
}

co_fn static void
send_byte(int fd)
{
	char byte = 'x';
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct op op = {
		.kind = OP_SEND, .fd = fd, .iov = &iov, .iov_count = 1,
	};

	ck_assert_int_eq(loop_wait(&op), 1);
}

/* More receivers than buffers: some starve until others give theirs back. */
co_fn static void
receive_pooled(void *arg)
{
	struct socket_test *test = arg;
	static struct op ops[POOLED];
	unsigned done = 0;
	int fds[2];

	for (unsigned i = 0; i < POOLED; i++) {
		sim_socketpair(test->sim, fds);
		send_byte(fds[0]);
		ops[i] = (struct op){
			.kind = OP_RECV_POOLED, .fd = fds[1],
			.task.run = count_pooled, .iov = (void *)&done,
		};
		loop_submit(&ops[i]);
	}
	loop_sleep(SECOND_NS);
	ck_assert_uint_gt(done, 0);
	ck_assert_uint_lt(done, POOLED);
	while (done < POOLED) {
		unsigned before = done;

		for (unsigned i = 0; i < POOLED; i++)
			loop_recv_put(&ops[i]);
		loop_sleep(SECOND_NS);
		ck_assert_uint_gt(done, before);
	}
	for (unsigned i = 0; i < POOLED; i++)
		loop_recv_put(&ops[i]);
}

START_TEST(test_pooled_receive)
{
	struct socket_test test = {0};

	socket_test_run(1, &test, receive_pooled, NULL);
}
END_TEST

co_fn static void
receive_until_end(void *arg)
{
	struct socket_test *test = arg;
	char byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct op op = {
		.kind = OP_RECV, .fd = test->fds[1], .iov = &iov,
		.iov_count = 1,
	};

	test->result = loop_wait(&op);
}

co_fn static void
shut_it_down(void *arg)
{
	struct socket_test *test = arg;

	loop_sleep(SECOND_NS);
	loop_shutdown_fd(loop_self(), test->fds[1]);
}

co_fn static void
close_unread(void *arg)
{
	struct socket_test *test = arg;
	char byte = 1;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct op op = {
		.kind = OP_SEND, .fd = test->fds[1], .iov = &iov,
		.iov_count = 1,
	};

	ck_assert_int_eq(loop_wait(&op), 1);
	loop_close_fd(loop_self(), test->fds[0]);
	op.kind = OP_SEND;
	ck_assert_int_eq(loop_wait(&op), -ECONNRESET);
}

co_fn static void
send_after_shutdown(void *arg)
{
	struct socket_test *test = arg;
	char byte = 1;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct op op = {
		.kind = OP_SEND, .fd = test->fds[0], .iov = &iov,
		.iov_count = 1,
	};

	loop_shutdown_fd(loop_self(), test->fds[0]);
	ck_assert_int_eq(loop_wait(&op), -EPIPE);
}

START_TEST(test_socket_ends)
{
	struct socket_test test = {.result = -1};

	socket_test_run(1, &test, receive_until_end, shut_it_down);
	ck_assert_int_eq(test.result, 0);
	socket_test_run(1, &test, close_unread, NULL);
	test.result = -1;
	socket_test_run(1, &test, send_after_shutdown, receive_until_end);
	ck_assert_int_eq(test.result, 0);
}
END_TEST

/* A full buffer holds the sender up until the receiver goes away. */
co_fn static void
send_too_much(void *arg)
{
	struct socket_test *test = arg;
	size_t length = 1024 * 1024;
	char *data = calloc(1, length);
	struct iovec iov = {.iov_base = data, .iov_len = length};
	struct op op = {
		.kind = OP_SEND, .fd = test->fds[0], .iov = &iov,
		.iov_count = 1,
	};

	test->result = loop_wait(&op);
	free(data);
}

START_TEST(test_buffer_is_bounded)
{
	struct socket_test test = {0};

	socket_test_run(3, &test, send_too_much, shut_it_down);
	ck_assert_int_gt(test.result, 0);
	ck_assert_int_lt(test.result, 1024 * 1024);
}
END_TEST

co_fn static void
serve_one(void *arg)
{
	struct socket_test *test = arg;
	struct op accept = {.kind = OP_ACCEPT, .fd = test->listener};
	struct op poll = {.kind = OP_POLL_IN, .fd = test->listener};
	struct sock sock;
	char text[5];

	ck_assert_int_eq(loop_wait(&poll), 0);
	ck_assert_int_gt(loop_wait(&accept), 0);
	sock_open(&sock, (int)accept.result);
	ck_assert_int_eq(sock_recv_exact(&sock, text, sizeof(text)), 0);
	ck_assert_int_eq(memcmp(text, "hello", 5), 0);
	sock_close(&sock);
	loop_close_fd(loop_self(), test->listener);
	ck_assert_int_eq(sim_connect(test->sim, test->listener),
	    -ECONNREFUSED);
}

co_fn static void
be_a_client(void *arg)
{
	struct socket_test *test = arg;
	char text[] = "hello";
	struct iovec iov = {.iov_base = text, .iov_len = 5};
	struct sock sock;

	loop_sleep(SECOND_NS);
	sock_open(&sock, sim_connect(test->sim, test->listener));
	ck_assert_int_eq(sock_send(&sock, &iov, 1), 0);
	sock_close(&sock);
}

START_TEST(test_accept)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct socket_test test = {0};

		socket_test_run(seed, &test, serve_one, be_a_client);
	}
}
END_TEST

static void
ignore(struct task *task)
{
	struct op *op = container_of(task, struct op, task);

	ck_assert_int_eq(op->result, -ECANCELED);
}

co_fn static void
cancel_it(void *arg)
{
	struct socket_test *test = arg;
	static struct op op;

	op = (struct op){
		.kind = OP_ACCEPT, .fd = test->listener, .task.run = ignore,
	};
	loop_submit(&op);
	loop_cancel(&op);
	loop_sleep(SECOND_NS);
	ck_assert_int_eq(op.result, -ECANCELED);
	loop_cancel(&op);
}

START_TEST(test_cancel)
{
	struct socket_test test = {0};

	socket_test_run(1, &test, cancel_it, NULL);
}
END_TEST

/* ---- what tests do to sockets ---- */

struct socket_tap {
	struct sim_tap tap;
	char heard[2][16];	/* [arriving] */
	size_t count[2];
};

static void
hear(struct sim_tap *tap, bool arriving, const uint8_t *bytes, size_t count)
{
	struct socket_tap *heard = container_of(tap, struct socket_tap, tap);

	ck_assert_uint_le(heard->count[arriving] + count, 16);
	memcpy(heard->heard[arriving] + heard->count[arriving], bytes, count);
	heard->count[arriving] += count;
}

co_fn static void
talk_with_a_tap(void *arg)
{
	struct socket_test *test = arg;
	struct socket_tap heard = {.tap.hear = hear};
	char question[] = "question", answer[] = "yes";
	struct iovec iov;
	struct sock ends[2];

	sim_set_tap(test->sim, test->fds[0], &heard.tap);
	for (unsigned i = 0; i < 2; i++)
		sock_open(&ends[i], test->fds[i]);
	iov = (struct iovec){question, 8};
	ck_assert_int_eq(sock_send(&ends[0], &iov, 1), 0);
	ck_assert_int_eq(memcmp(heard.heard[false], "question", 8), 0);
	ck_assert_uint_eq(heard.count[true], 0);
	iov = (struct iovec){answer, 3};
	ck_assert_int_eq(sock_send(&ends[1], &iov, 1), 0);
	/* Nobody has received it yet. */
	ck_assert_int_eq(memcmp(heard.heard[true], "yes", 3), 0);
	ck_assert_uint_eq(heard.count[true], 3);
	ck_assert_uint_eq(heard.count[false], 8);
	for (unsigned i = 0; i < 2; i++)
		sock_close(&ends[i]);
}

START_TEST(test_tap)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct socket_test test = {0};

		socket_test_run(seed, &test, talk_with_a_tap, NULL);
	}
}
END_TEST

static void
nothing(struct task *task)
{
	(void)task;
}

/* A send that began before, or after, the arrivals were held. */
co_fn static void
hold_arrivals(struct socket_test *test, bool send_first)
{
	char byte = 'x';
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct op op = {
		.kind = OP_SEND, .fd = test->fds[0], .iov = &iov,
		.iov_count = 1, .task.run = nothing,
	};

	if (send_first)
		loop_submit(&op);
	sim_hold_arrivals(test->sim, test->fds[1], true);
	sim_hold_arrivals(test->sim, test->fds[1], true);
	if (!send_first)
		loop_submit(&op);
	loop_sleep(SECOND_NS);
	ck_assert_int_eq(op.result, 0);
	sim_hold_arrivals(test->sim, test->fds[1], false);
	loop_sleep(SECOND_NS);
	ck_assert_int_eq(op.result, 1);
}

co_fn static void
hold_before_and_after(void *arg)
{
	hold_arrivals(arg, false);
	hold_arrivals(arg, true);
}

START_TEST(test_hold_arrivals)
{
	struct socket_test test = {0};

	socket_test_run(1, &test, hold_before_and_after, NULL);
}
END_TEST

TCase *
test_sim_socket(void)
{
	TCase *tcase = tcase_create("socket");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_stream_is_whole_and_in_pieces);
	tcase_add_test(tcase, test_pooled_receive);
	tcase_add_test(tcase, test_socket_ends);
	tcase_add_test(tcase, test_buffer_is_bounded);
	tcase_add_test(tcase, test_accept);
	tcase_add_test(tcase, test_cancel);
	tcase_add_test(tcase, test_tap);
	tcase_add_test(tcase, test_hold_arrivals);
	return tcase;
}
