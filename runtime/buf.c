/* SPDX-License-Identifier: MIT */
#include "runtime/buf.h"

#include <assert.h>
#include <stdlib.h>

#define SHIFT_MIN 12
#define CLASSES 14	/* 4 KiB to 32 MiB */

/* A free buffer holds the link to the next one of its class. */
struct free_buf {
	struct free_buf *next;
};

static __thread struct free_buf *classes[CLASSES];
static __thread size_t pooled_bytes;

static unsigned
class_of(size_t bytes)
{
	unsigned class = 0;

	assert(bytes <= BUF_BYTES_MAX);
	while (((size_t)1 << (SHIFT_MIN + class)) < bytes)
		class++;
	return class;
}

void *
buf_get(size_t bytes)
{
	unsigned class = class_of(bytes);
	struct free_buf *buf = classes[class];

	if (!buf)
		return aligned_alloc(4096, (size_t)1 << (SHIFT_MIN + class));
	classes[class] = buf->next;
	pooled_bytes -= (size_t)1 << (SHIFT_MIN + class);
	return buf;
}

void
buf_put(void *data, size_t bytes)
{
	unsigned class = class_of(bytes);
	size_t class_bytes = (size_t)1 << (SHIFT_MIN + class);
	struct free_buf *buf = data;

	if (!data)
		return;
	if (pooled_bytes + class_bytes > BUF_POOL_BYTES) {
		free(data);
		return;
	}
	buf->next = classes[class];
	classes[class] = buf;
	pooled_bytes += class_bytes;
}

void
buf_pool_drain(void)
{
	for (unsigned class = 0; class < CLASSES; class++) {
		while (classes[class]) {
			struct free_buf *buf = classes[class];

			classes[class] = buf->next;
			free(buf);
		}
	}
	pooled_bytes = 0;
}

size_t
buf_pool_bytes(void)
{
	return pooled_bytes;
}
