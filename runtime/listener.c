/* SPDX-License-Identifier: MIT */
#include "runtime/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>	/* wants the one before it */
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "runtime/co.h"
#include "runtime/listener_internal.h"
#include "runtime/log.h"

/* What a lack of descriptors or memory costs: a breath, not a CPU. */
#define ACCEPT_PAUSE_NS (100 * 1000 * 1000)

/* At most one line in this time says that there is such a lack. */
#define SHORT_LOG_NS (UINT64_C(10) * 1000 * 1000 * 1000)

struct listener *
listener_append(struct listener **list, int fd)
{
	struct listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return NULL;
	listener->fd = fd;
	while (*list)
		list = &(*list)->next;
	*list = listener;
	return listener;
}

union any_address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_in ipv4;
	struct sockaddr_in6 ipv6;
	struct sockaddr_vm vm;
	struct sockaddr_storage room;
};

static int
describe_unix(struct listener *listener, const struct sockaddr_un *address,
    socklen_t length)
{
	size_t start = offsetof(struct sockaddr_un, sun_path);
	int path_bytes = length > start ? (int)(length - start) : 0;

	listener->is_unix = true;
	listener->is_loopback = true;
	if (path_bytes == 0) {
		snprintf(listener->name, sizeof(listener->name), "unix");
		return 0;
	}
	if (address->sun_path[0] == '\0') {
		snprintf(listener->name, sizeof(listener->name),
		    "unix @%.*s", path_bytes - 1, address->sun_path + 1);
		return 0;
	}
	snprintf(listener->name, sizeof(listener->name), "unix %.*s",
	    path_bytes, address->sun_path);
	listener->path = strndup(address->sun_path, (size_t)path_bytes);
	return listener->path ? 0 : -ENOMEM;
}

static int
describe_tcp(struct listener *listener, const union any_address *address,
    socklen_t length)
{
	bool is_ipv4 = address->any.sa_family == AF_INET;

	if (getnameinfo(&address->any, length, listener->address,
	    sizeof(listener->address), NULL, 0, NI_NUMERICHOST))
		return -EINVAL;
	if (is_ipv4) {
		listener->port = ntohs(address->ipv4.sin_port);
		listener->is_loopback =
		    ntohl(address->ipv4.sin_addr.s_addr) >> 24 == 127;
	} else {
		listener->port = ntohs(address->ipv6.sin6_port);
		listener->is_loopback =
		    IN6_IS_ADDR_LOOPBACK(&address->ipv6.sin6_addr);
	}
	snprintf(listener->name, sizeof(listener->name),
	    is_ipv4 ? "tcp %s:%u" : "tcp [%s]:%u", listener->address,
	    listener->port);
	return 0;
}

/* The number others have for this machine: a host is 2 to its guests. */
static uint32_t
local_cid(void)
{
	int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
	uint32_t cid = VMADDR_CID_ANY;

	if (fd >= 0) {
		if (ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid))
			cid = VMADDR_CID_ANY;
		close(fd);
	}
	return cid == VMADDR_CID_ANY ? VMADDR_CID_LOCAL : cid;
}

static int
describe_vsock(struct listener *listener, const struct sockaddr_vm *address)
{
	listener->is_vsock = true;
	listener->is_loopback = true;
	listener->vsock_cid = address->svm_cid == VMADDR_CID_ANY ?
	    local_cid() : address->svm_cid;
	listener->vsock_port = address->svm_port;
	snprintf(listener->name, sizeof(listener->name), "vsock %u:%u",
	    listener->vsock_cid, listener->vsock_port);
	return 0;
}

int
listener_describe(struct listener *listener)
{
	union any_address address = {0};
	socklen_t length = sizeof(address);

	if (getsockname(listener->fd, &address.any, &length))
		return -errno;
	switch (address.any.sa_family) {
	case AF_UNIX:
		return describe_unix(listener, &address.un, length);
	case AF_INET:
	case AF_INET6:
		return describe_tcp(listener, &address, length);
	case AF_VSOCK:
		return describe_vsock(listener, &address.vm);
	default:
		return -EAFNOSUPPORT;
	}
}

/* Another server may have replaced the file since. */
static void
remove_socket_file(const struct listener *listener)
{
	struct stat st;

	if (listener->owns_path && !lstat(listener->path, &st) &&
	    st.st_dev == listener->path_dev &&
	    st.st_ino == listener->path_inode)
		unlink(listener->path);
}

void
listener_close_all(struct listener **list)
{
	struct listener *listener;

	while ((listener = *list)) {
		*list = listener->next;
		remove_socket_file(listener);
		close(listener->fd);
		free(listener->path);
		free(listener);
	}
}

static co_fn int
wait_for(struct listener *listener, enum op_kind kind)
{
	int result;

	if (listener->stopped)
		return -ECANCELED;
	listener->accept = (struct op){ .kind = kind, .fd = listener->fd };
	listener->waiting = true;
	result = (int)loop_wait(&listener->accept);
	listener->waiting = false;
	return result;
}

/* Errors of the connection that was to be accepted; the next may do better. */
static bool
is_client_error(int err)
{
	switch (-err) {
	case ECONNABORTED:
	case EHOSTDOWN:
	case EHOSTUNREACH:
	case EINTR:
	case ENETDOWN:
	case ENETUNREACH:
	case ENONET:
	case ENOPROTOOPT:
	case EPERM:
	case EPROTO:
	case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

static void
log_short(struct listener *listener, int err)
{
	uint64_t now_ns = loop_now_ns(loop_self());

	if (listener->short_logged_ns != 0 &&
	    now_ns - listener->short_logged_ns < SHORT_LOG_NS)
		return;
	listener->short_logged_ns = now_ns;
	log_warning("clients have to wait on=\"%s\" error=%s",
	    listener->name, strerror(-err));
}

co_fn int
listener_accept(struct listener *listener)
{
	int result = wait_for(listener, OP_ACCEPT);

	switch (-result) {
	case EAGAIN:	/* somebody who shares the socket was faster */
		result = wait_for(listener, OP_POLL_IN);
		if (result >= 0)
			result = -EAGAIN;
		break;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		log_short(listener, result);
		loop_sleep(ACCEPT_PAUSE_NS);
		result = -EAGAIN;
		break;
	}
	if (listener->stopped) {
		if (result >= 0)
			loop_close_fd(loop_self(), result);
		return -ECANCELED;
	}
	return is_client_error(result) ? -EAGAIN : result;
}

void
listener_stop(struct listener *listener)
{
	listener->stopped = true;
	if (listener->waiting)
		loop_cancel(&listener->accept);
}
