/* SPDX-License-Identifier: MIT */
/*
 * Lets the kernel write to the disk what a file has got so far, while it goes
 * on growing, so that little is left for the sync at the end.
 *
 * A hint only: nothing is stable before a sync, and what cannot be done is
 * left undone.  For one loop.
 */
#ifndef SERVER_WRITE_BACK_H
#define SERVER_WRITE_BACK_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/worker.h"

struct write_back {
	int fd;
	uint64_t begun;		/* up to here the kernel has been told */
	uint64_t end;		/* of what it is being told */
	bool running;
	struct co *waiter;
	struct worker_job job;
};

/* Begins with nothing; path is that of the file. */
void write_back_open(struct write_back *write_back, const char *path);

/*
 * The file was written up to end, but for what is under way.  Does not
 * suspend.  If the kernel is being told already, this is left out.
 */
void write_back_advance(struct write_back *write_back, uint64_t end);

co_fn void write_back_close(struct write_back *write_back);

#endif
