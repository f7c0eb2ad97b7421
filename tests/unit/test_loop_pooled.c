/* SPDX-License-Identifier: MIT */
/*
 * Pooled receives.  Guards against: receives that starve for want of a buffer,
 * a buffer given to two of them or lost, and a headroom that is another's data.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "runtime/loop.h"
#include "tests/unit/test_loop.h"

#define POOLED_SOCKETS 200

struct pooled {
	struct op op;
	int fds[2];
	unsigned done;		/* how often it completed */
};

static void
note_pooled(struct task *task)
{
	struct op *op = container_of(task, struct op, task);

	container_of(op, struct pooled, op)->done++;
}

static struct pooled sockets[POOLED_SOCKETS];

static void
open_sockets(void)
{
	for (unsigned i = 0; i < POOLED_SOCKETS; i++) {
		make_pair(sockets[i].fds);
		sockets[i].op = (struct op){
			.task.run = note_pooled, .kind = OP_RECV_POOLED,
			.fd = sockets[i].fds[0],
		};
		sockets[i].done = 0;
		loop_submit(&sockets[i].op);
	}
}

/* Ends the receives that are still waiting. */
static co_fn void
close_sockets(void)
{
	for (unsigned i = 0; i < POOLED_SOCKETS; i++)
		close(sockets[i].fds[1]);
	loop_sleep(10 * MILLISECOND_NS);
	for (unsigned i = 0; i < POOLED_SOCKETS; i++) {
		ck_assert_uint_eq(sockets[i].done, 1);
		close(sockets[i].fds[0]);
	}
}

static void
check_pooled(struct pooled *pooled, unsigned number)
{
	char expected[32];

	snprintf(expected, sizeof(expected), "message %u", number);
	ck_assert_int_eq(pooled->op.result, (int64_t)strlen(expected));
	ck_assert_mem_eq(pooled->op.pooled, expected, strlen(expected));
	memset((char *)pooled->op.pooled - LOOP_RECV_HEADROOM_BYTES, 0xee,
	    LOOP_RECV_HEADROOM_BYTES);
}

/* Gives back all buffers of finished receives; how many there were. */
static unsigned
put_back(void)
{
	unsigned count = 0;

	for (unsigned i = 0; i < POOLED_SOCKETS; i++) {
		if (!sockets[i].done || !sockets[i].op.pooled)
			continue;
		check_pooled(&sockets[i], i);
		loop_recv_put(&sockets[i].op);
		count++;
	}
	return count;
}

static void
send_message(unsigned number)
{
	char text[32];

	snprintf(text, sizeof(text), "message %u", number);
	put(sockets[number].fds[1], text);
}

/* All have something at once: more than there are buffers. */
static co_fn void
receive_pooled(void *unused)
{
	struct op never_submitted = { .kind = OP_RECV_POOLED };
	unsigned received = 0;

	(void)unused;
	loop_recv_put(&never_submitted);
	open_sockets();
	loop_sleep(MILLISECOND_NS);
	for (unsigned i = 0; i < POOLED_SOCKETS; i++)
		send_message(i);
	while (received < POOLED_SOCKETS) {
		unsigned count;

		loop_sleep(MILLISECOND_NS);
		count = put_back();
		ck_assert_uint_gt(count, 0);
		received += count;
	}
	close_sockets();
}

START_TEST(test_pooled)
{
	run_on_engine(_i, receive_pooled);
}
END_TEST

/* What is written in front of one buffer is not the end of another. */
static co_fn void
use_headroom(void *unused)
{
	enum { FULL = 8 };
	static char data[LOOP_RECV_BYTES];

	(void)unused;
	open_sockets();
	for (unsigned i = 0; i < FULL; i++) {
		test_fill(data, sizeof(data), i);
		ck_assert_int_eq(write(sockets[i].fds[1], data, sizeof(data)),
		    sizeof(data));
	}
	loop_sleep(5 * MILLISECOND_NS);
	for (unsigned i = 0; i < FULL; i++) {
		ck_assert_int_eq(sockets[i].op.result, sizeof(data));
		memset((char *)sockets[i].op.pooled -
		    LOOP_RECV_HEADROOM_BYTES, 0xee, LOOP_RECV_HEADROOM_BYTES);
	}
	for (unsigned i = 0; i < FULL; i++) {
		test_verify(sockets[i].op.pooled, sizeof(data), i);
		loop_recv_put(&sockets[i].op);
	}
	close_sockets();
}

START_TEST(test_headroom)
{
	run_on_engine(_i, use_headroom);
}
END_TEST

/*
 * Buffers run out while some receives have nothing to receive; when all
 * buffers are back and something arrives for any of those, it gets one.
 */
static co_fn void
starve_quiet_sockets(void *unused)
{
	unsigned busy = POOLED_SOCKETS / 4, received = 0;

	(void)unused;
	open_sockets();
	for (unsigned i = 0; i < busy; i++)
		send_message(i);
	while (received < busy) {
		loop_sleep(MILLISECOND_NS);
		received += put_back();
	}
	ck_assert_uint_eq(received, busy);
	for (unsigned i = POOLED_SOCKETS; i-- > busy;) {
		send_message(i);
		loop_sleep(2 * MILLISECOND_NS);
		ck_assert_msg(sockets[i].done, "receive %u starves", i);
		ck_assert_uint_eq(put_back(), 1);
	}
	close_sockets();
}

START_TEST(test_starving)
{
	run_on_engine(_i, starve_quiet_sockets);
}
END_TEST

/* ---- cancel ---- */

/* A receive that is done by the time it is cancelled. */
static co_fn void
cancel_finished(void *unused)
{
	struct pooled pooled = { .op = {
		.task.run = note_pooled, .kind = OP_RECV_POOLED,
	} };
	int fds[2];

	(void)unused;
	make_pair(fds);
	put(fds[1], "message 7");
	pooled.op.fd = fds[0];
	loop_submit(&pooled.op);
	loop_sleep(5 * MILLISECOND_NS);
	ck_assert(pooled.done);
	loop_cancel(&pooled.op);
	loop_sleep(5 * MILLISECOND_NS);
	check_pooled(&pooled, 7);
	loop_recv_put(&pooled.op);
	loop_recv_put(&pooled.op);
	close(fds[0]);
	close(fds[1]);
}

START_TEST(test_cancel_finished)
{
	run_on_engine(_i, cancel_finished);
}
END_TEST

/* Receives without a buffer; the rest of them work on. */
static co_fn void
cancel_starved(void *unused)
{
	unsigned received = 0, without = 0, starved = 0;

	(void)unused;
	open_sockets();
	for (unsigned i = 0; i < POOLED_SOCKETS; i++)
		send_message(i);
	loop_sleep(MILLISECOND_NS);
	for (unsigned i = 0; i < POOLED_SOCKETS; i++)
		if (!sockets[i].done && starved++ % 2 == 0)
			loop_cancel(&sockets[i].op);
	for (unsigned i = 0; i < POOLED_SOCKETS; i++) {
		loop_sleep(MILLISECOND_NS);
		received += put_back();
	}
	for (unsigned i = 0; i < POOLED_SOCKETS; i++) {
		ck_assert(sockets[i].done);
		if (sockets[i].op.result == -ECANCELED)
			without++;
	}
	ck_assert_uint_gt(without, 0);
	ck_assert_uint_eq(received + without, POOLED_SOCKETS);
	close_sockets();
}

START_TEST(test_cancel_starved)
{
	run_on_engine(_i, cancel_starved);
}
END_TEST

TCase *
test_loop_pooled(void)
{
	TCase *tcase = tcase_create("pooled");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_pooled, 0, 2);
	tcase_add_loop_test(tcase, test_headroom, 0, 2);
	tcase_add_loop_test(tcase, test_starving, 0, 2);
	tcase_add_loop_test(tcase, test_cancel_finished, 0, 2);
	tcase_add_loop_test(tcase, test_cancel_starved, 0, 2);
	return tcase;
}
