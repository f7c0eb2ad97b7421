/* SPDX-License-Identifier: MIT */
#include "runtime/buf.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "runtime/sanitizers.h"

#define SHIFT_MIN 12
#define CLASSES 14	/* 4 KiB to 32 MiB */

/*
 * From this size on a buffer is a memory map of its own.  malloc would keep
 * what lies below a block still in use, which after a crowd of clients that
 * read much and took no replies was nearly all of it.
 */
#ifdef WITH_ASAN
#define MAPPED_BYTES_MIN SIZE_MAX	/* none: it watches malloc's */
#else
#define MAPPED_BYTES_MIN ((size_t)64 * 1024)
#endif

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

static void *
allocate(size_t class_bytes)
{
	void *data;

	if (class_bytes < MAPPED_BYTES_MIN)
		return aligned_alloc(4096, class_bytes);
	data = mmap(NULL, class_bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return data == MAP_FAILED ? NULL : data;
}

static void
release(void *data, size_t class_bytes)
{
	if (class_bytes < MAPPED_BYTES_MIN)
		free(data);
	else
		munmap(data, class_bytes);
}

void *
buf_get(size_t bytes)
{
	unsigned class = class_of(bytes);
	struct free_buf *buf = classes[class];

	if (!buf)
		return allocate((size_t)1 << (SHIFT_MIN + class));
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
		release(data, class_bytes);
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
			release(buf, (size_t)1 << (SHIFT_MIN + class));
		}
	}
	pooled_bytes = 0;
}

size_t
buf_pool_bytes(void)
{
	return pooled_bytes;
}
