/* SPDX-License-Identifier: MIT */
/*
 * Cancelled operations.  Guards against: one that completes twice, or goes on
 * after it was told to have ended, or spoils the socket for the next; and an
 * engine that takes a reused descriptor for the old one.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "runtime/loop.h"
#include "tests/unit/test_loop.h"

struct cancelled {
	struct op op;
	unsigned done;		/* how often it completed */
};

/* They outlive their test, so that a second completion is seen. */
static struct cancelled cancelled[16];
static unsigned cancelled_count;

static void
note_done(struct task *task)
{
	struct op *op = container_of(task, struct op, task);

	container_of(op, struct cancelled, op)->done++;
}

static co_fn void
cancel_op(const struct op *op, bool wait_first)
{
	struct cancelled *slot = &cancelled[cancelled_count++];

	slot->op = *op;
	slot->op.task.run = note_done;
	loop_submit(&slot->op);
	if (wait_first)
		loop_sleep(MILLISECOND_NS);
	ck_assert_uint_eq(slot->done, 0);
	loop_cancel(&slot->op);
	ck_assert_uint_eq(slot->done, 0);
	loop_sleep(5 * MILLISECOND_NS);
	ck_assert_uint_eq(slot->done, 1);
	ck_assert_int_eq(slot->op.result, -ECANCELED);
}

/* After this the socket must be as good as before. */
static co_fn void
cancel_receives(const int *fds, bool wait_first)
{
	static char data[8];
	static struct iovec iov = { data, sizeof(data) };

	cancel_op(&(struct op){ .kind = OP_RECV, .fd = fds[0], .iov = &iov,
	    .iov_count = 1 }, wait_first);
	cancel_op(&(struct op){ .kind = OP_RECV, .fd = fds[0], .iov = &iov,
	    .iov_count = 1, .flags = OP_WAIT_ALL }, wait_first);
	cancel_op(&(struct op){ .kind = OP_RECV_POOLED, .fd = fds[0] },
	    wait_first);
	cancel_op(&(struct op){ .kind = OP_POLL_IN, .fd = fds[0] },
	    wait_first);
	put(fds[1], "x");
	receive_x((void *)fds);
}

/* Nothing of the cancelled send comes out when there is room again. */
static co_fn void
cancel_send(const int *fds, bool wait_first)
{
	static char data[1000];
	static struct iovec iov = { data, sizeof(data) };
	size_t length = 0;
	ssize_t count;

	while ((count = write(fds[0], data, sizeof(data))) > 0)
		length += (size_t)count;
	cancel_op(&(struct op){ .kind = OP_SEND, .fd = fds[0], .iov = &iov,
	    .iov_count = 1 }, wait_first);
	while ((count = read(fds[1], data, sizeof(data))) > 0)
		length -= (size_t)count;
	ck_assert_uint_eq(length, 0);
	loop_sleep(5 * MILLISECOND_NS);
	ck_assert_int_eq(read(fds[1], data, sizeof(data)), -1);
}

static co_fn void
cancel_accept(bool wait_first)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t length = sizeof(address);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int client = socket(AF_UNIX, SOCK_STREAM, 0);

	/* Binds to an abstract name of the kernel's choice. */
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&address,
	    sizeof(sa_family_t)), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	cancel_op(&(struct op){ .kind = OP_ACCEPT, .fd = listener },
	    wait_first);
	getsockname(listener, (struct sockaddr *)&address, &length);
	ck_assert_int_eq(connect(client, (struct sockaddr *)&address, length),
	    0);
	loop_sleep(5 * MILLISECOND_NS);
	close(client);
	client = accept(listener, NULL, NULL);
	ck_assert_int_ge(client, 0);
	close(client);
	close(listener);
}

static co_fn void
cancel_each_kind(bool wait_first)
{
	int fds[2];

	make_pair(fds);
	cancel_receives(fds, wait_first);
	cancel_send(fds, wait_first);
	cancel_accept(wait_first);
	close(fds[0]);
	close(fds[1]);
	loop_sleep(5 * MILLISECOND_NS);
	for (unsigned i = 0; i < cancelled_count; i++)
		ck_assert_uint_eq(cancelled[i].done, 1);
}

static co_fn void
cancel_waiting(void *unused)
{
	(void)unused;
	cancel_each_kind(true);
}

static co_fn void
cancel_submitted(void *unused)
{
	(void)unused;
	cancel_each_kind(false);
}

START_TEST(test_cancel_waiting)
{
	run_on_engine(_i, cancel_waiting);
}
END_TEST

START_TEST(test_cancel_submitted)
{
	run_on_engine(_i, cancel_submitted);
}
END_TEST

/* ---- descriptors that come back as another socket ---- */

/* The old socket may live on elsewhere and stay readable. */
static co_fn void
reuse_descriptor(void *unused)
{
	int fds[2];
	int first = -1;

	(void)unused;
	for (unsigned i = 0; i < 10; i++) {
		make_pair(fds);
		if (first < 0)
			first = fds[0];
		ck_assert_int_eq(fds[0], first);
		test_spawn(write_later, &fds[1]);
		receive_x(&fds[0]);
		if (i % 2 == 0)
			cancel_op(&(struct op){ .kind = OP_POLL_IN,
			    .fd = fds[0] }, true);
		if (i >= 5)
			ck_assert_int_ge(fcntl(fds[0], F_DUPFD_CLOEXEC, 100),
			    100);
		put(fds[1], "y");
		close(fds[0]);
		if (i < 5)
			close(fds[1]);
	}
}

START_TEST(test_reused_descriptor)
{
	run_on_engine(_i, reuse_descriptor);
}
END_TEST

TCase *
test_loop_cancel(void)
{
	TCase *tcase = tcase_create("cancel");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_cancel_waiting, 0, 2);
	tcase_add_loop_test(tcase, test_cancel_submitted, 0, 2);
	tcase_add_loop_test(tcase, test_reused_descriptor, 0, 2);
	return tcase;
}
