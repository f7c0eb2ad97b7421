/* SPDX-License-Identifier: MIT */
/*
 * Workers.  Guards against: a job that runs on the loop's own thread (and
 * holds it up), a job lost or run twice, a result that comes back to the wrong
 * loop, a pool that cannot be started again, and a crowd of humble jobs (TLS
 * handshakes) that other work has to wait for, or the other way round.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include "runtime/thread.h"
#include "runtime/worker.h"
#include "tests/unit/test_runtime.h"

struct job {
	pthread_t thread;
	atomic_uint runs;
};

static void
note_thread(void *arg)
{
	struct job *job = arg;

	job->thread = pthread_self();
	atomic_fetch_add(&job->runs, 1);
}

static co_fn void
run_one(void *unused)
{
	struct job job = {0};

	(void)unused;
	worker_run(note_thread, &job);
	ck_assert_uint_eq(job.runs, 1);
	ck_assert(!pthread_equal(job.thread, pthread_self()));
}

START_TEST(test_another_thread)
{
	test_run(run_one, NULL);
	worker_stop();
}
END_TEST

static co_fn void
run_some(void *unused)
{
	for (unsigned i = 0; i < 200; i++)
		run_one(unused);
}

START_TEST(test_start_again)
{
	test_run(run_one, NULL);
	worker_stop();
	worker_stop();
	test_run(run_some, NULL);
	worker_stop();
}
END_TEST

/* A job that ends only when another coroutine of the same loop lets it. */
static atomic_bool released;

static void
wait_for_release(void *unused)
{
	(void)unused;
	while (!atomic_load(&released))
		usleep(1000);
}

static co_fn void
release(void *unused)
{
	(void)unused;
	atomic_store(&released, true);
}

static co_fn void
run_held_up(void *unused)
{
	(void)unused;
	test_spawn(release, NULL);
	worker_run(wait_for_release, NULL);
}

START_TEST(test_loop_goes_on)
{
	test_run(run_held_up, NULL);
	worker_stop();
}
END_TEST

#define JOBS 1000

static struct job jobs[2][JOBS];

static co_fn void
run_job(void *arg)
{
	struct loop *loop = loop_self();

	worker_run(note_thread, arg);
	ck_assert_ptr_eq(loop_self(), loop);
	ck_assert_ptr_eq(co_loop(co_self()), loop);
}

static co_fn void
spawn_jobs(void *arg)
{
	struct job *mine = arg;

	for (unsigned i = 0; i < JOBS; i++)
		test_spawn(run_job, &mine[i]);
}

static void *
loop_thread(void *arg)
{
	test_run(spawn_jobs, arg);
	return NULL;
}

START_TEST(test_two_loops)
{
	pthread_t threads[2];

	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
		    loop_thread, jobs[i]), 0);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	worker_stop();
	for (unsigned i = 0; i < 2; i++)
		for (unsigned j = 0; j < JOBS; j++)
			ck_assert_uint_eq(jobs[i][j].runs, 1);
}
END_TEST

/* ---- humble jobs ---- */

#define CROWD 200

static atomic_uint humble_begun;

static void
be_humble(void *unused)
{
	(void)unused;
	atomic_fetch_add(&humble_begun, 1);
	usleep(1000);
}

static co_fn void
run_humbly(void *unused)
{
	worker_run_humbly(be_humble, unused);
}

static void
count_humble(void *count)
{
	*(unsigned *)count = atomic_load(&humble_begun);
}

static co_fn void
run_behind_a_crowd(void *unused)
{
	for (unsigned i = 0; i < CROWD; i++)
		test_spawn(run_humbly, unused);
	/* Let them all queue up. */
	loop_sleep(2000000);
	for (unsigned i = 0; i < 10; i++) {
		unsigned before = atomic_load(&humble_begun), then;

		worker_run(count_humble, &then);
		/* Some began before it was queued, and in its own time. */
		ck_assert_uint_lt(then, before + CROWD / 4);
	}
}

START_TEST(test_a_crowd_holds_up_nobody)
{
	test_run(run_behind_a_crowd, NULL);
	worker_stop();
	ck_assert_uint_eq(atomic_load(&humble_begun), CROWD);
}
END_TEST

static void
wait_as_a_crowd(void *unused)
{
	atomic_fetch_add(&humble_begun, 1);
	wait_for_release(unused);
}

static co_fn void
run_as_a_crowd(void *unused)
{
	worker_run_humbly(wait_as_a_crowd, unused);
}

static co_fn void
run_beside_a_crowd(void *unused)
{
	for (unsigned i = 0; i < CROWD; i++)
		test_spawn(run_as_a_crowd, unused);
	while (atomic_load(&humble_begun) == 0)
		loop_sleep(1000000);
	loop_sleep(20000000);
	ck_assert_uint_le(atomic_load(&humble_begun), thread_cpus() / 2);
	run_one(unused);
	atomic_store(&released, true);
}

/* Though none of them comes to its end. */
START_TEST(test_half_of_the_threads_stay_free)
{
	if (thread_cpus() == 1)
		return;
	test_run(run_beside_a_crowd, NULL);
	worker_stop();
	ck_assert_uint_eq(atomic_load(&humble_begun), CROWD);
}
END_TEST

static void
be_busy(void *unused)
{
	(void)unused;
	usleep(1000);
}

static co_fn void
run_on_and_on(void *unused)
{
	while (atomic_load(&humble_begun) < 10)
		worker_run(be_busy, unused);
}

static co_fn void
run_many_and_ten(void *unused)
{
	for (unsigned i = 0; i < CROWD; i++)
		test_spawn(run_on_and_on, unused);
	for (unsigned i = 0; i < 10; i++)
		worker_run_humbly(be_humble, unused);
}

START_TEST(test_humble_jobs_have_their_turn)
{
	test_run(run_many_and_ten, NULL);
	worker_stop();
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("worker");
	TCase *tcase = tcase_create("worker");

	tcase_add_checked_fixture(tcase, test_any_engine, NULL);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_another_thread);
	tcase_add_test(tcase, test_start_again);
	tcase_add_test(tcase, test_loop_goes_on);
	tcase_add_test(tcase, test_two_loops);
	tcase_add_test(tcase, test_a_crowd_holds_up_nobody);
	tcase_add_test(tcase, test_half_of_the_threads_stay_free);
	tcase_add_test(tcase, test_humble_jobs_have_their_turn);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
