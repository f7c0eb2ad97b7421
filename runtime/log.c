/* SPDX-License-Identifier: MIT */
#include "runtime/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "runtime/thread.h"

#define LOG_LINES 256
#define LOG_LINE_BYTES 1024

struct log_line {
	enum log_level level;
	char text[LOG_LINE_BYTES];
};

/*
 * The ring.  Counts only grow; a line is in slot count % LOG_LINES.  Slots
 * from written to queued belong to the writer, which reads them without the
 * lock: that is how a stalled reader of the log stalls nobody else.
 */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t queued_more;
	pthread_cond_t idle;	/* the writer has nothing left */
	bool started;
	bool fork_handled;
	unsigned long queued;
	unsigned long written;
	unsigned long dropped;
	unsigned long dropped_told;	/* as far as a line says so */
	struct log_line lines[LOG_LINES];
} ring = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.queued_more = PTHREAD_COND_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
};

static _Atomic(enum log_level) level_max = LOG_LEVEL_INFO;

/*
 * Whether standard error is the journal: systemd tells the device and inode
 * of the stream, because standard error may have been redirected since.
 */
static bool
stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return !fstat(STDERR_FILENO, &st) && st.st_dev == device &&
	    st.st_ino == inode;
}

/* Gives up on a line if standard error is closed or broken. */
static void
write_all(struct iovec *iov, int iov_count)
{
	struct pollfd pollfd = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t written;

	while (iov_count > 0) {
		written = writev(STDERR_FILENO, iov, iov_count);
		if (written < 0 && errno == EAGAIN) {
			poll(&pollfd, 1, -1);
			continue;
		}
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return;
		while (iov_count > 0 && (size_t)written >= iov->iov_len) {
			written -= (ssize_t)iov->iov_len;
			iov++;
			iov_count--;
		}
		if (iov_count > 0) {
			iov->iov_base = (char *)iov->iov_base + written;
			iov->iov_len -= (size_t)written;
		}
	}
}

/* One system call for each line of the text, so that lines stay whole. */
static void
write_line(const struct log_line *line, bool journal)
{
	const char *text = line->text;
	char prefix[8];
	struct iovec iov[3];
	size_t length;

	if (journal)
		snprintf(prefix, sizeof(prefix), "<%d>", (int)line->level);
	else
		strcpy(prefix, "qnbd: ");
	for (;;) {
		length = strcspn(text, "\n");
		iov[0] = (struct iovec){ prefix, strlen(prefix) };
		iov[1] = (struct iovec){ (char *)text, length };
		iov[2] = (struct iovec){ (char *)"\n", 1 };
		write_all(iov, 3);
		if (!text[length] || !text[length + 1])
			return;
		text += length + 1;
	}
}

/*
 * Whether there is room for a line.  Once one is lost, all are until half of
 * the ring is free again, so that the log has one gap and not a hundred.
 */
static bool
ring_has_room(void)
{
	unsigned long waiting = ring.queued - ring.written;

	if (ring.dropped_told != ring.dropped)
		return waiting <= LOG_LINES / 2;
	return waiting < LOG_LINES;
}

/* Says in the ring, which has room, how many lines the gap before it had. */
static void
tell_dropped(void)
{
	struct log_line *line = &ring.lines[ring.queued % LOG_LINES];

	if (ring.dropped_told == ring.dropped)
		return;
	line->level = LOG_LEVEL_WARNING;
	snprintf(line->text, sizeof(line->text),
	    "log lines were lost because nobody read them: count=%lu",
	    ring.dropped - ring.dropped_told);
	ring.dropped_told = ring.dropped;
	ring.queued++;
}

/* Writes out what is queued; entered and left with the lock held. */
static void
write_queued(bool journal)
{
	while (ring.written != ring.queued) {
		struct log_line *line = &ring.lines[ring.written % LOG_LINES];

		pthread_mutex_unlock(&ring.lock);
		write_line(line, journal);
		pthread_mutex_lock(&ring.lock);
		ring.written++;
		if (ring.written == ring.queued)
			tell_dropped();
	}
}

static void *
writer(void *unused)
{
	bool journal = stderr_is_journal();

	(void)unused;
	pthread_mutex_lock(&ring.lock);
	for (;;) {
		write_queued(journal);
		pthread_cond_broadcast(&ring.idle);
		pthread_cond_wait(&ring.queued_more, &ring.lock);
	}
	return NULL;
}

static void
before_fork(void)
{
	pthread_mutex_lock(&ring.lock);
}

static void
after_fork_in_parent(void)
{
	pthread_mutex_unlock(&ring.lock);
}

/* The writer stayed in the parent, and so do the lines it has yet to write. */
static void
after_fork_in_child(void)
{
	pthread_cond_init(&ring.queued_more, NULL);
	pthread_cond_init(&ring.idle, NULL);
	ring.started = false;
	ring.written = ring.queued;
	pthread_mutex_unlock(&ring.lock);
}

/* If there is no thread to be had now, the next line tries again. */
static void
start_writer(void)
{
	pthread_t thread;

	if (!ring.fork_handled)
		ring.fork_handled = !pthread_atfork(before_fork,
		    after_fork_in_parent, after_fork_in_child);
	if (thread_start(&thread, "qnbd-log", writer, NULL))
		return;
	pthread_detach(thread);
	ring.started = true;
}

void
log_set_level(enum log_level level)
{
	atomic_store_explicit(&level_max, level, memory_order_relaxed);
}

bool
log_enabled(enum log_level level)
{
	return level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

/*
 * What names and paths put into a line must not end it, nor reach a terminal
 * as a command: bytes below the space, and those that UTF-8 has from U+0080 to
 * U+009F.
 */
static void
disarm(char *text, bool newlines_stay)
{
	for (unsigned char *byte = (unsigned char *)text; *byte; byte++) {
		bool control = *byte < ' ' || *byte == 0x7f;

		if (*byte == 0xc2 && byte[1] >= 0x80 && byte[1] < 0xa0)
			byte[1] = '?';
		if (control && !(*byte == '\n' && newlines_stay))
			*byte = '?';
	}
}

/* Formats before it locks, so that the lock is held for one short copy. */
void
log_at(enum log_level level, const char *format, ...)
{
	char text[LOG_LINE_BYTES];
	struct log_line *line;
	va_list arguments;
	int length;

	if (!log_enabled(level))
		return;
	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (length < 0)
		return;
	if (length >= (int)sizeof(text)) {
		length = sizeof(text) - 1;
		memcpy(text + length - 3, "...", 3);
	}
	disarm(text, strchr(format, '\n') != NULL);

	pthread_mutex_lock(&ring.lock);
	if (!ring.started)
		start_writer();
	if (!ring_has_room()) {
		ring.dropped++;
	} else {
		tell_dropped();
		line = &ring.lines[ring.queued++ % LOG_LINES];
		line->level = level;
		memcpy(line->text, text, (size_t)length + 1);
		pthread_cond_signal(&ring.queued_more);
	}
	pthread_mutex_unlock(&ring.lock);
}

const char *
log_quote(char *target, int size, const void *text, int length)
{
	const unsigned char *source = text;
	int used = 0, end = 0;
	int i;

	for (i = 0; i < length; i++) {
		bool plain = source[i] >= ' ' && source[i] < 0x7f &&
		    source[i] != '"' && source[i] != '\\';
		int wanted = plain ? 1 : 4;

		if (used + wanted >= size)
			break;
		if (plain)
			target[used] = (char)source[i];
		else
			snprintf(target + used, 5, "\\x%02x", source[i]);
		used += wanted;
		if (used + 3 < size)
			end = used;
	}
	if (i < length && size > 3) {
		memcpy(target + end, "...", 3);
		used = end + 3;
	}
	if (size > 0)
		target[used] = '\0';
	return target;
}

unsigned long
log_dropped(void)
{
	unsigned long dropped;

	pthread_mutex_lock(&ring.lock);
	dropped = ring.dropped;
	pthread_mutex_unlock(&ring.lock);
	return dropped;
}

void
log_flush(unsigned timeout_ms)
{
	struct timespec until;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&ring.lock);
	while (ring.started && ring.written != ring.queued && !err)
		err = pthread_cond_clockwait(&ring.idle, &ring.lock,
		    CLOCK_MONOTONIC, &until);
	pthread_mutex_unlock(&ring.lock);
}
