/* SPDX-License-Identifier: MIT */
/*
 * Listeners: sockets that wait for clients.
 *
 * Each is opened here (unix path, TCP address) or handed over by systemd, and
 * appended to a list of the caller's.  Opening blocks and is for start-up.
 * One coroutine accepts from a listener; what it accepts may be handed to any
 * loop, which calls sock_open() on it.
 */
#ifndef RUNTIME_LISTENER_H
#define RUNTIME_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "runtime/error.h"
#include "runtime/loop.h"

/* Descriptors taken from LISTEN_FDS at most. */
#define LISTENER_ADOPTED_MAX 64

struct listener {
	struct listener *next;
	int fd;
	char name[128];		/* "unix /run/x.sock", "tcp [::1]:109" */
	bool is_unix;
	bool is_vsock;
	bool is_loopback;	/* reachable without a network: from here, or
				 * from virtual machines of this host */
	bool is_adopted;
	char fd_name[64];	/* adopted: as LISTEN_FDNAMES has it, or "" */
	char address[64];	/* TCP: numeric, without brackets */
	uint16_t port;		/* TCP: as bound, never 0 */
	uint32_t vsock_cid;	/* by which peers reach it; see vsock(7) */
	uint32_t vsock_port;
	char *path;		/* unix: NULL for one without a file */

	/* Private. */
	bool owns_path;
	bool stopped;
	bool waiting;		/* accept is in flight */
	uint64_t short_logged_ns;	/* that clients have to wait */
	dev_t path_dev;
	ino_t path_inode;
	struct op accept;	/* or the poll that comes before it */
};

/* Who may connect to a unix socket: those who may write to its file. */
struct listener_access {
	mode_t mode;		/* permission bits */
	uid_t uid;		/* its owner, or -1 as it comes */
	gid_t gid;		/* its group, the same */
};

/*
 * Opens a unix socket at path with that access.  A socket file that
 * nobody answers on is replaced; one that somebody does is -EADDRINUSE, tried
 * again for patience_ms (0: at once); a file of another kind is -EEXIST and
 * never touched.
 */
int listener_open_unix(struct listener **list, const char *path,
    const struct listener_access *access, unsigned patience_ms,
    struct error *error);

/*
 * Opens TCP sockets for all addresses that host (a name, a numeric address
 * without brackets, or "" for all of this machine's) stands for; port 0 takes a
 * free one, the same for all.  Addresses this machine does not have are left
 * out while there are others; apart from that all or none is added.
 * -EADDRINUSE is tried again for patience_ms.
 */
int listener_open_tcp(struct listener **list, const char *host, uint16_t port,
    unsigned patience_ms, struct error *error);

/* Opens a vsock socket, for virtual machines; port may be any of 32 bits. */
int listener_open_vsock(struct listener **list, uint32_t port,
    unsigned patience_ms, struct error *error);

/*
 * Takes the sockets that systemd (or systemd-socket-activate) passed to this
 * process and clears the LISTEN_ variables, so that no child takes them again.
 * How many it added (0: none were passed), or -EINVAL if one is not a
 * listening stream socket.  Call once, before other descriptors are opened.
 */
int listener_adopt(struct listener **list, struct error *error);

/*
 * The next client's descriptor, close-on-exec.  -EAGAIN: out of descriptors or
 * memory (which it logs now and then), or the client was gone again (it has
 * slept before it says so if that would spin); the caller just calls again.
 * -ECANCELED: listener_stop() was called.  Anything else ends this listener.
 */
co_fn int listener_accept(struct listener *listener);

/*
 * Makes listener_accept() return -ECANCELED, now and later.  Only on the loop
 * that accepts.  An adopted socket stays open for systemd.
 */
void listener_stop(struct listener *listener);

/* Closes all and removes the socket files that are still ours. */
void listener_close_all(struct listener **list);

#endif
