/* SPDX-License-Identifier: MIT */
/*
 * What a sector of the export may hold, after a crash and before one.
 *
 * The oracle is told of every request, when it was received and when it was
 * replied to, in numbers of one counter (a record log's will do).  For a crash
 * at number c:
 *
 *   A write is required if it was replied to without an error and either has
 *   FUA and was replied to before c, or some flush was received after that
 *   reply and replied to without an error before c.  The flush may have come
 *   on any connection.
 *
 *   A sector may hold what any write received before c wrote, except for
 *   writes that were replied to before a required write was received; and
 *   what was there in the beginning, unless a write of it is required.
 *
 * A write of zeroes is a write of zeros.  A trim may or may not leave zeros:
 * it adds that value and is never required.  Failed and unanswered writes may
 * or may not show.  A read before any crash is judged alike, with every write
 * required that was replied to before the read was received.
 *
 * Writes consist of sectors as sector_fill() makes them from the oracle's seed
 * and the value of the request.  Running out of memory ends the process.
 */
#ifndef TESTS_CRASH_ORACLE_H
#define TESTS_CRASH_ORACLE_H

#include <stdbool.h>
#include "runtime/record.h"
#include "tests/crash/sector.h"

/* The largest export; the oracle keeps a list for each 64 KiB of it. */
#define ORACLE_BYTES_MAX (UINT64_C(1) << 36)

struct oracle;

enum oracle_verdict {
	ORACLE_GOOD,
	ORACLE_LOST,	/* an older value than the requests allow */
	ORACLE_FOREIGN,	/* of another sector or run, or from nowhere */
	ORACLE_GARBAGE,	/* not a sector that anybody wrote */
};

/* The first bad sector. */
struct oracle_finding {
	enum oracle_verdict verdict;
	uint64_t offset;
	enum sector_kind kind;
	struct sector_label label;	/* if kind is SECTOR_LABELLED */
};

/* For an export of bytes, which reads as zeros in the beginning. */
int oracle_create(uint64_t seed, uint64_t bytes, struct oracle **oraclep);
void oracle_free(struct oracle *oracle);

/* The range holds value from the beginning, as sector_fill() makes it. */
void oracle_set_initial(struct oracle *oracle, uint64_t offset,
    uint64_t length, uint64_t value);

/*
 * A request was received: entry's kind (RECORD_REQUEST_...), offset, length,
 * flags, value and submitted count.  Its index, for oracle_end().  Writes,
 * zeros and trims are whole sectors inside the export.  Reads are ignored.
 */
size_t oracle_begin(struct oracle *oracle, const struct record *entry);

/* It was replied to; result is negative if with an error. */
void oracle_end(struct oracle *oracle, size_t index, uint64_t completed,
    int64_t result);

/*
 * All of the export is about to become what a read of it showed, or may have
 * shown, that was received and replied to then: like a write with FUA that was
 * received at submitted.  Its index, for oracle_end().
 */
size_t oracle_begin_copy(struct oracle *oracle, uint64_t submitted,
    uint64_t received, uint64_t replied);

/* All requests of a log, of every source, but for RECORD_REQUEST_OTHER. */
void oracle_add_log(struct oracle *oracle, const struct record_log *log);

/*
 * Judges data found at offset after a crash at point (what is numbered below
 * it has happened); finding is set if the verdict is not ORACLE_GOOD.
 */
enum oracle_verdict oracle_judge_crash(struct oracle *oracle, uint64_t point,
    uint64_t offset, const void *data, size_t length,
    struct oracle_finding *finding);

/* Whether the range, of at most 64 KiB, may hold nothing but zeros. */
bool oracle_is_untouched(const struct oracle *oracle, uint64_t offset,
    uint64_t length);

/*
 * A number that follows from what every sector may hold after a crash at
 * point: where it is equal, for whatever oracle of this seed and length, the
 * same content gets the same verdict.
 */
uint64_t oracle_allowed(struct oracle *oracle, uint64_t point);

/* Judges what a read returned that was received and replied to then. */
enum oracle_verdict oracle_judge_read(struct oracle *oracle,
    uint64_t received, uint64_t replied, uint64_t offset, const void *data,
    size_t length, struct oracle_finding *finding);

/* A sentence about finding, for people; returns text. */
const char *oracle_explain(const struct oracle_finding *finding, char *text,
    size_t size);

#endif
