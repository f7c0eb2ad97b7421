/* SPDX-License-Identifier: MIT */
/*
 * Guards against request headers taken apart wrongly, and against the payload
 * of a rejected write taken for the next request.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>

#include "proto/request.h"

START_TEST(header_bytes_are_those_of_the_specification)
{
	const struct nbd_request request = {
		.cookie = UINT64_C(0xf0e1d2c3b4a59687),
		.offset = UINT64_C(0x0102030405060708),
		.length = 0x11121314,
		.flags = NBD_CMD_FLAG_FUA,
		.type = NBD_CMD_WRITE,
	};
	uint8_t wire[NBD_REQUEST_BYTES];

	ck_assert_uint_eq(nbd_request_put(wire, &request), 28);
	ck_assert_mem_eq(wire, "\x25\x60\x95\x13" "\0\1" "\0\1"
		"\xf0\xe1\xd2\xc3\xb4\xa5\x96\x87"
		"\1\2\3\4\5\6\7\x8" "\x11\x12\x13\x14", 28);
}
END_TEST

/* Bit by bit, since client and server of ours would agree on a wrong one. */
START_TEST(command_flags_are_those_of_the_specification)
{
	ck_assert_uint_eq(NBD_CMD_FLAG_FUA, 1);
	ck_assert_uint_eq(NBD_CMD_FLAG_NO_HOLE, 2);
	ck_assert_uint_eq(NBD_CMD_FLAG_DF, 4);
	ck_assert_uint_eq(NBD_CMD_FLAG_REQ_ONE, 8);
	ck_assert_uint_eq(NBD_CMD_FLAG_FAST_ZERO, 16);
	ck_assert_uint_eq(NBD_CMD_FLAG_PAYLOAD_LEN, 32);
}
END_TEST

START_TEST(header_is_understood)
{
	const struct nbd_request sent = {
		.cookie = UINT64_MAX - 1,
		.offset = UINT64_MAX - 2,
		.length = UINT32_MAX,
		.flags = 0x8001,
		.type = 0xfffe,
	};
	uint8_t wire[NBD_REQUEST_BYTES];
	struct nbd_request got;

	nbd_request_put(wire, &sent);
	ck_assert_int_eq(nbd_request_parse(
		at_the_edge(wire, NBD_REQUEST_BYTES), false, &got), 0);
	ck_assert_uint_eq(got.cookie, sent.cookie);
	ck_assert_uint_eq(got.offset, sent.offset);
	ck_assert_uint_eq(got.length, sent.length);
	ck_assert_uint_eq(got.flags, sent.flags);
	ck_assert_uint_eq(got.type, sent.type);
}
END_TEST

/* Close, without a reply: the stream is out of step. */
START_TEST(header_with_bad_magic_is_refused)
{
	struct nbd_request request = { .type = 99 };
	uint8_t wire[NBD_REQUEST_BYTES];
	int bit;

	for (bit = 0; bit < 32; bit++) {
		nbd_request_put(wire, &request);
		wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ck_assert_int_eq(nbd_request_parse(wire, false, &request),
			-EBADMSG);
	}
	ck_assert_uint_eq(request.type, 99);
}
END_TEST

START_TEST(payload_follows_writes_only)
{
	struct nbd_request request = { .length = UINT32_MAX };
	unsigned type;

	for (type = 0; type <= UINT16_MAX; type++) {
		request.type = (uint16_t)type;
		ck_assert_uint_eq(nbd_request_payload_bytes(&request),
			type == NBD_CMD_WRITE ? UINT32_MAX : 0);
	}
}
END_TEST

/* Or its data would be parsed as requests. */
START_TEST(payload_follows_a_rejected_write)
{
	struct nbd_request request = {
		.type = NBD_CMD_WRITE,
		.flags = 0xffff,
		.offset = UINT64_MAX,
		.length = 4096,
	};
	const struct nbd_terms read_only = {
		.export_bytes = 4096,
		.block_bytes_min = 1,
		.transmission_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY,
	};

	ck_assert_uint_ne(nbd_request_check(&request, &read_only),
		NBD_SUCCESS);
	ck_assert_uint_eq(nbd_request_payload_bytes(&request), 4096);
}
END_TEST

/* A chunk may claim to lie anywhere; a client must not believe it. */
START_TEST(covers_is_exact_at_both_ends)
{
	const struct nbd_request request = { .offset = 100, .length = 50 };
	const struct nbd_request top = {
		.offset = UINT64_MAX - 9,
		.length = 10,
	};

	ck_assert(nbd_request_covers(&request, 100, 50));
	ck_assert(nbd_request_covers(&request, 149, 1));
	ck_assert(nbd_request_covers(&request, 150, 0));
	ck_assert(!nbd_request_covers(&request, 99, 1));
	ck_assert(!nbd_request_covers(&request, 100, 51));
	ck_assert(!nbd_request_covers(&request, 149, 2));
	ck_assert(!nbd_request_covers(&request, 150, 1));
	ck_assert(!nbd_request_covers(&request, 151, 0));
	ck_assert(!nbd_request_covers(&request, 100, UINT64_MAX));
	ck_assert(!nbd_request_covers(&request, UINT64_MAX, 101));
	ck_assert(!nbd_request_covers(&top, UINT64_MAX, 2));
}
END_TEST

START_TEST(command_names_are_those_of_the_specification)
{
	static const char *const names[] = {
		"READ", "WRITE", "DISC", "FLUSH", "TRIM", "CACHE",
		"WRITE_ZEROES", "BLOCK_STATUS", "RESIZE", "unknown",
	};
	uint16_t type;

	for (type = 0; type < sizeof(names) / sizeof(*names); type++)
		ck_assert_str_eq(nbd_request_name(type), names[type]);
	ck_assert_str_eq(nbd_request_name(UINT16_MAX), "unknown");
}
END_TEST

TCase *
test_proto_request(void)
{
	TCase *tcase = tcase_create("request");

	tcase_add_test(tcase, header_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, command_flags_are_those_of_the_specification);
	tcase_add_test(tcase, header_is_understood);
	tcase_add_test(tcase, header_with_bad_magic_is_refused);
	tcase_add_test(tcase, payload_follows_writes_only);
	tcase_add_test(tcase, payload_follows_a_rejected_write);
	tcase_add_test(tcase, covers_is_exact_at_both_ends);
	tcase_add_test(tcase, command_names_are_those_of_the_specification);
	return tcase;
}
