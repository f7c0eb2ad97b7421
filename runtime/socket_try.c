/* SPDX-License-Identifier: MIT */
#include "runtime/socket_try.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include "runtime/iov.h"

/* One system call for what op->result says was not sent before. */
static ssize_t
send_rest(const struct op *op)
{
	size_t sent = (size_t)op->result;
	struct msghdr message = {
		.msg_iov = op->iov, .msg_iovlen = op->iov_count,
	};
	struct iovec *first, saved;
	ssize_t count;

	while (sent >= message.msg_iov->iov_len && message.msg_iovlen > 1) {
		sent -= message.msg_iov->iov_len;
		message.msg_iov++;
		message.msg_iovlen--;
	}
	first = message.msg_iov;
	saved = *first;
	first->iov_base = (char *)saved.iov_base + sent;
	first->iov_len -= sent;
	count = sendmsg(op->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (count < 0)
		count = -errno;
	*first = saved;
	return count;
}

static int64_t
try_send(struct op *op)
{
	size_t length = iov_bytes(op->iov, op->iov_count);
	ssize_t count;

	while ((size_t)op->result < length) {
		count = send_rest(op);
		if (count < 0 && count != -EAGAIN && op->result > 0)
			break;
		if (count < 0)
			return count;
		op->result += count;
	}
	return op->result;
}

static int64_t
try_recv(struct op *op)
{
	ssize_t count;

	do {
		count = recv(op->fd, (char *)op->iov->iov_base + op->result,
		    op->iov->iov_len - (size_t)op->result, MSG_DONTWAIT);
		if (count < 0 && (errno == EAGAIN || op->result == 0))
			return -errno;
		if (count <= 0)
			break;
		op->result += count;
	} while (op->flags & OP_WAIT_ALL &&
	    (size_t)op->result < op->iov->iov_len);
	return op->result;
}

static int64_t
try_accept(const struct op *op)
{
	int fd = accept4(op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int64_t
try_poll(const struct op *op, short events)
{
	struct pollfd pollfd = { .fd = op->fd, .events = events };
	int count = poll(&pollfd, 1, 0);

	if (count < 0)
		return -errno;
	if (op->fd < 0 || pollfd.revents & POLLNVAL)
		return -EBADF;
	return count > 0 ? 0 : -EAGAIN;
}

int64_t
socket_try(struct op *op)
{
	switch (op->kind) {
	case OP_SEND:
		return try_send(op);
	case OP_RECV:
		return try_recv(op);
	case OP_ACCEPT:
		return try_accept(op);
	case OP_POLL_IN:
		return try_poll(op, POLLIN);
	case OP_POLL_OUT:
		return try_poll(op, POLLOUT);
	default:
		return -EINVAL;
	}
}
