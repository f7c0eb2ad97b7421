/* SPDX-License-Identifier: MIT */
/*
 * A record of what was done to files, and of the requests that led to it.
 *
 * One counter numbers every event: an operation's submission and completion, a
 * request's arrival and reply.  So "before" and "after" are comparisons, and a
 * crash is a number: what is numbered below it has happened.  Numbers start
 * at 1.
 *
 * May be used by several threads while it is written to; reading it is for
 * afterwards.  Running out of memory ends the process.
 */
#ifndef RUNTIME_RECORD_H
#define RUNTIME_RECORD_H

#include <stddef.h>
#include <stdint.h>

struct file;
struct record_log;

/* It has not happened. */
#define RECORD_NEVER UINT64_MAX

/* Limits the log to what a test may hold in memory. */
#define RECORD_ENTRIES_MAX (16u * 1024 * 1024)

enum record_kind {
	/* Operations on a file; see file.h. */
	RECORD_READ,
	RECORD_WRITE,
	RECORD_SYNC,
	RECORD_PUNCH,
	RECORD_ZERO,
	RECORD_ALLOCATE,
	RECORD_TRUNCATE,	/* offset is the new size */
	/* Requests of a client; offset and length are the guest's. */
	RECORD_REQUEST_READ,
	RECORD_REQUEST_WRITE,
	RECORD_REQUEST_ZERO,
	RECORD_REQUEST_TRIM,
	RECORD_REQUEST_FLUSH,
	RECORD_REQUEST_OTHER,	/* value says what */
};

#define RECORD_DSYNC	1u	/* of a write: FILE_DSYNC */
#define RECORD_FUA	2u	/* of a request */

struct record {
	enum record_kind kind;
	unsigned source;	/* which file, or which connection */
	unsigned flags;
	uint64_t submitted;	/* or received */
	uint64_t completed;	/* or replied; RECORD_NEVER */
	uint64_t offset;
	uint64_t length;
	int64_t result;		/* bytes, 0 or -errno; once completed */
	uint64_t value;		/* requests: what the test wrote */
	uint8_t *data;		/* RECORD_WRITE: length bytes, else NULL */
};

int record_log_create(struct record_log **logp);
void record_log_free(struct record_log *log);

/* The number of the next event. */
uint64_t record_log_next(const struct record_log *log);

/* Entries in order of their begin; they stay in place. */
size_t record_log_count(const struct record_log *log);
const struct record *record_log_at(const struct record_log *log, size_t index);

/*
 * Numbers the beginning of something now; its index.  What entry says of
 * submitted, completed and result is not used; data is copied.
 */
size_t record_begin(struct record_log *log, const struct record *entry);

/*
 * Numbers its end.  For requests: call it before the reply is handed to the
 * socket, the earliest moment the client may know.
 */
void record_end(struct record_log *log, size_t index, int64_t result);

/*
 * Takes entry as it is, numbers and all: for logs made elsewhere.  They are
 * added in order of their begin.
 */
size_t record_add(struct record_log *log, const struct record *entry);

/*
 * Writes what was done to a file as a dm-log-writes log, which replay-log and
 * other explorers read.  Its order is that of the kernel's module: a write
 * stands before the flush that made it stable, else at the end.  Punches and
 * zeros are discards; requests and size changes are marks.  base is a file of
 * file_sim.h with the content at the beginning of the log, or NULL for zeros;
 * it completes sectors that were written in part.  0 or -errno.
 */
int record_export(const struct record_log *log, unsigned source,
    struct file *base, const char *path);

#endif
