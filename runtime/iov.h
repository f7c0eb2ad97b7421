/* SPDX-License-Identifier: MIT */
/* Arrays of pieces of memory. */
#ifndef RUNTIME_IOV_H
#define RUNTIME_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* The bytes of all pieces together. */
static inline size_t
iov_bytes(const struct iovec *iov, unsigned iov_count)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < iov_count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

#endif
