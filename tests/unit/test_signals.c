/* SPDX-License-Identifier: MIT */
/*
 * Signals.  Guards against: a signal that ends the process instead of being
 * told, one that a helper thread swallows, a wait that nobody can end, and
 * death by a client that hangs up.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "runtime/log.h"
#include "runtime/signals.h"
#include "tests/unit/test_runtime.h"

static const int numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD };

static co_fn void
kill_me(void *arg)
{
	loop_sleep(10 * 1000 * 1000);
	kill(getpid(), *(const int *)arg);
}

/* Each arrives while the coroutine waits. */
static co_fn void
wait_for_each(void *unused)
{
	struct signals signals;

	(void)unused;
	ck_assert_int_eq(signals_open(&signals), 0);
	for (unsigned i = 0; i < 4; i++) {
		test_spawn(kill_me, (void *)&numbers[i]);
		ck_assert_int_eq(signals_wait(&signals), numbers[i]);
	}
	signals_close(&signals);
}

START_TEST(test_each)
{
	ck_assert_int_gt(loop_engine_select(_i ? LOOP_THREADS : LOOP_AUTO), 0);
	test_run(wait_for_each, NULL);
}
END_TEST

/* Both came before anybody waited. */
static co_fn void
wait_late(void *unused)
{
	struct signals signals;
	int first, second;

	(void)unused;
	ck_assert_int_eq(signals_open(&signals), 0);
	kill(getpid(), SIGHUP);
	kill(getpid(), SIGTERM);
	first = signals_wait(&signals);
	second = signals_wait(&signals);
	ck_assert((first == SIGHUP && second == SIGTERM) ||
	    (first == SIGTERM && second == SIGHUP));
	signals_close(&signals);
}

START_TEST(test_pending)
{
	test_run(wait_late, NULL);
}
END_TEST

/* The log's writer was started before, with the signals not blocked yet. */
START_TEST(test_helper_threads)
{
	log_info("a line, so that there is a thread");
	log_flush(1000);
	test_run(wait_for_each, NULL);
}
END_TEST

static co_fn void
stop(void *arg)
{
	signals_stop(arg);
}

static co_fn void
wait_until_stopped(void *unused)
{
	struct signals signals;

	(void)unused;
	ck_assert_int_eq(signals_open(&signals), 0);
	test_spawn(stop, &signals);
	ck_assert_int_eq(signals_wait(&signals), -ECANCELED);
	ck_assert_int_eq(signals_wait(&signals), -ECANCELED);
	signals_close(&signals);
}

START_TEST(test_stop)
{
	ck_assert_int_gt(loop_engine_select(_i ? LOOP_THREADS : LOOP_AUTO), 0);
	test_run(wait_until_stopped, NULL);
}
END_TEST

START_TEST(test_broken_pipe)
{
	struct signals signals;
	int fds[2];

	ck_assert_int_eq(signals_open(&signals), 0);
	ck_assert_int_eq(pipe(fds), 0);
	close(fds[0]);
	ck_assert_int_eq(write(fds[1], "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	signals_close(&signals);
}
END_TEST

START_TEST(test_mask_restored)
{
	struct signals signals;
	sigset_t mask;

	ck_assert_int_eq(signals_open(&signals), 0);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	ck_assert(sigismember(&mask, SIGTERM));
	signals_close(&signals);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	ck_assert(!sigismember(&mask, SIGTERM));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("signals");
	TCase *tcase = tcase_create("signals");

	tcase_add_checked_fixture(tcase, test_any_engine, NULL);
	tcase_add_loop_test(tcase, test_each, 0, 2);
	tcase_add_test(tcase, test_pending);
	tcase_add_test(tcase, test_helper_threads);
	tcase_add_loop_test(tcase, test_stop, 0, 2);
	tcase_add_test(tcase, test_broken_pipe);
	tcase_add_test(tcase, test_mask_restored);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
