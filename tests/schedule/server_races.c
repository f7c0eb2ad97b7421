/* SPDX-License-Identifier: MIT */
/*
 * The server step by step: one request held on the disk or on the network,
 * and what its own connection, another one, or the end of either makes of it.
 *
 * Guards against what the tests are named for; above each stands what goes
 * wrong otherwise.
 */
#include <check.h>
#include <stdlib.h>
#include "runtime/log.h"
#include "server/connection.h"
#include "server/connection_room.h"
#include "server/connection_watch.h"
#include "tests/schedule/server_play.h"

static const struct server_limits limits = SERVER_LIMITS_DEFAULT;

/* What blocks, beside the test. */
struct aside {
	struct client *client;
	bool leaves;		/* or only pushes */
	bool done;
	struct co_start start;
};

co_fn static void
aside_main(void *arg)
{
	struct aside *aside = arg;

	if (aside->leaves)
		client_leave(aside->client, CLIENT_DISC);
	else
		client_push(aside->client, 0);
	aside->done = true;
}

static void
start_aside(struct aside *aside, struct client *client, bool leaves)
{
	*aside = (struct aside){.client = client, .leaves = leaves};
	co_start(&aside->start, aside_main, aside);
}

co_fn static void
wait_aside(struct aside *aside)
{
	for (unsigned i = 0; i < 60 && !aside->done; i++)
		loop_sleep(PAUSE_NS);
	ck_assert(aside->done);
}

/* ---- R13, over connections ---- */

/*
 * CAN_MULTI_CONN: a flush on one connection makes stable what was answered on
 * any.  A server that flushes per connection answers here without a sync.
 */
co_fn static void
flush_elsewhere(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_SYNC};
	struct client_request flush = play_request(NBD_CMD_FLUSH, 0, 0, 0);
	struct client writer, flusher;

	play_join(&writer, site, 0);
	play_join(&flusher, site, 1);
	ck_assert_ptr_nonnull(site->server.loops[0].connections);
	ck_assert_ptr_nonnull(site->server.loops[1].connections);
	client_do(&writer, NBD_CMD_WRITE, 0, CLUSTER, 1, 0);
	file_sim_hold(site->crew->disk, &hold);
	play_ask(&flusher, &flush);
	file_sim_await(&hold, 1);
	play_on();
	ck_assert(!flush.replied);
	file_sim_release(site->crew->disk, &hold);
	play_finish(&flusher, &flush);
	client_leave(&flusher, CLIENT_DISC);
	client_leave(&writer, CLIENT_DISC);
}

START_TEST(a_flush_covers_other_connections)
{
	play_site(_i, flush_elsewhere, 0);
}
END_TEST

/* ---- the end of a connection ---- */

/*
 * Clients that never flush rely on it: when the last one's stream ends, what it
 * wrote is stable.  A server that closes first and flushes then loses data.
 */
co_fn static void
leave_unflushed(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_SYNC};
	struct aside aside;
	struct client client;

	play_join(&client, site, 0);
	client_do(&client, NBD_CMD_WRITE, 0, CLUSTER, 1, 0);
	file_sim_hold(site->crew->disk, &hold);
	start_aside(&aside, &client, true);
	file_sim_await(&hold, 1);
	play_on();
	ck_assert(!client.ended);
	file_sim_release(site->crew->disk, &hold);
	wait_aside(&aside);
}

START_TEST(the_last_stream_ends_after_its_data_is_stable)
{
	play_site(_i, leave_unflushed, 0);
}
END_TEST

/* After DISC what is under way is answered, and only then the stream ends. */
co_fn static void
disconnect_early(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE, .limit = 1};
	struct client_request write =
	    play_request(NBD_CMD_WRITE, 0, CLUSTER, 1);
	struct aside aside;
	struct client client;

	play_join(&client, site, 0);
	file_sim_hold(site->crew->disk, &hold);
	play_ask(&client, &write);
	file_sim_await(&hold, 1);
	start_aside(&aside, &client, true);
	play_on();
	ck_assert(!client.ended);
	file_sim_release(site->crew->disk, &hold);
	wait_aside(&aside);
	ck_assert(write.done && !write.error);
}

START_TEST(what_is_under_way_is_answered_after_disc)
{
	play_site(_i, disconnect_early, 0);
}
END_TEST

/* A write whose payload never comes is none, and holds nothing. */
co_fn static void
vanish_in_payload(struct site *site)
{
	struct client_request write =
	    play_request(NBD_CMD_WRITE, 0, CLUSTER, 1);
	uint64_t writes = file_sim_count(site->crew->disk, FILE_SIM_WRITE);
	struct client client, other;

	play_join(&other, site, 0);
	play_join(&client, site, 1);
	client_queue(&client, &write);
	client_push(&client, CLUSTER / 2);
	play_on();
	ck_assert(write.received && !write.replied);
	client_leave(&client, CLIENT_ABRUPT);
	play_on();
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 1);
	ck_assert_uint_eq(file_sim_count(site->crew->disk, FILE_SIM_WRITE),
	    writes);
	client_do(&other, NBD_CMD_READ, 0, CLUSTER, 0, 0);
	client_leave(&other, CLIENT_DISC);
}

START_TEST(a_client_vanishes_within_its_payload)
{
	play_site(_i, vanish_in_payload, 0);
}
END_TEST

/*
 * Its requests are carried out to their end: freeing the connection under them
 * is a use after free, not freeing it after them a leak.
 */
co_fn static void
vanish_with_requests(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_ANY};
	struct client_request requests[] = {
		play_request(NBD_CMD_WRITE, 0, CLUSTER, 2),
		play_request(NBD_CMD_READ, CLUSTER, CLUSTER, 0),
		play_request(NBD_CMD_WRITE, 2 * CLUSTER, 512, 3),
	};
	struct client client, other;

	play_join(&other, site, 0);
	client_do(&other, NBD_CMD_WRITE, CLUSTER, CLUSTER, 1, 0);
	play_join(&client, site, 1);
	file_sim_hold(site->crew->disk, &hold);
	for (unsigned i = 0; i < 3; i++)
		play_ask(&client, &requests[i]);
	file_sim_await(&hold, 3);
	client_leave(&client, CLIENT_ABRUPT);
	play_on();
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 2);
	file_sim_release(site->crew->disk, &hold);
	play_on();
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 1);
	client_do(&other, NBD_CMD_READ, 0, 3 * CLUSTER, 0, 0);
	client_leave(&other, CLIENT_DISC);
}

START_TEST(a_client_vanishes_with_requests_under_way)
{
	play_site(_i, vanish_with_requests, 0);
}
END_TEST

/* The receiver waits for room, and then nobody is there any more. */
co_fn static void
vanish_while_waiting(struct site *site)
{
	const unsigned many = CONNECTION_REQUESTS_MAX + 8;
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ};
	struct client_request *requests = calloc(many, sizeof(*requests));
	struct client client;
	struct aside aside;

	ck_assert_ptr_nonnull(requests);
	play_join(&client, site, 0);
	client_do(&client, NBD_CMD_WRITE, 0, CLUSTER, 1, 0);
	file_sim_hold(site->crew->disk, &hold);
	for (unsigned i = 0; i < many; i++) {
		requests[i] = play_request(NBD_CMD_READ, 0, 512, 0);
		client_queue(&client, &requests[i]);
	}
	start_aside(&aside, &client, false);
	file_sim_await(&hold, CONNECTION_REQUESTS_MAX);
	play_on();
	client.leaves = true;
	sock_shutdown(&client.sock);
	wait_aside(&aside);
	client_leave(&client, CLIENT_ABRUPT);
	play_on();
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 1);
	file_sim_release(site->crew->disk, &hold);
	play_on();
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 0);
	free(requests);
}

START_TEST(a_client_vanishes_while_it_must_wait)
{
	play_site(_i, vanish_while_waiting, 0);
}
END_TEST

/* Whoever says nothing is not waited for. */
co_fn static void
say_nothing(struct site *site)
{
	struct sim *sim = site->crew->sim;
	int fd = sim_connect(sim, site->listener.fd);

	loop_sleep(limits.handshake_s * 900000000ull);
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 1);
	loop_sleep(limits.handshake_s * 200000000ull);
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 0);
	sim_close(sim, fd);
}

START_TEST(who_does_not_shake_hands_is_cut_off)
{
	play_site(_i, say_nothing, 0);
}
END_TEST

/* ---- the end of the server ---- */


/*
 * Requests under way end and are answered, later ones are refused, idle
 * connections are closed meanwhile.
 */
co_fn static void
stay_too_long(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE, .limit = 1};
	struct client_request write =
	    play_request(NBD_CMD_WRITE, 0, CLUSTER, 1);
	struct client_request late = play_request(NBD_CMD_READ, 0, 512, 0);
	struct client idle, busy;

	late.expected = NBD_ESHUTDOWN;
	play_join(&idle, site, 0);
	play_join(&busy, site, 1);
	file_sim_hold(site->crew->disk, &hold);
	play_ask(&busy, &write);
	file_sim_await(&hold, 1);
	while (!site->stopping)
		loop_sleep(PAUSE_NS / 10);
	loop_sleep(PAUSE_NS / 10);
	play_ask(&busy, &late);
	play_finish(&busy, &late);
	play_on();
	ck_assert(idle.ended && !busy.ended && !write.replied);
	file_sim_release(site->crew->disk, &hold);
	play_finish(&busy, &write);
	play_on();
	ck_assert(busy.ended);
	client_leave(&busy, CLIENT_DISC);
	client_leave(&idle, CLIENT_DISC);
}

START_TEST(a_server_stops_with_a_request_under_way)
{
	play_site(_i, stay_too_long, STOP_NS);
}
END_TEST

/* A payload that may never come is no reason to wait. */
co_fn static void
stop_within_payload(struct site *site)
{
	struct client_request write =
	    play_request(NBD_CMD_WRITE, 0, CLUSTER, 1);
	struct client client;

	play_join(&client, site, 0);
	client_queue(&client, &write);
	client_push(&client, CLUSTER / 2);
	while (!site->stopping)
		loop_sleep(PAUSE_NS / 10);
	loop_sleep(SERVER_GRACE_MS * 1000000ull + PAUSE_NS);
	ck_assert(client.ended && !write.replied);
	client_leave(&client, CLIENT_ABRUPT);
}

START_TEST(a_server_stops_within_a_payload)
{
	play_site(_i, stop_within_payload, STOP_NS);
}
END_TEST

/* ---- replies ---- */

/* Replies come as requests end; a client tells them apart by their cookies. */
co_fn static void
overtake(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ, .limit = 1};
	struct client_request first =
	    play_request(NBD_CMD_READ, 0, CLUSTER, 0);
	struct client_request second =
	    play_request(NBD_CMD_READ, CLUSTER, CLUSTER, 0);
	struct client client;

	play_join(&client, site, 0);
	client_do(&client, NBD_CMD_WRITE, 0, CLUSTER, 1, 0);
	client_do(&client, NBD_CMD_WRITE, CLUSTER, CLUSTER, 2, 0);
	file_sim_hold(site->crew->disk, &hold);
	play_ask(&client, &first);
	file_sim_await(&hold, 1);
	play_ask(&client, &second);
	play_finish(&client, &second);
	ck_assert(!first.replied);
	file_sim_release(site->crew->disk, &hold);
	play_finish(&client, &first);
	client_leave(&client, CLIENT_DISC);
}

START_TEST(a_later_request_is_answered_first)
{
	play_site(_i, overtake, 0);
}
END_TEST

/*
 * An image never waits for a socket: whoever takes no replies holds up itself
 * alone, and gets all of them when it takes them again.
 */
co_fn static void
take_no_replies(struct site *site)
{
	struct sim *sim = site->crew->sim;
	struct client_request requests[20];
	struct client deaf, other;

	play_join(&deaf, site, 0);
	play_join(&other, site, 1);
	client_do(&other, NBD_CMD_WRITE, 0, CLUSTER, 1, 0);
	sim_hold_arrivals(sim, deaf.sock.fd, true);
	for (unsigned i = 0; i < 20; i++) {
		requests[i] = i % 2 ? play_request(NBD_CMD_READ, 0, 4096, 0) :
		    play_request(NBD_CMD_WRITE, i * 4096, 4096, 2 + i);
		play_ask(&deaf, &requests[i]);
	}
	play_on();
	client_do(&other, NBD_CMD_FLUSH, 0, 0, 0, 0);
	client_do(&other, NBD_CMD_WRITE, 0, 2 * CLUSTER, 30, 0);
	client_do(&other, NBD_CMD_TRIM, 0, CLUSTER, 0, 0);
	client_leave(&other, CLIENT_DISC);
	for (unsigned i = 0; i < 20; i++)
		ck_assert(requests[i].received && !requests[i].replied);
	sim_hold_arrivals(sim, deaf.sock.fd, false);
	for (unsigned i = 0; i < 20; i++)
		play_finish(&deaf, &requests[i]);
	client_leave(&deaf, CLIENT_DISC);
}

START_TEST(who_takes_no_replies_holds_nobody_up)
{
	play_site(_i, take_no_replies, 0);
}
END_TEST

/* And after a minute of that it is gone, with all that it held. */
co_fn static void
take_none_for_ever(struct site *site)
{
	struct client_request read = play_request(NBD_CMD_READ, 0, CLUSTER, 0);
	struct sim *sim = site->crew->sim;
	struct client deaf;

	play_join(&deaf, site, 0);
	client_do(&deaf, NBD_CMD_WRITE, 0, CLUSTER, 1, 0);
	sim_hold_arrivals(sim, deaf.sock.fd, true);
	play_ask(&deaf, &read);
	loop_sleep((limits.send_s * 1000 - CONNECTION_WATCH_MS) * 1000000ull);
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 1);
	deaf.leaves = true;
	loop_sleep(4 * CONNECTION_WATCH_MS * 1000000ull);
	ck_assert_uint_eq(atomic_load(&site->server.connections_count), 0);
	sim_hold_arrivals(sim, deaf.sock.fd, false);
	client_leave(&deaf, CLIENT_ABRUPT);
}

START_TEST(who_takes_no_replies_is_cut_off)
{
	play_site(_i, take_none_for_ever, 0);
}
END_TEST

/* ---- requests ---- */

/* Wherever the stream is cut, the next bytes belong to the same request. */
co_fn static void
cut_everywhere(struct site *site)
{
	struct client_request write;
	struct client client;
	size_t bytes = NBD_REQUEST_BYTES + 512;

	play_join(&client, site, 0);
	for (size_t cut = 1; cut < NBD_REQUEST_BYTES + 3; cut++) {
		write = play_request(NBD_CMD_WRITE, cut * 512, 512, cut);
		client_queue(&client, &write);
		client_push(&client, bytes - cut);
		play_on();
		ck_assert_uint_eq(write.received, cut >= NBD_REQUEST_BYTES);
		client_push(&client, 0);
		play_finish(&client, &write);
		client_do(&client, NBD_CMD_READ, cut * 512, 512, 0, 0);
	}
	client_leave(&client, CLIENT_DISC);
}

START_TEST(a_request_cut_at_every_byte)
{
	play_site(_i, cut_everywhere, 0);
}
END_TEST

/* The payload of a refused write is passed over, not taken for requests. */
co_fn static void
write_past_the_end(struct site *site)
{
	struct client_request requests[] = {
		play_request(NBD_CMD_WRITE, DISK_BYTES, 2 * CLUSTER, 7),
		play_request(NBD_CMD_WRITE, DISK_BYTES - 512, 1024, 8),
		play_request(NBD_CMD_WRITE, 0, 512, 9),
	};
	struct client client;

	requests[0].expected = requests[1].expected = NBD_ENOSPC;
	play_join(&client, site, 0);
	for (unsigned i = 0; i < 3; i++)
		client_queue(&client, &requests[i]);
	client_push(&client, 0);
	for (unsigned i = 0; i < 3; i++)
		play_finish(&client, &requests[i]);
	client_do(&client, NBD_CMD_READ, 0, 1024, 0, 0);
	client_leave(&client, CLIENT_DISC);
}

START_TEST(a_refused_payload_is_passed_over)
{
	play_site(_i, write_past_the_end, 0);
}
END_TEST

#define MANY (3 * CONNECTION_REQUESTS_MAX)

/* Past the limit they wait in the socket; none is forgotten there. */
co_fn static void
ask_much(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ};
	struct client_request *requests = calloc(MANY, sizeof(*requests));
	struct aside aside;
	struct client client;

	ck_assert_ptr_nonnull(requests);
	play_join(&client, site, 0);
	client_do(&client, NBD_CMD_WRITE, 0, CLUSTER, 1, 0);
	file_sim_hold(site->crew->disk, &hold);
	for (unsigned i = 0; i < MANY; i++) {
		requests[i] = play_request(NBD_CMD_READ, i % 8 * 512, 512, 0);
		client_queue(&client, &requests[i]);
	}
	start_aside(&aside, &client, false);
	file_sim_await(&hold, CONNECTION_REQUESTS_MAX);
	play_on();
	ck_assert_uint_eq(play_connection(site)->requests_in_flight,
	    CONNECTION_REQUESTS_MAX);
	ck_assert_uint_eq(hold.caught, CONNECTION_REQUESTS_MAX);
	file_sim_release(site->crew->disk, &hold);
	for (unsigned i = 0; i < MANY; i++)
		play_finish(&client, &requests[i]);
	wait_aside(&aside);
	client_leave(&client, CLIENT_DISC);
	free(requests);
}

START_TEST(more_requests_than_a_connection_may_have)
{
	play_site(_i, ask_much, 0);
}
END_TEST

#define LARGE (CONNECTION_MEMORY_MAX / 2)
#define LARGE_COUNT 3

/*
 * Each begins with a cluster of data, so that it can be held, and is to come in
 * one chunk, so that it needs all of its memory at once.
 */
co_fn static void
read_much(struct site *site)
{
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ};
	struct client_request reads[LARGE_COUNT];
	struct client client;

	play_join(&client, site, 0);
	for (unsigned i = 0; i < LARGE_COUNT; i++)
		client_do(&client, NBD_CMD_WRITE, i * (uint64_t)LARGE, 512,
		    1 + i, 0);
	file_sim_hold(site->crew->disk, &hold);
	for (unsigned i = 0; i < LARGE_COUNT; i++) {
		reads[i] = play_request(NBD_CMD_READ, i * (uint64_t)LARGE,
		    LARGE, 0);
		reads[i].wire.flags = NBD_CMD_FLAG_DF;
		play_ask(&client, &reads[i]);
	}
	file_sim_await(&hold, 2);
	play_on();
	ck_assert_uint_eq(hold.caught, 2);
	ck_assert_uint_eq(play_connection(site)->memory_in_flight,
	    CONNECTION_MEMORY_MAX);
	file_sim_release(site->crew->disk, &hold);
	for (unsigned i = 0; i < LARGE_COUNT; i++)
		play_finish(&client, &reads[i]);
	play_on();
	ck_assert_uint_eq(play_connection(site)->memory_in_flight, 0);
	client_leave(&client, CLIENT_DISC);
}

START_TEST(more_memory_than_a_connection_may_have)
{
	play_site(_i, read_much, 0);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("server_races");
	TCase *tests = tcase_create("server_races");
	const TTest *const races[] = {
		a_flush_covers_other_connections,
		the_last_stream_ends_after_its_data_is_stable,
		what_is_under_way_is_answered_after_disc,
		a_client_vanishes_within_its_payload,
		a_client_vanishes_with_requests_under_way,
		a_client_vanishes_while_it_must_wait,
		who_does_not_shake_hands_is_cut_off,
		a_server_stops_with_a_request_under_way,
		a_server_stops_within_a_payload,
		a_later_request_is_answered_first,
		who_takes_no_replies_holds_nobody_up,
		who_takes_no_replies_is_cut_off,
		a_request_cut_at_every_byte,
		a_refused_payload_is_passed_over,
		more_requests_than_a_connection_may_have,
	};
	SRunner *runner;
	int failed;

	log_set_level((enum log_level)0);
	tcase_set_timeout(tests, 60);
	for (size_t i = 0; i < sizeof(races) / sizeof(races[0]); i++)
		tcase_add_loop_test(tests, races[i], 0, SEEDS);
	tcase_add_loop_test(tests, more_memory_than_a_connection_may_have, 0,
	    SEEDS_FEW);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
