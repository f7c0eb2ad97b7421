/* SPDX-License-Identifier: MIT */
/*
 * Guards against strings that are longer than the protocol allows, or that
 * hide a NUL, and against texts for people that are cut inside a character.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>
#include <string.h>

#include "proto/nbd.h"
#include "proto/text.h"

/* A name of 257 to 4096 bytes is legal (CVE-2017-15118: a buffer of 256). */
START_TEST(text_of_4096_bytes_is_taken)
{
	char *string = repeat('n', NBD_NAME_BYTES_MAX);
	struct nbd_text text;

	ck_assert_int_eq(nbd_text_parse(at_the_edge(string,
		NBD_NAME_BYTES_MAX), NBD_NAME_BYTES_MAX, &text), 0);
	ck_assert(nbd_text_equal(text, string));
}
END_TEST

START_TEST(text_of_4097_bytes_is_refused)
{
	char *string = repeat('n', NBD_NAME_BYTES_MAX + 1);
	struct nbd_text text = { "untouched", 9 };

	ck_assert_int_eq(nbd_text_parse((const uint8_t *)string,
		NBD_NAME_BYTES_MAX + 1, &text), -EINVAL);
	ck_assert(nbd_text_equal(text, "untouched"));
}
END_TEST

/* "disk\0evil" must not pass for "disk" once it is a C string. */
START_TEST(text_with_nul_is_refused)
{
	struct nbd_text text;

	ck_assert_int_eq(nbd_text_parse((const uint8_t *)"disk\0evil", 9,
		&text), -EINVAL);
	ck_assert_int_eq(nbd_text_parse((const uint8_t *)"disk", 5, &text),
		-EINVAL);
}
END_TEST

START_TEST(text_may_be_empty)
{
	struct nbd_text text;

	ck_assert_int_eq(nbd_text_parse(at_the_edge("", 0), 0, &text), 0);
	ck_assert(nbd_text_equal(text, ""));
	ck_assert(nbd_text_equal(nbd_text_of(NULL), ""));
}
END_TEST

/* An access list once matched by prefix (CVE-2013-6410). */
START_TEST(text_equal_is_not_a_prefix_match)
{
	ck_assert(nbd_text_equal(nbd_text_of("disk"), "disk"));
	ck_assert(!nbd_text_equal(nbd_text_of("disk"), "disk1"));
	ck_assert(!nbd_text_equal(nbd_text_of("disk1"), "disk"));
	ck_assert(!nbd_text_equal(nbd_text_of("disk"), "Disk"));
}
END_TEST

START_TEST(text_cut_leaves_short_text_alone)
{
	char *string = repeat('x', NBD_NAME_BYTES_MAX);

	ck_assert_uint_eq(nbd_text_cut(nbd_text_of(string)).bytes,
		NBD_NAME_BYTES_MAX);
	ck_assert_uint_eq(nbd_text_cut(nbd_text_of("short")).bytes, 5);
}
END_TEST

START_TEST(text_cut_never_exceeds_4096)
{
	char *string = repeat('x', NBD_NAME_BYTES_MAX + 1);

	ck_assert_uint_eq(nbd_text_cut(nbd_text_of(string)).bytes,
		NBD_NAME_BYTES_MAX);
}
END_TEST

/* A character across byte 4096 goes as a whole, whatever its length. */
START_TEST(text_cut_keeps_characters_whole)
{
	static const char *const characters[] = {
		"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x92\xbe",
	};
	const char *character = characters[_i];
	size_t length = strlen(character), before;
	char *string;

	for (before = 1; before < length; before++) {
		string = repeat('x', NBD_NAME_BYTES_MAX + 8);
		memcpy(string + NBD_NAME_BYTES_MAX - before, character,
			length);
		ck_assert_uint_eq(nbd_text_cut(nbd_text_of(string)).bytes,
			NBD_NAME_BYTES_MAX - before);
	}
}
END_TEST

/* What is not UTF-8 is still cut, and not down to nothing. */
START_TEST(text_cut_takes_any_bytes)
{
	char *string = repeat('\x80', 2 * NBD_NAME_BYTES_MAX);

	ck_assert_uint_eq(nbd_text_cut(nbd_text_of(string)).bytes,
		NBD_NAME_BYTES_MAX);
}
END_TEST

TCase *
test_proto_text(void)
{
	TCase *tcase = tcase_create("text");

	tcase_add_test(tcase, text_of_4096_bytes_is_taken);
	tcase_add_test(tcase, text_of_4097_bytes_is_refused);
	tcase_add_test(tcase, text_with_nul_is_refused);
	tcase_add_test(tcase, text_may_be_empty);
	tcase_add_test(tcase, text_equal_is_not_a_prefix_match);
	tcase_add_test(tcase, text_cut_leaves_short_text_alone);
	tcase_add_test(tcase, text_cut_never_exceeds_4096);
	tcase_add_loop_test(tcase, text_cut_keeps_characters_whole, 0, 3);
	tcase_add_test(tcase, text_cut_takes_any_bytes);
	return tcase;
}
