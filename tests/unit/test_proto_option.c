/* SPDX-License-Identifier: MIT */
/*
 * Guards against options whose lengths lie: in the header, of a name, of a
 * list.  Servers have read and written past buffers
 * (CVE-2022-26495, CVE-2017-15118), swallowed gigabytes (CVE-2017-15119), and
 * died of an assertion when the declared length of an option did not agree
 * with its data (QEMU issue 4843).  Data stands at the edge of memory, so
 * that reading past it crashes.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>
#include <string.h>

#include "proto/option.h"
#include "proto/wire.h"

#define HEADER NBD_OPTION_HEADER_BYTES

static uint8_t wire[128 << 10];

/* So that a field that is not written is seen. */
static void
set_up(void)
{
	memset(wire, 0xee, sizeof(wire));
}

static const uint16_t infos[] = { NBD_INFO_NAME, NBD_INFO_BLOCK_SIZE };

static int
parse_go(const uint8_t *data, size_t data_bytes, struct nbd_option_go *go)
{
	return nbd_option_parse_go(at_the_edge(data, data_bytes), data_bytes,
		go);
}

/* A GO for "disk" with two infos, in wire.  Returns the bytes of its data. */
static size_t
put_go(void)
{
	return nbd_option_put_go(wire, NBD_OPT_GO, nbd_text_of("disk"), infos,
		2) - HEADER;
}

START_TEST(header_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(nbd_option_put(wire, NBD_OPT_LIST), 16);
	ck_assert_mem_eq(wire, "IHAVEOPT\0\0\0\3\0\0\0\0", 16);
}
END_TEST

/* Out of step: nothing behind this can be found, so no reply either. */
START_TEST(header_with_bad_magic_is_refused)
{
	struct nbd_option option = { .type = 99 };
	size_t index;

	for (index = 0; index < 8; index++) {
		nbd_option_put(wire, NBD_OPT_LIST);
		wire[index] ^= 0x20;
		ck_assert_int_eq(nbd_option_parse(wire, &option), -EBADMSG);
	}
	ck_assert_uint_eq(option.type, 99);
}
END_TEST

/* The data of an option we do not know must be found, to be passed over. */
START_TEST(header_of_unknown_option_tells_its_length)
{
	struct nbd_option option;

	nbd_option_put(wire, 0xfffffff0);
	nbd_put_be32(wire + 12, 1234);
	ck_assert_int_eq(nbd_option_parse(wire, &option), 0);
	ck_assert_uint_eq(option.type, 0xfffffff0);
	ck_assert_uint_eq(option.data_bytes, 1234);
}
END_TEST

/* 4 GiB of data were once read and dropped (CVE-2017-15119). */
START_TEST(header_with_too_much_data_is_refused)
{
	const uint32_t limit = NBD_OPTION_BYTES_MAX;
	struct nbd_option option;
	uint32_t length;
	size_t index;

	nbd_option_put(wire, NBD_OPT_GO);
	for (index = 0; index < NASTY_LENGTHS; index++) {
		length = nasty_lengths[index];
		nbd_put_be32(wire + 12, length);
		ck_assert_int_eq(nbd_option_parse(wire, &option),
			length > limit ? -EMSGSIZE : 0);
	}
	nbd_put_be32(wire + 12, limit);
	ck_assert_int_eq(nbd_option_parse(wire, &option), 0);
	nbd_put_be32(wire + 12, limit + 1);
	ck_assert_int_eq(nbd_option_parse(wire, &option), -EMSGSIZE);
}
END_TEST

START_TEST(export_name_is_the_whole_data)
{
	struct nbd_text name;
	size_t bytes;

	bytes = nbd_option_put_export_name(wire, nbd_text_of("disk"));
	ck_assert_uint_eq(bytes, HEADER + 4);
	ck_assert_uint_eq(nbd_get_be32(wire + 12), 4);
	ck_assert_int_eq(nbd_option_parse_export_name(
		at_the_edge(wire + HEADER, 4), 4, &name), 0);
	ck_assert(nbd_text_equal(name, "disk"));
}
END_TEST

START_TEST(export_name_may_have_4096_bytes_and_no_more)
{
	struct nbd_text name;

	memset(wire, 'n', 4097);
	ck_assert_int_eq(nbd_option_parse_export_name(
		at_the_edge(wire, 4096), 4096, &name), 0);
	ck_assert_uint_eq(name.bytes, 4096);
	ck_assert_int_eq(nbd_option_parse_export_name(
		at_the_edge(wire, 4097), 4097, &name), -EINVAL);
}
END_TEST

START_TEST(go_bytes_are_those_of_the_specification)
{
	ck_assert_uint_eq(put_go(), 14);
	ck_assert_mem_eq(wire,
		"IHAVEOPT\0\0\0\7\0\0\0\16" "\0\0\0\4disk\0\2\0\1\0\3", 30);
}
END_TEST

START_TEST(go_is_understood)
{
	struct nbd_option_go go;

	ck_assert_int_eq(parse_go(wire + HEADER, put_go(), &go), 0);
	ck_assert(nbd_text_equal(go.name, "disk"));
	ck_assert(nbd_option_go_wants(&go, NBD_INFO_NAME));
	ck_assert(nbd_option_go_wants(&go, NBD_INFO_BLOCK_SIZE));
	ck_assert(!nbd_option_go_wants(&go, NBD_INFO_EXPORT));
	ck_assert(!nbd_option_go_wants(&go, NBD_INFO_DESCRIPTION));
}
END_TEST

START_TEST(go_without_name_means_the_default_export)
{
	struct nbd_option_go go;
	size_t bytes;

	bytes = nbd_option_put_go(wire, NBD_OPT_INFO, nbd_text_of(""), NULL,
		0) - HEADER;
	ck_assert_uint_eq(bytes, 6);
	ck_assert_int_eq(parse_go(wire + HEADER, bytes, &go), 0);
	ck_assert_uint_eq(go.name.bytes, 0);
	ck_assert_uint_eq(go.wanted, 0);
}
END_TEST

/* The length 0xffffffff became an allocation of 0 bytes (CVE-2022-26495). */
START_TEST(go_with_lying_name_length_is_refused)
{
	struct nbd_option_go go;
	size_t bytes = put_go(), index;

	for (index = 0; index < NASTY_LENGTHS; index++) {
		nbd_put_be32(wire + HEADER, nasty_lengths[index]);
		ck_assert_int_eq(parse_go(wire + HEADER, bytes, &go),
			-EINVAL);
	}
}
END_TEST

/* The name may reach to 6 bytes before the end, and not one further. */
START_TEST(go_with_name_into_the_count_is_refused)
{
	struct nbd_option_go go;

	nbd_put_be32(wire, 5);
	memcpy(wire + 4, "disk\0\0", 6);
	ck_assert_int_eq(parse_go(wire, 10, &go), -EINVAL);
	nbd_put_be32(wire, 4);
	ck_assert_int_eq(parse_go(wire, 10, &go), 0);
}
END_TEST

START_TEST(go_with_name_over_4096_bytes_is_refused)
{
	struct nbd_option_go go;
	uint32_t bytes;

	for (bytes = 4095; bytes <= 4097; bytes++) {
		memset(wire, 'n', sizeof(wire));
		nbd_put_be32(wire, bytes);
		nbd_put_be16(wire + 4 + bytes, 0);
		ck_assert_int_eq(parse_go(wire, 4 + bytes + 2, &go),
			bytes > NBD_NAME_BYTES_MAX ? -EINVAL : 0);
	}
}
END_TEST

/* One info is 2 bytes: a count that disagrees with the rest is an error. */
START_TEST(go_with_wrong_count_is_refused)
{
	static const uint16_t counts[] = { 0, 1, 3, 0x7fff, 0x8002, 0xffff };
	struct nbd_option_go go;
	size_t bytes = put_go(), index;

	for (index = 0; index < sizeof(counts) / sizeof(*counts); index++) {
		nbd_put_be16(wire + HEADER + 8, counts[index]);
		ck_assert_int_eq(parse_go(wire + HEADER, bytes, &go),
			-EINVAL);
	}
}
END_TEST

/* Declared lengths off by -1, +1, +8, and every shorter one. */
START_TEST(go_with_wrong_declared_length_is_refused)
{
	struct nbd_option_go go = { .wanted = 77 };
	size_t bytes = put_go(), declared;

	for (declared = 0; declared <= bytes + 8; declared++) {
		if (declared == bytes)
			continue;
		ck_assert_int_eq(parse_go(wire + HEADER, declared, &go),
			-EINVAL);
	}
	ck_assert_uint_eq(go.wanted, 77);
}
END_TEST

/* The server must ignore facts it does not know; 35 must not act as 3. */
START_TEST(go_ignores_unknown_infos)
{
	static const uint16_t unknown[] = { 4, 31, 32, 35, 0x8003, 0xffff };
	struct nbd_option_go go;
	size_t bytes;

	bytes = nbd_option_put_go(wire, NBD_OPT_GO, nbd_text_of("disk"),
		unknown, 6) - HEADER;
	ck_assert_int_eq(parse_go(wire + HEADER, bytes, &go), 0);
	ck_assert_uint_eq(go.wanted, 0);
}
END_TEST

START_TEST(go_takes_an_info_asked_for_twice)
{
	static const uint16_t twice[] = { NBD_INFO_NAME, NBD_INFO_NAME };
	struct nbd_option_go go;
	size_t bytes;

	bytes = nbd_option_put_go(wire, NBD_OPT_GO, nbd_text_of("disk"),
		twice, 2) - HEADER;
	ck_assert_int_eq(parse_go(wire + HEADER, bytes, &go), 0);
	ck_assert_uint_eq(go.wanted, 1u << NBD_INFO_NAME);
}
END_TEST

START_TEST(go_of_maximum_size_fits_its_constant)
{
	struct nbd_text name = nbd_text_of(repeat('n', NBD_NAME_BYTES_MAX));

	ck_assert_uint_eq(nbd_option_put_go(wire, NBD_OPT_GO, name, infos, 2),
		NBD_OPTION_GO_BYTES_MAX(2));
	ck_assert_uint_eq(nbd_option_put_export_name(wire, name),
		NBD_OPTION_EXPORT_NAME_BYTES_MAX);
}
END_TEST

START_TEST(option_names_are_those_of_the_specification)
{
	ck_assert_str_eq(nbd_option_name(1), "EXPORT_NAME");
	ck_assert_str_eq(nbd_option_name(2), "ABORT");
	ck_assert_str_eq(nbd_option_name(3), "LIST");
	ck_assert_str_eq(nbd_option_name(4), "unknown");
	ck_assert_str_eq(nbd_option_name(5), "STARTTLS");
	ck_assert_str_eq(nbd_option_name(6), "INFO");
	ck_assert_str_eq(nbd_option_name(7), "GO");
	ck_assert_str_eq(nbd_option_name(8), "STRUCTURED_REPLY");
	ck_assert_str_eq(nbd_option_name(9), "LIST_META_CONTEXT");
	ck_assert_str_eq(nbd_option_name(10), "SET_META_CONTEXT");
	ck_assert_str_eq(nbd_option_name(11), "EXTENDED_HEADERS");
	ck_assert_str_eq(nbd_option_name(UINT32_MAX), "unknown");
}
END_TEST

TCase *
test_proto_option(void)
{
	TCase *tcase = tcase_create("option");

	tcase_add_checked_fixture(tcase, set_up, NULL);
	tcase_add_test(tcase, header_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, header_with_bad_magic_is_refused);
	tcase_add_test(tcase, header_of_unknown_option_tells_its_length);
	tcase_add_test(tcase, header_with_too_much_data_is_refused);
	tcase_add_test(tcase, export_name_is_the_whole_data);
	tcase_add_test(tcase, export_name_may_have_4096_bytes_and_no_more);
	tcase_add_test(tcase, go_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, go_is_understood);
	tcase_add_test(tcase, go_without_name_means_the_default_export);
	tcase_add_test(tcase, go_with_lying_name_length_is_refused);
	tcase_add_test(tcase, go_with_name_into_the_count_is_refused);
	tcase_add_test(tcase, go_with_name_over_4096_bytes_is_refused);
	tcase_add_test(tcase, go_with_wrong_count_is_refused);
	tcase_add_test(tcase, go_with_wrong_declared_length_is_refused);
	tcase_add_test(tcase, go_ignores_unknown_infos);
	tcase_add_test(tcase, go_takes_an_info_asked_for_twice);
	tcase_add_test(tcase, go_of_maximum_size_fits_its_constant);
	tcase_add_test(tcase, option_names_are_those_of_the_specification);
	return tcase;
}
