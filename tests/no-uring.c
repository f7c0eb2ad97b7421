/* SPDX-License-Identifier: MIT */
/*
 * no-uring COMMAND [ARGUMENT...]: runs the command where io_uring is refused,
 * for tests of the thread engine.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tests/refuse_uring.h"

int
main(int argc, char **argv)
{
	int err;

	if (argc < 2) {
		fprintf(stderr, "usage: no-uring COMMAND [ARGUMENT...]\n");
		return 64;
	}
	err = refuse_uring();
	if (err) {
		fprintf(stderr, "no-uring: cannot install the filter: %s\n",
		    strerror(-err));
		return 126;
	}
	execvp(argv[1], argv + 1);
	err = errno;
	fprintf(stderr, "no-uring: cannot run %s: %s\n", argv[1],
	    strerror(err));
	return err == ENOENT ? 127 : 126;
}
