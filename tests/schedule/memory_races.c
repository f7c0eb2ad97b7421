/* SPDX-License-Identifier: MIT */
/*
 * The memory that all clients share, step by step: who waits for it, who does
 * not, and what ends the waiting.
 *
 * Guards against what the tests are named for; above each stands what goes
 * wrong otherwise.
 */
#include <check.h>
#include <stdlib.h>
#include "runtime/log.h"
#include "tests/schedule/server_play.h"

/* Of so little two requests of length LONG leave less than SHORT needs. */
#define SCARCE_BYTES (4u << 20)
#define LONG (2u << 20)
#define SHORT (1u << 20)

/* Looks whether it is so far. */
#define PATIENCE 100

/* Clients that ask for so much that a third one has to wait. */
struct crowd {
	struct client_request held[2];
	struct client holders[2];
	struct client_request wanted;
	struct client waiting;
};

static void
save_memory(struct site *site)
{
	site->server.budget.limit_bytes = SCARCE_BYTES;
}

/* All of it but the last hold_back bytes leave; the third has to wait then. */
co_fn static void
crowd_gather(struct crowd *crowd, struct site *site, size_t hold_back)
{
	for (unsigned i = 0; i < 2; i++) {
		play_join(&crowd->holders[i], site, i);
		crowd->held[i] = play_request(NBD_CMD_WRITE, i * (uint64_t)LONG,
		    LONG, 1 + i);
		client_queue(&crowd->holders[i], &crowd->held[i]);
		client_push(&crowd->holders[i], hold_back);
	}
	play_join(&crowd->waiting, site, 2);
	crowd->wanted = play_request(NBD_CMD_READ, 0, SHORT, 0);
	play_ask(&crowd->waiting, &crowd->wanted);
	for (unsigned i = 0; i < PATIENCE &&
	    !budget_is_short(&site->server.budget); i++)
		loop_sleep(PAUSE_NS / 10);
	ck_assert(budget_is_short(&site->server.budget));
	ck_assert(!crowd->wanted.done);
}

/* Whoever needs no more than its reserve goes on; the others do in order. */
co_fn static void
share_memory(struct site *site)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	struct client modest;

	ck_assert_ptr_nonnull(crowd);
	save_memory(site);
	crowd_gather(crowd, site, LONG / 2);
	play_join(&modest, site, 3);
	client_do(&modest, NBD_CMD_READ, 0, CLUSTER, 0, 0);
	ck_assert(!crowd->wanted.done);
	for (unsigned i = 0; i < 2; i++) {
		client_push(&crowd->holders[i], 0);
		play_finish(&crowd->holders[i], &crowd->held[i]);
	}
	play_finish(&crowd->waiting, &crowd->wanted);
	client_leave(&modest, CLIENT_DISC);
	client_leave(&crowd->waiting, CLIENT_DISC);
	for (unsigned i = 0; i < 2; i++)
		client_leave(&crowd->holders[i], CLIENT_DISC);
	free(crowd);
}

START_TEST(memory_is_waited_for_and_a_reserve_is_not)
{
	play_site(_i, share_memory, 0);
}
END_TEST

/* A client that stands still with what others wait for is cut off. */
co_fn static void
hoard_memory(struct site *site)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));

	ck_assert_ptr_nonnull(crowd);
	save_memory(site);
	crowd_gather(crowd, site, LONG / 2);
	crowd->holders[0].leaves = true;
	crowd->holders[1].leaves = true;
	play_finish(&crowd->waiting, &crowd->wanted);
	client_leave(&crowd->waiting, CLIENT_DISC);
	for (unsigned i = 0; i < 2; i++)
		client_leave(&crowd->holders[i], CLIENT_ABRUPT);
	free(crowd);
}

START_TEST(who_hoards_memory_is_cut_off)
{
	play_site(_i, hoard_memory, 0);
}
END_TEST

/* The end of the server finds it in the queue. */
co_fn static void
wait_until_the_end(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE};
	struct crowd *crowd = calloc(1, sizeof(*crowd));

	ck_assert_ptr_nonnull(crowd);
	save_memory(site);
	file_sim_hold(site->crew->disk, &hold);
	crowd_gather(crowd, site, 0);
	loop_sleep(STOP_NS + (SERVER_GRACE_MS + SERVER_DRAIN_MS) *
	    UINT64_C(1000000));
	ck_assert(!budget_is_short(&site->server.budget));
	file_sim_release(site->crew->disk, &hold);
	for (unsigned i = 0; i < 2; i++)
		client_leave(&crowd->holders[i], CLIENT_ABRUPT);
	client_leave(&crowd->waiting, CLIENT_ABRUPT);
	free(crowd);
}

START_TEST(a_server_stops_while_memory_is_waited_for)
{
	play_site(_i, wait_until_the_end, STOP_NS);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("memory_races");
	TCase *tests = tcase_create("memory_races");
	const TTest *const races[] = {
		memory_is_waited_for_and_a_reserve_is_not,
		who_hoards_memory_is_cut_off,
		a_server_stops_while_memory_is_waited_for,
	};
	SRunner *runner;
	int failed;

	log_set_level((enum log_level)0);
	tcase_set_timeout(tests, 60);
	for (size_t i = 0; i < sizeof(races) / sizeof(races[0]); i++)
		tcase_add_loop_test(tests, races[i], 0, SEEDS_FEW);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
