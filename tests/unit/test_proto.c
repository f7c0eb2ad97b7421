/* SPDX-License-Identifier: MIT */
#include "tests/unit/test_proto.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EDGE_BYTES_MAX (64u << 10)

const uint32_t nasty_lengths[NASTY_LENGTHS] = {
	0, 1, 4095, 4096, 4097, INT32_MAX, UINT32_C(1) << 31, UINT32_MAX,
};

const uint8_t *
at_the_edge(const void *bytes, size_t count)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *area, *edge, *copy;

	assert(count <= EDGE_BYTES_MAX && EDGE_BYTES_MAX % page == 0);
	area = mmap(NULL, EDGE_BYTES_MAX + page, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(area, MAP_FAILED);
	edge = area + EDGE_BYTES_MAX;
	ck_assert_int_eq(mprotect(edge, page, PROT_NONE), 0);
	copy = edge - count;
	if (count > 0)
		memcpy(copy, bytes, count);
	return copy;
}

/* All that repeat() made; what can be reached is no leak. */
static struct repeated {
	struct repeated *next;
	char string[];
} *all_repeated;

char *
repeat(char character, size_t count)
{
	struct repeated *repeated = malloc(sizeof(*repeated) + count + 1);

	ck_assert_ptr_nonnull(repeated);
	memset(repeated->string, character, count);
	repeated->string[count] = '\0';
	repeated->next = all_repeated;
	all_repeated = repeated;
	return repeated->string;
}

int
main(void)
{
	Suite *suite = suite_create("proto");
	SRunner *runner;
	int failed;

	suite_add_tcase(suite, test_proto_text());
	suite_add_tcase(suite, test_proto_handshake());
	suite_add_tcase(suite, test_proto_option());
	suite_add_tcase(suite, test_proto_option_meta());
	suite_add_tcase(suite, test_proto_option_reply());
	suite_add_tcase(suite, test_proto_request());
	suite_add_tcase(suite, test_proto_request_check());
	suite_add_tcase(suite, test_proto_error());
	suite_add_tcase(suite, test_proto_extended());
	suite_add_tcase(suite, test_proto_reply());
	suite_add_tcase(suite, test_proto_reply_parse());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
