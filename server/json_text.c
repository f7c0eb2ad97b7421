/* SPDX-License-Identifier: MIT */
#include "server/json_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static bool out_of_memory;

static void *
allocate(size_t bytes)
{
	void *data = malloc(bytes);

	if (!data)
		out_of_memory = true;
	return data;
}

void
json_text_begin(void)
{
	out_of_memory = false;
	json_set_alloc_funcs(allocate, free);
}

int
json_text_print(json_t *value)
{
	char *text = json_dumps(value, JSON_INDENT(4));
	int err = 0;

	json_decref(value);
	if (text && !out_of_memory) {
		puts(text);
	} else {
		fprintf(stderr, "qnbd: out of memory\n");
		err = -1;
	}
	free(text);
	return err;
}
