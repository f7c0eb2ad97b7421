/* SPDX-License-Identifier: MIT */
/*
 * A crew whose requests travel through a server: clients that come and go,
 * each with several requests under way, cut into pieces and told to the oracle
 * by a tap on the network.
 */
#ifndef TESTS_SCHEDULE_SERVER_CREW_H
#define TESTS_SCHEDULE_SERVER_CREW_H

#include "tests/crash/crew.h"
#include "tests/tls_pair.h"

/*
 * All requests of all clients, in place of crew_work() and crew_close(): the
 * image was opened, and the server closes it.  Now and then the server stops
 * while they work.  With tls, which may be NULL, half of the clients use TLS.
 * Whether the image told of no error at its end, which it may only if the crew
 * is troubled.
 */
bool server_crew_work(struct crew *crew, struct tls_pairs *tls);

#endif
