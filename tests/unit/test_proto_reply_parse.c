/* SPDX-License-Identifier: MIT */
/*
 * Guards our own clients against servers that send what must not be: a chunk
 * whose length its type does not allow, an extent or a hole of no bytes, an
 * error that says success.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>
#include <string.h>

#include "proto/reply.h"

#define COOKIE UINT64_C(0xf0e1d2c3b4a59687)
#define OFFSET UINT64_C(0x0102030405060708)
#define DONE NBD_REPLY_FLAG_DONE
#define PAYLOAD NBD_REPLY_CHUNK_BYTES

static const struct nbd_request sent = { .cookie = COOKIE };
static uint8_t wire[NBD_REPLY_ERROR_OFFSET_BYTES_MAX];

/* So that a field that is not written is seen. */
static void
set_up(void)
{
	memset(wire, 0xee, sizeof(wire));
}

static int
parse(struct nbd_reply *reply)
{
	int bytes = nbd_reply_header_bytes(wire);

	if (bytes < 0)
		return bytes;
	return nbd_reply_parse(at_the_edge(wire, (size_t)bytes), reply);
}

static int
parse_header(uint16_t type, uint32_t payload_bytes)
{
	struct nbd_reply reply;

	nbd_reply_put_chunk(wire, &sent, DONE, type, payload_bytes);
	return parse(&reply);
}

/* The error chunk in wire, whatever its length. */
static int
parse_error(struct nbd_reply_error *error)
{
	struct nbd_reply reply;

	ck_assert_int_eq(parse(&reply), 0);
	ck_assert(nbd_reply_is_error(&reply));
	return nbd_reply_parse_error(&reply, at_the_edge(wire + PAYLOAD,
		reply.payload_bytes), error);
}

START_TEST(simple_is_understood)
{
	struct nbd_reply reply;

	nbd_reply_put_simple(wire, COOKIE, NBD_ENOSPC);
	ck_assert_int_eq(nbd_reply_header_bytes(wire), 16);
	ck_assert_int_eq(parse(&reply), 0);
	ck_assert(!reply.structured);
	ck_assert_uint_eq(reply.cookie, COOKIE);
	ck_assert_uint_eq(reply.error, NBD_ENOSPC);
	ck_assert_uint_eq(reply.payload_bytes, 0);
	ck_assert(reply.flags & DONE);
	ck_assert(nbd_reply_is_error(&reply));
}
END_TEST

START_TEST(simple_success_is_no_error)
{
	struct nbd_reply reply;

	nbd_reply_put_simple(wire, COOKIE, NBD_SUCCESS);
	ck_assert_int_eq(parse(&reply), 0);
	ck_assert(!nbd_reply_is_error(&reply));
}
END_TEST

START_TEST(none_is_understood)
{
	struct nbd_reply reply;

	nbd_reply_put_none(wire, &sent);
	ck_assert_int_eq(nbd_reply_header_bytes(wire), 20);
	ck_assert_int_eq(parse(&reply), 0);
	ck_assert(reply.structured);
	ck_assert_uint_eq(reply.cookie, COOKIE);
	ck_assert_uint_eq(reply.type, NBD_REPLY_TYPE_NONE);
	ck_assert(!nbd_reply_is_error(&reply));
}
END_TEST

START_TEST(none_that_is_not_the_last_is_refused)
{
	struct nbd_reply reply = { .type = 99 };

	nbd_reply_put_chunk(wire, &sent, 0, NBD_REPLY_TYPE_NONE, 0);
	ck_assert_int_eq(parse(&reply), -EBADMSG);
	ck_assert_uint_eq(reply.type, 99);
}
END_TEST

START_TEST(data_is_understood)
{
	struct nbd_reply reply;

	nbd_reply_put_data(wire, &sent, DONE, OFFSET,
		NBD_PAYLOAD_BYTES_MAX);
	ck_assert_int_eq(parse(&reply), 0);
	ck_assert_uint_eq(reply.type, NBD_REPLY_TYPE_OFFSET_DATA);
	ck_assert_uint_eq(reply.flags, DONE);
	ck_assert_uint_eq(reply.payload_bytes, NBD_PAYLOAD_BYTES_MAX + 8);
	ck_assert_uint_eq(nbd_reply_parse_data(wire + PAYLOAD), OFFSET);
}
END_TEST

START_TEST(hole_is_understood)
{
	struct nbd_reply_hole hole;
	struct nbd_reply reply;

	nbd_reply_put_hole(wire, &sent, 0, OFFSET, UINT32_MAX);
	ck_assert_int_eq(parse(&reply), 0);
	ck_assert_uint_eq(reply.type, NBD_REPLY_TYPE_OFFSET_HOLE);
	ck_assert_int_eq(nbd_reply_parse_hole(at_the_edge(wire + PAYLOAD,
		12), &hole), 0);
	ck_assert_uint_eq(hole.offset, OFFSET);
	ck_assert_uint_eq(hole.bytes, UINT32_MAX);
}
END_TEST

START_TEST(hole_of_no_bytes_is_refused)
{
	struct nbd_reply_hole hole = { .bytes = 99 };

	nbd_reply_put_hole(wire, &sent, 0, OFFSET, 1);
	wire[31] = 0;
	ck_assert_int_eq(nbd_reply_parse_hole(wire + PAYLOAD, &hole),
		-EBADMSG);
	ck_assert_uint_eq(hole.bytes, 99);
}
END_TEST

/* Two extents of a range near 4 GiB, in wire.  Returns its header. */
static struct nbd_reply
put_two_extents(void)
{
	const struct nbd_extent big = { UINT32_MAX, 0 };
	const struct nbd_extent small = { 1, NBD_STATE_ZERO };
	struct nbd_reply reply;

	nbd_reply_put_status(wire, &sent, DONE, 7, 2);
	nbd_reply_put_extent(wire + 24, &sent, &big);
	nbd_reply_put_extent(wire + 32, &sent, &small);
	ck_assert_int_eq(parse(&reply), 0);
	return reply;
}

START_TEST(status_is_understood)
{
	struct nbd_reply reply = put_two_extents();
	struct nbd_reply_status status;

	ck_assert_int_eq(nbd_reply_parse_status(&reply,
		at_the_edge(wire + PAYLOAD, 20), &status), 0);
	ck_assert_uint_eq(status.context_id, 7);
	ck_assert_uint_eq(status.extent_count, 2);
	ck_assert_uint_eq(nbd_reply_extent(&status, 0).length, UINT32_MAX);
	ck_assert_uint_eq(nbd_reply_extent(&status, 0).state, 0);
	ck_assert_uint_eq(nbd_reply_extent(&status, 1).length, 1);
	ck_assert_uint_eq(nbd_reply_extent(&status, 1).state, NBD_STATE_ZERO);
}
END_TEST

/* A client that adds up such extents would never arrive. */
START_TEST(status_with_extent_of_no_bytes_is_refused)
{
	struct nbd_reply reply = put_two_extents();
	struct nbd_reply_status status = { .context_id = 99 };

	nbd_put_be32(wire + 32, 0);
	ck_assert_int_eq(nbd_reply_parse_status(&reply, wire + PAYLOAD,
		&status), -EBADMSG);
	ck_assert_uint_eq(status.context_id, 99);
}
END_TEST

START_TEST(error_is_understood)
{
	struct nbd_reply_error error;

	nbd_reply_put_error(wire, &sent, DONE, NBD_EIO, "bad");
	ck_assert_int_eq(parse_error(&error), 0);
	ck_assert_uint_eq(error.error, NBD_EIO);
	ck_assert(nbd_text_equal(error.message, "bad"));
	ck_assert(!error.has_offset);
}
END_TEST

START_TEST(error_offset_is_understood)
{
	struct nbd_reply_error error;

	nbd_reply_put_error_offset(wire, &sent, DONE, NBD_EIO, NULL, OFFSET);
	ck_assert_int_eq(parse_error(&error), 0);
	ck_assert_uint_eq(error.message.bytes, 0);
	ck_assert(error.has_offset);
	ck_assert_uint_eq(error.offset, OFFSET);
	nbd_reply_put_error_offset(wire, &sent, DONE, NBD_EIO, "bad", 7);
	ck_assert_int_eq(parse_error(&error), 0);
	ck_assert(nbd_text_equal(error.message, "bad"));
	ck_assert_uint_eq(error.offset, 7);
}
END_TEST

START_TEST(error_with_lying_message_length_is_refused)
{
	struct nbd_reply_error error = { .error = 99 };

	nbd_reply_put_error(wire, &sent, DONE, NBD_EIO, "bad");
	nbd_put_be16(wire + PAYLOAD + 4, 4);
	ck_assert_int_eq(parse_error(&error), -EBADMSG);
	nbd_put_be16(wire + PAYLOAD + 4, 0xffff);
	ck_assert_int_eq(parse_error(&error), -EBADMSG);
	ck_assert_uint_eq(error.error, 99);
}
END_TEST

/* Its offset stands behind the message, and must still fit. */
START_TEST(error_offset_with_lying_message_length_is_refused)
{
	struct nbd_reply_error error;

	nbd_reply_put_error_offset(wire, &sent, DONE, NBD_EIO, "bad", 0);
	nbd_put_be16(wire + PAYLOAD + 4, 4);
	ck_assert_int_eq(parse_error(&error), -EBADMSG);
	nbd_put_be16(wire + PAYLOAD + 4, 11);
	ck_assert_int_eq(parse_error(&error), -EBADMSG);
}
END_TEST

START_TEST(error_with_nul_in_its_message_is_refused)
{
	struct nbd_reply_error error;

	nbd_reply_put_error(wire, &sent, DONE, NBD_EIO, "bad");
	wire[PAYLOAD + 7] = 0;
	ck_assert_int_eq(parse_error(&error), -EBADMSG);
}
END_TEST

/* A failure that says success would make a copy lose data. */
START_TEST(error_of_success_is_refused)
{
	struct nbd_reply_error error;

	nbd_reply_put_error(wire, &sent, DONE, NBD_EIO, "bad");
	nbd_put_be32(wire + PAYLOAD, NBD_SUCCESS);
	ck_assert_int_eq(parse_error(&error), -EBADMSG);
}
END_TEST

/* An error of a kind we do not know is an error all the same. */
START_TEST(error_of_unknown_type_is_understood)
{
	struct nbd_reply_error error;

	nbd_reply_put_error(wire, &sent, DONE, NBD_EIO, "bad");
	nbd_put_be16(wire + 6, 0xbeef);
	ck_assert_int_eq(parse_error(&error), 0);
	ck_assert_uint_eq(error.error, NBD_EIO);
	ck_assert(nbd_text_equal(error.message, "bad"));
	ck_assert_int_eq(parse_header(0xbeef, 5), -EBADMSG);
}
END_TEST

START_TEST(chunk_of_unknown_type_is_refused)
{
	ck_assert_int_eq(parse_header(3, 12), -EBADMSG);
	ck_assert_int_eq(parse_header(4, 12), -EBADMSG);
	ck_assert_int_eq(parse_header(6, 12), -EBADMSG);
	ck_assert_int_eq(parse_header(0x7fff, 12), -EBADMSG);
}
END_TEST

START_TEST(chunk_of_impossible_length_is_refused)
{
	static const struct {
		uint16_t type;
		uint32_t good, bad[4];
	} lengths[] = {
		{ NBD_REPLY_TYPE_NONE, 0, { 1, 8, 12, UINT32_MAX } },
		{ NBD_REPLY_TYPE_OFFSET_DATA, 9, { 0, 1, 7, 8 } },
		{ NBD_REPLY_TYPE_OFFSET_HOLE, 12, { 0, 11, 13, 20 } },
		{ NBD_REPLY_TYPE_BLOCK_STATUS, 12, { 0, 3, 4, 16 } },
		{ NBD_REPLY_TYPE_ERROR, 6, { 0, 1, 4, 5 } },
		{ NBD_REPLY_TYPE_ERROR_OFFSET, 14, { 0, 5, 6, 13 } },
	};
	size_t index;

	ck_assert_int_eq(parse_header(lengths[_i].type, lengths[_i].good), 0);
	for (index = 0; index < 4; index++)
		ck_assert_int_eq(parse_header(lengths[_i].type,
			lengths[_i].bad[index]), -EBADMSG);
}
END_TEST

/* Nobody makes our clients allocate 4 GiB. */
START_TEST(chunk_longer_than_we_ask_for_is_refused)
{
	const uint32_t longest = NBD_PAYLOAD_BYTES_MAX + 8;

	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_OFFSET_DATA, longest),
		0);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_OFFSET_DATA,
		longest + 1), -EMSGSIZE);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_OFFSET_DATA,
		UINT32_MAX), -EMSGSIZE);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_ERROR, UINT32_MAX),
		-EMSGSIZE);
}
END_TEST

START_TEST(reply_with_bad_magic_is_refused)
{
	struct nbd_reply reply = { .type = 99 };

	nbd_reply_put_simple(wire, COOKIE, 0);
	wire[0] ^= 1;
	ck_assert_int_eq(nbd_reply_header_bytes(wire), -EBADMSG);
	ck_assert_int_eq(nbd_reply_parse(wire, &reply), -EBADMSG);
	ck_assert_uint_eq(reply.type, 99);
}
END_TEST

TCase *
test_proto_reply_parse(void)
{
	TCase *tcase = tcase_create("reply_parse");

	tcase_add_checked_fixture(tcase, set_up, NULL);
	tcase_add_test(tcase, simple_is_understood);
	tcase_add_test(tcase, simple_success_is_no_error);
	tcase_add_test(tcase, none_is_understood);
	tcase_add_test(tcase, none_that_is_not_the_last_is_refused);
	tcase_add_test(tcase, data_is_understood);
	tcase_add_test(tcase, hole_is_understood);
	tcase_add_test(tcase, hole_of_no_bytes_is_refused);
	tcase_add_test(tcase, status_is_understood);
	tcase_add_test(tcase, status_with_extent_of_no_bytes_is_refused);
	tcase_add_test(tcase, error_is_understood);
	tcase_add_test(tcase, error_offset_is_understood);
	tcase_add_test(tcase, error_with_lying_message_length_is_refused);
	tcase_add_test(tcase,
		error_offset_with_lying_message_length_is_refused);
	tcase_add_test(tcase, error_with_nul_in_its_message_is_refused);
	tcase_add_test(tcase, error_of_success_is_refused);
	tcase_add_test(tcase, error_of_unknown_type_is_understood);
	tcase_add_test(tcase, chunk_of_unknown_type_is_refused);
	tcase_add_loop_test(tcase, chunk_of_impossible_length_is_refused,
		0, 6);
	tcase_add_test(tcase, chunk_longer_than_we_ask_for_is_refused);
	tcase_add_test(tcase, reply_with_bad_magic_is_refused);
	return tcase;
}
