/* SPDX-License-Identifier: MIT */
/*
 * The log.  Guards against: a stalled reader that stalls the program, lines
 * lost without a word, lines torn or mixed by several threads, priorities
 * that the journal does not get, a client's bytes that reach a terminal raw,
 * and a child process that repeats or loses lines.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "runtime/log.h"
#include "runtime/sanitizers.h"
#include "tests/unit/test_runtime.h"

#define FLUSH_MS 5000

/* Standard error becomes a pipe; the end to read it from. */
static int
capture(void)
{
	int fds[2];

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
	close(fds[1]);
	return fds[0];
}

/* Everything in the pipe, once nobody writes to it any more. */
static char *
captured(int fd)
{
	static char text[1 << 20];
	size_t length = 0;
	ssize_t count;

	log_flush(FLUSH_MS);
	close(STDERR_FILENO);
	while ((count = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += (size_t)count;
	text[length] = '\0';
	return text;
}

START_TEST(test_terminal_prefix)
{
	int fd = capture();

	log_warning("a disk is full: image=%s", "x.qcow2");
	ck_assert_str_eq(captured(fd),
	    "qnbd: a disk is full: image=x.qcow2\n");
}
END_TEST

static void
set_journal_stream(int fd, unsigned inode_offset)
{
	char stream[64];
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu",
	    (unsigned long long)st.st_dev,
	    (unsigned long long)st.st_ino + inode_offset);
	setenv("JOURNAL_STREAM", stream, 1);
}

START_TEST(test_journal_priority)
{
	int fd = capture();

	set_journal_stream(STDERR_FILENO, 0);
	log_error("one");
	log_info("two\nthree\n");
	ck_assert_str_eq(captured(fd), "<3>one\n<6>two\n<6>three\n");
}
END_TEST

/* Standard error was redirected after systemd set the variable. */
START_TEST(test_other_journal_stream)
{
	int fd = capture();

	set_journal_stream(STDERR_FILENO, 1);
	log_error("one");
	ck_assert_str_eq(captured(fd), "qnbd: one\n");
}
END_TEST

START_TEST(test_arguments_forge_no_lines)
{
	int fd = capture();

	log_info("a file=%s", "x\nqnbd: stopped\r\x1b[2J\x7f\t\xc2\x9bK "
	    "\xc3\xa9");
	log_info("two\nof %s", "x\x1b");
	ck_assert_str_eq(captured(fd), "qnbd: a file=x?qnbd: stopped??[2J??"
	    "\xc2?K \xc3\xa9\nqnbd: two\nqnbd: of x?\n");
}
END_TEST

START_TEST(test_level)
{
	int fd = capture();

	log_debug("not asked for");
	ck_assert(!log_enabled(LOG_LEVEL_DEBUG));
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("asked for");
	log_set_level(LOG_LEVEL_ERROR);
	log_warning("not asked for");
	ck_assert_str_eq(captured(fd), "qnbd: asked for\n");
}
END_TEST

START_TEST(test_long_line_is_cut)
{
	int fd = capture();
	char line[3000];
	char *text;

	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	log_info("%s", line);
	text = captured(fd);
	ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
	ck_assert_uint_le(strlen(text), 1100);
	ck_assert_str_eq(text + strlen(text) - 5, "x...\n");
}
END_TEST

/* Lines are long enough that few fit into the pipe. */
static void
log_number(unsigned number)
{
	log_info("number=%u %0900d", number, 0);
}

static void
read_lines(int fd, char *text, unsigned lines)
{
	while (lines > 0) {
		ck_assert_int_eq(read(fd, text, 1), 1);
		if (*text++ == '\n')
			lines--;
	}
	*text = '\0';
}

/* How many lines there are and were lost, if all that came is in order. */
static unsigned
check_numbers(const char *line, unsigned next)
{
	unsigned value;

	for (; *line; line = strchr(line, '\n') + 1) {
		if (sscanf(line, "qnbd: number=%u", &value) == 1)
			ck_assert_uint_eq(value, next++);
		else if (sscanf(line, "qnbd: log lines were lost because "
		    "nobody read them: count=%u", &value) == 1)
			next += value;
		else
			ck_abort_msg("strange line: %.100s", line);
	}
	return next;
}

/*
 * Nobody reads the pipe: every call returns at once, lines are kept in order,
 * and where some are missing a line says how many.
 */
START_TEST(test_stalled_reader)
{
	enum { LINES = 1000, READ_LINES = 200, LATE_LINES = 20 };
	static char text[READ_LINES * 1000];
	int fd = capture();
	uint64_t start_ms = test_now_ms();
	unsigned long dropped;
	unsigned next;

	ck_assert_int_gt(fcntl(fd, F_SETPIPE_SZ, 4096), 0);
	for (unsigned i = 0; i < LINES; i++)
		log_number(i);
	ck_assert_uint_lt(test_now_ms() - start_ms, 5000);
	dropped = log_dropped();
	ck_assert_uint_gt(dropped, LINES / 2);
	start_ms = test_now_ms();
	log_flush(100);
	ck_assert_uint_ge(test_now_ms() - start_ms, 90);

	/* The gap is told before what is logged when there is room again. */
	read_lines(fd, text, READ_LINES);
	next = check_numbers(text, 0);
	for (unsigned i = 0; i < LATE_LINES; i++)
		log_number(LINES + i);
	fcntl(fd, F_SETPIPE_SZ, 1 << 20);
	next = check_numbers(captured(fd), next);
	ck_assert_uint_eq(next, LINES + LATE_LINES);
	ck_assert_uint_eq(log_dropped(), dropped);
}
END_TEST

static void *
log_many(void *arg)
{
	for (unsigned i = 0; i < 1000; i++)
		log_info("thread=%c line=%u end", *(char *)arg, i);
	return NULL;
}

START_TEST(test_threads)
{
	int fd = capture();
	pthread_t threads[4];
	char names[4] = "abcd";
	unsigned next[4] = {0};
	unsigned number;
	char *text, *line, *end, name;

	ck_assert_int_gt(fcntl(fd, F_SETPIPE_SZ, 1 << 20), 0);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, log_many,
		    &names[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	text = captured(fd);
	for (line = text; (end = strchr(line, '\n')); line = end + 1) {
		if (strstr(line, "qnbd: log lines") == line)
			continue;
		ck_assert_int_eq(sscanf(line, "qnbd: thread=%c line=%u end\n",
		    &name, &number), 2);
		ck_assert_uint_ge(number, next[name - 'a']);
		next[name - 'a'] = number + 1;
		ck_assert_int_eq(strncmp(end - 4, " end", 4), 0);
	}
}
END_TEST

#ifndef WITH_TSAN
static void
be_child(int fd)
{
	dup2(fd, STDERR_FILENO);
	log_info("child");
	log_flush(FLUSH_MS);
	_exit(0);
}
#endif

/*
 * A child has the lines it logs itself, once each, and not those its parent
 * has yet to write.
 */
START_TEST(test_fork)
{
#ifdef WITH_TSAN
	fprintf(stderr, "ThreadSanitizer allows no threads after a fork: "
	    "not tested\n");
#else
	int fd = capture();
	char text[100] = "";
	int fds[2], status;
	pid_t child;

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_gt(fcntl(fd, F_SETPIPE_SZ, 4096), 0);
	for (unsigned i = 0; i < 20; i++)
		log_number(i);
	/* AddressSanitizer bears no fork while a thread is still starting. */
	ck_assert_int_eq(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1,
	    -1), 1);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0)
		be_child(fds[1]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	close(fds[1]);
	ck_assert_int_gt(read(fds[0], text, sizeof(text) - 1), 0);
	ck_assert_str_eq(text, "qnbd: child\n");
	fcntl(fd, F_SETPIPE_SZ, 1 << 20);
	ck_assert_uint_eq(check_numbers(captured(fd), 0), 20);
#endif
}
END_TEST

START_TEST(test_closed_stderr)
{
	close(STDERR_FILENO);
	log_error("nobody will read this");
	log_flush(FLUSH_MS);
	ck_assert_uint_eq(log_dropped(), 0);
}
END_TEST

START_TEST(test_quote)
{
	static const char nasty[] = "a\n\x1b[31m\x7f\xc3\xa4\0\"\\z";
	char target[64];

	ck_assert_str_eq(log_quote(target, sizeof(target), "plain text", 10),
	    "plain text");
	ck_assert_str_eq(log_quote(target, sizeof(target), nasty,
	    sizeof(nasty) - 1),
	    "a\\x0a\\x1b[31m\\x7f\\xc3\\xa4\\x00\\x22\\x5cz");
	ck_assert_str_eq(log_quote(target, sizeof(target), "", 0), "");
}
END_TEST

/* Whatever the size: terminated, inside it, and no half escape. */
START_TEST(test_quote_sizes)
{
	static const char text[] = "ab\ncd\nef";
	static const char quoted[] = "ab\\x0acd\\x0aef";
	char target[32];

	for (int size = 1; size < (int)sizeof(target); size++) {
		size_t length;

		memset(target, '#', sizeof(target));
		log_quote(target, size, text, sizeof(text) - 1);
		length = strlen(target);
		ck_assert_uint_lt(length, (size_t)size);
		for (size_t i = (size_t)size; i < sizeof(target); i++)
			ck_assert_int_eq(target[i], '#');
		if (size > (int)strlen(quoted)) {
			ck_assert_str_eq(target, quoted);
			continue;
		}
		if (size > 3) {
			ck_assert_str_eq(target + length - 3, "...");
			length -= 3;
		}
		ck_assert_int_eq(strncmp(target, quoted, length), 0);
		ck_assert(length <= 2 || (length >= 6 && length <= 8) ||
		    length >= 12);
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("log");
	TCase *tcase = tcase_create("log");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_terminal_prefix);
	tcase_add_test(tcase, test_journal_priority);
	tcase_add_test(tcase, test_other_journal_stream);
	tcase_add_test(tcase, test_arguments_forge_no_lines);
	tcase_add_test(tcase, test_level);
	tcase_add_test(tcase, test_long_line_is_cut);
	tcase_add_test(tcase, test_stalled_reader);
	tcase_add_test(tcase, test_threads);
	tcase_add_test(tcase, test_fork);
	tcase_add_test(tcase, test_closed_stderr);
	tcase_add_test(tcase, test_quote);
	tcase_add_test(tcase, test_quote_sizes);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
