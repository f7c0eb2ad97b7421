/* SPDX-License-Identifier: MIT */
/*
 * Receiving: bytes arrive in the shared buffer, behind what was carried over
 * from the last time, and are walked once (stream_reply.c).
 *
 * Sending: a batch is gathered only after the one before has left whole.  The
 * wire is a queue anyway, so nothing could overtake what still waits.
 */
#include <assert.h>
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "bench/stream_internal.h"

/* TCP can drop received bytes in the kernel; below this it does not pay. */
#define DISCARD_BYTES_MIN	(32u << 10)

/* The clock is looked at once in so many idle turns. */
#define PATIENCE_TURNS		65536

uint64_t
stream_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool
stream_patience_over(struct stream_patience *patience)
{
	uint64_t now_ns;

	if (++patience->turns % PATIENCE_TURNS)
		return false;
	now_ns = stream_clock_ns();
	if (!patience->since_ns)
		patience->since_ns = now_ns;
	return now_ns - patience->since_ns >
		CLIENT_TIMEOUT_SECONDS * 1000000000ull;
}

static bool
is_tcp(int fd)
{
	int domain;
	socklen_t bytes = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) < 0)
		return false;
	return domain == AF_INET || domain == AF_INET6;
}

int
stream_create(const struct stream_shared *shared, int fd,
	const struct client_export *export, unsigned depth,
	struct stream **streamp)
{
	const struct workload_plan *plan = &shared->workload->plan;
	struct stream *stream;
	unsigned i;

	if (depth == 0 || depth > STREAM_DEPTH_MAX)
		return -EINVAL;
	assert(shared->receive_bytes > CARRY_BYTES_MAX);
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	stream->slots = calloc(depth, sizeof(*stream->slots));
	if (!stream->slots)
		goto free_stream;
	if (plan->verify) {
		stream->slot_data = calloc(depth, plan->block_bytes);
		if (!stream->slot_data)
			goto free_slots;
	}
	for (i = 0; i < depth; i++) {
		if (plan->verify)
			stream->slots[i].data = stream->slot_data +
				(size_t)i * plan->block_bytes;
		stream->free_slots[i] = (uint16_t)(depth - 1 - i);
	}
	stream->free_count = depth;
	stream->depth = depth;
	stream->shared = shared;
	stream->fd = fd;
	stream->structured = export->structured;
	stream->discards = is_tcp(fd);
	*streamp = stream;
	return 0;
free_slots:
	free(stream->slots);
free_stream:
	free(stream);
	return -ENOMEM;
}

void
stream_free(struct stream *stream)
{
	const struct nbd_request goodbye = { .type = NBD_CMD_DISC };
	uint8_t wire[NBD_REQUEST_BYTES];

	if (!stream)
		return;
	if (!stream->broken && stream_in_flight(stream) == 0) {
		nbd_request_put(wire, &goodbye);
		/* A courtesy: the server sees the close in any case. */
		(void)!send(stream->fd, wire, sizeof(wire),
			MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	close(stream->fd);
	free(stream->slot_data);
	free(stream->slots);
	free(stream);
}

bool
stream_unsent(const struct stream *stream)
{
	return stream->part_next < stream->part_count;
}

unsigned
stream_in_flight(const struct stream *stream)
{
	return stream->depth - stream->free_count;
}

int
stream_fd(const struct stream *stream)
{
	return stream->fd;
}

/* Appends to the batch; one header right behind another extends its part. */
static void
add_part(struct stream *stream, const uint8_t *start, size_t bytes)
{
	struct iovec *next = &stream->parts[stream->part_count];

	if (stream->part_count > 0 &&
	    (uint8_t *)next[-1].iov_base + next[-1].iov_len == start) {
		next[-1].iov_len += bytes;
		return;
	}
	next->iov_base = (void *)(uintptr_t)start;
	next->iov_len = bytes;
	stream->part_count++;
}

/* Gives a slot its request and appends that to the batch, at header. */
static void
add_request(struct stream *stream, const struct workload_request *request,
	uint64_t now_ns, uint8_t *header)
{
	const struct stream_shared *shared = stream->shared;
	uint16_t number = stream->free_slots[--stream->free_count];
	struct slot *slot = &stream->slots[number];
	const uint8_t *payload = shared->write_payload;

	slot->request = *request;
	slot->wire = (struct nbd_request){
		.cookie = ++stream->cookies << COOKIE_SLOT_BITS | number,
		.offset = request->offset,
		.length = request->bytes,
		.flags = request->flags,
		.type = request->command,
	};
	slot->sent_ns = now_ns;
	slot->received_bytes = 0;
	slot->error = 0;
	nbd_request_put(header, &slot->wire);
	add_part(stream, header, NBD_REQUEST_BYTES);
	if (request->command != NBD_CMD_WRITE)
		return;
	if (slot->data) {
		workload_fill(shared->workload, request, slot->data);
		payload = slot->data;
	}
	add_part(stream, payload, request->bytes);
}

/* Makes a batch of all requests that may go now; false if there is none. */
static bool
gather(struct stream *stream)
{
	struct workload_request request;
	uint8_t *header = stream->headers;
	uint64_t now_ns;

	stream->part_next = stream->part_count = 0;
	if (stream->free_count == 0)
		return false;
	now_ns = stream_clock_ns();
	while (stream->free_count > 0 &&
	    workload_next(stream->shared->workload, now_ns, &request)) {
		add_request(stream, &request, now_ns, header);
		header += NBD_REQUEST_BYTES;
	}
	return stream->part_count > 0;
}

/* Takes what was sent off the batch. */
static void
advance(struct stream *stream, size_t sent)
{
	struct iovec *part = stream->parts + stream->part_next;

	while (sent > 0 && sent >= part->iov_len) {
		sent -= part->iov_len;
		part++;
		stream->part_next++;
	}
	if (sent > 0) {
		part->iov_base = (uint8_t *)part->iov_base + sent;
		part->iov_len -= sent;
	}
}

static int
fail(struct stream *stream, int error)
{
	stream->broken = true;
	warnx("connection lost with %u requests in flight: %s",
		stream_in_flight(stream), strerror(-error));
	return error;
}

int
stream_send(struct stream *stream)
{
	struct msghdr message = { 0 };
	ssize_t sent;

	while (stream_unsent(stream) || gather(stream)) {
		message.msg_iov = stream->parts + stream->part_next;
		message.msg_iovlen = stream->part_count - stream->part_next;
		sent = sendmsg(stream->fd, &message,
			MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN)
			return 0;
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return fail(stream, -errno);
		advance(stream, (size_t)sent);
	}
	return 0;
}

/* recv() that may spin; EAGAIN when the time for that is over. */
static ssize_t
receive_some(struct stream *stream, void *to, size_t bytes, int flags,
	enum stream_wait wait)
{
	struct stream_patience patience = { 0 };
	ssize_t got;

	for (;;) {
		got = recv(stream->fd, to, bytes, flags | MSG_DONTWAIT);
		if (got >= 0 || (errno != EAGAIN && errno != EINTR))
			return got;
		if (errno == EINTR)
			continue;
		if (wait != STREAM_WAIT_SPINNING)
			return got;
		if (stream_patience_over(&patience)) {
			errno = EAGAIN;
			return -1;
		}
	}
}

int
stream_receive(struct stream *stream, enum stream_wait wait)
{
	uint8_t *buffer = stream->shared->receive_buffer;
	size_t room = stream->shared->receive_bytes - stream->carry_bytes;
	int flags = 0, result;
	ssize_t got;

	/* Payload that nobody looks at need not leave the kernel. */
	if (stream->discards && !stream->payload_to &&
	    stream->payload_bytes >= DISCARD_BYTES_MIN) {
		flags = MSG_TRUNC;
		if (room > stream->payload_bytes)
			room = stream->payload_bytes;
	}
	got = receive_some(stream, buffer + stream->carry_bytes, room, flags,
		wait);
	if (got < 0 && errno == EAGAIN)
		return wait == STREAM_WAIT_NOT ? 0 : fail(stream, -ETIMEDOUT);
	if (got <= 0)
		return fail(stream, got < 0 ? -errno : -ECONNRESET);
	stream->received_ns = stream_clock_ns();
	memcpy(buffer, stream->carry, stream->carry_bytes);
	result = stream_walk(stream, buffer, stream->carry_bytes + (size_t)got);
	return result ? fail(stream, result) : 0;
}
