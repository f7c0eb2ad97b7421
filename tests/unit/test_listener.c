/* SPDX-License-Identifier: MIT */
/*
 * Listeners, on both engines where they accept.
 *
 * Guards against: a crashed server's socket file that keeps the next from
 * starting, a live server's file or a plain file being removed, a socket file
 * left behind, other users let in, and an accepting loop that spins when the
 * descriptors run out.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "runtime/listener.h"
#include "tests/unit/test_runtime.h"

static const struct listener_access mode_600 = { 0600, (uid_t)-1, (gid_t)-1 };
static const struct listener_access mode_660 = { 0660, (uid_t)-1, (gid_t)-1 };

static struct error error;

static const char *
socket_path(void)
{
	static char path[300];

	if (!path[0])
		snprintf(path, sizeof(path), "%s/sock", test_directory());
	return path;
}

static int
connect_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

static int
connect_tcp(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- unix ---- */

START_TEST(test_unix)
{
	struct listener *list = NULL;
	struct stat st;
	char name[320];

	umask(0077);
	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_660, 0,
	    &error), 0);
	snprintf(name, sizeof(name), "unix %s", socket_path());
	ck_assert_str_eq(list->name, name);
	ck_assert_str_eq(list->path, socket_path());
	ck_assert(list->is_unix && list->is_loopback && !list->is_adopted);
	ck_assert_int_eq(stat(socket_path(), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0660);
	ck_assert_int_ge(connect_unix(socket_path()), 0);
	listener_close_all(&list);
	ck_assert_ptr_null(list);
	ck_assert_int_eq(stat(socket_path(), &st), -1);
	listener_close_all(&list);
}
END_TEST

/* What a server that was killed leaves behind. */
static void
leave_stale_socket(void)
{
	struct listener *list = NULL;
	pid_t child = fork();

	if (child == 0) {
		listener_open_unix(&list, socket_path(), &mode_600, 0, &error);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	ck_assert_int_eq(connect_unix(socket_path()), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
}

START_TEST(test_stale_is_replaced)
{
	struct listener *list = NULL;

	socket_path();
	leave_stale_socket();
	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_600, 0,
	    &error), 0);
	ck_assert_int_ge(connect_unix(socket_path()), 0);
	listener_close_all(&list);
}
END_TEST

START_TEST(test_live_is_refused)
{
	struct listener *list = NULL;
	struct listener *other = NULL;
	uint64_t start_ms = test_now_ms();

	ck_assert_int_eq(listener_open_unix(&other, socket_path(), &mode_600, 0,
	    &error), 0);
	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_600,
	    200, &error), -EADDRINUSE);
	ck_assert_uint_ge(test_now_ms() - start_ms, 200);
	ck_assert_ptr_null(list);
	ck_assert_int_eq(error.exit_code, 75);
	ck_assert_ptr_nonnull(strstr(error.message, socket_path()));
	ck_assert_ptr_nonnull(strstr(error.message, "another server"));
	ck_assert_int_ge(connect_unix(socket_path()), 0);
	listener_close_all(&other);
}
END_TEST

/* The other server ends while we are patient. */
START_TEST(test_patience)
{
	struct listener *list = NULL;
	int fds[2];
	pid_t child;
	char ready;

	socket_path();
	ck_assert_int_eq(pipe(fds), 0);
	child = fork();
	if (child == 0) {
		listener_open_unix(&list, socket_path(), &mode_600, 0, &error);
		if (write(fds[1], "x", 1) == 1)
			usleep(200 * 1000);
		_exit(0);
	}
	ck_assert_int_eq(read(fds[0], &ready, 1), 1);
	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_600,
	    10000, &error), 0);
	waitpid(child, NULL, 0);
	listener_close_all(&list);
}
END_TEST

START_TEST(test_other_files_stay)
{
	struct listener *list = NULL;
	int fd = open(socket_path(), O_CREAT | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_600, 0,
	    &error), -EEXIST);
	ck_assert_int_eq(error.exit_code, 1);
	ck_assert_int_eq(access(socket_path(), F_OK), 0);
	ck_assert_int_eq(unlink(socket_path()), 0);
	ck_assert_int_eq(symlink("/nowhere", socket_path()), 0);
	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_600, 0,
	    &error), -EEXIST);
}
END_TEST

/* Somebody removed our file and another server took the name. */
START_TEST(test_successor_stays)
{
	struct listener *list = NULL;
	struct listener *successor = NULL;

	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_600, 0,
	    &error), 0);
	ck_assert_int_eq(unlink(socket_path()), 0);
	ck_assert_int_eq(listener_open_unix(&successor, socket_path(),
	    &mode_600, 0, &error), 0);
	listener_close_all(&list);
	ck_assert_int_ge(connect_unix(socket_path()), 0);
	listener_close_all(&successor);
}
END_TEST

START_TEST(test_bad_paths)
{
	struct listener *list = NULL;
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	ck_assert_int_eq(listener_open_unix(&list, path, &mode_600, 0, &error),
	    -ENAMETOOLONG);
	ck_assert_int_eq(listener_open_unix(&list, "", &mode_600, 0, &error),
	    -ENOENT);
	ck_assert_int_eq(listener_open_unix(&list, "/nowhere/at/all", &mode_600,
	    0, &error), -ENOENT);
	ck_assert_str_eq(error.message, "cannot listen on unix "
	    "/nowhere/at/all: No such file or directory");
	ck_assert_ptr_null(list);
}
END_TEST

/* ---- TCP ---- */

START_TEST(test_tcp)
{
	struct listener *list = NULL;
	struct listener *other = NULL;
	char name[64], message[128];

	ck_assert_int_eq(listener_open_tcp(&list, "127.0.0.1", 0, 0, &error),
	    0);
	ck_assert_uint_ne(list->port, 0);
	snprintf(name, sizeof(name), "tcp 127.0.0.1:%u", list->port);
	ck_assert_str_eq(list->name, name);
	ck_assert_str_eq(list->address, "127.0.0.1");
	ck_assert(list->is_loopback && !list->is_unix && !list->path);
	ck_assert_int_ge(connect_tcp(list->port), 0);

	ck_assert_int_eq(listener_open_tcp(&other, "127.0.0.1", list->port, 0,
	    &error), -EADDRINUSE);
	ck_assert_ptr_null(other);
	ck_assert_int_eq(error.exit_code, 75);
	snprintf(message, sizeof(message), "cannot listen on tcp "
	    "127.0.0.1:%u: the port is in use", list->port);
	ck_assert_str_eq(error.message, message);
	listener_close_all(&list);
}
END_TEST

/* A connection that has not ended yet does not keep the port. */
START_TEST(test_tcp_again)
{
	struct listener *list = NULL;
	uint16_t port;
	int client, served;

	ck_assert_int_eq(listener_open_tcp(&list, "127.0.0.1", 0, 0, &error),
	    0);
	port = list->port;
	client = connect_tcp(port);
	served = accept(list->fd, NULL, NULL);
	ck_assert_int_ge(served, 0);
	close(served);
	listener_close_all(&list);
	close(client);
	ck_assert_int_eq(listener_open_tcp(&list, "127.0.0.1", port, 0,
	    &error), 0);
	listener_close_all(&list);
}
END_TEST

/* All addresses of the machine: IPv4 and, where there is any, IPv6. */
START_TEST(test_tcp_any)
{
	struct listener *list = NULL;
	struct listener *listener;
	unsigned count = 0;

	ck_assert_int_eq(listener_open_tcp(&list, "", 0, 0, &error), 0);
	for (listener = list; listener; listener = listener->next) {
		ck_assert_uint_eq(listener->port, list->port);
		ck_assert(!listener->is_loopback);
		count++;
	}
	ck_assert(count == 1 || count == 2);
	if (count == 1)
		fprintf(stderr, "one of IPv4 and IPv6 is missing here: "
		    "the same port on both is not tested\n");
	ck_assert_int_ge(connect_tcp(list->port), 0);
	listener_close_all(&list);
}
END_TEST

START_TEST(test_tcp_names)
{
	struct listener *list = NULL;

	ck_assert_int_eq(listener_open_tcp(&list, "localhost", 0, 0, &error),
	    0);
	ck_assert(list->is_loopback);
	listener_close_all(&list);
	ck_assert_int_lt(listener_open_tcp(&list, "256.1.1.1", 0, 0, &error),
	    0);
	ck_assert_int_eq(listener_open_tcp(&list, "192.0.2.1", 10809, 0,
	    &error), -EADDRNOTAVAIL);
	ck_assert_str_eq(error.message, "cannot listen on tcp "
	    "192.0.2.1:10809: Cannot assign requested address");
	ck_assert_ptr_null(list);
}
END_TEST

/* ---- adopted ---- */

/* Runs listener_adopt() in a child with sockets at 3 and 4; its result. */
static int
adopt_in_child(const char *fds, bool own_pid, bool stream)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct listener *mine = NULL;
		struct listener *list = NULL;
		char pid[16];
		int count;

		listener_open_tcp(&mine, "127.0.0.1", 0, 0, &error);
		dup2(mine->fd, 20);
		fcntl(20, F_SETFL, 0);
		dup2(socket(AF_INET, SOCK_STREAM, 0), 21);
		dup2(20, 3);
		dup2(stream ? 20 : 21, 4);
		snprintf(pid, sizeof(pid), "%d",
		    own_pid ? (int)getpid() : 1);
		setenv("LISTEN_PID", pid, 1);
		setenv("LISTEN_FDS", fds, 1);
		setenv("LISTEN_FDNAMES", "nbd:control", 1);
		count = listener_adopt(&list, &error);
		if (getenv("LISTEN_PID") || getenv("LISTEN_FDS") ||
		    getenv("LISTEN_FDNAMES"))
			_exit(100);
		if (count > 0 && (list->fd != 3 || !list->is_adopted ||
		    list->port != mine->port ||
		    strcmp(list->fd_name, "nbd") ||
		    !(fcntl(3, F_GETFD) & FD_CLOEXEC) ||
		    !(fcntl(3, F_GETFL) & O_NONBLOCK)))
			_exit(101);
		if (count > 1 && strcmp(list->next->fd_name, "control"))
			_exit(102);
		_exit(count < 0 ? 99 : count);
	}
	waitpid(child, &status, 0);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

START_TEST(test_adopt)
{
	struct listener *list = NULL;

	ck_assert_int_eq(listener_adopt(&list, &error), 0);
	ck_assert_int_eq(adopt_in_child("1", true, true), 1);
	ck_assert_int_eq(adopt_in_child("2", true, true), 2);
	ck_assert_int_eq(adopt_in_child("2", false, true), 0);
	ck_assert_int_eq(adopt_in_child("2", true, false), 99);
	ck_assert_int_eq(adopt_in_child("0", true, true), 0);
	ck_assert_int_eq(adopt_in_child("65", true, true), 99);
	ck_assert_int_eq(adopt_in_child("-1", true, true), 99);
	ck_assert_int_eq(adopt_in_child("1x", true, true), 99);
}
END_TEST

/* ---- accepting ---- */

static co_fn void
connect_later(void *arg)
{
	loop_sleep(20 * 1000 * 1000);
	*(int *)arg = connect_unix(socket_path());
	ck_assert_int_ge(*(int *)arg, 0);
}

static co_fn void
accept_one(void *arg)
{
	int client = -1;
	int fd;

	test_spawn(connect_later, &client);
	fd = listener_accept(arg);
	ck_assert_int_ge(fd, 0);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	close(client);
}

static co_fn void
stop(void *arg)
{
	loop_sleep(20 * 1000 * 1000);
	listener_stop(arg);
}

static co_fn void
accept_until_stopped(void *arg)
{
	test_spawn(stop, arg);
	ck_assert_int_eq(listener_accept(arg), -ECANCELED);
	ck_assert_int_eq(listener_accept(arg), -ECANCELED);
}

/* Only new descriptors are limited, so what is open stays so. */
static void
limit_descriptors(rlim_t count)
{
	struct rlimit limit;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = count;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static co_fn void
accept_without_descriptors(void *arg)
{
	int client = connect_unix(socket_path());
	uint64_t start_ms = test_now_ms();
	int fd;

	ck_assert_int_ge(client, 0);
	limit_descriptors(3);
	ck_assert_int_eq(listener_accept(arg), -EAGAIN);
	ck_assert_uint_ge(test_now_ms() - start_ms, 99);
	limit_descriptors(256);
	fd = listener_accept(arg);
	ck_assert_int_ge(fd, 0);
	close(fd);
	close(client);
}

static void
run_with_listener(int engine, void (*fn)(void *arg))
{
	struct listener *list = NULL;

	ck_assert_int_gt(loop_engine_select(engine ? LOOP_THREADS : LOOP_AUTO),
	    0);
	ck_assert_int_eq(listener_open_unix(&list, socket_path(), &mode_600, 0,
	    &error), 0);
	test_run(fn, list);
	listener_close_all(&list);
}

START_TEST(test_accept)
{
	run_with_listener(_i, accept_one);
}
END_TEST

START_TEST(test_stop)
{
	run_with_listener(_i, accept_until_stopped);
}
END_TEST

START_TEST(test_no_descriptors)
{
	run_with_listener(_i, accept_without_descriptors);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("listener");
	TCase *tcase = tcase_create("listener");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_unix);
	tcase_add_test(tcase, test_stale_is_replaced);
	tcase_add_test(tcase, test_live_is_refused);
	tcase_add_test(tcase, test_patience);
	tcase_add_test(tcase, test_other_files_stay);
	tcase_add_test(tcase, test_successor_stays);
	tcase_add_test(tcase, test_bad_paths);
	tcase_add_test(tcase, test_tcp);
	tcase_add_test(tcase, test_tcp_again);
	tcase_add_test(tcase, test_tcp_any);
	tcase_add_test(tcase, test_tcp_names);
	tcase_add_test(tcase, test_adopt);
	tcase_add_loop_test(tcase, test_accept, 0, 2);
	tcase_add_loop_test(tcase, test_stop, 0, 2);
	tcase_add_loop_test(tcase, test_no_descriptors, 0, 2);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
