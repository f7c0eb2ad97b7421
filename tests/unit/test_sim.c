/* SPDX-License-Identifier: MIT */
/*
 * The simulator.  Guards against: a run that its seed does not repeat, orders
 * that no seed ever tries, interleavings that cannot happen in production, a
 * deadlock or an endless run that is not told.
 */
#include "tests/unit/test_sim.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/file_sim.h"
#include "runtime/loop_internal.h"
#include "runtime/monitor.h"
#include "runtime/sim.h"
#include "runtime/sock.h"
#include "runtime/worker.h"
#include "tests/unit/test_runtime.h"

/* ---- a world with a bit of everything ---- */

#define CLIENTS 6

struct world {
	struct sim *sim;
	struct monitor monitor;
	struct wait_queue queue;
	struct co_mutex mutex;
	struct file *file;
	int fds[2];
	unsigned turns_waited;
	unsigned jobs_done;
	unsigned order_count;
	unsigned order[CLIENTS * 8];
};

struct client {
	struct co_start start;
	struct world *world;
	unsigned index;
};

static void
job(void *arg)
{
	struct world *world = arg;

	world->jobs_done++;
}

/* Takes its turn after the client before it, so that queues are waited in. */
co_fn static void
wait_for_turn(struct world *world, unsigned turn)
{
	monitor_enter(&world->monitor);
	while (world->turns_waited < turn)
		wait_queue_wait(&world->queue);
	world->turns_waited++;
	wait_queue_wake_all(&world->monitor, &world->queue);
	monitor_leave(&world->monitor);
}

co_fn static void
write_and_read(struct client *client)
{
	struct world *world = client->world;
	uint64_t offset = client->index * 10000;
	char data[5000];

	test_fill(data, sizeof(data), client->index);
	ck_assert_int_eq(file_pwrite(world->file, data, sizeof(data), offset,
	    0), 0);
	memset(data, 0, sizeof(data));
	ck_assert_int_eq(file_pread(world->file, data, sizeof(data), offset),
	    0);
	test_verify(data, sizeof(data), client->index);
}

co_fn static void
mixed_client(void *arg)
{
	struct client *client = arg;
	struct world *world = client->world;

	for (unsigned i = 0; i < 8; i++) {
		loop_sleep(loop_random(loop_self()) % 1000000);
		write_and_read(client);
		monitor_enter(&world->monitor);
		co_mutex_lock(&world->mutex);
		world->order[world->order_count++] = client->index;
		co_mutex_unlock(&world->monitor, &world->mutex);
		monitor_leave(&world->monitor);
		worker_run(job, world);
	}
	ck_assert_int_eq(file_fdatasync(world->file), 0);
	wait_for_turn(world, client->index);
}

co_fn static void
mixed_sender(void *arg)
{
	struct client *client = arg;
	struct sock sock;
	char data[20000];
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};

	test_fill(data, sizeof(data), 99);
	sock_open(&sock, client->world->fds[0]);
	ck_assert_int_eq(sock_send(&sock, &iov, 1), 0);
	sock_close(&sock);
}

co_fn static void
mixed_receiver(void *arg)
{
	struct client *client = arg;
	struct sock sock;
	char data[20000];

	sock_open(&sock, client->world->fds[1]);
	ck_assert_int_eq(sock_recv_exact(&sock, data, sizeof(data)), 0);
	test_verify(data, sizeof(data), 99);
	ck_assert_int_eq(sock_recv_exact(&sock, data, 1), -ENODATA);
	sock_close(&sock);
}

/* The hash; order gets who came in which order. */
static uint64_t
run_world(uint64_t seed, unsigned *order)
{
	struct world world = {0};
	struct client clients[CLIENTS + 2];
	uint64_t hash;

	ck_assert_int_eq(sim_create(seed, 2, &world.sim), 0);
	monitor_init(&world.monitor);
	ck_assert_int_eq(file_sim_create(world.sim, "mixed", 0, &world.file),
	    0);
	sim_socketpair(world.sim, world.fds);
	for (unsigned i = 0; i < CLIENTS + 2; i++) {
		clients[i].world = &world;
		clients[i].index = i;
		sim_start(world.sim, i % 2, &clients[i].start,
		    i < CLIENTS ? mixed_client :
		    i == CLIENTS ? mixed_sender : mixed_receiver, &clients[i]);
	}
	ck_assert_int_eq(sim_run(world.sim), SIM_DONE);
	ck_assert_uint_eq(world.order_count, CLIENTS * 8);
	ck_assert_uint_eq(world.jobs_done, CLIENTS * 8);
	ck_assert_uint_eq(world.turns_waited, CLIENTS);
	memcpy(order, world.order, sizeof(world.order));
	hash = sim_hash(world.sim);
	file_close(world.file);
	monitor_destroy(&world.monitor);
	sim_free(world.sim);
	return hash;
}

/* The memory between the runs moves everything the worlds allocate. */
START_TEST(test_seed_repeats_the_run)
{
	unsigned first_order[CLIENTS * 8], again_order[CLIENTS * 8];

	for (uint64_t seed = 0; seed < 20; seed++) {
		uint64_t first = run_world(seed, first_order);
		void *moved = malloc(10000 + 100 * seed);

		ck_assert_uint_eq(run_world(seed, again_order), first);
		ck_assert_int_eq(memcmp(first_order, again_order,
		    sizeof(first_order)), 0);
		free(moved);
	}
}
END_TEST

START_TEST(test_seeds_differ)
{
	unsigned orders[20][CLIENTS * 8];
	uint64_t hashes[20];
	unsigned equal_orders = 0;

	for (unsigned i = 0; i < 20; i++) {
		hashes[i] = run_world(i, orders[i]);
		for (unsigned j = 0; j < i; j++) {
			ck_assert_uint_ne(hashes[i], hashes[j]);
			equal_orders += !memcmp(orders[i], orders[j],
			    sizeof(orders[i]));
		}
	}
	ck_assert_uint_lt(equal_orders, 5);
}
END_TEST

/* What a test notes is part of what has to repeat. */
START_TEST(test_note_is_hashed)
{
	struct sim *one, *two;

	ck_assert_int_eq(sim_create(1, 1, &one), 0);
	ck_assert_int_eq(sim_create(1, 1, &two), 0);
	ck_assert_uint_eq(sim_hash(one), sim_hash(two));
	sim_note(one, "saw", 1);
	sim_note(two, "saw", 2);
	ck_assert_uint_ne(sim_hash(one), sim_hash(two));
	sim_free(one);
	sim_free(two);
}
END_TEST

/* ---- ends ---- */

struct queue_test {
	struct monitor monitor;
	struct wait_queue queue;
	bool woken;
	struct sim *sim;
	struct co_start start;
	struct co_start waker;
};

co_fn static void
wait_for_ever(void *arg)
{
	struct queue_test *test = arg;

	monitor_enter(&test->monitor);
	wait_queue_wait(&test->queue);
	test->woken = true;
	monitor_leave(&test->monitor);
}

co_fn static void
wake_it(void *arg)
{
	struct queue_test *test = arg;

	monitor_enter(&test->monitor);
	wait_queue_wake_one(&test->monitor, &test->queue);
	monitor_leave(&test->monitor);
}

START_TEST(test_deadlock_is_told)
{
	struct queue_test test = {0};

	ck_assert_int_eq(sim_create(1, 2, &test.sim), 0);
	monitor_init(&test.monitor);
	sim_start(test.sim, 0, &test.start, wait_for_ever, &test);
	ck_assert_int_eq(sim_run(test.sim), SIM_DEADLOCK);
	ck_assert_uint_eq(sim_alive(test.sim), 1);
	ck_assert(!test.woken);
	sim_start(test.sim, 1, &test.waker, wake_it, &test);
	ck_assert_int_eq(sim_run(test.sim), SIM_DONE);
	ck_assert_uint_eq(sim_alive(test.sim), 0);
	ck_assert(test.woken);
	monitor_destroy(&test.monitor);
	sim_free(test.sim);
}
END_TEST

co_fn static void
sleep_a_day(void *arg)
{
	bool *done = arg;

	loop_sleep(24 * 3600 * SECOND_NS);
	*done = true;
}

START_TEST(test_time_is_jumped_over)
{
	struct co_start start;
	bool done = false;
	struct sim *sim;
	uint64_t begin_ns;

	ck_assert_int_eq(sim_create(1, 1, &sim), 0);
	begin_ns = sim_now_ns(sim);
	sim_start(sim, 0, &start, sleep_a_day, &done);
	ck_assert_int_eq(sim_run_until(sim, begin_ns + SECOND_NS), SIM_TIME);
	ck_assert_uint_eq(sim_now_ns(sim), begin_ns + SECOND_NS);
	ck_assert(!done);
	ck_assert_int_eq(sim_run(sim), SIM_DONE);
	ck_assert(done);
	ck_assert_uint_ge(sim_now_ns(sim), begin_ns + 24 * 3600 * SECOND_NS);
	sim_free(sim);
}
END_TEST

co_fn static void
stop_then_go_on(void *arg)
{
	unsigned *step = arg;

	*step = 1;
	sim_stop(sim_self());
	co_yield();
	*step = 2;
}

START_TEST(test_stop)
{
	struct co_start start;
	unsigned step = 0;
	struct sim *sim;

	ck_assert_int_eq(sim_create(1, 1, &sim), 0);
	sim_start(sim, 0, &start, stop_then_go_on, &step);
	ck_assert_int_eq(sim_run(sim), SIM_STOPPED);
	ck_assert_uint_eq(step, 1);
	ck_assert_ptr_null(sim_self());
	ck_assert_int_eq(sim_run(sim), SIM_DONE);
	ck_assert_uint_eq(step, 2);
	sim_free(sim);
}
END_TEST

co_fn static void
spin(void *arg)
{
	while (*(bool *)arg)
		co_yield();
}

START_TEST(test_endless_run_is_told)
{
	struct co_start start;
	bool spinning = true;
	struct sim *sim;

	ck_assert_int_eq(sim_create(1, 1, &sim), 0);
	sim_set_steps_max(sim, 1000);
	sim_start(sim, 0, &start, spin, &spinning);
	ck_assert_int_eq(sim_run(sim), SIM_ENDLESS);
	spinning = false;
	ck_assert_int_eq(sim_run(sim), SIM_DONE);
	sim_free(sim);
}
END_TEST

/* ---- interleavings ---- */

struct race {
	struct sim *sim;
	struct monitor monitor;
	struct co_start starts[2];
	unsigned counter;
	bool is_atomic;
	bool inside;
	bool was_disturbed;
};

/* Looks and changes in two monitor sections, or in one. */
co_fn static void
count_up(void *arg)
{
	struct race *race = arg;
	unsigned seen;

	monitor_enter(&race->monitor);
	seen = race->counter;
	if (!race->is_atomic) {
		monitor_leave(&race->monitor);
		monitor_enter(&race->monitor);
	}
	race->counter = seen + 1;
	monitor_leave(&race->monitor);
}

/* How many of 200 seeds lose an update; loops is 1 or 2. */
static unsigned
updates_lost(unsigned loops, bool is_atomic, void (*fn)(void *arg),
    bool *was_disturbed)
{
	unsigned lost = 0;

	for (uint64_t seed = 0; seed < 200; seed++) {
		struct race race = {.is_atomic = is_atomic};

		ck_assert_int_eq(sim_create(seed, loops, &race.sim), 0);
		monitor_init(&race.monitor);
		sim_start(race.sim, 0, &race.starts[0], fn, &race);
		sim_start(race.sim, loops - 1, &race.starts[1], fn, &race);
		ck_assert_int_eq(sim_run(race.sim), SIM_DONE);
		lost += race.counter != 2;
		*was_disturbed |= race.was_disturbed;
		monitor_destroy(&race.monitor);
		sim_free(race.sim);
	}
	return lost;
}

START_TEST(test_other_loop_comes_between)
{
	bool unused = false;

	ck_assert_uint_gt(updates_lost(2, false, count_up, &unused), 10);
	ck_assert_uint_eq(updates_lost(2, true, count_up, &unused), 0);
}
END_TEST

/* A loop that waits for a lock runs nothing else meanwhile. */
co_fn static void
enter_undisturbed(void *arg)
{
	struct race *race = arg;

	race->was_disturbed |= race->inside;
	race->inside = true;
	for (unsigned i = 0; i < 20; i++) {
		monitor_enter(&race->monitor);
		monitor_leave(&race->monitor);
	}
	race->inside = false;
	race->counter++;
}

START_TEST(test_own_loop_does_not_come_between)
{
	bool was_disturbed = false;

	ck_assert_uint_eq(updates_lost(1, false, count_up, &was_disturbed), 0);
	updates_lost(1, false, enter_undisturbed, &was_disturbed);
	ck_assert(!was_disturbed);
	updates_lost(2, false, enter_undisturbed, &was_disturbed);
	ck_assert_msg(was_disturbed, "loops never run side by side");
}
END_TEST

/* ---- loops ---- */

struct turn_test {
	struct task end;
	bool end_ran;
	struct co_start other;
	bool other_ran;
};

static void
at_end(struct task *task)
{
	struct turn_test *test = container_of(task, struct turn_test, end);

	ck_assert(test->other_ran);
	test->end_ran = true;
}

co_fn static void
other(void *arg)
{
	struct turn_test *test = arg;

	co_yield();
	co_yield();
	ck_assert(!test->end_ran);
	test->other_ran = true;
}

co_fn static void
ask_for_end(void *arg)
{
	struct turn_test *test = arg;

	test->end.run = at_end;
	loop_at_turn_end(loop_self(), &test->end);
	co_start(&test->other, other, test);
}

START_TEST(test_turn_end_is_last)
{
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct turn_test test = {0};
		struct co_start start;
		struct sim *sim;

		ck_assert_int_eq(sim_create(seed, 1, &sim), 0);
		sim_start(sim, 0, &start, ask_for_end, &test);
		ck_assert_int_eq(sim_run(sim), SIM_DONE);
		ck_assert(test.end_ran);
		sim_free(sim);
	}
}
END_TEST

static void
check_thread(void *arg)
{
	ck_assert(pthread_equal(*(pthread_t *)arg, pthread_self()));
}

co_fn static void
run_job(void *arg)
{
	worker_run(check_thread, arg);
}

START_TEST(test_jobs_run_inline)
{
	pthread_t self = pthread_self();
	struct co_start start;
	struct sim *sim;

	ck_assert_int_eq(sim_create(1, 1, &sim), 0);
	sim_start(sim, 0, &start, run_job, &self);
	ck_assert_int_eq(sim_run(sim), SIM_DONE);
	sim_free(sim);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("sim");
	TCase *tcase = tcase_create("sim");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_seed_repeats_the_run);
	tcase_add_test(tcase, test_seeds_differ);
	tcase_add_test(tcase, test_note_is_hashed);
	tcase_add_test(tcase, test_deadlock_is_told);
	tcase_add_test(tcase, test_time_is_jumped_over);
	tcase_add_test(tcase, test_stop);
	tcase_add_test(tcase, test_endless_run_is_told);
	tcase_add_test(tcase, test_other_loop_comes_between);
	tcase_add_test(tcase, test_own_loop_does_not_come_between);
	tcase_add_test(tcase, test_turn_end_is_last);
	tcase_add_test(tcase, test_jobs_run_inline);
	suite_add_tcase(suite, tcase);
	suite_add_tcase(suite, test_sim_socket());
	return test_main(suite);
}
