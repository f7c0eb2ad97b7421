/* SPDX-License-Identifier: MIT */
/*
 * Makes io_uring_setup(2) fail with EPERM for this process and all it starts,
 * as the default seccomp profiles of container engines do.
 */
#ifndef TESTS_REFUSE_URING_H
#define TESTS_REFUSE_URING_H

/* 0 or -errno.  There is no way back. */
int refuse_uring(void);

#endif
