/* SPDX-License-Identifier: MIT */
/*
 * The log: one line per event on standard error, never blocking a loop.
 *
 * A line is a sentence followed by key=value context.  Under systemd (standard
 * error is the journal) each begins with its priority "<4>"; on a terminal with
 * "qnbd: ".  Lines go through a bounded ring to one writer thread; when a
 * reader stalls, lines are dropped and their number is logged afterwards.
 */
#ifndef RUNTIME_LOG_H
#define RUNTIME_LOG_H

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_ERROR = 3,	/* syslog's numbers */
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* Lines above level are not formatted at all.  Default LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/*
 * Several lines are those that format itself tells apart; a newline, or another
 * control character, of an argument becomes "?".
 */
void log_at(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) \
	do { \
		if (log_enabled(LOG_LEVEL_DEBUG)) \
			log_at(LOG_LEVEL_DEBUG, __VA_ARGS__); \
	} while (0)

/*
 * Puts the text of at most size - 1 bytes into target, control and non-ASCII
 * bytes, quotes and backslashes as \xNN: what a client or an image sent never
 * reaches a terminal raw, nor ends its name="..." early.  A text that does not
 * fit ends in "...".  Returns target.
 */
const char *log_quote(char *target, int size, const void *text, int length);

/* Lines dropped since the start, for tests. */
unsigned long log_dropped(void);

/* Writes out what is queued; at most timeout_ms.  For exits. */
void log_flush(unsigned timeout_ms);

#endif
