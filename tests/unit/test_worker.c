/* SPDX-License-Identifier: MIT */
/*
 * Workers.  Guards against: a job that runs on the loop's own thread (and
 * holds it up), a job lost or run twice, a result that comes back to the wrong
 * loop, and a pool that cannot be started again.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
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
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
