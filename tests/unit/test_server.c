/* SPDX-License-Identifier: MIT */
/*
 * Guards the small pure parts of the command line: sizes that are read wrong
 * by a factor, and guesses at misspelt words that are far off.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "server/options.h"
#include "server/size.h"

/* ---- sizes ---- */

static int64_t
parsed(const char *text)
{
	int64_t bytes = -1;

	ck_assert_msg(!size_parse(text, &bytes), "refused: %s", text);
	return bytes;
}

START_TEST(size_suffixes_are_powers_of_1024)
{
	ck_assert_int_eq(parsed("0"), 0);
	ck_assert_int_eq(parsed("65536"), 65536);
	ck_assert_int_eq(parsed("64k"), 65536);
	ck_assert_int_eq(parsed("64K"), 65536);
	ck_assert_int_eq(parsed("64KiB"), 65536);
	ck_assert_int_eq(parsed("64KB"), 65536);
	ck_assert_int_eq(parsed("1 MiB"), 1 << 20);
	ck_assert_int_eq(parsed("12B"), 12);
	ck_assert_int_eq(parsed("3G"), 3ll << 30);
	ck_assert_int_eq(parsed("16T"), 16ll << 40);
	ck_assert_int_eq(parsed("1P"), 1ll << 50);
	ck_assert_int_eq(parsed("7E"), 7ll << 60);
}
END_TEST

START_TEST(size_may_have_a_fraction)
{
	ck_assert_int_eq(parsed("1.5M"), 3 << 19);
	ck_assert_int_eq(parsed("0.5k"), 512);
	ck_assert_int_eq(parsed("2.G"), 2ll << 30);
}
END_TEST

START_TEST(size_that_is_none_is_refused)
{
	static const char *const wrong[] = {
		"", "k", "-1", "+1", "1kk", "1 2", "64Q", "1.5.5M", "0x10",
		" 1", "1M ", "ten",
	};
	int64_t bytes = 7;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ck_assert_msg(size_parse(wrong[i], &bytes) == -EINVAL,
		    "taken: \"%s\"", wrong[i]);
	ck_assert_int_eq(bytes, 7);
}
END_TEST

START_TEST(size_beyond_63_bits_is_refused)
{
	int64_t bytes = 7;

	ck_assert_int_eq(parsed("9223372036854775807"), INT64_MAX);
	ck_assert_int_eq(size_parse("9223372036854775808", &bytes), -ERANGE);
	ck_assert_int_eq(size_parse("8E", &bytes), -ERANGE);
	ck_assert_int_eq(size_parse("7.999999999999999999999E", &bytes),
	    -ERANGE);
	ck_assert_int_eq(size_parse("99999999999999999999", &bytes), -ERANGE);
	ck_assert_int_eq(size_parse("18014398509481985K", &bytes), -ERANGE);
	ck_assert_int_eq(bytes, 7);
}
END_TEST

START_TEST(size_is_printed_with_three_digits)
{
	char text[SIZE_TEXT_BYTES];

	ck_assert_str_eq(size_print(text, 0), "0 B");
	ck_assert_str_eq(size_print(text, 999), "999 B");
	ck_assert_str_eq(size_print(text, 1023), "0.999 KiB");
	ck_assert_str_eq(size_print(text, 1024), "1 KiB");
	ck_assert_str_eq(size_print(text, 1536), "1.5 KiB");
	ck_assert_str_eq(size_print(text, 1000 << 10), "0.977 MiB");
	ck_assert_str_eq(size_print(text, 1ull << 30), "1 GiB");
	ck_assert_str_eq(size_print(text, UINT64_MAX), "16 EiB");
}
END_TEST

/* ---- the nearest name ---- */

static const char *
nearest(const char *wrong)
{
	static const char *const names[] = {
		"serve", "info", "map", "read-only", "threads", NULL,
	};

	return options_nearest(wrong, names, sizeof(names[0]));
}

START_TEST(nearest_is_one_slip_away)
{
	ck_assert_str_eq(nearest("serv"), "serve");
	ck_assert_str_eq(nearest("sreve"), "serve");
	ck_assert_str_eq(nearest("served"), "serve");
	ck_assert_str_eq(nearest("sarve"), "serve");
	ck_assert_str_eq(nearest("mpa"), "map");
	ck_assert_str_eq(nearest("read-onyl"), "read-only");
	ck_assert_str_eq(nearest("raed-olny"), "read-only");
}
END_TEST

START_TEST(nearest_is_nothing_that_is_far)
{
	ck_assert_ptr_null(nearest("xyzzy"));
	ck_assert_ptr_null(nearest("x"));
	ck_assert_ptr_null(nearest(""));
	ck_assert_ptr_null(nearest("format"));
}
END_TEST

START_TEST(nearest_takes_a_word_of_any_length)
{
	char word[5000];

	memset(word, 'm', sizeof(word) - 1);
	word[sizeof(word) - 1] = '\0';
	ck_assert_ptr_null(nearest(word));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("server");
	TCase *sizes = tcase_create("size");
	TCase *names = tcase_create("nearest");
	SRunner *runner;
	int failed;

	tcase_add_test(sizes, size_suffixes_are_powers_of_1024);
	tcase_add_test(sizes, size_may_have_a_fraction);
	tcase_add_test(sizes, size_that_is_none_is_refused);
	tcase_add_test(sizes, size_beyond_63_bits_is_refused);
	tcase_add_test(sizes, size_is_printed_with_three_digits);
	suite_add_tcase(suite, sizes);
	tcase_add_test(names, nearest_is_one_slip_away);
	tcase_add_test(names, nearest_is_nothing_that_is_far);
	tcase_add_test(names, nearest_takes_a_word_of_any_length);
	suite_add_tcase(suite, names);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
