/* SPDX-License-Identifier: MIT */
#include "tests/fault/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct control *fault_control;

__attribute__((constructor)) static void
find_control(void)
{
	const char *path = getenv("QNBD_FAULT_CONTROL");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(*fault_control), PROT_READ | PROT_WRITE,
	    MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		fault_control = map;
}

bool
control_fails_allocation(void)
{
	unsigned long long number;

	if (!fault_control)
		return false;
	number = atomic_fetch_add(&fault_control->allocations, 1) + 1;
	if (number != atomic_load(&fault_control->allocation_nth))
		return false;
	errno = ENOMEM;
	return true;
}
