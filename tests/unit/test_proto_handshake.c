/* SPDX-License-Identifier: MIT */
/*
 * Guards against a wrong greeting, client flags nobody offered, and padding
 * where there must be none (or none where there must be).
 */
#include "tests/unit/test_proto.h"

#include <errno.h>
#include <string.h>

#include "proto/handshake.h"
#include "proto/nbd.h"
#include "proto/wire.h"

#define OFFERED (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

START_TEST(greeting_bytes_are_those_of_the_specification)
{
	uint8_t wire[NBD_GREETING_BYTES];

	ck_assert_uint_eq(nbd_handshake_put_greeting(wire, OFFERED), 18);
	ck_assert_mem_eq(wire, "NBDMAGICIHAVEOPT\0\3", 18);
}
END_TEST

START_TEST(greeting_is_understood)
{
	uint8_t wire[NBD_GREETING_BYTES];
	uint16_t flags;

	nbd_handshake_put_greeting(wire, 0x8003);
	ck_assert_int_eq(nbd_handshake_parse_greeting(wire, &flags), 0);
	ck_assert_uint_eq(flags, 0x8003);
}
END_TEST

/* An oldstyle server sends the export's size where we would see flags. */
START_TEST(greeting_of_the_old_style_is_refused)
{
	uint8_t wire[NBD_GREETING_BYTES];
	uint16_t flags = 7;

	nbd_handshake_put_greeting(wire, OFFERED);
	nbd_put_be64(wire + 8, UINT64_C(0x00420281861253));
	ck_assert_int_eq(nbd_handshake_parse_greeting(wire, &flags),
		-EBADMSG);
	ck_assert_uint_eq(flags, 7);
}
END_TEST

START_TEST(greeting_of_something_else_is_refused)
{
	uint8_t wire[NBD_GREETING_BYTES];
	uint16_t flags;

	nbd_handshake_put_greeting(wire, OFFERED);
	wire[0] = 'X';
	ck_assert_int_eq(nbd_handshake_parse_greeting(wire, &flags),
		-EBADMSG);
}
END_TEST

START_TEST(client_flags_that_were_offered_are_taken)
{
	uint8_t wire[NBD_CLIENT_FLAGS_BYTES];
	uint32_t chosen, flags;

	for (chosen = 0; chosen <= OFFERED; chosen++) {
		nbd_handshake_put_client_flags(wire, chosen);
		ck_assert_int_eq(nbd_handshake_parse_client_flags(wire,
			OFFERED, &flags), 0);
		ck_assert_uint_eq(flags, chosen);
	}
}
END_TEST

/* The server must close the connection on any flag it does not know. */
START_TEST(client_flag_unknown_is_refused)
{
	uint8_t wire[NBD_CLIENT_FLAGS_BYTES];
	uint32_t flags = 7;
	int bit;

	for (bit = 2; bit < 32; bit++) {
		nbd_put_be32(wire, OFFERED | UINT32_C(1) << bit);
		ck_assert_int_eq(nbd_handshake_parse_client_flags(wire,
			OFFERED, &flags), -EINVAL);
	}
	ck_assert_uint_eq(flags, 7);
}
END_TEST

/* And on one it knows but did not offer. */
START_TEST(client_flag_not_offered_is_refused)
{
	uint8_t wire[NBD_CLIENT_FLAGS_BYTES];
	uint32_t flags;

	nbd_handshake_put_client_flags(wire, NBD_FLAG_NO_ZEROES);
	ck_assert_int_eq(nbd_handshake_parse_client_flags(wire,
		NBD_FLAG_FIXED_NEWSTYLE, &flags), -EINVAL);
}
END_TEST

/* Bit by bit, since client and server of ours would agree on a wrong one. */
START_TEST(transmission_flags_are_those_of_the_specification)
{
	ck_assert_uint_eq(NBD_FLAG_HAS_FLAGS, 1);
	ck_assert_uint_eq(NBD_FLAG_READ_ONLY, 2);
	ck_assert_uint_eq(NBD_FLAG_SEND_FLUSH, 4);
	ck_assert_uint_eq(NBD_FLAG_SEND_FUA, 8);
	ck_assert_uint_eq(NBD_FLAG_ROTATIONAL, 16);
	ck_assert_uint_eq(NBD_FLAG_SEND_TRIM, 32);
	ck_assert_uint_eq(NBD_FLAG_SEND_WRITE_ZEROES, 64);
	ck_assert_uint_eq(NBD_FLAG_SEND_DF, 128);
	ck_assert_uint_eq(NBD_FLAG_CAN_MULTI_CONN, 256);
	ck_assert_uint_eq(NBD_FLAG_SEND_CACHE, 1024);
	ck_assert_uint_eq(NBD_FLAG_SEND_FAST_ZERO, 2048);
}
END_TEST

/* The padding must be zeros even in a used buffer: it would leak memory. */
START_TEST(export_ends_in_124_zeroes)
{
	static const uint8_t zeroes[124];
	uint8_t wire[NBD_EXPORT_BYTES_MAX];

	memset(wire, 0xee, sizeof(wire));
	ck_assert_uint_eq(nbd_handshake_put_export(wire,
		UINT64_C(0x123456789abcdef0), 0x0505, false), 134);
	ck_assert_mem_eq(wire, "\x12\x34\x56\x78\x9a\xbc\xde\xf0\5\5", 10);
	ck_assert_mem_eq(wire + 10, zeroes, 124);
}
END_TEST

START_TEST(export_ends_early_if_the_client_said_no_zeroes)
{
	uint8_t wire[NBD_EXPORT_BYTES_MAX];

	memset(wire, 0xee, sizeof(wire));
	ck_assert_uint_eq(nbd_handshake_put_export(wire, 1, 1, true), 10);
	ck_assert_uint_eq(wire[10], 0xee);
}
END_TEST

START_TEST(export_is_understood)
{
	uint8_t wire[NBD_EXPORT_BYTES_MAX];
	uint64_t export_bytes;
	uint16_t flags;

	nbd_handshake_put_export(wire, UINT64_C(1) << 60, 0x8001, true);
	nbd_handshake_parse_export(wire, &export_bytes, &flags);
	ck_assert_uint_eq(export_bytes, UINT64_C(1) << 60);
	ck_assert_uint_eq(flags, 0x8001);
}
END_TEST

TCase *
test_proto_handshake(void)
{
	TCase *tcase = tcase_create("handshake");

	tcase_add_test(tcase, greeting_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, greeting_is_understood);
	tcase_add_test(tcase, greeting_of_the_old_style_is_refused);
	tcase_add_test(tcase, greeting_of_something_else_is_refused);
	tcase_add_test(tcase, client_flags_that_were_offered_are_taken);
	tcase_add_test(tcase, client_flag_unknown_is_refused);
	tcase_add_test(tcase, client_flag_not_offered_is_refused);
	tcase_add_test(tcase,
		transmission_flags_are_those_of_the_specification);
	tcase_add_test(tcase, export_ends_in_124_zeroes);
	tcase_add_test(tcase,
		export_ends_early_if_the_client_said_no_zeroes);
	tcase_add_test(tcase, export_is_understood);
	return tcase;
}
