/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>	/* wants the one before it */
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "runtime/listener_internal.h"

/* How often an address in use is tried again while there is patience. */
#define RETRY_MS 50

/*
 * A server between bind and listen refuses connections for some microseconds;
 * one that still does after this time is dead.
 */
#define STALE_MS 10

/* A free port of one address may be taken on the next. */
#define PORT_TRIES 16

static uint64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void
pause_ms(unsigned delay_ms)
{
	struct timespec delay = { .tv_nsec = delay_ms * 1000000L };

	nanosleep(&delay, NULL);
}

/* ---- unix ---- */

/* 0 if somebody answers, -ECONNREFUSED if not, else what prevents to know. */
static int
probe(const struct sockaddr_un *address)
{
	int fd, err = 0;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: its queue is full; EPROTOTYPE: it is no stream socket. */
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) &&
	    errno != EAGAIN && errno != EPROTOTYPE)
		err = -errno;
	close(fd);
	return err;
}

/* 0 if the way is free now, -EADDRINUSE or -EEXIST if not, or -errno. */
static int
remove_stale(const struct sockaddr_un *address)
{
	struct stat st;
	int err;

	if (lstat(address->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	err = probe(address);
	if (err == -ECONNREFUSED) {
		pause_ms(STALE_MS);
		err = probe(address);
	}
	if (err == 0)
		return -EADDRINUSE;
	if (err == -ENOENT)
		return 0;
	if (err != -ECONNREFUSED)
		return err;
	if (unlink(address->sun_path) && errno != ENOENT)
		return -errno;
	return 0;
}

static int
bind_unix(int fd, const struct sockaddr_un *address, unsigned patience_ms)
{
	uint64_t until_ms = now_ms() + patience_ms;
	int err;

	while (bind(fd, (const struct sockaddr *)address, sizeof(*address))) {
		if (errno != EADDRINUSE)
			return -errno;
		err = remove_stale(address);
		if (err == -EADDRINUSE && now_ms() < until_ms)
			pause_ms(RETRY_MS);
		else if (err)
			return err;
	}
	return 0;
}

/* Remembers which file is ours, so that no other is removed at the end. */
static int
own_path(struct listener *listener, const struct listener_access *access)
{
	struct stat st;

	if (lstat(listener->path, &st))
		return -errno;
	listener->path_dev = st.st_dev;
	listener->path_inode = st.st_ino;
	listener->owns_path = true;
	if ((access->uid != (uid_t)-1 || access->gid != (gid_t)-1) &&
	    lchown(listener->path, access->uid, access->gid))
		return -errno;
	return chmod(listener->path, access->mode) ? -errno : 0;
}

static int
open_unix(struct listener **added, const char *path,
    const struct listener_access *access, unsigned patience_ms)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	if (!path[0])
		return -ENOENT;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!listener_append(added, fd)) {
		close(fd);
		return -ENOMEM;
	}
	err = bind_unix(fd, &address, patience_ms);
	if (err)
		goto close_listener;
	err = listener_describe(*added);
	if (err)
		goto close_listener;
	/* Nobody gets in before the mode is right and it listens. */
	err = own_path(*added, access);
	if (err)
		goto close_listener;
	if (listen(fd, SOMAXCONN)) {
		err = -errno;
		goto close_listener;
	}
	return 0;
close_listener:
	listener_close_all(added);
	return err;
}

/* Adds what was opened to the end of the caller's list. */
static void
join(struct listener **list, struct listener *added)
{
	while (*list)
		list = &(*list)->next;
	*list = added;
}

int
listener_open_unix(struct listener **list, const char *path,
    const struct listener_access *access, unsigned patience_ms,
    struct error *error)
{
	struct listener *added = NULL;
	int err = open_unix(&added, path, access, patience_ms);

	switch (-err) {
	case 0:
		join(list, added);
		return 0;
	case EADDRINUSE:
		error_set(error, err, "cannot listen on unix %s: another "
		    "server answers there", path);
		error_hint(error, "see which: ss -xlp src %s", path);
		return err;
	case EEXIST:
		return error_set(error, err, "cannot listen on unix %s: a "
		    "file that is not a socket stands there", path);
	case ENAMETOOLONG:
		return error_set(error, err, "cannot listen on unix %s: the "
		    "path is longer than 107 bytes", path);
	default:
		return error_set(error, err, "cannot listen on unix %s: %s",
		    path, strerror(-err));
	}
}

/* ---- vsock ---- */

static int
bind_vsock(int fd, uint32_t port, unsigned patience_ms)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = port,
	};
	uint64_t until_ms = now_ms() + patience_ms;

	while (bind(fd, (const struct sockaddr *)&address, sizeof(address))) {
		if (errno != EADDRINUSE || now_ms() >= until_ms)
			return -errno;
		pause_ms(RETRY_MS);
	}
	return listen(fd, SOMAXCONN) ? -errno : 0;
}

static int
open_vsock(struct listener **added, uint32_t port, unsigned patience_ms)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0);
	int err;

	if (fd < 0)
		return -errno;
	if (!listener_append(added, fd)) {
		close(fd);
		return -ENOMEM;
	}
	err = bind_vsock(fd, port, patience_ms);
	if (!err)
		err = listener_describe(*added);
	if (err)
		listener_close_all(added);
	return err;
}

int
listener_open_vsock(struct listener **list, uint32_t port,
    unsigned patience_ms, struct error *error)
{
	struct listener *added = NULL;
	int err = open_vsock(&added, port, patience_ms);

	if (!err) {
		join(list, added);
		return 0;
	}
	error_set(error, err, "cannot listen on vsock port %u: %s", port,
	    err == -EADDRINUSE ? "the port is in use" : strerror(-err));
	if (err == -EAFNOSUPPORT)
		error_hint(error, "the kernel has no vsock: modprobe "
		    "vhost_vsock on a host, or in a virtual machine "
		    "vmw_vsock_virtio_transport");
	return err;
}

/* ---- TCP ---- */

static bool
is_open(const struct listener *list, const struct addrinfo *info)
{
	char address[sizeof(list->address)];

	if (getnameinfo(info->ai_addr, info->ai_addrlen, address,
	    sizeof(address), NULL, 0, NI_NUMERICHOST))
		return false;
	for (; list; list = list->next)
		if (!strcmp(list->address, address))
			return true;
	return false;
}

static void
set_port(struct addrinfo *info, uint16_t port)
{
	if (info->ai_family == AF_INET6)
		((struct sockaddr_in6 *)(void *)info->ai_addr)->sin6_port =
		    htons(port);
	else
		((struct sockaddr_in *)(void *)info->ai_addr)->sin_port =
		    htons(port);
}

static int
open_address(struct listener **added, const struct addrinfo *info)
{
	struct listener *listener;
	const int on = 1;
	int fd, err;

	fd = socket(info->ai_family,
	    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/*
	 * Old connections of a server that ended do not keep its port, and
	 * IPv4 has a socket of its own.
	 */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    (info->ai_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on))) ||
	    bind(fd, info->ai_addr, info->ai_addrlen) ||
	    listen(fd, SOMAXCONN)) {
		err = -errno;
		goto close_fd;
	}
	listener = listener_append(added, fd);
	if (!listener) {
		err = -ENOMEM;
		goto close_fd;
	}
	return listener_describe(listener);
close_fd:
	close(fd);
	return err;
}

/* All addresses of the machine among infos, on one port, or none. */
static int
open_addresses(struct listener **added, struct addrinfo *infos, uint16_t port)
{
	int missing = -EADDRNOTAVAIL;
	struct addrinfo *info;
	int err;

	for (info = infos; info; info = info->ai_next) {
		if (is_open(*added, info))
			continue;
		set_port(info, port);
		err = open_address(added, info);
		if (err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT) {
			missing = err;
			continue;
		}
		if (err) {
			listener_close_all(added);
			return err;
		}
		port = (*added)->port;
	}
	return *added ? 0 : missing;
}

static int
open_addresses_patiently(struct listener **added, struct addrinfo *infos,
    uint16_t port, unsigned patience_ms)
{
	uint64_t until_ms = now_ms() + patience_ms;
	unsigned tries = 0;
	int err;

	for (;;) {
		err = open_addresses(added, infos, port);
		if (err != -EADDRINUSE)
			return err;
		if (port == 0 && ++tries < PORT_TRIES)
			continue;
		if (now_ms() >= until_ms)
			return err;
		pause_ms(RETRY_MS);
	}
}

static int
look_up(const char *host, struct addrinfo **infosp, const char **whyp)
{
	struct addrinfo hints = {
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM,
	};
	int code = getaddrinfo(host[0] ? host : NULL, "0", &hints, infosp);

	if (!code)
		return 0;
	*whyp = code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code);
	return code == EAI_AGAIN ? -EAGAIN : -EADDRNOTAVAIL;
}

int
listener_open_tcp(struct listener **list, const char *host, uint16_t port,
    unsigned patience_ms, struct error *error)
{
	const char *format = strchr(host, ':') ?
	    "cannot listen on tcp [%s]:%u: %s" :
	    "cannot listen on tcp %s:%u: %s";
	struct listener *added = NULL;
	struct addrinfo *infos;
	const char *why;
	int err;

	err = look_up(host, &infos, &why);
	if (err)
		return error_set(error, err, format, host, port, why);
	err = open_addresses_patiently(&added, infos, port, patience_ms);
	freeaddrinfo(infos);
	if (!err) {
		join(list, added);
		return 0;
	}
	error_set(error, err, format, host, port, err == -EADDRINUSE ?
	    "the port is in use" : strerror(-err));
	if (err == -EADDRINUSE)
		error_hint(error, "see by whom: ss -tlnp sport = :%u", port);
	return err;
}
