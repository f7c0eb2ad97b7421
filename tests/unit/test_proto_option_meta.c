/* SPDX-License-Identifier: MIT */
/*
 * Guards against queries for metadata contexts whose lengths lie: of the
 * name, of a query, of the list, of the whole.  See test_proto_option.c.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>
#include <string.h>

#include "proto/option.h"
#include "proto/wire.h"

#define HEADER NBD_OPTION_HEADER_BYTES

static uint8_t wire[NBD_OPTION_META_BYTES_MAX(3)];

/* So that a field that is not written is seen. */
static void
set_up(void)
{
	memset(wire, 0xee, sizeof(wire));
}

static int
parse_meta(const uint8_t *data, size_t data_bytes,
	struct nbd_option_meta *meta)
{
	return nbd_option_parse_meta(at_the_edge(data, data_bytes),
		data_bytes, meta);
}

/* A SET_META_CONTEXT with three queries, one of them empty. */
static size_t
put_meta(void)
{
	const struct nbd_text queries[] = {
		nbd_text_of("base:allocation"),
		nbd_text_of(""),
		nbd_text_of("x-y:z"),
	};

	return nbd_option_put_meta(wire, NBD_OPT_SET_META_CONTEXT,
		nbd_text_of("disk"), queries, 3) - HEADER;
}

START_TEST(meta_bytes_are_those_of_the_specification)
{
	const struct nbd_text query = nbd_text_of("base:");

	ck_assert_uint_eq(nbd_option_put_meta(wire, NBD_OPT_LIST_META_CONTEXT,
		nbd_text_of("d"), &query, 1), HEADER + 18);
	ck_assert_mem_eq(wire, "IHAVEOPT\0\0\0\11\0\0\0\22"
		"\0\0\0\1d\0\0\0\1\0\0\0\5base:", HEADER + 18);
}
END_TEST

START_TEST(meta_queries_come_out_in_order)
{
	struct nbd_option_meta meta;
	struct nbd_text query;

	ck_assert_int_eq(parse_meta(wire + HEADER, put_meta(), &meta), 0);
	ck_assert(nbd_text_equal(meta.name, "disk"));
	ck_assert_uint_eq(meta.queries, 3);
	ck_assert(nbd_option_next_query(&meta, &query));
	ck_assert(nbd_text_equal(query, NBD_META_CONTEXT_ALLOCATION));
	ck_assert(nbd_option_next_query(&meta, &query));
	ck_assert(nbd_text_equal(query, ""));
	ck_assert(nbd_option_next_query(&meta, &query));
	ck_assert(nbd_text_equal(query, "x-y:z"));
	ck_assert(!nbd_option_next_query(&meta, &query));
	ck_assert(!nbd_option_next_query(&meta, &query));
}
END_TEST

START_TEST(meta_without_queries_is_understood)
{
	struct nbd_option_meta meta;
	struct nbd_text query;
	size_t bytes;

	bytes = nbd_option_put_meta(wire, NBD_OPT_LIST_META_CONTEXT,
		nbd_text_of(""), NULL, 0) - HEADER;
	ck_assert_uint_eq(bytes, 8);
	ck_assert_int_eq(parse_meta(wire + HEADER, bytes, &meta), 0);
	ck_assert(!nbd_option_next_query(&meta, &query));
}
END_TEST

/* Declared lengths off by -1, +1, +8, and every shorter one. */
START_TEST(meta_with_wrong_declared_length_is_refused)
{
	struct nbd_option_meta meta = { .queries = 77 };
	size_t bytes = put_meta(), declared;

	for (declared = 0; declared <= bytes + 8; declared++) {
		if (declared == bytes)
			continue;
		ck_assert_int_eq(parse_meta(wire + HEADER, declared, &meta),
			-EINVAL);
	}
	ck_assert_uint_eq(meta.queries, 77);
}
END_TEST

START_TEST(meta_with_lying_name_length_is_refused)
{
	struct nbd_option_meta meta;
	size_t bytes = put_meta(), index;

	for (index = 0; index < NASTY_LENGTHS; index++) {
		nbd_put_be32(wire + HEADER, nasty_lengths[index]);
		ck_assert_int_eq(parse_meta(wire + HEADER, bytes, &meta),
			-EINVAL);
	}
}
END_TEST

START_TEST(meta_with_lying_query_length_is_refused)
{
	struct nbd_option_meta meta;
	size_t bytes = put_meta(), index;

	for (index = 0; index < NASTY_LENGTHS; index++) {
		nbd_put_be32(wire + HEADER + 12, nasty_lengths[index]);
		ck_assert_int_eq(parse_meta(wire + HEADER, bytes, &meta),
			-EINVAL);
	}
}
END_TEST

/* 4096 * 2^20 queries would be 2^32 lengths; only those present count. */
START_TEST(meta_with_wrong_count_is_refused)
{
	static const uint32_t counts[] = {
		0, 2, 4, 1u << 20, 1u << 30, INT32_MAX, 1u << 31, UINT32_MAX,
	};
	struct nbd_option_meta meta;
	size_t bytes = put_meta(), index;

	for (index = 0; index < sizeof(counts) / sizeof(*counts); index++) {
		nbd_put_be32(wire + HEADER + 8, counts[index]);
		ck_assert_int_eq(parse_meta(wire + HEADER, bytes, &meta),
			-EINVAL);
	}
}
END_TEST

START_TEST(meta_query_may_have_4096_bytes_and_no_more)
{
	struct nbd_option_meta meta;
	uint32_t bytes;

	for (bytes = 4095; bytes <= 4097; bytes++) {
		memset(wire, 'q', sizeof(wire));
		nbd_put_be32(wire, 0);
		nbd_put_be32(wire + 4, 1);
		nbd_put_be32(wire + 8, bytes);
		ck_assert_int_eq(parse_meta(wire, 12 + bytes, &meta),
			bytes > NBD_NAME_BYTES_MAX ? -EINVAL : 0);
	}
}
END_TEST

START_TEST(meta_of_maximum_size_fits_its_constant)
{
	struct nbd_text name = nbd_text_of(repeat('n', NBD_NAME_BYTES_MAX));
	const struct nbd_text queries[] = { name, name };

	ck_assert_uint_eq(nbd_option_put_meta(wire, NBD_OPT_SET_META_CONTEXT,
		name, queries, 2), NBD_OPTION_META_BYTES_MAX(2));
}
END_TEST

TCase *
test_proto_option_meta(void)
{
	TCase *tcase = tcase_create("option_meta");

	tcase_add_checked_fixture(tcase, set_up, NULL);
	tcase_add_test(tcase, meta_bytes_are_those_of_the_specification);
	tcase_add_test(tcase, meta_queries_come_out_in_order);
	tcase_add_test(tcase, meta_without_queries_is_understood);
	tcase_add_test(tcase, meta_with_wrong_declared_length_is_refused);
	tcase_add_test(tcase, meta_with_lying_name_length_is_refused);
	tcase_add_test(tcase, meta_with_lying_query_length_is_refused);
	tcase_add_test(tcase, meta_with_wrong_count_is_refused);
	tcase_add_test(tcase, meta_query_may_have_4096_bytes_and_no_more);
	tcase_add_test(tcase, meta_of_maximum_size_fits_its_constant);
	return tcase;
}
