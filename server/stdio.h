/* SPDX-License-Identifier: MIT */
/*
 * The client of --stdio: whoever is at the other end of standard input and
 * output, as under inetd or in a pipeline.
 */
#ifndef SERVER_STDIO_H
#define SERVER_STDIO_H

#include <pthread.h>
#include <stdbool.h>

/* So long a reader may take nothing once the server has ended. */
#define STDIO_PATIENCE_S 10

/* All zeros is one that is not open. */
struct stdio {
	bool pumped;		/* there are threads */
	int far_fd;		/* their end of the socket pair */
	pthread_t output;
};

/*
 * Makes a socket of standard input and output: they are one already, or two
 * threads move bytes between them and it.  The caller owns *fdp.  -errno.
 */
int stdio_open(struct stdio *stdio, int *fdp);

/*
 * Returns when all that the server said has left, or whoever reads it has taken
 * nothing for STDIO_PATIENCE_S; the server's socket is closed.
 */
void stdio_finish(struct stdio *stdio);

#endif
