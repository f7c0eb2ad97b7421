/* SPDX-License-Identifier: MIT */
/*
 * A window: reads a table whose entries differ in length, from front to back.
 *
 * For the snapshot table and the bitmap directory, which may be 64 MiB long
 * and give the length of an entry only in the entry.
 */
#ifndef QCOW2_WINDOW_H
#define QCOW2_WINDOW_H

#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"

struct file;

/* The longest piece that window_peek() and window_take() give. */
#define WINDOW_TAKE_BYTES_MAX	(256u * 1024)

struct window {
	struct file *file;
	uint64_t offset;	/* in file, of what is taken next */
	uint64_t end;		/* nothing is taken from here on */
	uint8_t *buffer;
	size_t start;		/* of what is taken next, in buffer */
	size_t bytes;		/* read ahead from there on */
};

/* The window looks at end - offset bytes of file, from offset on.  -ENOMEM. */
int window_open(struct window *window, struct file *file, uint64_t offset,
    uint64_t end);
void window_close(struct window *window);

/*
 * Gives the next bytes bytes, which stay in place until the next call.
 * -EINVAL if they go past the end, -EIO.
 */
co_fn int window_peek(struct window *window, size_t bytes,
    const void **datap);

/* The same, and moves on. */
co_fn int window_take(struct window *window, size_t bytes,
    const void **datap);

/* Moves on without reading.  -EINVAL past the end. */
int window_skip(struct window *window, uint64_t bytes);

#endif
