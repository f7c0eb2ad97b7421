/* SPDX-License-Identifier: MIT */
/*
 * A site: the whole server in a simulated world.
 *
 * The image of a crew (tests/crash/crew.h, with .served) is the one export of
 * a server on the crew's loops; its listener, its sockets and its disk are
 * simulated, too.  Clients are coroutines of one loop more.
 */
#ifndef TESTS_SCHEDULE_SERVER_SITE_H
#define TESTS_SCHEDULE_SERVER_SITE_H

#include <stdbool.h>
#include <stdint.h>
#include "runtime/listener.h"
#include "server/server.h"
#include "tests/crash/crew.h"
#include "tests/tls_pair.h"

#define SITE_EXPORT "disk"

struct site {
	struct crew *crew;
	uint64_t stop_after_ns;	/* 0: the server stops after the visit */
	void *arg;		/* the visit's own */
	struct tls_pairs *tls;	/* for clients that want TLS, or NULL */

	/* For clients to look at. */
	struct server server;
	struct listener listener;
	bool stopping;		/* from here on it may refuse requests */
	bool closed_well;	/* the image told of no error at its end */

	/* Private. */
	void (*visit)(struct site *site);
	struct co_start director_start;
	struct co_start visit_start;
	bool visit_over;
	struct co *waiter;
};

/*
 * Serves the crew's open image while visit runs as a coroutine on the clients'
 * loop, then stops the server, which closes the image.  Notes a failure of the
 * crew if that does not come to an end, or if anything is left behind.  The
 * first four fields of site are the caller's to set.
 */
void site_play(struct site *site, void (*visit)(struct site *site));

/* The number of the clients' loop. */
unsigned site_client_loop(const struct site *site);

#endif
