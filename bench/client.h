/* SPDX-License-Identifier: MIT */
/*
 * How the load client reaches a server: the socket and the handshake.
 *
 * Everything here blocks, for at most CLIENT_TIMEOUT_SECONDS a step, and says
 * on standard error what went wrong.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#define CLIENT_TIMEOUT_SECONDS 30

/* What the server said about the export. */
struct client_export {
	uint64_t bytes;
	uint16_t transmission_flags;
	uint32_t block_bytes_min;	/* 1 unless the server said more */
	uint32_t payload_bytes_max;	/* our own limit unless it said less */
	bool structured;		/* structured replies are on */
};

/*
 * Connects to target: "unix:PATH" or "tcp:HOST:PORT" ("tcp:[ADDRESS]:PORT"
 * for IPv6).  The socket stays in blocking mode.  -EINVAL for a target of
 * another form, else -errno.
 */
int client_connect(const char *target, int *fdp);

/*
 * Opens the export called name with NBD_OPT_GO; with structured set, asks for
 * structured replies first.  -ENOTSUP if the server refuses these or has no
 * such export, -EBADMSG if it does not speak the protocol, else -errno.
 */
int client_negotiate(int fd, const char *name, bool structured,
	struct client_export *export);

#endif
