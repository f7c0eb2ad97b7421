/* SPDX-License-Identifier: MIT */
/*
 * Two clients, of which one hits trouble: the other must not feel it.
 *
 * Guards against: an error that is told to a request it does not belong to,
 * requests that wait for ever for a table that could not be read, a failed
 * read of a table that is remembered, a file cut short whose missing part reads
 * as zeros.
 */
#include <errno.h>
#include <stdlib.h>
#include "tests/schedule/world.h"

#define DISK (8u << 20)
#define PIECE 65536u

/* Each has an L2 table of its own, which maps 2 MiB. */
#define FIRST 0u
#define SECOND (4u << 20)

#define FIRST_VALUE 0x11
#define SECOND_VALUE 0x22

#define ROUNDS 8
#define SEEDS 8

co_fn static void
fill_both(struct world *world)
{
	world_write(world, FIRST, PIECE, FIRST_VALUE);
	world_write(world, SECOND, PIECE, SECOND_VALUE);
}

/* Opened with nothing in its caches. */
static void
begin(struct world *world, uint64_t seed)
{
	struct world_options options = {.seed = seed, .disk_bytes = DISK};

	world_prepare(world, &options, fill_both);
	ck_assert_int_eq(world_open(world), 0);
}

static void
fail_range(struct world *world, unsigned kinds, uint64_t host,
    uint64_t length)
{
	file_sim_fail(world->disk, &(struct file_sim_fault){
		.kinds = kinds, .offset = host, .length = length, .nth = 1,
		.from_then_on = true, .result = -EIO,
	});
}

/* One request of each kind that keeps the data, all at once. */
struct client {
	struct request requests[4];
};

#define CLIENT_REQUESTS 4

static void
start_client(struct world *world, struct client *client, unsigned loop,
    uint64_t guest, uint8_t value)
{
	client->requests[0] = request_of(ACTION_READ, guest, PIECE, value, 0);
	client->requests[1] = request_of(ACTION_WRITE, guest + 512, 8192,
	    value, 0);
	client->requests[2] = request_of(ACTION_WRITE, guest + 16384, 512,
	    value, IMAGE_FUA);
	client->requests[3] = request_of(ACTION_READ, guest + 40960, 512,
	    value, 0);
	for (unsigned i = 0; i < CLIENT_REQUESTS; i++)
		request_start(world, loop, &client->requests[i]);
}

co_fn static void
finish_client(struct client *client)
{
	for (unsigned i = 0; i < CLIENT_REQUESTS; i++)
		request_finish(&client->requests[i]);
}

co_fn static void
expect_failures(struct client *client)
{
	for (unsigned i = 0; i < CLIENT_REQUESTS; i++) {
		ck_assert_int_eq(request_wait(&client->requests[i]), -EIO);
		free(client->requests[i].data);
	}
}

co_fn static void
trouble_the_first(struct world *world)
{
	struct client first, second;

	for (unsigned i = 0; i < ROUNDS; i++) {
		start_client(world, &first, i % 2, FIRST, FIRST_VALUE);
		start_client(world, &second, (i + 1) % 2, SECOND,
		    SECOND_VALUE);
		expect_failures(&first);
		finish_client(&second);
	}
	file_sim_heal(world->disk);
}

co_fn static void
both_work(struct world *world)
{
	struct client first, second;

	start_client(world, &first, 0, FIRST, FIRST_VALUE);
	start_client(world, &second, 1, SECOND, SECOND_VALUE);
	finish_client(&first);
	finish_client(&second);
	world_flush(world);
}

/* ---- a table of one ---- */

START_TEST(a_table_cannot_be_read)
{
	struct world world;

	begin(&world, _i);
	fail_range(&world, FILE_SIM_READ, world_l2_entry(&world, FIRST), 8);
	world_run(&world, trouble_the_first);
	world_run(&world, both_work);
	world_finish(&world);
}
END_TEST

/* ---- data of one ---- */

/* Stable writes that fail end trust in the file, so there are none here. */
co_fn static void
trouble_data(struct world *world)
{
	struct request first, second, third;
	uint64_t host = world_host(world, FIRST);

	world_expect(world, SECOND, 512, SECOND_VALUE);
	fail_range(world, FILE_SIM_READ | FILE_SIM_WRITE, host, PIECE);
	for (unsigned i = 0; i < ROUNDS; i++) {
		first = request_of(i % 2 ? ACTION_READ : ACTION_WRITE, FIRST,
		    PIECE, FIRST_VALUE, 0);
		second = request_of(ACTION_READ, SECOND, PIECE, SECOND_VALUE,
		    0);
		third = request_of(ACTION_WRITE, SECOND + 512, PIECE - 512,
		    SECOND_VALUE, IMAGE_FUA);
		request_start(world, i % 2, &first);
		request_start(world, 0, &second);
		request_start(world, 1, &third);
		ck_assert_int_eq(request_wait(&first), -EIO);
		free(first.data);
		request_finish(&second);
		request_finish(&third);
	}
	file_sim_heal(world->disk);
}

START_TEST(data_cannot_be_moved)
{
	struct world world;

	begin(&world, _i);
	world_run(&world, trouble_data);
	world_run(&world, both_work);
	world_finish(&world);
}
END_TEST

/* ---- one table for both ---- */

/* Whoever waits for a read that fails is told; whoever comes later reads. */
co_fn static void
read_together(struct world *world)
{
	struct request requests[6];
	unsigned failed = 0;

	for (unsigned i = 0; i < 6; i++) {
		requests[i] = request_of(ACTION_READ, FIRST + i * 8192, 8192,
		    FIRST_VALUE, 0);
		request_start(world, i % 2, &requests[i]);
	}
	for (unsigned i = 0; i < 6; i++) {
		int err = request_wait(&requests[i]);

		ck_assert(!err || err == -EIO);
		failed += err != 0;
		if (!err)
			request_finish(&requests[i]);
		else
			free(requests[i].data);
	}
	ck_assert_uint_gt(failed, 0);
}

START_TEST(a_table_fails_once)
{
	struct world world;

	begin(&world, _i);
	file_sim_fail(world.disk, &(struct file_sim_fault){
		.kinds = FILE_SIM_READ, .nth = 1, .result = -EIO,
		.offset = world_l2_entry(&world, FIRST), .length = 8,
	});
	world_run(&world, read_together);
	ck_assert_uint_eq(file_sim_failed(world.disk), 1);
	world_run(&world, both_work);
	world_finish(&world);
}
END_TEST

/* ---- what the second has is gone ---- */

co_fn static int
ask(struct world *world, enum action action, uint64_t guest, size_t length,
    uint8_t value)
{
	struct request request = request_of(action, guest, length, value, 0);
	int err;

	request_start(world, 1, &request);
	err = request_wait(&request);
	if (!err && request.data)
		request_finish(&request);
	else
		free(request.data);
	return err;
}

/* The file ends where the data of the second begins. */
co_fn static void
cut_and_read(struct world *world)
{
	uint64_t end = world_host(world, SECOND);

	world_expect(world, FIRST, PIECE, FIRST_VALUE);
	world_expect(world, SECOND, PIECE, SECOND_VALUE);
	ck_assert_uint_gt(end, world_host(world, FIRST));
	ck_assert_int_eq(file_truncate(world->disk, end + 4096), 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(ask(world, ACTION_READ, SECOND, PIECE, 0),
		    -EIO);
		world_expect(world, SECOND, 4096, SECOND_VALUE);
		world_expect(world, FIRST, PIECE, FIRST_VALUE);
	}
	/* Nothing may be put where it would make zeros of what is lost. */
	ck_assert_int_eq(ask(world, ACTION_WRITE, SECOND + PIECE, 512, 1),
	    -EIO);
	ck_assert_int_eq(ask(world, ACTION_WRITE, FIRST, 512, 1), -EIO);
	ck_assert_int_eq(ask(world, ACTION_ZERO, FIRST, PIECE, 0), -EIO);
	ck_assert_int_eq(ask(world, ACTION_DISCARD, FIRST, PIECE, 0), -EIO);
	world_expect(world, FIRST, PIECE, FIRST_VALUE);
}

START_TEST(a_file_is_cut)
{
	struct world world;

	begin(&world, _i);
	world_run(&world, cut_and_read);
	world_close(&world);
	world_free(&world);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("clients");
	TCase *tests = tcase_create("clients");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, a_table_cannot_be_read, 0, SEEDS);
	tcase_add_loop_test(tests, data_cannot_be_moved, 0, SEEDS);
	tcase_add_loop_test(tests, a_table_fails_once, 0, SEEDS);
	tcase_add_loop_test(tests, a_file_is_cut, 0, SEEDS);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
