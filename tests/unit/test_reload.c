/* SPDX-License-Identifier: MIT */
/*
 * Reading the TLS files again.  Guards against: files that never come, and hold
 * up the loop or the end of the process; a second SIGHUP meanwhile that is
 * lost, so that the files of before stay; two readings at once; and one that
 * ends when the loop has ended.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include "server/reload.h"
#include "server/tls.h"
#include "tests/unit/test_runtime.h"

static atomic_uint begun, ended, at_once;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

/* In place of server/tls.c: it takes as long as the gate is locked. */
int
tls_reload(struct tls *tls, struct error *error)
{
	(void)tls;
	ck_assert_uint_eq(atomic_fetch_add(&at_once, 1), 0);
	atomic_fetch_add(&begun, 1);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	atomic_fetch_sub(&at_once, 1);
	return atomic_fetch_add(&ended, 1) == 0 ?
	    error_set(error, -EIO, "the first fails") : 0;
}

static struct reload reload;

static co_fn void
wait_for(atomic_uint *count, unsigned value)
{
	while (atomic_load(count) < value)
		loop_sleep(1000000);
}

static co_fn void
ask_thrice(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&gate);
	reload_start(&reload, NULL);
	wait_for(&begun, 1);
	reload_start(&reload, NULL);
	reload_start(&reload, NULL);
	pthread_mutex_unlock(&gate);
	while (reload.running)
		loop_sleep(1000000);
	/* The two that came meanwhile are one. */
	ck_assert_uint_eq(atomic_load(&ended), 2);
	ck_assert_int_eq(reload.err, 0);
	/* One that is done meanwhile leaves nothing behind either. */
	reload_start(&reload, NULL);
	wait_for(&ended, 3);
	reload_start(&reload, NULL);
	reload_end(&reload);
	ck_assert(!reload.running);
}

START_TEST(who_asks_meanwhile_is_heard)
{
	test_run(ask_thrice, NULL);
	ck_assert_uint_ge(atomic_load(&ended), 3);
}
END_TEST

static co_fn void
ask_in_vain(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&gate);
	reload_start(&reload, NULL);
	wait_for(&begun, 1);
	reload_start(&reload, NULL);
	reload_end(&reload);
	ck_assert(reload.running && !reload.again);
}

START_TEST(the_end_does_not_wait_for_ever)
{
	uint64_t begun_ms = test_now_ms();

	test_run(ask_in_vain, NULL);
	ck_assert_uint_ge(test_now_ms() - begun_ms, RELOAD_END_S * 1000);
	/* That thread goes with this process. */
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("reload");
	TCase *tcase = tcase_create("reload");

	tcase_add_checked_fixture(tcase, test_any_engine, NULL);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, who_asks_meanwhile_is_heard);
	tcase_add_test(tcase, the_end_does_not_wait_for_ever);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
