/* SPDX-License-Identifier: MIT */
#include "runtime/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

void *
secret_get(size_t bytes)
{
	void *secret = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (secret == MAP_FAILED)
		return NULL;
	/* A kernel without it has it in its dumps: no reason to fail. */
	(void)madvise(secret, bytes, MADV_DONTDUMP);
	return secret;
}

void
secret_put(void *secret, size_t bytes)
{
	if (!secret)
		return;
	explicit_bzero(secret, bytes);
	munmap(secret, bytes);
}

ssize_t
secret_read(int fd, void *secret, size_t size)
{
	size_t bytes = 0;

	while (bytes < size) {
		ssize_t got = read(fd, (char *)secret + bytes, size - bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		bytes += (size_t)got;
	}
	return (ssize_t)bytes;
}

/*
 * One byte and not none: where core dumps go to a program (core(5)), the
 * kernel heeds no limit but this one.
 */
void
secret_forbid_dumps(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_CORE, &limit) < 0)
		return;
	limit.rlim_max = limit.rlim_max > 0 ? 1 : 0;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_CORE, &limit);
}
