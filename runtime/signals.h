/* SPDX-License-Identifier: MIT */
/*
 * Signals as a descriptor: a coroutine waits for them like for a client.
 *
 * Handlers run at any instruction and may do almost nothing; a signalfd is
 * read in a turn of the loop instead.  The signals are SIGTERM, SIGINT,
 * SIGHUP and SIGCHLD; SIGPIPE is ignored, so that a client who leaves is an
 * errno and not the end.
 */
#ifndef RUNTIME_SIGNALS_H
#define RUNTIME_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include "runtime/loop.h"

struct signals {
	int fd;
	bool stopped;
	bool waiting;		/* poll is in flight */
	sigset_t saved_mask;
	struct op poll;
};

/*
 * Blocks the signals in the calling thread, and so in all it starts: call it
 * before the first thread (a log line starts one).  Programs started later
 * inherit the mask unless they restore signals->saved_mask.  0 or -errno.
 */
int signals_open(struct signals *signals);

/*
 * Suspends until a signal arrives and returns its number.  Equal signals that
 * arrive together may be told once.  -ECANCELED after signals_stop(); any
 * other -errno means that no signal will be told any more.
 */
co_fn int signals_wait(struct signals *signals);

/* Makes signals_wait() return -ECANCELED, now and later; on its loop only. */
void signals_stop(struct signals *signals);

/* Closes the descriptor and restores the calling thread's mask. */
void signals_close(struct signals *signals);

#endif
