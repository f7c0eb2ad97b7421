/* SPDX-License-Identifier: MIT */
/*
 * Memory for keys.  Guards against: keys in core dumps, keys that are still
 * there when it has been given back, and one key beside another in a page.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "runtime/secret.h"
#include "tests/unit/test_runtime.h"

#define SECRET_BYTES 100

/* Whether the kernel has flag for the page at address; see proc(5). */
static bool
has_flag(const void *address, const char *flag)
{
	uintptr_t wanted = (uintptr_t)address, begin, end;
	FILE *maps = fopen("/proc/self/smaps", "r");
	char line[4096];
	bool found = false, inside = false;

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin,
		    &end) == 2)
			inside = wanted >= begin && wanted < end;
		else if (inside && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, flag);
	}
	fclose(maps);
	return found;
}

START_TEST(not_in_core_dumps)
{
	char *secret = secret_get(SECRET_BYTES);
	static const char zeros[SECRET_BYTES];

	ck_assert_ptr_nonnull(secret);
	ck_assert_mem_eq(secret, zeros, SECRET_BYTES);
	memset(secret, 'x', SECRET_BYTES);
	ck_assert(has_flag(secret, " dd"));
	ck_assert(!has_flag(zeros, " dd"));
	secret_put(secret, SECRET_BYTES);
	ck_assert(!has_flag(secret, " dd"));
	secret_put(NULL, SECRET_BYTES);
}
END_TEST

START_TEST(apart_from_each_other)
{
	char *first = secret_get(SECRET_BYTES);
	char *second = secret_get(SECRET_BYTES);

	ck_assert(first && second);
	ck_assert_uint_ne((uintptr_t)first / 4096, (uintptr_t)second / 4096);
	memset(second, 'x', SECRET_BYTES);
	secret_put(first, SECRET_BYTES);
	ck_assert_int_eq(second[SECRET_BYTES - 1], 'x');
	secret_put(second, SECRET_BYTES);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("secret");
	TCase *tests = tcase_create("secret");

	tcase_add_test(tests, not_in_core_dumps);
	tcase_add_test(tests, apart_from_each_other);
	suite_add_tcase(suite, tests);
	return test_main(suite);
}
