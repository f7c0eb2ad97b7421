/* SPDX-License-Identifier: MIT */
/*
 * Guards large requests, many at once, several connections, and that nothing
 * replied to is lost when a client leaves.
 */
#include "tests/system/test_libnbd.h"

#include <stdlib.h>
#include <string.h>

#define CONNECTIONS 4
#define IN_FLIGHT_MAX 256

/* ---- size ---- */

/* The largest payload there is, aligned, not aligned, and on old data. */
START_TEST(largest_requests_are_carried_out)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static const uint64_t offsets[] = {0, 12345, 12345 + MIB};

	clear(nbd);
	for (unsigned i = 0; i < 3; i++) {
		write_filled(nbd, REQUEST_BYTES_MAX, offsets[i], i, 0);
		read_filled(nbd, REQUEST_BYTES_MAX, offsets[i], i);
	}
	/* The connection is in step afterwards. */
	write_filled(nbd, 512, MAIN_BYTES - 512, 7, 0);
	read_filled(nbd, 512, MAIN_BYTES - 512, 7);
	client_close(nbd);
}
END_TEST

static void
wait_for_all(struct nbd_handle *nbd)
{
	while (nbd_aio_in_flight(nbd) > 0)
		MUST(nbd_poll(nbd, 60000));
}

/* More payload at once than one connection may hold in flight. */
START_TEST(large_requests_may_be_in_flight_together)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	char *data[4];

	clear(nbd);
	for (unsigned i = 0; i < 4; i++) {
		data[i] = malloc(REQUEST_BYTES_MAX);
		fill(data[i], REQUEST_BYTES_MAX, i);
		MUST(nbd_aio_pwrite(nbd, data[i], REQUEST_BYTES_MAX,
		    (uint64_t)i * REQUEST_BYTES_MAX, NBD_NULL_COMPLETION, 0));
	}
	wait_for_all(nbd);
	for (unsigned i = 0; i < 4; i++) {
		memset(data[i], 0xee, REQUEST_BYTES_MAX);
		MUST(nbd_aio_pread(nbd, data[i], REQUEST_BYTES_MAX,
		    (uint64_t)i * REQUEST_BYTES_MAX, NBD_NULL_COMPLETION, 0));
	}
	wait_for_all(nbd);
	for (unsigned i = 0; i < 4; i++) {
		expect_filled(data[i], REQUEST_BYTES_MAX, i);
		free(data[i]);
	}
	client_close(nbd);
}
END_TEST

/* ---- number ---- */

/* Waits for all and expects each to have succeeded. */
static void
reap(struct nbd_handle *nbd, const int64_t *cookies, unsigned count)
{
	wait_for_all(nbd);
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(MUST(nbd_aio_command_completed(nbd,
		    cookies[i])), 1);
}

/* As many as a connection may have, and more, which must wait their turn. */
START_TEST(many_requests_may_be_in_flight)
{
	struct nbd_handle *nbd = client_open(MAIN, _i & 1);
	static char data[IN_FLIGHT_MAX][3000];
	const unsigned count = _i & 2 ? IN_FLIGHT_MAX : 64;
	int64_t cookies[IN_FLIGHT_MAX];

	clear(nbd);
	for (unsigned i = 0; i < count; i++) {
		fill(data[i], sizeof(data[i]), i);
		cookies[i] = MUST(nbd_aio_pwrite(nbd, data[i],
		    sizeof(data[i]), i * (uint64_t)sizeof(data[i]),
		    NBD_NULL_COMPLETION, i % 16 ? 0 : LIBNBD_CMD_FLAG_FUA));
	}
	reap(nbd, cookies, count);
	memset(data, 0xee, sizeof(data));
	for (unsigned i = 0; i < count; i++)
		cookies[i] = MUST(nbd_aio_pread(nbd, data[i],
		    sizeof(data[i]), i * (uint64_t)sizeof(data[i]),
		    NBD_NULL_COMPLETION, 0));
	reap(nbd, cookies, count);
	for (unsigned i = 0; i < count; i++)
		expect_filled(data[i], sizeof(data[i]), i);
	client_close(nbd);
}
END_TEST

/* ---- connections ---- */

/* Each writes its own quarter of every cluster, all at the same time. */
START_TEST(connections_share_clusters)
{
	struct nbd_handle *nbd[CONNECTIONS];
	const size_t part = CLUSTER / CONNECTIONS;
	char *data[CONNECTIONS];

	for (unsigned i = 0; i < CONNECTIONS; i++) {
		nbd[i] = client_open(MAIN, _i);
		data[i] = malloc(part);
		fill(data[i], part, i);
	}
	clear(nbd[0]);
	for (unsigned cluster = 0; cluster < 50; cluster++)
		for (unsigned i = 0; i < CONNECTIONS; i++)
			MUST(nbd_aio_pwrite(nbd[i], data[i], part,
			    cluster * (uint64_t)CLUSTER + i * part,
			    NBD_NULL_COMPLETION, 0));
	for (unsigned i = 0; i < CONNECTIONS; i++)
		wait_for_all(nbd[i]);
	for (unsigned cluster = 0; cluster < 50; cluster++)
		for (unsigned i = 0; i < CONNECTIONS; i++)
			read_filled(nbd[(i + 1) % CONNECTIONS], part,
			    cluster * (uint64_t)CLUSTER + i * part, i);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		client_close(nbd[i]);
		free(data[i]);
	}
}
END_TEST

/* A client that says goodbye at once: what is in flight is carried out. */
START_TEST(goodbye_waits_for_what_is_in_flight)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static char data[64][4096];

	clear(nbd);
	for (unsigned i = 0; i < 64; i++) {
		fill(data[i], sizeof(data[i]), i);
		MUST(nbd_aio_pwrite(nbd, data[i], sizeof(data[i]),
		    (uint64_t)i * CLUSTER, NBD_NULL_COMPLETION, 0));
	}
	MUST(nbd_shutdown(nbd, 0));
	nbd_close(nbd);
	nbd = client_open(MAIN, !_i);
	for (unsigned i = 0; i < 64; i++)
		read_filled(nbd, sizeof(data[i]), (uint64_t)i * CLUSTER, i);
	client_close(nbd);
}
END_TEST

/* And one that just goes does no harm to others. */
START_TEST(client_that_vanishes_harms_nobody)
{
	struct nbd_handle *stays = client_open(MAIN, _i);
	static char data[64][CLUSTER];

	clear(stays);
	write_filled(stays, CLUSTER, 100 * CLUSTER, 9, 0);
	for (unsigned round = 0; round < 5; round++) {
		struct nbd_handle *goes = client_open(MAIN, _i);

		for (unsigned i = 0; i < 64; i++)
			MUST(nbd_aio_pwrite(goes, data[i], CLUSTER,
			    (uint64_t)i * CLUSTER, NBD_NULL_COMPLETION, 0));
		for (unsigned i = 0; i < 64; i++)
			MUST(nbd_aio_pread(goes, data[i], CLUSTER,
			    (uint64_t)i * CLUSTER, NBD_NULL_COMPLETION, 0));
		nbd_close(goes);
		read_filled(stays, CLUSTER, 100 * CLUSTER, 9);
	}
	MUST(nbd_flush(stays, 0));
	client_close(stays);
}
END_TEST

TCase *
case_of_load(void)
{
	TCase *load = tcase_create("load");

	tcase_set_timeout(load, 120);
	tcase_add_loop_test(load, largest_requests_are_carried_out,
	    0, REPLY_KINDS);
	tcase_add_loop_test(load, large_requests_may_be_in_flight_together,
	    0, REPLY_KINDS);
	tcase_add_loop_test(load, many_requests_may_be_in_flight,
	    0, 2 * REPLY_KINDS);
	tcase_add_loop_test(load, connections_share_clusters,
	    0, REPLY_KINDS);
	tcase_add_loop_test(load, goodbye_waits_for_what_is_in_flight,
	    0, REPLY_KINDS);
	tcase_add_loop_test(load, client_that_vanishes_harms_nobody,
	    0, REPLY_KINDS);
	return load;
}
