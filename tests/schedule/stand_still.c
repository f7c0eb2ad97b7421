/* SPDX-License-Identifier: MIT */
/*
 * Time that passes between two looks at the clock: the process was stopped, or
 * its machine was, for longer than anything may take.
 *
 * Guards against an answer to block status that has no extent because its time
 * was over before it began; it once ended at an assertion.
 */
#include <check.h>
#include <stdlib.h>
#include "runtime/log.h"
#include "server/status.h"
#include "tests/schedule/server_play.h"

/* By so much time goes on with each look, while it is not 0. */
static uint64_t jump_ns, jumped_ns;

uint64_t __real_loop_now_ns(struct loop *loop);
uint64_t __wrap_loop_now_ns(struct loop *loop);

/* The linker has everybody come here. */
uint64_t
__wrap_loop_now_ns(struct loop *loop)
{
	jumped_ns += jump_ns;
	return __real_loop_now_ns(loop) + jumped_ns;
}

co_fn static void
ask_for_status(struct client *client, uint16_t flags)
{
	struct client_request status = play_request(NBD_CMD_BLOCK_STATUS, 0,
	    DISK_BYTES, 0);

	status.wire.flags = flags;
	play_ask(client, &status);
	play_finish(client, &status);
	ck_assert_uint_eq(status.chunks, 1);
}

/* The client looks at the extents: there is one, and none is empty. */
co_fn static void
stand_still(struct site *site)
{
	struct client client;

	play_join(&client, site, 0);
	for (unsigned i = 0; i < 4; i++)
		client_do(&client, NBD_CMD_WRITE, 2 * i * CLUSTER, CLUSTER,
		    i + 1, 0);
	jump_ns = (STATUS_MS_MAX + 10) * UINT64_C(1000000);
	ask_for_status(&client, 0);
	ask_for_status(&client, NBD_CMD_FLAG_REQ_ONE);
	jump_ns = 0;
	ask_for_status(&client, 0);
	client_leave(&client, CLIENT_DISC);
}

START_TEST(block_status_after_standing_still)
{
	play_site(_i, stand_still, 0);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("stand_still");
	TCase *tcase = tcase_create("stand_still");
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level((enum log_level)0);
	tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, block_status_after_standing_still, 0,
	    SEEDS);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
