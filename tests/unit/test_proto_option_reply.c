/* SPDX-License-Identifier: MIT */
/*
 * Guards against option replies that no client would understand, against
 * error texts that grow with what the client sent (CVE-2020-10761), and, for
 * our own clients, against servers that lie about lengths and sizes.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>
#include <string.h>

#include "proto/option_reply.h"
#include "proto/wire.h"

#define HEADER NBD_OPTION_REPLY_HEADER_BYTES
#define MAGIC "\0\3\xe8\x89\4\x55\x65\xa9"

static uint8_t wire[NBD_OPTION_REPLY_BYTES_MAX];

static const struct nbd_block_size default_size = {
	.minimum = 1,
	.preferred = 4096,
	.payload_max = NBD_PAYLOAD_BYTES_MAX,
};

/* So that a field that is not written is seen. */
static void
set_up(void)
{
	memset(wire, 0xee, sizeof(wire));
}

static int
parse_info(size_t data_bytes, struct nbd_info *info)
{
	return nbd_option_reply_parse_info(
		at_the_edge(wire + HEADER, data_bytes), data_bytes, info);
}

static int
parse_server(size_t data_bytes, struct nbd_text *name,
	struct nbd_text *description)
{
	return nbd_option_reply_parse_server(
		at_the_edge(wire + HEADER, data_bytes), data_bytes, name,
		description);
}

START_TEST(ack_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_option_reply_put_ack(wire, NBD_OPT_ABORT), 20);
	ck_assert_mem_eq(wire, MAGIC "\0\0\0\2" "\0\0\0\1" "\0\0\0\0", 20);
}
END_TEST

START_TEST(server_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_option_reply_put_server(wire,
		nbd_text_of("disk"), "of Ann"), 34);
	ck_assert_mem_eq(wire, MAGIC "\0\0\0\3" "\0\0\0\2" "\0\0\0\16"
		"\0\0\0\4disk" "of Ann", 34);
}
END_TEST

START_TEST(server_is_understood)
{
	struct nbd_text name, description;

	nbd_option_reply_put_server(wire, nbd_text_of("disk"), "of Ann");
	ck_assert_int_eq(parse_server(14, &name, &description), 0);
	ck_assert(nbd_text_equal(name, "disk"));
	ck_assert(nbd_text_equal(description, "of Ann"));
}
END_TEST

START_TEST(server_needs_no_description)
{
	struct nbd_text name, description;

	ck_assert_uint_eq(nbd_option_reply_put_server(wire,
		nbd_text_of(""), NULL), HEADER + 4);
	ck_assert_int_eq(parse_server(4, &name, &description), 0);
	ck_assert_uint_eq(name.bytes, 0);
	ck_assert_uint_eq(description.bytes, 0);
}
END_TEST

/* The longest reply there is; a longer description is cut. */
START_TEST(server_of_maximum_size_fits_its_constant)
{
	struct nbd_text name = nbd_text_of(repeat('n', NBD_NAME_BYTES_MAX));

	ck_assert_uint_eq(nbd_option_reply_put_server(wire, name,
		repeat('d', 5000)), NBD_OPTION_REPLY_BYTES_MAX);
}
END_TEST

START_TEST(server_with_lying_name_length_is_refused)
{
	struct nbd_text name, description;
	size_t index;

	for (index = 0; index < NASTY_LENGTHS; index++) {
		nbd_option_reply_put_server(wire, nbd_text_of("disk"), NULL);
		nbd_put_be32(wire + HEADER, nasty_lengths[index]);
		ck_assert_int_eq(parse_server(8, &name, &description),
			nasty_lengths[index] > 4 ? -EINVAL : 0);
	}
	ck_assert_int_eq(parse_server(3, &name, &description), -EINVAL);
}
END_TEST

START_TEST(info_export_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_option_reply_put_info_export(wire, NBD_OPT_GO,
		UINT64_C(0x123456789abcdef0), 0x05ed), 32);
	ck_assert_mem_eq(wire, MAGIC "\0\0\0\7" "\0\0\0\3" "\0\0\0\14" "\0\0"
		"\x12\x34\x56\x78\x9a\xbc\xde\xf0" "\5\xed", 32);
}
END_TEST

START_TEST(info_export_is_understood)
{
	struct nbd_info info;

	nbd_option_reply_put_info_export(wire, NBD_OPT_INFO,
		UINT64_C(1) << 62, 0x8001);
	ck_assert_int_eq(parse_info(12, &info), 0);
	ck_assert_uint_eq(info.type, NBD_INFO_EXPORT);
	ck_assert_uint_eq(info.export_bytes, UINT64_C(1) << 62);
	ck_assert_uint_eq(info.transmission_flags, 0x8001);
}
END_TEST

START_TEST(info_export_of_wrong_length_is_refused)
{
	struct nbd_info info = { .type = 99 };

	nbd_option_reply_put_info_export(wire, NBD_OPT_GO, 1, 1);
	ck_assert_int_eq(parse_info(11, &info), -EINVAL);
	ck_assert_int_eq(parse_info(13, &info), -EINVAL);
	ck_assert_int_eq(parse_info(2, &info), -EINVAL);
	ck_assert_uint_eq(info.type, 99);
}
END_TEST

START_TEST(info_name_is_understood)
{
	struct nbd_info info;

	ck_assert_uint_eq(nbd_option_reply_put_info_name(wire, NBD_OPT_GO,
		nbd_text_of("disk")), HEADER + 6);
	ck_assert_mem_eq(wire + 16, "\0\0\0\6" "\0\1" "disk", 10);
	ck_assert_int_eq(parse_info(6, &info), 0);
	ck_assert_uint_eq(info.type, NBD_INFO_NAME);
	ck_assert(nbd_text_equal(info.text, "disk"));
}
END_TEST

START_TEST(info_description_is_cut_to_4096_bytes)
{
	struct nbd_info info;

	ck_assert_uint_eq(nbd_option_reply_put_info_description(wire,
		NBD_OPT_GO, repeat('d', 5000)),
		HEADER + 2 + NBD_NAME_BYTES_MAX);
	ck_assert_mem_eq(wire + HEADER, "\0\2" "dd", 4);
	ck_assert_int_eq(parse_info(2 + NBD_NAME_BYTES_MAX, &info), 0);
	ck_assert_uint_eq(info.type, NBD_INFO_DESCRIPTION);
	ck_assert_uint_eq(info.text.bytes, NBD_NAME_BYTES_MAX);
}
END_TEST

START_TEST(info_block_size_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_option_reply_put_info_block_size(wire,
		NBD_OPT_GO, &default_size), 34);
	ck_assert_mem_eq(wire + 12, "\0\0\0\3" "\0\0\0\16" "\0\3"
		"\0\0\0\1" "\0\0\x10\0" "\2\0\0\0", 22);
}
END_TEST

START_TEST(info_block_size_is_understood)
{
	struct nbd_info info;

	nbd_option_reply_put_info_block_size(wire, NBD_OPT_GO, &default_size);
	ck_assert_int_eq(parse_info(14, &info), 0);
	ck_assert_uint_eq(info.type, NBD_INFO_BLOCK_SIZE);
	ck_assert_uint_eq(info.block_size.minimum, 1);
	ck_assert_uint_eq(info.block_size.preferred, 4096);
	ck_assert_uint_eq(info.block_size.payload_max, 32u << 20);
	ck_assert_int_eq(parse_info(13, &info), -EINVAL);
}
END_TEST

START_TEST(info_block_size_at_its_limits_is_understood)
{
	static const struct nbd_block_size limits[] = {
		{ 1, 512, 512 },
		{ 65536, 65536, 65536 },
		{ 512, 1u << 31, UINT32_MAX },
	};
	struct nbd_info info;
	size_t index;

	for (index = 0; index < sizeof(limits) / sizeof(*limits); index++) {
		nbd_option_reply_put_info_block_size(wire, NBD_OPT_GO,
			&limits[index]);
		ck_assert_int_eq(parse_info(14, &info), 0);
	}
}
END_TEST

/* Powers of 2, minimum <= 65536, preferred >= 512 and >= minimum. */
START_TEST(info_block_size_that_cannot_be_is_refused)
{
	static const struct nbd_block_size wrong[] = {
		{ 0, 4096, 1 << 20 },
		{ 3, 4096, 1 << 20 },
		{ 131072, 131072, 1 << 20 },
		{ 1, 256, 1 << 20 },
		{ 1, 4097, 1 << 20 },
		{ 4096, 2048, 1 << 20 },
		{ 1, 4096, 4095 },
	};
	const struct nbd_block_size *size;
	struct nbd_info info;
	size_t index;

	nbd_option_reply_put_info_block_size(wire, NBD_OPT_GO, &default_size);
	for (index = 0; index < sizeof(wrong) / sizeof(*wrong); index++) {
		size = &wrong[index];
		nbd_put_be32(wire + HEADER + 2, size->minimum);
		nbd_put_be32(wire + HEADER + 6, size->preferred);
		nbd_put_be32(wire + HEADER + 10, size->payload_max);
		ck_assert_int_eq(parse_info(14, &info), -EINVAL);
	}
}
END_TEST

/* The server may send facts that were not asked for, of any length. */
START_TEST(info_unknown_is_passed_over)
{
	struct nbd_info info;

	memset(wire, 0, sizeof(wire));
	nbd_put_be16(wire + HEADER, 0x4242);
	ck_assert_int_eq(parse_info(2, &info), 0);
	ck_assert_uint_eq(info.type, 0x4242);
	ck_assert_int_eq(parse_info(100, &info), 0);
	ck_assert_int_eq(parse_info(1, &info), -EINVAL);
	ck_assert_int_eq(parse_info(0, &info), -EINVAL);
}
END_TEST

START_TEST(meta_context_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_option_reply_put_meta_context(wire,
		NBD_OPT_SET_META_CONTEXT, 0x01020304,
		nbd_text_of(NBD_META_CONTEXT_ALLOCATION)), HEADER + 19);
	ck_assert_mem_eq(wire + 8, "\0\0\0\12" "\0\0\0\4" "\0\0\0\23"
		"\1\2\3\4" "base:allocation", 31);
}
END_TEST

START_TEST(meta_context_is_understood)
{
	struct nbd_text name;
	uint32_t id;

	nbd_option_reply_put_meta_context(wire, NBD_OPT_SET_META_CONTEXT, 7,
		nbd_text_of("x:y"));
	ck_assert_int_eq(nbd_option_reply_parse_meta_context(
		at_the_edge(wire + HEADER, 7), 7, &id, &name), 0);
	ck_assert_uint_eq(id, 7);
	ck_assert(nbd_text_equal(name, "x:y"));
	ck_assert_int_eq(nbd_option_reply_parse_meta_context(
		at_the_edge(wire + HEADER, 4), 4, &id, &name), 0);
	ck_assert_uint_eq(name.bytes, 0);
	ck_assert_int_eq(nbd_option_reply_parse_meta_context(
		at_the_edge(wire + HEADER, 3), 3, &id, &name), -EINVAL);
}
END_TEST

START_TEST(error_carries_its_text)
{
	struct nbd_option_reply reply;

	ck_assert_uint_eq(nbd_option_reply_put_error(wire, NBD_OPT_GO,
		NBD_REP_ERR_UNKNOWN, "no export here"), HEADER + 14);
	ck_assert_int_eq(nbd_option_reply_parse(at_the_edge(wire, HEADER),
		&reply), 0);
	ck_assert_uint_eq(reply.option, NBD_OPT_GO);
	ck_assert_uint_eq(reply.type, 0x80000006);
	ck_assert(nbd_option_reply_is_error(&reply));
	ck_assert_uint_eq(reply.data_bytes, 14);
	ck_assert_mem_eq(wire + HEADER, "no export here", 14);
}
END_TEST

/* A reply that quotes a name of 4096 bytes killed a server. */
START_TEST(error_text_never_exceeds_4096)
{
	struct nbd_option_reply reply;
	size_t excess;

	for (excess = 0; excess < 8192; excess += 1024) {
		ck_assert_uint_eq(nbd_option_reply_put_error(wire, NBD_OPT_GO,
			NBD_REP_ERR_UNKNOWN,
			repeat('n', NBD_NAME_BYTES_MAX + excess)),
			HEADER + NBD_NAME_BYTES_MAX);
		ck_assert_int_eq(nbd_option_reply_parse(wire, &reply), 0);
		ck_assert_uint_eq(reply.data_bytes, NBD_NAME_BYTES_MAX);
	}
}
END_TEST

START_TEST(error_needs_no_text)
{
	ck_assert_uint_eq(nbd_option_reply_put_error(wire, NBD_OPT_STARTTLS,
		NBD_REP_ERR_UNSUP, NULL), HEADER);
	ck_assert_mem_eq(wire + 8, "\0\0\0\5" "\x80\0\0\1" "\0\0\0\0", 12);
}
END_TEST

/* The option of the reply is the client's own number, known or not. */
START_TEST(error_echoes_an_unknown_option)
{
	struct nbd_option_reply reply;

	nbd_option_reply_put_error(wire, 0xfffffff0, NBD_REP_ERR_UNSUP, NULL);
	ck_assert_int_eq(nbd_option_reply_parse(wire, &reply), 0);
	ck_assert_uint_eq(reply.option, 0xfffffff0);
}
END_TEST

START_TEST(reply_with_bad_magic_is_refused)
{
	struct nbd_option_reply reply = { .type = 99 };

	nbd_option_reply_put_ack(wire, NBD_OPT_GO);
	wire[7] ^= 1;
	ck_assert_int_eq(nbd_option_reply_parse(wire, &reply), -EBADMSG);
	ck_assert_uint_eq(reply.type, 99);
}
END_TEST

START_TEST(reply_with_too_much_data_is_refused)
{
	const uint32_t limit = NBD_OPTION_REPLY_DATA_BYTES_MAX;
	struct nbd_option_reply reply;
	size_t index;

	nbd_option_reply_put_ack(wire, NBD_OPT_GO);
	for (index = 0; index < NASTY_LENGTHS; index++) {
		nbd_put_be32(wire + 16, nasty_lengths[index]);
		ck_assert_int_eq(nbd_option_reply_parse(wire, &reply),
			nasty_lengths[index] > limit ? -EMSGSIZE : 0);
	}
	nbd_put_be32(wire + 16, limit);
	ck_assert_int_eq(nbd_option_reply_parse(wire, &reply), 0);
	nbd_put_be32(wire + 16, limit + 1);
	ck_assert_int_eq(nbd_option_reply_parse(wire, &reply), -EMSGSIZE);
}
END_TEST

START_TEST(reply_names_are_those_of_the_specification)
{
	static const char *const errors[] = {
		"unknown", "ERR_UNSUP", "ERR_POLICY", "ERR_INVALID",
		"ERR_PLATFORM", "ERR_TLS_REQD", "ERR_UNKNOWN", "ERR_SHUTDOWN",
		"ERR_BLOCK_SIZE_REQD", "ERR_TOO_BIG", "ERR_EXT_HEADER_REQD",
		"unknown",
	};
	uint32_t number;

	for (number = 0; number < sizeof(errors) / sizeof(*errors); number++)
		ck_assert_str_eq(nbd_option_reply_name(UINT32_C(0x80000000) +
			number), errors[number]);
	ck_assert_str_eq(nbd_option_reply_name(1), "ACK");
	ck_assert_str_eq(nbd_option_reply_name(2), "SERVER");
	ck_assert_str_eq(nbd_option_reply_name(3), "INFO");
	ck_assert_str_eq(nbd_option_reply_name(4), "META_CONTEXT");
	ck_assert_str_eq(nbd_option_reply_name(5), "unknown");
}
END_TEST

static void
add_info_tests(TCase *tcase)
{
	tcase_add_test(tcase,
		info_export_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, info_export_is_understood);
	tcase_add_test(tcase, info_export_of_wrong_length_is_refused);
	tcase_add_test(tcase, info_name_is_understood);
	tcase_add_test(tcase, info_description_is_cut_to_4096_bytes);
	tcase_add_test(tcase,
		info_block_size_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, info_block_size_is_understood);
	tcase_add_test(tcase, info_block_size_at_its_limits_is_understood);
	tcase_add_test(tcase, info_block_size_that_cannot_be_is_refused);
	tcase_add_test(tcase, info_unknown_is_passed_over);
}

TCase *
test_proto_option_reply(void)
{
	TCase *tcase = tcase_create("option_reply");

	tcase_add_checked_fixture(tcase, set_up, NULL);
	tcase_add_test(tcase, ack_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, server_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, server_is_understood);
	tcase_add_test(tcase, server_needs_no_description);
	tcase_add_test(tcase, server_of_maximum_size_fits_its_constant);
	tcase_add_test(tcase, server_with_lying_name_length_is_refused);
	add_info_tests(tcase);
	tcase_add_test(tcase,
		meta_context_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, meta_context_is_understood);
	tcase_add_test(tcase, error_carries_its_text);
	tcase_add_test(tcase, error_text_never_exceeds_4096);
	tcase_add_test(tcase, error_needs_no_text);
	tcase_add_test(tcase, error_echoes_an_unknown_option);
	tcase_add_test(tcase, reply_with_bad_magic_is_refused);
	tcase_add_test(tcase, reply_with_too_much_data_is_refused);
	tcase_add_test(tcase, reply_names_are_those_of_the_specification);
	return tcase;
}
