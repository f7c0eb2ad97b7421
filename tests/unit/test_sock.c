/* SPDX-License-Identifier: MIT */
/*
 * Connected sockets and words to the service manager, on both engines.
 *
 * Guards against: bytes lost, doubled or moved when a large message is sent in
 * pieces, an end of stream taken for data or the other way round, a peer who
 * stalls and is waited for without end, and a peer mistaken for another.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "runtime/notify.h"
#include "runtime/sock.h"
#include "tests/unit/test_runtime.h"

#define MILLISECOND_NS 1000000ull
#define LARGE_BYTES (32u * 1024 * 1024 + 12345)

/* A socket and whoever has the other end. */
struct pair {
	struct sock sock;
	int other;
	void *data;
	size_t length;
};

static void
pair_open(struct pair *pair)
{
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
	    fds), 0);
	*pair = (struct pair){ .other = fds[1] };
	sock_open(&pair->sock, fds[0]);
}

static void
pair_close(struct pair *pair)
{
	sock_close(&pair->sock);
	if (pair->other >= 0)
		close(pair->other);
	free(pair->data);
}

/* Runs a coroutine that owns its sockets on the engine the test is for. */
static void
run_on_engine(int engine, void (*fn)(void *arg))
{
	ck_assert_int_gt(loop_engine_select(engine ? LOOP_THREADS : LOOP_AUTO),
	    0);
	test_run(fn, NULL);
}

/* ---- whole or error ---- */

/* In 1,000 pieces of uneven length, some of them empty. */
static co_fn void
send_large(void *arg)
{
	struct pair *pair = arg;
	struct iovec iov[1000];
	size_t length = LARGE_BYTES, start = 0;
	struct sock sock;

	sock_open(&sock, pair->other);
	test_fill(pair->data, length, 1);
	for (unsigned i = 0; i < 1000; i++) {
		size_t piece = i == 999 ? length - start : i % 7 ? i * 67 : 0;

		iov[i] = (struct iovec){
			(char *)pair->data + start, piece,
		};
		start += piece;
	}
	ck_assert_int_eq(sock_send(&sock, iov, 1000), 0);
	sock_close(&sock);
	pair->other = -1;
}

static co_fn void
receive_large(void *unused)
{
	struct pair pair;
	char *received = malloc(LARGE_BYTES);
	char more;

	(void)unused;
	ck_assert_ptr_nonnull(received);
	pair_open(&pair);
	pair.data = malloc(LARGE_BYTES);
	ck_assert_ptr_nonnull(pair.data);
	test_spawn(send_large, &pair);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, received, LARGE_BYTES),
	    0);
	test_verify(received, LARGE_BYTES, 1);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, &more, 1), -ENODATA);
	free(received);
	pair_close(&pair);
}

START_TEST(test_large)
{
	run_on_engine(_i, receive_large);
}
END_TEST

static co_fn void
receive_ends(void *unused)
{
	struct pair pair;
	char data[8];

	(void)unused;
	pair_open(&pair);
	ck_assert_int_eq(write(pair.other, "12345678abcd", 12), 12);
	close(pair.other);
	pair.other = -1;
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 0), 0);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 8), 0);
	ck_assert_int_eq(memcmp(data, "12345678", 8), 0);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 8), -ECONNRESET);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 8), -ENODATA);
	ck_assert_int_eq(sock_recv_some(&pair.sock, data, 8), 0);
	pair_close(&pair);
}

START_TEST(test_end_of_stream)
{
	run_on_engine(_i, receive_ends);
}
END_TEST

static co_fn void
receive_some(void *unused)
{
	struct pair pair;
	struct op op;
	char data[8];

	(void)unused;
	pair_open(&pair);
	ck_assert_int_eq(write(pair.other, "abc", 3), 3);
	ck_assert_int_eq(sock_recv_some(&pair.sock, data, 8), 3);
	ck_assert_int_eq(write(pair.other, "defg", 4), 4);
	ck_assert_int_eq(sock_recv_pooled(&pair.sock, &op), 4);
	ck_assert_int_eq(memcmp(op.pooled, "defg", 4), 0);
	loop_recv_put(&op);
	close(pair.other);
	pair.other = -1;
	ck_assert_int_eq(sock_recv_pooled(&pair.sock, &op), 0);
	pair_close(&pair);
}

START_TEST(test_some)
{
	run_on_engine(_i, receive_some);
}
END_TEST

static co_fn void
send_to_nobody(void *unused)
{
	struct pair pair;
	struct iovec iov = { (char *)"x", 1 };

	(void)unused;
	pair_open(&pair);
	close(pair.other);
	pair.other = -1;
	ck_assert_int_eq(sock_send(&pair.sock, &iov, 1), -EPIPE);
	ck_assert_int_eq(sock_send(&pair.sock, NULL, 0), 0);
	pair_close(&pair);
}

START_TEST(test_send_to_nobody)
{
	run_on_engine(_i, send_to_nobody);
}
END_TEST

/* ---- deadlines ---- */

static uint64_t
deadline_in_ms(unsigned delay_ms)
{
	return loop_now_ns(loop_self()) + delay_ms * MILLISECOND_NS;
}

static co_fn void
receive_until_deadline(void *unused)
{
	uint64_t start_ms = test_now_ms();
	struct pair pair;
	char data[8];

	(void)unused;
	pair_open(&pair);
	ck_assert_int_eq(write(pair.other, "abc", 3), 3);
	sock_set_deadline(&pair.sock, SOCK_RECV, deadline_in_ms(50));
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 8), -ETIMEDOUT);
	ck_assert_uint_ge(test_now_ms() - start_ms, 49);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 8), -ETIMEDOUT);
	ck_assert_int_eq(sock_recv_some(&pair.sock, data, 8), -ETIMEDOUT);
	/* The peer is told, so that it need not wait either. */
	ck_assert_int_eq(read(pair.other, data, 1), 0);
	pair_close(&pair);
}

START_TEST(test_receive_deadline)
{
	run_on_engine(_i, receive_until_deadline);
}
END_TEST

/* What came before is not taken for an answer in time. */
static co_fn void
receive_after_deadline(void *unused)
{
	struct pair pair;
	char data[8];

	(void)unused;
	pair_open(&pair);
	ck_assert_int_eq(write(pair.other, "abc", 3), 3);
	sock_set_deadline(&pair.sock, SOCK_RECV, deadline_in_ms(5));
	loop_sleep(10 * MILLISECOND_NS);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 3), -ETIMEDOUT);
	pair_close(&pair);
}

START_TEST(test_late_receive)
{
	run_on_engine(_i, receive_after_deadline);
}
END_TEST

static co_fn void
send_until_deadline(void *unused)
{
	struct pair pair;
	struct iovec iov;

	(void)unused;
	pair_open(&pair);
	pair.data = calloc(1, LARGE_BYTES);
	ck_assert_ptr_nonnull(pair.data);
	iov = (struct iovec){ pair.data, LARGE_BYTES };
	sock_set_deadline(&pair.sock, SOCK_SEND, deadline_in_ms(50));
	ck_assert_int_eq(sock_send(&pair.sock, &iov, 1), -ETIMEDOUT);
	pair_close(&pair);
}

START_TEST(test_send_deadline)
{
	run_on_engine(_i, send_until_deadline);
}
END_TEST

/* Both are taken off before they pass, so nothing happens. */
static co_fn void
outlive_deadline(void *unused)
{
	struct pair pair;
	struct iovec iov = { (char *)"x", 1 };

	(void)unused;
	pair_open(&pair);
	sock_set_deadline(&pair.sock, SOCK_RECV | SOCK_SEND,
	    deadline_in_ms(20));
	sock_set_deadline(&pair.sock, SOCK_RECV, deadline_in_ms(10000));
	sock_set_deadline(&pair.sock, SOCK_SEND, 0);
	loop_sleep(40 * MILLISECOND_NS);
	ck_assert_int_eq(sock_send(&pair.sock, &iov, 1), 0);
	pair_close(&pair);
}

START_TEST(test_deadline_taken_off)
{
	run_on_engine(_i, outlive_deadline);
}
END_TEST

/* The memory is used for something else by the time the deadline passes. */
static co_fn void
close_before_deadline(void *unused)
{
	struct pair pair;

	(void)unused;
	pair_open(&pair);
	sock_set_deadline(&pair.sock, SOCK_RECV | SOCK_SEND,
	    deadline_in_ms(5));
	pair_close(&pair);
	explicit_bzero(&pair, sizeof(pair));
	loop_sleep(10 * MILLISECOND_NS);
}

START_TEST(test_close_before_deadline)
{
	run_on_engine(_i, close_before_deadline);
}
END_TEST

static co_fn void
shut_down(void *arg)
{
	sock_shutdown(arg);
	sock_shutdown(arg);
}

static co_fn void
receive_until_shutdown(void *unused)
{
	struct pair pair;
	struct iovec iov = { (char *)"x", 1 };
	char data[8];

	(void)unused;
	pair_open(&pair);
	test_spawn(shut_down, &pair.sock);
	ck_assert_int_eq(sock_recv_exact(&pair.sock, data, 8), -ENODATA);
	ck_assert_int_eq(sock_send(&pair.sock, &iov, 1), -EPIPE);
	pair_close(&pair);
}

START_TEST(test_shutdown)
{
	run_on_engine(_i, receive_until_shutdown);
}
END_TEST

/* ---- who is there ---- */

/* A TCP connection to ourselves; sock gets the accepted end. */
static int
connect_tcp(const char *host, struct sock *sock)
{
	struct sockaddr_in6 ipv6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in ipv4 = { .sin_family = AF_INET };
	bool is_ipv6 = strchr(host, ':') != NULL;
	struct sockaddr *address = is_ipv6 ? (struct sockaddr *)&ipv6 :
	    (struct sockaddr *)&ipv4;
	socklen_t length = is_ipv6 ? sizeof(ipv6) : sizeof(ipv4);
	int listener, client;

	inet_pton(AF_INET, host, &ipv4.sin_addr);
	inet_pton(AF_INET6, host, &ipv6.sin6_addr);
	listener = socket(address->sa_family, SOCK_STREAM, 0);
	client = socket(address->sa_family, SOCK_STREAM, 0);
	if (bind(listener, address, length)) {
		fprintf(stderr, "no address %s here: not tested\n", host);
		close(client);
		close(listener);
		return -1;
	}
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, address, &length), 0);
	ck_assert_int_eq(connect(client, address, length), 0);
	sock_open(sock, accept(listener, NULL, NULL));
	close(listener);
	return client;
}

static int
option(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof(value);

	ck_assert_int_eq(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

static void
describe_ipv4(void *unused)
{
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	struct sock_peer peer;
	struct sock sock;
	char expected[64];
	int client = connect_tcp("127.0.0.1", &sock);

	(void)unused;
	ck_assert_int_ge(client, 0);
	getsockname(client, (struct sockaddr *)&address, &length);
	snprintf(expected, sizeof(expected), "tcp 127.0.0.1:%u",
	    ntohs(address.sin_port));
	sock_describe(&sock, &peer);
	ck_assert_str_eq(peer.name, expected);
	ck_assert(peer.is_loopback && !peer.is_unix);
	ck_assert(IN6_IS_ADDR_V4MAPPED(&peer.address));
	ck_assert_int_eq(peer.address.s6_addr[12], 127);

	ck_assert_int_eq(option(sock.fd, IPPROTO_TCP, TCP_NODELAY), 1);
	ck_assert_int_eq(option(sock.fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(option(sock.fd, IPPROTO_TCP, TCP_USER_TIMEOUT),
	    SOCK_DEAD_PEER_S * 1000);
	ck_assert_int_eq(option(sock.fd, IPPROTO_TCP, TCP_KEEPIDLE) +
	    option(sock.fd, IPPROTO_TCP, TCP_KEEPINTVL) *
	    option(sock.fd, IPPROTO_TCP, TCP_KEEPCNT), SOCK_DEAD_PEER_S);
	sock_set_dead_peer(&sock, 11);
	ck_assert_int_eq(option(sock.fd, IPPROTO_TCP, TCP_USER_TIMEOUT),
	    11000);
	ck_assert_int_eq(option(sock.fd, IPPROTO_TCP, TCP_KEEPIDLE) +
	    option(sock.fd, IPPROTO_TCP, TCP_KEEPINTVL) *
	    option(sock.fd, IPPROTO_TCP, TCP_KEEPCNT), 11);
	ck_assert(fcntl(sock.fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(sock.fd, F_GETFD) & FD_CLOEXEC);
	sock_close(&sock);
	close(client);
}

START_TEST(test_describe_ipv4)
{
	run_on_engine(0, describe_ipv4);
}
END_TEST

static void
describe_ipv6(void *unused)
{
	struct sock_peer peer;
	struct sock sock;
	int client = connect_tcp("::1", &sock);

	(void)unused;
	if (client < 0)
		return;
	sock_describe(&sock, &peer);
	ck_assert_int_eq(strncmp(peer.name, "tcp [::1]:", 10), 0);
	ck_assert(peer.is_loopback && !peer.is_unix);
	sock_close(&sock);
	close(client);
}

START_TEST(test_describe_ipv6)
{
	run_on_engine(0, describe_ipv6);
}
END_TEST

static void
describe_unix(void *unused)
{
	struct sock_peer peer;
	struct pair pair;
	char expected[64];

	(void)unused;
	pair_open(&pair);
	snprintf(expected, sizeof(expected), "unix (uid %u, pid %d)",
	    (unsigned)getuid(), (int)getpid());
	sock_describe(&pair.sock, &peer);
	ck_assert_str_eq(peer.name, expected);
	ck_assert(peer.is_loopback && peer.is_unix);
	ck_assert_uint_eq(peer.uid, getuid());
	ck_assert_int_eq(peer.pid, getpid());
	pair_close(&pair);
}

START_TEST(test_describe_unix)
{
	run_on_engine(0, describe_unix);
}
END_TEST

/* ---- the service manager ---- */

static int
open_manager(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(name);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	memcpy(address.sun_path, name, length);
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void
check_notified(const char *name)
{
	char text[64] = "";
	int fd = open_manager(name);

	ck_assert_int_eq(notify_systemd("READY=1\nSTATUS=here"), 1);
	ck_assert_int_eq(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT), 19);
	ck_assert_str_eq(text, "READY=1\nSTATUS=here");
	close(fd);
}

START_TEST(test_notify)
{
	char name[300];

	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_eq(notify_systemd("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	ck_assert_int_eq(notify_systemd("READY=1"), 0);
	snprintf(name, sizeof(name), "%s/manager", test_directory());
	check_notified(name);
	ck_assert_int_eq(notify_systemd("READY=1"), -ECONNREFUSED);
	snprintf(name, sizeof(name), "@qnbd-test-%d", (int)getpid());
	check_notified(name);
	setenv("NOTIFY_SOCKET", "relative", 1);
	ck_assert_int_eq(notify_systemd("READY=1"), -EAFNOSUPPORT);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("sock");
	TCase *tcase = tcase_create("sock");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_large, 0, 2);
	tcase_add_loop_test(tcase, test_end_of_stream, 0, 2);
	tcase_add_loop_test(tcase, test_some, 0, 2);
	tcase_add_loop_test(tcase, test_send_to_nobody, 0, 2);
	tcase_add_loop_test(tcase, test_receive_deadline, 0, 2);
	tcase_add_loop_test(tcase, test_late_receive, 0, 2);
	tcase_add_loop_test(tcase, test_send_deadline, 0, 2);
	tcase_add_loop_test(tcase, test_deadline_taken_off, 0, 2);
	tcase_add_loop_test(tcase, test_close_before_deadline, 0, 2);
	tcase_add_loop_test(tcase, test_shutdown, 0, 2);
	tcase_add_test(tcase, test_describe_ipv4);
	tcase_add_test(tcase, test_describe_ipv6);
	tcase_add_test(tcase, test_describe_unix);
	tcase_add_test(tcase, test_notify);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
