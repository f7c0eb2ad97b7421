/* SPDX-License-Identifier: MIT */
/*
 * The TLS files, read again while the server runs (SIGHUP).
 *
 * That is done by a thread of its own: the files may be where nothing answers
 * any more, and neither loops nor workers nor the end of the process wait for
 * that.
 */
#ifndef SERVER_RELOAD_H
#define SERVER_RELOAD_H

#include <pthread.h>
#include <stdbool.h>
#include "runtime/co.h"
#include "runtime/error.h"
#include "runtime/loop.h"

struct tls;

/* At the end it may take so long. */
#define RELOAD_END_S 1

/* All zeros is none under way. */
struct reload {
	struct tls *tls;
	struct loop *loop;
	bool running;
	bool again;		/* was asked for meanwhile */
	pthread_t thread;
	struct task done;
	struct error error;
	int err;
};

/*
 * Begins, or if one is under way, sees that one more follows; the log tells
 * how it went.  On one loop only.
 */
void reload_start(struct reload *reload, struct tls *tls);

/*
 * Before that loop ends.  What is still running afterwards hangs: loop and tls
 * must stay till the process ends.
 */
co_fn void reload_end(struct reload *reload);

#endif
