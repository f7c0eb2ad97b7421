/* SPDX-License-Identifier: MIT */
/*
 * What ends a server that has begun, and what else signals ask of it.
 *
 * The first SIGTERM, SIGINT or (in the foreground) SIGHUP stops it in good
 * order, a second one ends the process where it stands, which leaves the images
 * as a power loss would: consistent.  The end of the only client (--stdio), of
 * the command (--run) and of the parent (--exit-with-parent) are like the
 * first.  With TLS, SIGHUP means to look at its files again.
 */
#ifndef SERVER_SERVE_STOP_H
#define SERVER_SERVE_STOP_H

#include <stdbool.h>
#include <sys/types.h>
#include "runtime/co.h"
#include "runtime/monitor.h"
#include "runtime/signals.h"
#include "server/reload.h"

struct tls;

struct serve_stop {
	struct signals signals;
	bool hangup_stops;
	struct tls *tls;	/* whose files SIGHUP reads again, or NULL */
	struct reload reload;	/* of these */
	pid_t child;		/* whose end stops the server, or 0 */
	int exit_code;		/* what the process is to end with */
	bool wanted;
	unsigned signals_count;	/* of those that stop */
	struct co *waiter;
	struct group running;
	struct co_start start;
};

/*
 * Signals wait from now on: call it before there are threads.  background: it
 * was told to outlive its terminal.  -errno.
 */
int serve_stop_open(struct serve_stop *stop, bool background);

/* Begins to look at signals, on loop 0. */
void serve_stop_watch(struct serve_stop *stop);

/* Lets serve_stop_wait() return, now or later. */
void serve_stop_begin(struct serve_stop *stop);

/* Returns when the server has to stop. */
co_fn void serve_stop_wait(struct serve_stop *stop);

/*
 * Looks at no more signals; returns when that has ended.  Of reading files
 * again, see reload_end().
 */
co_fn void serve_stop_unwatch(struct serve_stop *stop);

/* The opposite of serve_stop_open(). */
void serve_stop_close(struct serve_stop *stop);

#endif
