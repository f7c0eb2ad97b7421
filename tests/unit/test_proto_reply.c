/* SPDX-License-Identifier: MIT */
/*
 * Guards against replies that put a client out of step: a wrong length, a
 * data chunk of no bytes, an error text over the limit.
 */
#include "tests/unit/test_proto.h"

#include <signal.h>
#include <string.h>

#include "proto/reply.h"

#define COOKIE UINT64_C(0xf0e1d2c3b4a59687)
#define COOKIE_BYTES "\xf0\xe1\xd2\xc3\xb4\xa5\x96\x87"
#define OFFSET UINT64_C(0x0102030405060708)
#define OFFSET_BYTES "\1\2\3\4\5\6\7\x8"
#define CHUNK "\x66\x8e\x33\xef"
#define DONE NBD_REPLY_FLAG_DONE

static const struct nbd_request sent = { .cookie = COOKIE };
static uint8_t wire[NBD_REPLY_ERROR_OFFSET_BYTES_MAX];

/* So that a field that is not written is seen. */
static void
set_up(void)
{
	memset(wire, 0xee, sizeof(wire));
}

START_TEST(simple_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_reply_put_simple(wire, COOKIE, NBD_EINVAL), 16);
	ck_assert_mem_eq(wire, "\x67\x44\x66\x98" "\0\0\0\26" COOKIE_BYTES,
		16);
}
END_TEST

START_TEST(none_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_reply_put_none(wire, &sent), 20);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\0\0" COOKIE_BYTES "\0\0\0\0",
		20);
}
END_TEST

START_TEST(data_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_reply_put_data(wire, &sent, 0, OFFSET, 4096),
		28);
	ck_assert_mem_eq(wire, CHUNK "\0\0" "\0\1" COOKIE_BYTES "\0\0\x10\x8"
		OFFSET_BYTES, 28);
}
END_TEST

/* A read of no bytes is answered by NONE: data must be at least one byte. */
START_TEST(data_of_no_bytes_is_our_bug)
{
	nbd_reply_put_data(wire, &sent, DONE, OFFSET, 0);
}
END_TEST

START_TEST(hole_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_reply_put_hole(wire, &sent, DONE, OFFSET,
		65536), 32);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\0\2" COOKIE_BYTES "\0\0\0\14"
		OFFSET_BYTES "\0\1\0\0", 32);
}
END_TEST

START_TEST(status_bytes_are_those_of_the_specification)
{
	const struct nbd_extent extent = {
		.length = 0x10000,
		.state = NBD_STATE_HOLE | NBD_STATE_ZERO,
	};

	ck_assert_uint_eq(nbd_reply_put_status(wire, &sent, DONE, 7, 2), 24);
	ck_assert_uint_eq(nbd_reply_put_extent(wire + 24, &sent, &extent), 8);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\0\5" COOKIE_BYTES "\0\0\0\24"
		"\0\0\0\7" "\0\1\0\0" "\0\0\0\3", 32);
}
END_TEST

START_TEST(error_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_reply_put_error(wire, &sent, DONE, NBD_EIO,
		"bad"), 29);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\x80\1" COOKIE_BYTES "\0\0\0\11"
		"\0\0\0\5" "\0\3" "bad", 29);
}
END_TEST

START_TEST(error_offset_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_reply_put_error_offset(wire, &sent, 0, NBD_EIO,
		"bad", OFFSET), 37);
	ck_assert_mem_eq(wire, CHUNK "\0\0" "\x80\2" COOKIE_BYTES "\0\0\0\21"
		"\0\0\0\5" "\0\3" "bad" OFFSET_BYTES, 37);
}
END_TEST

/* A message that quotes what the client sent may be of any length. */
START_TEST(error_message_never_exceeds_4096)
{
	size_t length;

	for (length = 4096; length < 70000; length += 4096) {
		ck_assert_uint_eq(nbd_reply_put_error(wire, &sent, DONE,
			NBD_EINVAL, repeat('m', length)),
			NBD_REPLY_ERROR_BYTES_MAX - 12);
		ck_assert_mem_eq(wire + 16, "\0\0\x10\6" "\0\0\0\26" "\x10\0",
			10);
		ck_assert_uint_eq(nbd_reply_put_error_offset(wire, &sent,
			DONE, NBD_EINVAL, repeat('m', length), OFFSET),
			NBD_REPLY_ERROR_OFFSET_BYTES_MAX - 12);
		ck_assert_mem_eq(wire + sizeof(wire) - 20, OFFSET_BYTES, 8);
	}
}
END_TEST

TCase *
test_proto_reply(void)
{
	TCase *tcase = tcase_create("reply");

	tcase_add_checked_fixture(tcase, set_up, NULL);
	tcase_add_test(tcase, simple_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, none_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, data_bytes_are_those_of_the_specification);
	tcase_add_test_raise_signal(tcase, data_of_no_bytes_is_our_bug,
		SIGABRT);
	tcase_add_test(tcase, hole_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, status_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, error_bytes_are_those_of_the_specification);
	tcase_add_test(tcase,
		error_offset_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, error_message_never_exceeds_4096);
	return tcase;
}
