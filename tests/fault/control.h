/* SPDX-License-Identifier: MIT */
/*
 * What shall fail in a real server: a file of 64-bit numbers, shared with the
 * test, which may change them at any time (Control in server_process.py).  The
 * variable QNBD_FAULT_CONTROL names it.
 */
#ifndef TESTS_FAULT_CONTROL_H
#define TESTS_FAULT_CONTROL_H

#include <stdatomic.h>
#include <stdbool.h>

struct control {
	atomic_ullong allocation_nth;	/* 0: none fails */
	atomic_ullong allocations;
	atomic_ullong inode;		/* of the file that fails */
	atomic_ullong read_errno;
	atomic_ullong write_errno;
	atomic_ullong sync_errno;
	atomic_ullong offset;		/* of reads and writes that fail */
	atomic_ullong length;
	atomic_ullong hits;
};

/* NULL where nothing is to fail. */
extern struct control *fault_control;

/* Counts an allocation; if it shall fail, errno is set. */
bool control_fails_allocation(void);

#endif
