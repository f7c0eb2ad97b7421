/* SPDX-License-Identifier: MIT */
/*
 * Request buffers: page-aligned memory from the calling thread's pool.
 *
 * Sizes are rounded up to a power of two from 4 KiB to 32 MiB.  Freed buffers
 * are kept warm, up to BUF_POOL_BYTES a thread, because page faults on fresh
 * memory cost more than the copy into it; a loop that goes idle gives them
 * back to the system.
 */
#ifndef RUNTIME_BUF_H
#define RUNTIME_BUF_H

#include <stddef.h>

#define BUF_BYTES_MAX (32u * 1024 * 1024)
#define BUF_POOL_BYTES (64u * 1024 * 1024)

/* NULL if there is no memory.  bytes is at most BUF_BYTES_MAX. */
void *buf_get(size_t bytes);

/* data came from buf_get(bytes) on this or another thread; NULL is fine. */
void buf_put(void *data, size_t bytes);

/* Gives what the calling thread's pool keeps back to the system. */
void buf_pool_drain(void);

/* What the calling thread's pool keeps, in bytes. */
size_t buf_pool_bytes(void);

#endif
