/* SPDX-License-Identifier: MIT */
#include "runtime/sock.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>	/* wants the one before it */
#include "runtime/co.h"

/* Half of the time an idle connection is let alone, then probed so often. */
#define KEEPALIVE_COUNT 4

/* Asked for; the system may allow less (net.core.wmem_max). */
#define UNIX_SEND_BYTES (1 << 20)

/* ---- opening and closing ---- */

/* Options only make things better, so a failure is no reason to hang up. */
static void
set_option(int fd, int level, int name, int value)
{
	(void)setsockopt(fd, level, name, &value, sizeof(value));
}

/* Probes end an idle connection, the other option one with unsent bytes. */
static void
set_dead_peer(int fd, int seconds)
{
	int interval_s = seconds / 2 / KEEPALIVE_COUNT;

	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE,
	    seconds - interval_s * KEEPALIVE_COUNT);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval_s);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, seconds * 1000);
}

static void
set_tcp_options(int fd)
{
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_dead_peer(fd, SOCK_DEAD_PEER_S);
}

static void
deadline_passed(struct task *task)
{
	struct timer *timer = container_of(task, struct timer, task);
	struct sock_deadline *deadline =
	    container_of(timer, struct sock_deadline, timer);

	deadline->passed = true;
	sock_shutdown(deadline->sock);
}

static void
deadline_init(struct sock_deadline *deadline, struct sock *sock)
{
	*deadline = (struct sock_deadline){
		.timer.task.run = deadline_passed,
		.sock = sock,
	};
}

void
sock_open(struct sock *sock, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	int domain = 0;
	socklen_t length = sizeof(domain);

	sock->fd = fd;
	sock->loop = loop_self();
	sock->send_flags = 0;
	deadline_init(&sock->recv_deadline, sock);
	deadline_init(&sock->send_deadline, sock);
	if (!(flags & O_NONBLOCK))
		(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length))
		return;
	if (domain == AF_INET || domain == AF_INET6)
		set_tcp_options(fd);
	/* The system does not let these grow by themselves, as TCP's do. */
	if (domain == AF_UNIX)
		set_option(fd, SOL_SOCKET, SO_SNDBUF, UNIX_SEND_BYTES);
}

void
sock_set_dead_peer(const struct sock *sock, unsigned seconds)
{
	/* Where it is no TCP socket nothing happens. */
	set_dead_peer(sock->fd, (int)seconds);
}

uint64_t
sock_progress_bytes(const struct sock *sock)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof(info);

	if (getsockopt(sock->fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		return 0;
	return info.tcpi_bytes_received + info.tcpi_bytes_acked;
}

void
sock_close(struct sock *sock)
{
	sock_set_deadline(sock, SOCK_RECV | SOCK_SEND, 0);
	loop_close_fd(sock->loop, sock->fd);
	sock->fd = -1;
}

void
sock_shutdown(struct sock *sock)
{
	loop_shutdown_fd(sock->loop, sock->fd);
}

static void
set_deadline(struct sock_deadline *deadline, uint64_t deadline_ns)
{
	if (deadline_ns)
		timer_start(deadline->sock->loop, &deadline->timer,
		    deadline_ns);
	else
		timer_stop(deadline->sock->loop, &deadline->timer);
}

void
sock_set_deadline(struct sock *sock, unsigned directions, uint64_t deadline_ns)
{
	if (directions & SOCK_RECV)
		set_deadline(&sock->recv_deadline, deadline_ns);
	if (directions & SOCK_SEND)
		set_deadline(&sock->send_deadline, deadline_ns);
}

/* ---- who is there ---- */

static void
describe_unix(int fd, struct sock_peer *peer)
{
	struct ucred credentials;
	socklen_t length = sizeof(credentials);

	peer->is_unix = true;
	peer->is_loopback = true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length)) {
		strcpy(peer->name, "unix");
		return;
	}
	peer->uid = credentials.uid;
	peer->pid = credentials.pid;
	snprintf(peer->name, sizeof(peer->name), "unix (uid %u, pid %d)",
	    (unsigned)peer->uid, (int)peer->pid);
}

/* IPv4 is told in its own notation, also when it came to an IPv6 socket. */
static void
describe_tcp(const struct in6_addr *address, unsigned port,
    struct sock_peer *peer)
{
	bool is_ipv4 = IN6_IS_ADDR_V4MAPPED(address);
	char text[INET6_ADDRSTRLEN] = "";

	peer->address = *address;
	if (is_ipv4) {
		peer->is_loopback = address->s6_addr[12] == 127;
		inet_ntop(AF_INET, &address->s6_addr[12], text, sizeof(text));
	} else {
		peer->is_loopback = IN6_IS_ADDR_LOOPBACK(address);
		inet_ntop(AF_INET6, address, text, sizeof(text));
	}
	snprintf(peer->name, sizeof(peer->name),
	    is_ipv4 ? "tcp %s:%u" : "tcp [%s]:%u", text, port);
}

/* A machine of this host, or the host. */
static void
describe_vsock(const struct sockaddr_vm *address, struct sock_peer *peer)
{
	peer->is_loopback = address->svm_cid == VMADDR_CID_LOCAL;
	snprintf(peer->name, sizeof(peer->name), "vsock %u:%u",
	    address->svm_cid, address->svm_port);
}

static struct in6_addr
mapped(struct in_addr address)
{
	struct in6_addr result = IN6ADDR_ANY_INIT;

	result.s6_addr[10] = 0xff;
	result.s6_addr[11] = 0xff;
	memcpy(&result.s6_addr[12], &address, sizeof(address));
	return result;
}

void
sock_describe(const struct sock *sock, struct sock_peer *peer)
{
	union {
		struct sockaddr any;
		struct sockaddr_in ipv4;
		struct sockaddr_in6 ipv6;
		struct sockaddr_vm vm;
		struct sockaddr_storage room;
	} address = {0};
	socklen_t length = sizeof(address);
	struct in6_addr ipv6;

	*peer = (struct sock_peer){ .name = "unknown", .uid = (uid_t)-1 };
	if (getpeername(sock->fd, &address.any, &length))
		return;
	switch (address.any.sa_family) {
	case AF_UNIX:
		describe_unix(sock->fd, peer);
		break;
	case AF_INET:
		ipv6 = mapped(address.ipv4.sin_addr);
		describe_tcp(&ipv6, ntohs(address.ipv4.sin_port), peer);
		break;
	case AF_INET6:
		describe_tcp(&address.ipv6.sin6_addr,
		    ntohs(address.ipv6.sin6_port), peer);
		break;
	case AF_VSOCK:
		describe_vsock(&address.vm, peer);
		break;
	}
}

/* ---- moving bytes ---- */

/* A deadline ends an operation by shutting the socket down. */
static co_fn int64_t
run_op(struct op *op, const struct sock_deadline *deadline)
{
	int64_t result;

	if (deadline->passed)
		return -ETIMEDOUT;
	result = loop_wait(op);
	return result <= 0 && deadline->passed ? -ETIMEDOUT : result;
}

co_fn int
sock_recv_exact(struct sock *sock, void *data, size_t length)
{
	size_t received = 0;
	int64_t count;

	while (received < length) {
		struct iovec iov = {
			.iov_base = (char *)data + received,
			.iov_len = length - received,
		};
		struct op op = {
			.kind = OP_RECV, .fd = sock->fd,
			.iov = &iov, .iov_count = 1, .flags = OP_WAIT_ALL,
		};

		count = run_op(&op, &sock->recv_deadline);
		if (count < 0)
			return (int)count;
		if (count == 0)
			return received ? -ECONNRESET : -ENODATA;
		received += (size_t)count;
	}
	return 0;
}

co_fn int64_t
sock_recv_some(struct sock *sock, void *data, size_t size)
{
	struct iovec iov = { .iov_base = data, .iov_len = size };
	struct op op = {
		.kind = OP_RECV, .fd = sock->fd, .iov = &iov, .iov_count = 1,
	};

	return run_op(&op, &sock->recv_deadline);
}

co_fn int64_t
sock_recv_pooled(struct sock *sock, struct op *op)
{
	*op = (struct op){ .kind = OP_RECV_POOLED, .fd = sock->fd };
	return run_op(op, &sock->recv_deadline);
}

/* Takes the count bytes that were sent off the front of the iovecs. */
static void
advance(struct iovec **iov, unsigned *iov_count, size_t count)
{
	while (*iov_count > 0 && count >= (*iov)->iov_len) {
		count -= (*iov)->iov_len;
		(*iov)++;
		(*iov_count)--;
	}
	if (count > 0) {
		assert(*iov_count > 0);
		(*iov)->iov_base = (char *)(*iov)->iov_base + count;
		(*iov)->iov_len -= count;
	}
}

/* A send comes back short only to be told on the next try what is wrong. */
co_fn int
sock_send(struct sock *sock, struct iovec *iov, unsigned iov_count)
{
	int64_t count;

	advance(&iov, &iov_count, 0);
	while (iov_count > 0) {
		struct op op = {
			.kind = OP_SEND, .fd = sock->fd,
			.iov = iov, .iov_count = iov_count,
			.flags = sock->send_flags,
		};

		count = run_op(&op, &sock->send_deadline);
		if (count < 0)
			return (int)count;
		advance(&iov, &iov_count, (size_t)count);
	}
	return 0;
}
