/* SPDX-License-Identifier: MIT */
/*
 * Long reads, which are answered part by part, step by step.
 *
 * Guards against replies to others that wait for all of a long read, against
 * all of it being in memory at once, and against parts that are kept, or freed
 * under the network, when their client has gone.
 */
#include <check.h>
#include "runtime/log.h"
#include "server/connection.h"
#include "server/read.h"
#include "tests/schedule/server_play.h"

#define PARTS 8u

/*
 * Asks for PARTS parts of data and returns with the first one at the client,
 * and a later one held on the disk.
 */
co_fn static void
begin(struct site *site, struct client *client, struct client_request *read,
    struct file_sim_hold *hold)
{
	for (unsigned i = 0; i < PARTS; i++)
		client_do(client, NBD_CMD_WRITE, i * READ_PART_BYTES,
		    READ_PART_BYTES, 1 + i, 0);
	*hold = (struct file_sim_hold){.kinds = FILE_SIM_READ, .limit = 1};
	*read = play_request(NBD_CMD_READ, 0, PARTS * READ_PART_BYTES, 0);
	file_sim_hold(site->crew->disk, hold);
	play_ask(client, read);
	file_sim_await(hold, 1);
	file_sim_release(site->crew->disk, hold);
	*hold = (struct file_sim_hold){.kinds = FILE_SIM_READ, .limit = 1};
	file_sim_hold(site->crew->disk, hold);
	file_sim_await(hold, 1);
	play_on();
	ck_assert_uint_gt(read->chunks, 0);
	ck_assert(!read->replied);
}

co_fn static void
let_others_through(struct site *site)
{
	struct client_request read;
	struct file_sim_hold hold;
	struct client client;

	play_join(&client, site, 0);
	begin(site, &client, &read, &hold);
	client_do(&client, NBD_CMD_READ, READ_PART_BYTES, 512, 0, 0);
	ck_assert(!read.replied);
	ck_assert_uint_eq(play_connection(site)->requests_in_flight, 1);
	ck_assert_uint_le(play_connection(site)->memory_in_flight,
	    READ_PARTS_MAX * READ_PART_BYTES);
	file_sim_release(site->crew->disk, &hold);
	play_finish(&client, &read);
	ck_assert_uint_eq(read.chunks, PARTS);
	play_on();
	ck_assert_uint_eq(play_connection(site)->memory_in_flight, 0);
	client_leave(&client, CLIENT_DISC);
}

START_TEST(a_long_read_lets_others_through)
{
	play_site(_i, let_others_through, 0);
}
END_TEST

/* Its parts are given up, one of them in the making. */
co_fn static void
vanish(struct site *site)
{
	struct client_request read;
	struct client client, other;
	struct file_sim_hold hold;

	play_join(&other, site, 0);
	play_join(&client, site, 1);
	begin(site, &client, &read, &hold);
	client_leave(&client, CLIENT_ABRUPT);
	play_on();
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 2);
	file_sim_release(site->crew->disk, &hold);
	play_on();
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 1);
	client_do(&other, NBD_CMD_READ, 0, 512, 0, 0);
	client_leave(&other, CLIENT_DISC);
}

START_TEST(a_client_vanishes_within_a_long_read)
{
	play_site(_i, vanish, 0);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("long_reads");
	TCase *tests = tcase_create("long_reads");
	SRunner *runner;
	int failed;

	log_set_level((enum log_level)0);
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, a_long_read_lets_others_through, 0, SEEDS);
	tcase_add_loop_test(tests, a_client_vanishes_within_a_long_read, 0,
	    SEEDS);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
