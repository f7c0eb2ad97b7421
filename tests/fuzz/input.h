/* SPDX-License-Identifier: MIT */
/*
 * The input of a fuzz target, taken apart from its start.
 */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *start, size_t bytes);

/* What is left of the input. */
struct input {
	const uint8_t *start;
	size_t bytes;
};

/*
 * A copy of the next bytes, to be freed, with nothing behind it that a parser
 * could read unnoticed; NULL if there are not so many.
 */
static inline uint8_t *
input_take(struct input *input, size_t bytes)
{
	uint8_t *copy;

	if (bytes > input->bytes)
		return NULL;
	copy = malloc(bytes ? bytes : 1);
	assert(copy);
	memcpy(copy, input->start, bytes);
	input->start += bytes;
	input->bytes -= bytes;
	return copy;
}
#endif
