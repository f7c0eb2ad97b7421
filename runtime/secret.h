/* SPDX-License-Identifier: MIT */
/*
 * Memory for keys: pages of their own, which no core dump shows and which are
 * wiped before they are given back.
 */
#ifndef RUNTIME_SECRET_H
#define RUNTIME_SECRET_H

#include <stddef.h>
#include <sys/types.h>

/* Zeros.  NULL if there is no memory. */
void *secret_get(size_t bytes);

/* secret came from secret_get(bytes); NULL is fine. */
void secret_put(void *secret, size_t bytes);

/* Reads all there is, up to size bytes; how many, or -errno. */
ssize_t secret_read(int fd, void *secret, size_t size);

/*
 * No core dump of this process from now on: for keys that libraries have in
 * memory of their own.
 */
void secret_forbid_dumps(void);

#endif
