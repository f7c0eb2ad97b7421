/* SPDX-License-Identifier: MIT */
/*
 * Guards what each command does when all is well, with each flag it may have,
 * and what block status says about it afterwards.
 */
#include "tests/system/test_libnbd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define FUA LIBNBD_CMD_FLAG_FUA
#define NO_HOLE LIBNBD_CMD_FLAG_NO_HOLE
#define FAST_ZERO LIBNBD_CMD_FLAG_FAST_ZERO

/* ---- read and write ---- */

/* Ranges that cover clusters in part, wholly, and across their edges. */
static const struct range {
	uint64_t offset;
	size_t length;
} ranges[] = {
	{0, 1},
	{511, 2},
	{1000, 4096},
	{CLUSTER - 1, 2},
	{CLUSTER, CLUSTER},
	{3 * CLUSTER + 512, 2 * CLUSTER},
	{7 * CLUSTER - 100, 3 * CLUSTER + 200},
	{MAIN_BYTES - 1, 1},
	{MAIN_BYTES - 2 * CLUSTER - 7, 2 * CLUSTER + 7},
};

/* Whatever stands beside a range stays, on empty and on full clusters. */
static void
write_between(struct nbd_handle *nbd, const struct range *range,
    uint32_t flags)
{
	uint64_t begin = range->offset < 4096 ? 0 : range->offset - 4096;
	uint64_t end = range->offset + range->length;
	size_t before = range->offset - begin;
	size_t after = MAIN_BYTES - end < 4096 ? MAIN_BYTES - end : 4096;

	write_filled(nbd, range->length, range->offset, 1, flags);
	if (before > 0)
		read_bytes(nbd, before, begin, 0);
	read_filled(nbd, range->length, range->offset, 1);
	if (after > 0)
		read_bytes(nbd, after, end, 0);
	/* Now in place. */
	write_filled(nbd, range->length, range->offset, 2, flags);
	if (before > 0)
		read_bytes(nbd, before, begin, 0);
	read_filled(nbd, range->length, range->offset, 2);
	if (after > 0)
		read_bytes(nbd, after, end, 0);
}

START_TEST(what_was_written_is_read)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static const uint32_t flags[] = {0, FUA};

	for (unsigned i = 0; i < COUNT(flags); i++) {
		for (unsigned j = 0; j < COUNT(ranges); j++) {
			clear(nbd);
			write_between(nbd, &ranges[j], flags[i]);
		}
	}
	client_close(nbd);
}
END_TEST

/* The chunks of one structured read. */
struct chunks {
	uint64_t offset;	/* of the request */
	unsigned data, holes;
	uint64_t bytes;
	uint8_t seen[4 * CLUSTER];
};

static int
note_chunk(void *user_data, const void *subbuf, size_t count, uint64_t offset,
    unsigned status, int *error)
{
	struct chunks *chunks = user_data;

	(void)subbuf;
	ck_assert_int_eq(*error, 0);
	ck_assert_uint_gt(count, 0);
	ck_assert_uint_ge(offset, chunks->offset);
	offset -= chunks->offset;
	ck_assert_uint_le(offset + count, sizeof(chunks->seen));
	for (size_t i = 0; i < count; i++)
		if (chunks->seen[offset + i]++)
			ck_abort_msg("the chunks overlap at %zu", offset + i);
	ck_assert(status == LIBNBD_READ_DATA || status == LIBNBD_READ_HOLE);
	if (status == LIBNBD_READ_DATA)
		chunks->data++;
	else
		chunks->holes++;
	chunks->bytes += count;
	return 0;
}

/* Reads four clusters at offset, of which the first and third hold data. */
static void
read_chunks(struct nbd_handle *nbd, uint64_t offset, uint32_t flags,
    struct chunks *chunks)
{
	static char data[4 * CLUSTER];

	memset(data, 0xee, sizeof(data));
	memset(chunks, 0, sizeof(*chunks));
	chunks->offset = offset;
	MUST(nbd_pread_structured(nbd, data, sizeof(data), offset,
	    (nbd_chunk_callback){.callback = note_chunk, .user_data = chunks},
	    flags));
	ck_assert_uint_eq(chunks->bytes, sizeof(data));
	expect_filled(data, CLUSTER, 1);
	expect_bytes(data + CLUSTER, CLUSTER, 0);
	expect_filled(data + 2 * CLUSTER, CLUSTER, 2);
	expect_bytes(data + 3 * CLUSTER, CLUSTER, 0);
}

START_TEST(holes_are_sent_as_holes_unless_df_forbids_it)
{
	struct nbd_handle *nbd = client_open(MAIN, true);
	static struct chunks chunks;

	clear(nbd);
	write_filled(nbd, CLUSTER, 4 * CLUSTER, 1, 0);
	write_filled(nbd, CLUSTER, 6 * CLUSTER, 2, 0);
	read_chunks(nbd, 4 * CLUSTER, 0, &chunks);
	ck_assert_uint_eq(chunks.data, 2);
	ck_assert_uint_eq(chunks.holes, 2);
	read_chunks(nbd, 4 * CLUSTER, LIBNBD_CMD_FLAG_DF, &chunks);
	ck_assert_uint_eq(chunks.data, 1);
	ck_assert_uint_eq(chunks.holes, 0);
	client_close(nbd);
}
END_TEST

/* ---- zero and trim ---- */

/* On data and on nothing, with whole clusters inside and without. */
START_TEST(zeroed_ranges_read_zero_and_nothing_else_does)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static const uint32_t flags[] = {
		0, FUA, NO_HOLE, FUA | NO_HOLE,
	};
	const size_t all = 8 * CLUSTER;
	char *data = malloc(all), *expected = malloc(all);

	for (unsigned i = 0; i < COUNT(flags); i++) {
		for (unsigned j = 0; j + 2 < COUNT(ranges); j++) {
			const struct range *range = &ranges[j];
			size_t length = range->offset + range->length < all ?
			    range->length : all - range->offset;

			clear(nbd);
			MUST(nbd_zero(nbd, length, range->offset, flags[i]));
			read_bytes(nbd, all, 0, 0);
			write_filled(nbd, all, 0, j, 0);
			fill(expected, all, j);
			MUST(nbd_zero(nbd, length, range->offset, flags[i]));
			memset(expected + range->offset, 0, length);
			MUST(nbd_pread(nbd, data, all, 0, 0));
			expect_same(data, expected, all);
		}
	}
	free(data);
	free(expected);
	client_close(nbd);
}
END_TEST

/* FAST_ZERO either zeroes or fails at once and changes nothing. */
START_TEST(fast_zero_is_honest)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	static const uint32_t flags[] = {
		FAST_ZERO, FAST_ZERO | FUA, FAST_ZERO | NO_HOLE,
		FAST_ZERO | NO_HOLE | FUA,
	};

	for (unsigned i = 0; i < COUNT(flags); i++) {
		clear(nbd);
		write_filled(nbd, 4 * CLUSTER, 0, i, 0);
		/* Whole clusters of version 3 can always be zeroed fast. */
		MUST(nbd_zero(nbd, CLUSTER, 0, flags[i]));
		read_bytes(nbd, CLUSTER, 0, 0);
		write_filled(nbd, CLUSTER, 0, i, 0);
		if (nbd_zero(nbd, 1000, 100, flags[i]) == 0) {
			read_bytes(nbd, 1000, 100, 0);
		} else {
			ck_assert_int_eq(nbd_get_errno(), ENOTSUP);
			read_filled(nbd, CLUSTER, 0, i);
		}
	}
	client_close(nbd);
}
END_TEST

START_TEST(trim_frees_clusters_and_spares_the_rest)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	char *data = malloc(4 * CLUSTER), *expected = malloc(4 * CLUSTER);

	clear(nbd);
	write_filled(nbd, 4 * CLUSTER, 0, 1, 0);
	fill(expected, 4 * CLUSTER, 1);
	/* Less than a cluster: nothing. */
	MUST(nbd_trim(nbd, CLUSTER - 1, 1, 0));
	read_filled(nbd, 4 * CLUSTER, 0, 1);
	/* The third and half of each neighbour: the third only. */
	MUST(nbd_trim(nbd, 2 * CLUSTER, CLUSTER + CLUSTER / 2, _i ? FUA : 0));
	memset(expected + 2 * CLUSTER, 0, CLUSTER);
	MUST(nbd_pread(nbd, data, 4 * CLUSTER, 0, 0));
	expect_same(data, expected, 4 * CLUSTER);
	/* And everything, in one request. */
	MUST(nbd_trim(nbd, MAIN_BYTES, 0, FUA));
	read_bytes(nbd, 4 * CLUSTER, 0, 0);
	free(data);
	free(expected);
	client_close(nbd);
}
END_TEST

/* ---- the others ---- */

START_TEST(cache_changes_nothing)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);

	clear(nbd);
	write_filled(nbd, 3 * CLUSTER, 0, 1, 0);
	MUST(nbd_cache(nbd, 5 * CLUSTER - 1, 1, 0));
	MUST(nbd_cache(nbd, MAIN_BYTES, 0, FUA));
	read_filled(nbd, 3 * CLUSTER, 0, 1);
	read_bytes(nbd, CLUSTER, 3 * CLUSTER, 0);
	client_close(nbd);
}
END_TEST

/* FUA says nothing about these, but may stand there. */
START_TEST(fua_is_taken_by_every_command)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	char byte;

	MUST(nbd_pread(nbd, &byte, 1, 0, FUA));
	MUST(nbd_flush(nbd, FUA));
	MUST(nbd_cache(nbd, 1, 0, FUA));
	if (_i) {
		struct runs runs;

		get_runs(nbd, CLUSTER, 0, FUA, &runs);
		ck_assert_uint_ge(runs.count, 1);
	}
	client_close(nbd);
}
END_TEST

/* No bytes: nothing happens, and the connection stays. */
START_TEST(empty_requests_do_no_harm)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);
	char byte;

	write_filled(nbd, 512, 0, 1, 0);
	(void)nbd_pread(nbd, &byte, 0, 0, 0);
	(void)nbd_pwrite(nbd, &byte, 0, 0, 0);
	(void)nbd_zero(nbd, 0, 0, 0);
	(void)nbd_trim(nbd, 0, 0, 0);
	(void)nbd_cache(nbd, 0, 0, 0);
	read_filled(nbd, 512, 0, 1);
	client_close(nbd);
}
END_TEST

/* What the file must show to others, read with qemu-io beside the server. */
static void
expect_in_file(uint64_t offset, size_t length, unsigned pattern)
{
	char command[4096];

	snprintf(command, sizeof(command), "qemu-io -r -U -f qcow2 "
	    "-c 'read -P %u %llu %zu' '%s' >qemu-io.txt 2>&1", pattern,
	    (unsigned long long)offset, length, getenv(MAIN_IMAGE));
	ck_assert_msg(system(command) == 0, "not in the file: %s", command);
}

static void
write_pattern(struct nbd_handle *nbd, uint64_t offset, size_t length,
    int pattern, uint32_t flags)
{
	char *data = malloc(length);

	memset(data, pattern, length);
	MUST(nbd_pwrite(nbd, data, length, offset, flags));
	free(data);
}

/* Data and the tables that lead to it. */
START_TEST(fua_brings_a_change_to_the_file)
{
	struct nbd_handle *nbd = client_open(MAIN, _i);

	clear(nbd);
	write_pattern(nbd, 5 * CLUSTER + 100, 3000, 0x71, FUA);
	expect_in_file(5 * CLUSTER + 100, 3000, 0x71);
	write_pattern(nbd, 5 * CLUSTER + 100, 3000, 0x72, FUA);
	expect_in_file(5 * CLUSTER + 100, 3000, 0x72);
	write_pattern(nbd, 8 * CLUSTER, 2 * CLUSTER, 0x73, FUA);
	expect_in_file(8 * CLUSTER, 2 * CLUSTER, 0x73);
	MUST(nbd_zero(nbd, CLUSTER, 8 * CLUSTER, FUA));
	expect_in_file(8 * CLUSTER, CLUSTER, 0);
	MUST(nbd_trim(nbd, CLUSTER, 9 * CLUSTER, FUA));
	expect_in_file(9 * CLUSTER, CLUSTER, 0);
	client_close(nbd);
}
END_TEST

START_TEST(flush_covers_what_other_connections_wrote)
{
	struct nbd_handle *writer = client_open(MAIN, _i);
	struct nbd_handle *flusher = client_open(MAIN, !_i);

	clear(writer);
	write_pattern(writer, 2 * CLUSTER, 3 * CLUSTER, 0x74, 0);
	read_bytes(flusher, 3 * CLUSTER, 2 * CLUSTER, 0x74);
	MUST(nbd_flush(flusher, 0));
	expect_in_file(2 * CLUSTER, 3 * CLUSTER, 0x74);
	MUST(nbd_zero(writer, CLUSTER, 3 * CLUSTER, 0));
	MUST(nbd_flush(flusher, 0));
	expect_in_file(3 * CLUSTER, CLUSTER, 0);
	client_close(writer);
	client_close(flusher);
}
END_TEST

/* ---- a disk that ends within a sector ---- */

START_TEST(last_part_of_a_sector_is_part_of_the_disk)
{
	struct nbd_handle *nbd = client_open(ODD, _i);
	const uint64_t sector = ODD_BYTES / 512 * 512;

	ck_assert_int_eq(nbd_get_size(nbd), ODD_BYTES);
	clear(nbd);
	read_bytes(nbd, ODD_BYTES - sector, sector, 0);
	write_filled(nbd, 1000, ODD_BYTES - 1000, 1, 0);
	read_filled(nbd, 1000, ODD_BYTES - 1000, 1);
	write_filled(nbd, 1, ODD_BYTES - 1, 2, FUA);
	read_filled(nbd, 1, ODD_BYTES - 1, 2);
	write_filled(nbd, ODD_BYTES, 0, 3, 0);
	read_filled(nbd, ODD_BYTES, 0, 3);
	MUST(nbd_zero(nbd, 10, ODD_BYTES - 10, 0));
	read_bytes(nbd, 10, ODD_BYTES - 10, 0);
	MUST(nbd_trim(nbd, ODD_BYTES, 0, 0));
	MUST(nbd_cache(nbd, ODD_BYTES, 0, 0));
	read_bytes(nbd, ODD_BYTES, 0, 0);
	client_close(nbd);
}
END_TEST

TCase *
case_of_commands(void)
{
	TCase *commands = tcase_create("commands");

	tcase_set_timeout(commands, 120);
	tcase_add_loop_test(commands, what_was_written_is_read,
	    0, REPLY_KINDS);
	tcase_add_test(commands,
	    holes_are_sent_as_holes_unless_df_forbids_it);
	tcase_add_loop_test(commands,
	    zeroed_ranges_read_zero_and_nothing_else_does, 0, REPLY_KINDS);
	tcase_add_loop_test(commands, fast_zero_is_honest, 0, REPLY_KINDS);
	tcase_add_loop_test(commands,
	    trim_frees_clusters_and_spares_the_rest, 0, REPLY_KINDS);
	tcase_add_loop_test(commands, cache_changes_nothing, 0, REPLY_KINDS);
	tcase_add_loop_test(commands, fua_is_taken_by_every_command,
	    0, REPLY_KINDS);
	tcase_add_loop_test(commands, empty_requests_do_no_harm,
	    0, REPLY_KINDS);
	tcase_add_loop_test(commands, fua_brings_a_change_to_the_file,
	    0, REPLY_KINDS);
	tcase_add_loop_test(commands,
	    flush_covers_what_other_connections_wrote, 0, REPLY_KINDS);
	tcase_add_loop_test(commands,
	    last_part_of_a_sector_is_part_of_the_disk, 0, REPLY_KINDS);
	return commands;
}
