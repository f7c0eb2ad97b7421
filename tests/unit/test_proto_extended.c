/* SPDX-License-Identifier: MIT */
/*
 * Guards extended headers: lengths of 64 bits cut to 32, payloads taken for
 * requests (or the other way round) where PAYLOAD_LEN is what tells, contexts
 * chosen twice or never selected, and descriptors of the wrong size.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>
#include <string.h>

#include "proto/reply.h"
#include "proto/request.h"

#define TIB (UINT64_C(1) << 40)
#define COOKIE UINT64_C(0xf0e1d2c3b4a59687)
#define COOKIE_BYTES "\xf0\xe1\xd2\xc3\xb4\xa5\x96\x87"
#define OFFSET UINT64_C(0x0102030405060708)
#define OFFSET_BYTES "\1\2\3\4\5\6\7\x8"
#define CHUNK "\x6e\x8a\x27\x8c"
#define DONE NBD_REPLY_FLAG_DONE
#define PAYLOAD_LEN NBD_CMD_FLAG_PAYLOAD_LEN

static const struct nbd_request sent = {
	.cookie = COOKIE, .offset = OFFSET, .extended = true,
};
static struct nbd_terms terms;
static uint8_t wire[NBD_REPLY_ERROR_OFFSET_BYTES_MAX];

static void
set_up(void)
{
	memset(wire, 0xee, sizeof(wire));
	terms = (struct nbd_terms){
		.export_bytes = 16 * TIB,
		.block_bytes_min = 1,
		.transmission_flags = NBD_FLAG_HAS_FLAGS |
			NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
			NBD_FLAG_SEND_DF | NBD_FLAG_SEND_CACHE |
			NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_SEND_RESIZE |
			NBD_FLAG_BLOCK_STATUS_PAYLOAD,
		.structured_replies = true,
		.extended_headers = true,
		.contexts = 5,
	};
}

static uint32_t
check(uint16_t type, uint16_t flags, uint64_t offset, uint64_t length)
{
	const struct nbd_request request = {
		.type = type, .flags = flags, .offset = offset,
		.length = length, .extended = true,
	};

	return nbd_request_check(&request, &terms);
}

/* ---- requests ---- */

START_TEST(header_bytes_are_those_of_the_specification)
{
	const struct nbd_request request = {
		.cookie = COOKIE, .offset = OFFSET,
		.length = UINT64_C(0x1112131415161718),
		.flags = PAYLOAD_LEN, .type = NBD_CMD_WRITE, .extended = true,
	};

	ck_assert_uint_eq(nbd_request_put(wire, &request), 32);
	ck_assert_mem_eq(wire, "\x21\xe4\x1c\x71" "\0\x20" "\0\1"
		COOKIE_BYTES OFFSET_BYTES "\x11\x12\x13\x14\x15\x16\x17\x18",
		32);
}
END_TEST

START_TEST(header_is_understood)
{
	const struct nbd_request request = {
		.cookie = UINT64_MAX - 1, .offset = UINT64_MAX - 2,
		.length = UINT64_MAX - 3, .flags = 0x8001, .type = 0xfffe,
		.extended = true,
	};
	struct nbd_request got = { .type = 99 };

	nbd_request_put(wire, &request);
	ck_assert_int_eq(nbd_request_parse(at_the_edge(wire, 32), true,
		&got), 0);
	ck_assert_uint_eq(got.cookie, request.cookie);
	ck_assert_uint_eq(got.offset, request.offset);
	ck_assert_uint_eq(got.length, request.length);
	ck_assert_uint_eq(got.flags, request.flags);
	ck_assert_uint_eq(got.type, request.type);
	ck_assert(got.extended);
}
END_TEST

/* A client that mixes both kinds is out of step. */
START_TEST(header_of_the_other_kind_is_refused)
{
	struct nbd_request request = { .type = 1 }, got = { .type = 99 };

	nbd_request_put(wire, &request);
	ck_assert_int_eq(nbd_request_parse(wire, true, &got), -EBADMSG);
	request.extended = true;
	nbd_request_put(wire, &request);
	ck_assert_int_eq(nbd_request_parse(wire, false, &got), -EBADMSG);
	ck_assert_uint_eq(got.type, 99);
}
END_TEST

START_TEST(payload_follows_a_write_and_where_the_flag_says_so)
{
	struct nbd_request request = { .length = 4096, .extended = true };
	unsigned type;

	for (type = 0; type <= UINT16_MAX; type++) {
		request.type = (uint16_t)type;
		request.flags = (uint16_t)~PAYLOAD_LEN;
		ck_assert_uint_eq(nbd_request_payload_bytes(&request),
			type == NBD_CMD_WRITE ? 4096 : 0);
		request.flags = PAYLOAD_LEN;
		ck_assert_uint_eq(nbd_request_payload_bytes(&request), 4096);
	}
	request.length = UINT64_MAX;
	ck_assert_uint_eq(nbd_request_payload_bytes(&request), UINT64_MAX);
}
END_TEST

/* In a compact header the flag means nothing, and must not move the stream. */
START_TEST(flag_in_a_compact_header_is_refused)
{
	struct nbd_request request = {
		.type = NBD_CMD_READ, .flags = PAYLOAD_LEN, .length = 512,
	};

	ck_assert_uint_eq(nbd_request_payload_bytes(&request), 0);
	ck_assert_uint_eq(nbd_request_check(&request, &terms), NBD_EINVAL);
	request.type = NBD_CMD_WRITE;
	ck_assert_uint_eq(nbd_request_payload_bytes(&request), 512);
	ck_assert_uint_eq(nbd_request_check(&request, &terms), NBD_EINVAL);
}
END_TEST

/* QEMU's client leaves it out. */
START_TEST(write_may_have_the_flag)
{
	ck_assert_uint_eq(check(NBD_CMD_WRITE, PAYLOAD_LEN, 0, 512),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_WRITE,
		PAYLOAD_LEN | NBD_CMD_FLAG_FUA, 0, 512), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_WRITE, 0, 0, 512), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_WRITE, 0, 0, (UINT64_C(1) << 32) + 1),
		NBD_EINVAL);
}
END_TEST

START_TEST(other_commands_refuse_the_flag)
{
	unsigned type;

	for (type = 0; type <= NBD_CMD_RESIZE + 1; type++)
		if (type != NBD_CMD_WRITE && type != NBD_CMD_DISC &&
		    type != NBD_CMD_BLOCK_STATUS)
			ck_assert_uint_eq(check((uint16_t)type, PAYLOAD_LEN,
				0, 512), NBD_EINVAL);
}
END_TEST

START_TEST(command_without_payload_may_span_16_tib)
{
	ck_assert_uint_eq(check(NBD_CMD_TRIM, 0, 0, 16 * TIB), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_WRITE_ZEROES, 0, 0, 16 * TIB),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_CACHE, 0, 0, 16 * TIB), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, 0, 0, 16 * TIB),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_TRIM, 0, 1, 16 * TIB), NBD_EINVAL);
	ck_assert_uint_eq(check(NBD_CMD_WRITE_ZEROES, 0, 1, UINT64_MAX),
		NBD_ENOSPC);
}
END_TEST

/* 4 GiB and a little would be a little if it were cut to 32 bits. */
START_TEST(payload_over_32_mib_is_refused)
{
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, (UINT64_C(1) << 32) + 1),
		NBD_EOVERFLOW);
	ck_assert_uint_eq(check(NBD_CMD_WRITE, PAYLOAD_LEN, 0,
		(UINT64_C(1) << 32) + 1), NBD_EINVAL);
}
END_TEST

/* ---- a status that chooses its contexts ---- */

static uint32_t
choose(uint64_t length, const uint32_t *ids, unsigned count,
	struct nbd_request *request, uint64_t *contexts)
{
	unsigned index;

	*request = (struct nbd_request){
		.type = NBD_CMD_BLOCK_STATUS, .extended = true,
		.flags = PAYLOAD_LEN | NBD_CMD_FLAG_REQ_ONE,
		.length = NBD_STATUS_CHOICE_BYTES(count),
	};
	nbd_put_be64(wire, length);
	for (index = 0; index < count; index++)
		nbd_put_be32(wire + 8 + 4 * index, ids[index]);
	ck_assert_uint_eq(nbd_request_check(request, &terms), NBD_SUCCESS);
	ck_assert(nbd_request_has_choice(request));
	return nbd_request_choose(request, &terms, at_the_edge(wire,
		request->length), contexts);
}

START_TEST(choice_is_understood)
{
	struct nbd_request request;
	uint64_t contexts = 99;

	ck_assert_uint_eq(choose(16 * TIB, (const uint32_t[]){ 3, 1 }, 2,
		&request, &contexts), NBD_SUCCESS);
	ck_assert_uint_eq(contexts, 5);
	ck_assert_uint_eq(request.length, 16 * TIB);
	ck_assert_uint_eq(request.flags, NBD_CMD_FLAG_REQ_ONE);
	ck_assert(!nbd_request_has_choice(&request));
	ck_assert_uint_eq(choose(1, (const uint32_t[]){ 3 }, 1, &request,
		&contexts), NBD_SUCCESS);
	ck_assert_uint_eq(contexts, 4);
}
END_TEST

START_TEST(choice_of_what_was_not_selected_is_refused)
{
	static const uint32_t wrong[] = { 0, 2, 4, 64, 65, 1u << 31,
		UINT32_MAX };
	struct nbd_request request;
	uint64_t contexts = 99;
	size_t index;

	for (index = 0; index < sizeof(wrong) / sizeof(*wrong); index++)
		ck_assert_uint_eq(choose(512, (const uint32_t[]){ 1,
			wrong[index] }, 2, &request, &contexts), NBD_EINVAL);
	ck_assert_uint_eq(choose(512, (const uint32_t[]){ 3, 1, 3 }, 3,
		&request, &contexts), NBD_EINVAL);
	ck_assert_uint_eq(contexts, 99);
	ck_assert(request.flags & PAYLOAD_LEN);
}
END_TEST

START_TEST(choice_of_a_bad_range_is_refused)
{
	const uint32_t id = 1;
	struct nbd_request request;
	uint64_t contexts;

	ck_assert_uint_eq(choose(0, &id, 1, &request, &contexts),
		NBD_EINVAL);
	ck_assert_uint_eq(choose(16 * TIB + 1, &id, 1, &request, &contexts),
		NBD_EINVAL);
	ck_assert_uint_eq(choose(UINT64_MAX, &id, 1, &request, &contexts),
		NBD_EINVAL);
}
END_TEST

START_TEST(choice_of_impossible_length_is_refused)
{
	static const uint64_t lengths[] = { 0, 1, 4, 8, 11, 13, 14, 15,
		NBD_STATUS_CHOICE_BYTES_MAX + 4, UINT64_C(1) << 32 };
	size_t index;

	for (index = 0; index < sizeof(lengths) / sizeof(*lengths); index++)
		ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, PAYLOAD_LEN, 0,
			lengths[index]), NBD_EINVAL);
	ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, PAYLOAD_LEN, 0,
		NBD_STATUS_CHOICE_BYTES_MAX), NBD_SUCCESS);
}
END_TEST

START_TEST(choice_that_was_not_offered_is_refused)
{
	terms.transmission_flags &= (uint16_t)~NBD_FLAG_BLOCK_STATUS_PAYLOAD;
	ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, PAYLOAD_LEN, 0, 12),
		NBD_EINVAL);
	ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, 0, 0, 12),
		NBD_SUCCESS);
}
END_TEST

START_TEST(choice_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_request_put_choice(wire, OFFSET,
		UINT64_C(1) << 63 | 5), 20);
	ck_assert_mem_eq(wire, OFFSET_BYTES "\0\0\0\1" "\0\0\0\3"
		"\0\0\0\x40", 20);
}
END_TEST

/* ---- RESIZE ---- */

START_TEST(resize_has_its_size_in_the_offset)
{
	ck_assert_uint_eq(check(NBD_CMD_RESIZE, 0, 32 * TIB, 0),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_RESIZE, 0, 1, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_RESIZE, 0, 0, 512), NBD_EINVAL);
	terms.transmission_flags |= NBD_FLAG_READ_ONLY;
	ck_assert_uint_eq(check(NBD_CMD_RESIZE, 0, 1, 0), NBD_EPERM);
	terms.transmission_flags = NBD_FLAG_HAS_FLAGS;
	ck_assert_uint_eq(check(NBD_CMD_RESIZE, 0, 1, 0), NBD_EINVAL);
}
END_TEST

START_TEST(what_was_cut_off_is_no_space)
{
	terms.former_bytes = terms.export_bytes;
	terms.export_bytes = TIB;
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, TIB - 512, 512),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, TIB, 512), NBD_ENOSPC);
	ck_assert_uint_eq(check(NBD_CMD_TRIM, 0, 0, 16 * TIB), NBD_ENOSPC);
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 16 * TIB, 512), NBD_EINVAL);
}
END_TEST

/* Each refusal has its text, and nothing else has one. */
START_TEST(refusals_have_reasons)
{
	struct nbd_request request = { .extended = true };
	unsigned type, flags, length;

	for (type = 0; type <= NBD_CMD_RESIZE + 1; type++)
		for (flags = 0; flags < 64; flags++)
			for (length = 0; length < 3; length++) {
				request.type = (uint16_t)type;
				request.flags = (uint16_t)flags;
				request.length = length << 25;
				ck_assert(!nbd_request_check(&request,
					&terms) == !nbd_request_refusal(
					&request, &terms));
			}
}
END_TEST

/* ---- replies ---- */

static int
parse(struct nbd_reply *reply)
{
	ck_assert_int_eq(nbd_reply_header_bytes(wire), 32);
	return nbd_reply_parse(at_the_edge(wire, 32), reply);
}

static int
parse_header(uint16_t type, uint64_t payload_bytes)
{
	struct nbd_reply reply;

	nbd_reply_put_chunk(wire, &sent, DONE, type, 0);
	nbd_put_be64(wire + 24, payload_bytes);
	return parse(&reply);
}

START_TEST(reply_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_reply_put_none(wire, &sent), 32);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\0\0" COOKIE_BYTES OFFSET_BYTES
		"\0\0\0\0\0\0\0\0", 32);
	ck_assert_uint_eq(nbd_reply_put_data(wire, &sent, 0, 0x42, 4096), 40);
	ck_assert_mem_eq(wire, CHUNK "\0\0" "\0\1" COOKIE_BYTES OFFSET_BYTES
		"\0\0\0\0\0\0\x10\x8" "\0\0\0\0\0\0\0\x42", 40);
	ck_assert_uint_eq(nbd_reply_put_hole(wire, &sent, DONE, 0x42, 65536),
		44);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\0\2" COOKIE_BYTES OFFSET_BYTES
		"\0\0\0\0\0\0\0\14" "\0\0\0\0\0\0\0\x42" "\0\1\0\0", 44);
	ck_assert_uint_eq(nbd_reply_put_error_offset(wire, &sent, DONE,
		NBD_EIO, "bad", 0x42), 49);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\x80\2" COOKIE_BYTES
		OFFSET_BYTES "\0\0\0\0\0\0\0\21" "\0\0\0\5" "\0\3" "bad"
		"\0\0\0\0\0\0\0\x42", 49);
}
END_TEST

START_TEST(status_bytes_are_those_of_the_specification)
{
	const struct nbd_extent extent = { 16 * TIB, NBD_STATE_ZERO };

	ck_assert_uint_eq(nbd_reply_put_status(wire, &sent, DONE, 7, 2), 40);
	ck_assert_uint_eq(nbd_reply_put_extent(wire + 40, &sent, &extent),
		16);
	ck_assert_mem_eq(wire, CHUNK "\0\1" "\0\6" COOKIE_BYTES OFFSET_BYTES
		"\0\0\0\0\0\0\0\50" "\0\0\0\7" "\0\0\0\2"
		"\0\0\x10\0\0\0\0\0" "\0\0\0\0\0\0\0\2", 56);
}
END_TEST

START_TEST(reply_is_understood)
{
	struct nbd_reply reply;

	nbd_reply_put_data(wire, &sent, DONE, 0x42, NBD_PAYLOAD_BYTES_MAX);
	ck_assert_int_eq(parse(&reply), 0);
	ck_assert(reply.structured && reply.extended);
	ck_assert_uint_eq(reply.cookie, COOKIE);
	ck_assert_uint_eq(reply.offset, OFFSET);
	ck_assert_uint_eq(reply.type, NBD_REPLY_TYPE_OFFSET_DATA);
	ck_assert_uint_eq(reply.payload_bytes, NBD_PAYLOAD_BYTES_MAX + 8);
	ck_assert_uint_eq(nbd_reply_parse_data(wire + 32), 0x42);
}
END_TEST

/* Lengths beyond 32 bits must not look short. */
START_TEST(reply_of_impossible_length_is_refused)
{
	const uint64_t wrap = UINT64_C(1) << 32;

	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_NONE, wrap), -EBADMSG);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_OFFSET_HOLE, wrap + 12),
		-EBADMSG);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_OFFSET_DATA, wrap + 16),
		-EMSGSIZE);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_ERROR, UINT64_MAX),
		-EMSGSIZE);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_BLOCK_STATUS_EXT, 24),
		0);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_BLOCK_STATUS_EXT, 8),
		-EBADMSG);
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_BLOCK_STATUS_EXT, 32),
		-EBADMSG);
	/* This kind is for structured replies only. */
	ck_assert_int_eq(parse_header(NBD_REPLY_TYPE_BLOCK_STATUS, 12),
		-EBADMSG);
}
END_TEST

START_TEST(status_is_understood)
{
	const struct nbd_extent extents[] = {
		{ 16 * TIB, UINT64_MAX }, { 1, 0 },
	};
	struct nbd_reply_status status = { .context_id = 99 };
	struct nbd_reply reply;

	nbd_reply_put_status(wire, &sent, DONE, 7, 2);
	nbd_reply_put_extent(wire + 40, &sent, &extents[0]);
	nbd_reply_put_extent(wire + 56, &sent, &extents[1]);
	ck_assert_int_eq(parse(&reply), 0);
	/* A count that says otherwise than the length. */
	nbd_put_be32(wire + 36, 1);
	ck_assert_int_eq(nbd_reply_parse_status(&reply, wire + 32, &status),
		-EBADMSG);
	ck_assert_uint_eq(status.context_id, 99);
	nbd_put_be32(wire + 36, 2);
	ck_assert_int_eq(nbd_reply_parse_status(&reply, at_the_edge(wire + 32,
		40), &status), 0);
	ck_assert_uint_eq(status.context_id, 7);
	ck_assert_uint_eq(status.extent_count, 2);
	ck_assert_uint_eq(nbd_reply_extent(&status, 0).length, 16 * TIB);
	ck_assert_uint_eq(nbd_reply_extent(&status, 0).state, UINT64_MAX);
	ck_assert_uint_eq(nbd_reply_extent(&status, 1).length, 1);
	nbd_put_be64(wire + 56, 0);
	ck_assert_int_eq(nbd_reply_parse_status(&reply, wire + 32, &status),
		-EBADMSG);
}
END_TEST

static void
add_request_tests(TCase *tcase)
{
	tcase_add_test(tcase, header_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, header_is_understood);
	tcase_add_test(tcase, header_of_the_other_kind_is_refused);
	tcase_add_test(tcase,
	    payload_follows_a_write_and_where_the_flag_says_so);
	tcase_add_test(tcase, flag_in_a_compact_header_is_refused);
	tcase_add_test(tcase, write_may_have_the_flag);
	tcase_add_test(tcase, other_commands_refuse_the_flag);
	tcase_add_test(tcase, command_without_payload_may_span_16_tib);
	tcase_add_test(tcase, payload_over_32_mib_is_refused);
	tcase_add_test(tcase, choice_is_understood);
	tcase_add_test(tcase, choice_of_what_was_not_selected_is_refused);
	tcase_add_test(tcase, choice_of_a_bad_range_is_refused);
	tcase_add_test(tcase, choice_of_impossible_length_is_refused);
	tcase_add_test(tcase, choice_that_was_not_offered_is_refused);
	tcase_add_test(tcase, choice_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, resize_has_its_size_in_the_offset);
	tcase_add_test(tcase, what_was_cut_off_is_no_space);
	tcase_add_test(tcase, refusals_have_reasons);
}

TCase *
test_proto_extended(void)
{
	TCase *tcase = tcase_create("extended");

	tcase_add_checked_fixture(tcase, set_up, NULL);
	add_request_tests(tcase);
	tcase_add_test(tcase, reply_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, status_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, reply_is_understood);
	tcase_add_test(tcase, reply_of_impossible_length_is_refused);
	tcase_add_test(tcase, status_is_understood);
	return tcase;
}
