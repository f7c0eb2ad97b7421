/* SPDX-License-Identifier: MIT */
/*
 * Connections on which nothing moves, though it should.
 *
 * No request and no send touches a timer.  Instead each loop looks at all of
 * its connections now and then, and compares with what it saw the last time.
 */
#ifndef SERVER_CONNECTION_WATCH_H
#define SERVER_CONNECTION_WATCH_H

struct server_loop;

/* All connections are looked at that often for what is stuck. */
#define CONNECTION_WATCH_MS 5000

/*
 * While others wait for memory a connection that holds more than its reserve
 * must move some bytes between so many looks.
 */
#define CONNECTION_HOARD_LOOKS_MAX 2

/*
 * One look: breaks connections whose send has been the same for too long
 * (--send-timeout), and those that hoard memory.
 */
void connection_watch_all(struct server_loop *server_loop);

#endif
