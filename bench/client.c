/* SPDX-License-Identifier: MIT */
#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include "bench/client.h"
#include "proto/handshake.h"
#include "proto/option.h"
#include "proto/option_reply.h"

#define HOST_BYTES_MAX 256

static int
connect_unix(const char *path, int *fdp)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		error = errno;
		close(fd);
		return -error;
	}
	*fdp = fd;
	return 0;
}

/* Cuts "HOST:PORT" in two; *portp points into place. */
static int
split_host(const char *place, char host[static HOST_BYTES_MAX],
	const char **portp)
{
	const char *colon = strrchr(place, ':');
	size_t bytes;

	if (!colon || colon == place || !colon[1])
		return -EINVAL;
	bytes = (size_t)(colon - place);
	if (place[0] == '[' && colon[-1] == ']') {
		place++;
		bytes -= 2;
	}
	if (bytes == 0 || bytes >= HOST_BYTES_MAX)
		return -EINVAL;
	memcpy(host, place, bytes);
	host[bytes] = '\0';
	*portp = colon + 1;
	return 0;
}

static int
connect_address(const struct addrinfo *address, int *fdp)
{
	const int on = 1;
	int fd, error;

	fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, address->ai_addr, address->ai_addrlen) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0) {
		error = errno;
		close(fd);
		return -error;
	}
	*fdp = fd;
	return 0;
}

static int
connect_tcp(const char *place, int *fdp)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *addresses, *address;
	char host[HOST_BYTES_MAX];
	const char *port;
	int result;

	result = split_host(place, host, &port);
	if (result)
		return result;
	result = getaddrinfo(host, port, &hints, &addresses);
	if (result) {
		warnx("%s: %s", host, gai_strerror(result));
		return -EHOSTUNREACH;
	}
	result = -EHOSTUNREACH;
	for (address = addresses; address; address = address->ai_next) {
		result = connect_address(address, fdp);
		if (!result)
			break;
	}
	freeaddrinfo(addresses);
	return result;
}

int
client_connect(const char *target, int *fdp)
{
	const struct timeval timeout = { .tv_sec = CLIENT_TIMEOUT_SECONDS };
	int result, fd;

	if (strncmp(target, "unix:", 5) == 0)
		result = connect_unix(target + 5, &fd);
	else if (strncmp(target, "tcp:", 4) == 0)
		result = connect_tcp(target + 4, &fd);
	else
		result = -EINVAL;
	if (result) {
		warnx("cannot connect to %s: %s", target, strerror(-result));
		return result;
	}
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout,
			sizeof(timeout)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout,
			sizeof(timeout)) < 0) {
		result = -errno;
		close(fd);
		return result;
	}
	*fdp = fd;
	return 0;
}

static int
send_whole(int fd, const void *data, size_t bytes)
{
	const char *next = data;
	ssize_t sent;

	while (bytes > 0) {
		sent = send(fd, next, bytes, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -errno;
		next += sent;
		bytes -= (size_t)sent;
	}
	return 0;
}

static int
receive_whole(int fd, void *data, size_t bytes)
{
	char *next = data;
	ssize_t got;

	while (bytes > 0) {
		got = recv(fd, next, bytes, MSG_WAITALL);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (got == 0)
			return -ECONNRESET;
		next += got;
		bytes -= (size_t)got;
	}
	return 0;
}

/* Receives one reply to option; its data goes to data. */
static int
receive_option_reply(int fd, uint32_t option, struct nbd_option_reply *reply,
	uint8_t data[static NBD_OPTION_REPLY_DATA_BYTES_MAX])
{
	uint8_t wire[NBD_OPTION_REPLY_HEADER_BYTES];
	int result;

	result = receive_whole(fd, wire, sizeof(wire));
	if (result)
		return result;
	result = nbd_option_reply_parse(wire, reply);
	if (result)
		return result;
	if (reply->option != option)
		return -EBADMSG;
	return receive_whole(fd, data, reply->data_bytes);
}

static int
refused(const struct nbd_option_reply *reply, const uint8_t *data)
{
	warnx("the server refused %s: %s %.*s", nbd_option_name(reply->option),
		nbd_option_reply_name(reply->type), (int)reply->data_bytes,
		(const char *)data);
	return -ENOTSUP;
}

static int
greet(int fd)
{
	uint8_t greeting[NBD_GREETING_BYTES], answer[NBD_CLIENT_FLAGS_BYTES];
	uint16_t flags;
	int result;

	result = receive_whole(fd, greeting, sizeof(greeting));
	if (result)
		return result;
	result = nbd_handshake_parse_greeting(greeting, &flags);
	if (result)
		return result;
	if (!(flags & NBD_FLAG_FIXED_NEWSTYLE))
		return -EBADMSG;
	nbd_handshake_put_client_flags(answer, NBD_FLAG_FIXED_NEWSTYLE |
		(flags & NBD_FLAG_NO_ZEROES));
	return send_whole(fd, answer, sizeof(answer));
}

static int
ask_structured(int fd)
{
	uint8_t wire[NBD_OPTION_HEADER_BYTES];
	uint8_t data[NBD_OPTION_REPLY_DATA_BYTES_MAX];
	struct nbd_option_reply reply;
	int result;

	nbd_option_put(wire, NBD_OPT_STRUCTURED_REPLY);
	result = send_whole(fd, wire, sizeof(wire));
	if (result)
		return result;
	result = receive_option_reply(fd, NBD_OPT_STRUCTURED_REPLY, &reply,
		data);
	if (result)
		return result;
	if (nbd_option_reply_is_error(&reply))
		return refused(&reply, data);
	return reply.type == NBD_REP_ACK ? 0 : -EBADMSG;
}

static int
take_info(const uint8_t *data, size_t data_bytes,
	struct client_export *export, bool *export_seen)
{
	struct nbd_info info;
	int result;

	result = nbd_option_reply_parse_info(data, data_bytes, &info);
	if (result)
		return result;
	if (info.type == NBD_INFO_EXPORT) {
		export->bytes = info.export_bytes;
		export->transmission_flags = info.transmission_flags;
		*export_seen = true;
	} else if (info.type == NBD_INFO_BLOCK_SIZE) {
		export->block_bytes_min = info.block_size.minimum;
		if (info.block_size.payload_max < export->payload_bytes_max)
			export->payload_bytes_max =
				info.block_size.payload_max;
	}
	return 0;
}

static int
go(int fd, const char *name, struct client_export *export)
{
	const uint16_t infos[] = { NBD_INFO_BLOCK_SIZE };
	uint8_t wire[NBD_OPTION_GO_BYTES_MAX(1)];
	uint8_t data[NBD_OPTION_REPLY_DATA_BYTES_MAX];
	struct nbd_option_reply reply;
	bool export_seen = false;
	size_t bytes;
	int result;

	bytes = nbd_option_put_go(wire, NBD_OPT_GO, nbd_text_of(name), infos,
		1);
	result = send_whole(fd, wire, bytes);
	if (result)
		return result;
	for (;;) {
		result = receive_option_reply(fd, NBD_OPT_GO, &reply, data);
		if (result)
			return result;
		if (nbd_option_reply_is_error(&reply))
			return refused(&reply, data);
		if (reply.type == NBD_REP_ACK)
			return export_seen ? 0 : -EBADMSG;
		if (reply.type != NBD_REP_INFO)
			return -EBADMSG;
		result = take_info(data, reply.data_bytes, export,
			&export_seen);
		if (result)
			return result;
	}
}

int
client_negotiate(int fd, const char *name, bool structured,
	struct client_export *export)
{
	struct client_export found = {
		.block_bytes_min = 1,
		.payload_bytes_max = NBD_PAYLOAD_BYTES_MAX,
		.structured = structured,
	};
	int result;

	if (strlen(name) > NBD_NAME_BYTES_MAX)
		result = -ENAMETOOLONG;
	else
		result = greet(fd);
	if (!result && structured)
		result = ask_structured(fd);
	if (!result)
		result = go(fd, name, &found);
	if (result) {
		warnx("handshake failed: %s", strerror(-result));
		return result;
	}
	*export = found;
	return 0;
}
