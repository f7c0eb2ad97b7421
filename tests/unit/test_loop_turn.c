/* SPDX-License-Identifier: MIT */
/*
 * Turns.  Guards against: posts between loops that are lost or overtake each
 * other, loops that sleep through a wake, timers out of order, long work that
 * keeps others from their turn, and more coroutines alive than there may be.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "runtime/loop.h"
#include "runtime/random.h"
#include "tests/unit/test_loop.h"

/* ---- posts ---- */

#define POSTS 50000

struct message {
	struct task task;
	struct poster *target;
	unsigned number;
};

/* One of two threads; each sends to the other, with pauses in which both
 * loops fall asleep. */
struct poster {
	pthread_t thread;
	_Atomic(struct loop *) loop;
	struct poster *other;
	struct task task;
	struct timer pause;
	unsigned sent;
	unsigned received;
	unsigned disorder;
	struct message messages[POSTS];
};

static void
stop_if_done(struct poster *poster)
{
	if (poster->sent == POSTS && poster->received == POSTS)
		loop_stop(poster->loop);
}

static void
receive_message(struct task *task)
{
	struct message *message = container_of(task, struct message, task);
	struct poster *poster = message->target;

	if (message->number != poster->received)
		poster->disorder++;
	poster->received++;
	stop_if_done(poster);
}

static void
send_some(struct poster *poster)
{
	unsigned burst = 1 + poster->sent % 100;

	while (burst-- > 0 && poster->sent < POSTS) {
		struct message *message = &poster->messages[poster->sent];

		message->task.run = receive_message;
		message->target = poster->other;
		message->number = poster->sent++;
		loop_post(poster->other->loop, &message->task);
	}
	if (poster->sent == POSTS)
		stop_if_done(poster);
	else if (poster->sent % 7 == 0)
		timer_start(poster->loop, &poster->pause,
		    loop_now_ns(poster->loop) + 50000);
	else
		loop_post(poster->loop, &poster->task);
}

static void
send_again(struct task *task)
{
	send_some(container_of(task, struct poster, task));
}

static void
send_after_pause(struct task *task)
{
	struct timer *timer = container_of(task, struct timer, task);

	send_some(container_of(timer, struct poster, pause));
}

static pthread_barrier_t both;

static void *
post_thread(void *arg)
{
	struct poster *poster = arg;
	struct loop *loop;

	if (loop_create(2, &loop))
		abort();
	poster->loop = loop;
	pthread_barrier_wait(&both);
	poster->task.run = send_again;
	poster->pause.task.run = send_after_pause;
	loop_post(loop, &poster->task);
	loop_run(loop);
	/* Also while the other is still on its way out of its last post. */
	loop_free(loop);
	return NULL;
}

START_TEST(test_posts)
{
	struct poster *posters = calloc(2, sizeof(*posters));

	select_engine(_i);
	ck_assert_ptr_nonnull(posters);
	pthread_barrier_init(&both, NULL, 2);
	for (unsigned i = 0; i < 2; i++) {
		posters[i].other = &posters[1 - i];
		ck_assert_int_eq(pthread_create(&posters[i].thread, NULL,
		    post_thread, &posters[i]), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(posters[i].thread, NULL);
		ck_assert_uint_eq(posters[i].received, POSTS);
		ck_assert_uint_eq(posters[i].disorder, 0);
	}
	free(posters);
}
END_TEST

static void *
stop_thread(void *arg)
{
	usleep(20000);
	loop_stop(arg);
	return NULL;
}

START_TEST(test_stop_from_outside)
{
	struct loop *loop;
	pthread_t thread;

	select_engine(_i);
	ck_assert_int_eq(loop_create(1, &loop), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, stop_thread, loop), 0);
	loop_run(loop);
	pthread_join(thread, NULL);
	loop_free(loop);
}
END_TEST

/* ---- timers and turns ---- */

static unsigned fired[16];
static unsigned fired_count;

struct numbered {
	struct timer timer;
	unsigned number;
};

static void
note_fired(struct task *task)
{
	struct timer *timer = container_of(task, struct timer, task);

	fired[fired_count++] =
	    container_of(timer, struct numbered, timer)->number;
}

static co_fn void
run_timers(void *unused)
{
	struct loop *loop = loop_self();
	uint64_t now_ns = loop_now_ns(loop);
	static const unsigned delays_ms[] = { 30, 10, 50, 20, 40, 60, 5, 15 };
	static const unsigned expected[] = { 2, 1, 3, 0, 5, 4 };
	struct numbered timers[8] = {0};

	(void)unused;
	for (unsigned i = 0; i < 8; i++) {
		timers[i].number = i;
		timers[i].timer.task.run = note_fired;
		timer_start(loop, &timers[i].timer,
		    now_ns + delays_ms[i] * MILLISECOND_NS);
	}
	timer_stop(loop, &timers[6].timer);
	timer_stop(loop, &timers[7].timer);
	timer_stop(loop, &timers[7].timer);
	timer_start(loop, &timers[2].timer, now_ns + 1 * MILLISECOND_NS);
	timer_start(loop, &timers[4].timer, now_ns + 70 * MILLISECOND_NS);
	loop_sleep(100 * MILLISECOND_NS);
	ck_assert_uint_ge(loop_now_ns(loop), now_ns + 100 * MILLISECOND_NS);
	ck_assert_uint_eq(fired_count, 6);
	ck_assert_mem_eq(fired, expected, sizeof(expected));
}

START_TEST(test_timers)
{
	run_on_engine(_i, run_timers);
}
END_TEST

#define MANY_TIMERS 300

static uint64_t last_deadline_ns;
static unsigned many_fired;

static void
note_order(struct task *task)
{
	struct timer *timer = container_of(task, struct timer, task);

	ck_assert_uint_ge(timer->deadline_ns, last_deadline_ns);
	ck_assert(!timer->running);
	last_deadline_ns = timer->deadline_ns;
	many_fired++;
}

/* Started, moved and stopped at random, all due: they fire in their order. */
static co_fn void
run_many_timers(void *unused)
{
	static struct timer timers[MANY_TIMERS];
	struct loop *loop = loop_self();
	struct random random;
	unsigned running = 0;

	(void)unused;
	random_seed(&random, 7);
	for (unsigned i = 0; i < 20 * MANY_TIMERS; i++) {
		struct timer *timer =
		    &timers[random_below(&random, MANY_TIMERS)];

		timer->task.run = note_order;
		if (random_below(&random, 3) == 0)
			timer_stop(loop, timer);
		else
			timer_start(loop, timer,
			    1 + random_below(&random, MANY_TIMERS / 2));
	}
	for (unsigned i = 0; i < MANY_TIMERS; i++)
		running += timers[i].running;
	ck_assert_uint_gt(running, MANY_TIMERS / 2);
	loop_sleep(MILLISECOND_NS);
	ck_assert_uint_eq(many_fired, running);
}

START_TEST(test_many_timers)
{
	run_on_engine(_i, run_many_timers);
}
END_TEST

static unsigned awake;

static co_fn void
sleep_some(void *arg)
{
	uint64_t delay_ns = (uint64_t)(uintptr_t)arg % 50 * MILLISECOND_NS;
	uint64_t start_ns = loop_now_ns(loop_self());

	loop_sleep(delay_ns);
	ck_assert_uint_ge(loop_now_ns(loop_self()), start_ns + delay_ns);
	awake++;
}

static co_fn void
spawn_sleepers(void *unused)
{
	(void)unused;
	for (uintptr_t i = 0; i < 1000; i++)
		test_spawn(sleep_some, (void *)i);
}

START_TEST(test_sleepers)
{
	run_on_engine(_i, spawn_sleepers);
	ck_assert_uint_eq(awake, 1000);
}
END_TEST

static char order[8];

static void
note_end(struct task *task)
{
	(void)task;
	strcat(order, "e");
}

static co_fn void
yield_and_note(void *unused)
{
	(void)unused;
	strcat(order, "b");
	co_yield();
	strcat(order, "c");
}

static co_fn void
wait_for_turn_end(void *unused)
{
	struct task task = { .run = note_end };

	(void)unused;
	loop_at_turn_end(loop_self(), &task);
	test_spawn(yield_and_note, NULL);
	strcat(order, "a");
	loop_sleep(MILLISECOND_NS);
	/* What yields does not keep the turn from ending. */
	ck_assert_str_eq(order, "abec");
}

START_TEST(test_turn_end)
{
	run_on_engine(_i, wait_for_turn_end);
}
END_TEST

/* ---- yielding ---- */

static bool received_x;

static co_fn void
note_x(void *arg)
{
	receive_x(arg);
	received_x = true;
}

/* Long work that yields is not more than a turn in anybody's way. */
static co_fn void
work_and_yield(void *unused)
{
	unsigned yields = 0;
	int fds[2];

	(void)unused;
	make_pair(fds);
	put(fds[1], "x");
	test_spawn(note_x, &fds[0]);
	while (!received_x && yields < 100) {
		co_yield();
		yields++;
	}
	ck_assert_uint_le(yields, 4);
	close(fds[0]);
	close(fds[1]);
}

START_TEST(test_yield)
{
	run_on_engine(_i, work_and_yield);
}
END_TEST

/* ---- coroutines past the limit ---- */

#define ALIVE_MAX 4
#define STARTS 100

static unsigned alive, alive_most, ended;
static struct co_start starts[STARTS];

static co_fn void
live_for_a_while(void *arg)
{
	if (++alive > alive_most)
		alive_most = alive;
	loop_sleep((uintptr_t)arg % 3 * 100000);
	alive--;
	if (++ended == STARTS)
		loop_stop(loop_self());
}

START_TEST(test_start_past_limit)
{
	struct loop *loop;

	select_engine(_i);
	ck_assert_int_eq(loop_create(CO_ALIVE_MAX / ALIVE_MAX, &loop), 0);
	for (uintptr_t i = 0; i < STARTS; i++)
		co_start(&starts[i], live_for_a_while, (void *)i);
	loop_run(loop);
	loop_free(loop);
	ck_assert_uint_eq(ended, STARTS);
	ck_assert_uint_eq(alive_most, ALIVE_MAX);
}
END_TEST

TCase *
test_loop_turn(void)
{
	TCase *tcase = tcase_create("turn");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_posts, 0, 2);
	tcase_add_loop_test(tcase, test_stop_from_outside, 0, 2);
	tcase_add_loop_test(tcase, test_timers, 0, 2);
	tcase_add_loop_test(tcase, test_many_timers, 0, 2);
	tcase_add_loop_test(tcase, test_sleepers, 0, 2);
	tcase_add_loop_test(tcase, test_turn_end, 0, 2);
	tcase_add_loop_test(tcase, test_yield, 0, 2);
	tcase_add_loop_test(tcase, test_start_past_limit, 0, 2);
	return tcase;
}
