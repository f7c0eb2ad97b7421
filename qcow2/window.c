/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/window.h"
#include "runtime/file.h"

/* What is read at once, unless more is asked for. */
#define READ_BYTES 16384u

int
window_open(struct window *window, struct file *file, uint64_t offset,
    uint64_t end)
{
	assert(offset <= end);
	*window = (struct window){
		.file = file,
		.offset = offset,
		.end = end,
		.buffer = malloc(WINDOW_TAKE_BYTES_MAX),
	};
	return window->buffer ? 0 : -ENOMEM;
}

void
window_close(struct window *window)
{
	free(window->buffer);
	window->buffer = NULL;
}

/*
 * Moves what is left to the front and fills the buffer up behind it, so that
 * it holds bytes of them; most tables are short.
 */
co_fn static int
window_refill(struct window *window, size_t bytes)
{
	uint64_t left = window->end - window->offset;
	size_t wanted = bytes > READ_BYTES ? bytes : READ_BYTES;
	int err;

	if (wanted > left)
		wanted = (size_t)left;
	memmove(window->buffer, window->buffer + window->start,
	    window->bytes);
	window->start = 0;
	err = file_pread(window->file, window->buffer + window->bytes,
	    wanted - window->bytes, window->offset + window->bytes);
	if (!err)
		window->bytes = wanted;
	return err;
}

co_fn int
window_peek(struct window *window, size_t bytes, const void **datap)
{
	int err;

	assert(bytes <= WINDOW_TAKE_BYTES_MAX);
	if (bytes > window->end - window->offset)
		return -EINVAL;
	if (bytes > window->bytes) {
		err = window_refill(window, bytes);
		if (err)
			return err;
	}
	*datap = window->buffer + window->start;
	return 0;
}

int
window_skip(struct window *window, uint64_t bytes)
{
	size_t buffered = window->bytes;

	if (bytes > window->end - window->offset)
		return -EINVAL;
	if (bytes < buffered)
		buffered = (size_t)bytes;
	window->start += buffered;
	window->bytes -= buffered;
	window->offset += bytes;
	return 0;
}

co_fn int
window_take(struct window *window, size_t bytes, const void **datap)
{
	int err = window_peek(window, bytes, datap);

	return err ? err : window_skip(window, bytes);
}
