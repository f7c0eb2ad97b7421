/* SPDX-License-Identifier: MIT */
/*
 * The format of dm-log-writes (Linux, drivers/md/dm-log-writes.c), all numbers
 * little-endian, in sectors of 512 bytes:
 *
 *	sector 0	magic, version, number of entries (8 bytes each),
 *			sector size (4 bytes)
 *	per entry	1 sector: first sector, number of sectors, flags,
 *			length of private data (8 bytes each); of a mark the
 *			text follows in the same sector
 *			then the sectors written, except for a discard
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/file_sim.h"
#include "runtime/record.h"
#include "runtime/sim_internal.h"

#define LOG_MAGIC 0x6a736677736872ull
#define LOG_VERSION 1
#define LOG_FLUSH (1u << 0)
#define LOG_FUA (1u << 1)
#define LOG_DISCARD (1u << 2)
#define LOG_MARK (1u << 3)
#define SECTOR_BYTES 512u
#define ENTRY_HEAD_BYTES 32u

struct export {
	FILE *stream;
	struct file *shadow;	/* what the log written so far amounts to */
	uint64_t entries;
};

/* A submission or a completion. */
struct moment {
	uint64_t number;
	size_t index;		/* of the entry */
	bool is_end;
};

/* ---- writing entries; the stream keeps errors until the end ---- */

static void
put_sector(struct export *export, const void *head, size_t head_bytes,
    const char *text)
{
	char sector[SECTOR_BYTES] = {0};

	memcpy(sector, head, head_bytes);
	if (text)
		strncpy(sector + head_bytes, text,
		    sizeof(sector) - head_bytes - 1);
	fwrite(sector, sizeof(sector), 1, export->stream);
}

static void
put_super(struct export *export)
{
	uint64_t head[4] = {
		htole64(LOG_MAGIC), htole64(LOG_VERSION),
		htole64(export->entries), htole64(SECTOR_BYTES),
	};

	put_sector(export, head, sizeof(head), NULL);
}

static void
put_entry(struct export *export, uint64_t first, uint64_t sectors,
    unsigned flags, const char *mark)
{
	uint64_t head[4] = {
		htole64(first), htole64(sectors), htole64(flags),
		htole64(mark ? strlen(mark) : 0),
	};
	_Static_assert(sizeof(head) == ENTRY_HEAD_BYTES, "an entry's head");

	put_sector(export, head, sizeof(head), mark);
	export->entries++;
}

/* Writes the sectors that hold the range as they are in the shadow. */
static void
put_sectors(struct export *export, uint64_t offset, uint64_t length,
    unsigned flags)
{
	uint64_t first = offset / SECTOR_BYTES;
	uint64_t end = (offset + length + SECTOR_BYTES - 1) / SECTOR_BYTES;
	char sector[SECTOR_BYTES];

	if (length == 0)
		return;
	put_entry(export, first, end - first, flags, NULL);
	for (uint64_t i = first; i < end; i++) {
		file_sim_peek(export->shadow, sector, sizeof(sector),
		    i * SECTOR_BYTES);
		fwrite(sector, sizeof(sector), 1, export->stream);
	}
}

static void
put_discard(struct export *export, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;
	uint64_t first = (offset + SECTOR_BYTES - 1) / SECTOR_BYTES;
	uint64_t last = end / SECTOR_BYTES;

	if (first > last) {
		put_sectors(export, offset, length, 0);
		return;
	}
	put_sectors(export, offset, first * SECTOR_BYTES - offset, 0);
	if (first < last)
		put_entry(export, first, last - first, LOG_DISCARD, NULL);
	put_sectors(export, last * SECTOR_BYTES, end - last * SECTOR_BYTES, 0);
}

__attribute__((format(printf, 2, 3))) static void
put_mark(struct export *export, const char *format, ...)
{
	char text[200];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	put_entry(export, 0, 0, LOG_MARK, text);
}

/* Plain mode: nothing below suspends, so this may be called from anywhere. */
static void
shadow_fallocate(struct export *export, const struct record *entry)
{
	const struct file_ops *ops = export->shadow->ops;
	enum file_fallocate mode = entry->kind == RECORD_PUNCH ? FILE_PUNCH :
	    entry->kind == RECORD_ZERO ? FILE_ZERO : FILE_ALLOCATE;

	if (entry->length > 0)
		ops->fallocate(export->shadow, mode, entry->offset,
		    entry->length);
}

/* An operation on the file that has taken effect. */
static void
put_operation(struct export *export, const struct record *entry)
{
	unsigned flags = entry->flags & RECORD_DSYNC ? LOG_FUA : 0;

	if (entry->result < 0)
		return;
	switch (entry->kind) {
	case RECORD_WRITE:
		file_sim_poke(export->shadow, entry->data,
		    (size_t)entry->result, entry->offset);
		put_sectors(export, entry->offset, (uint64_t)entry->result,
		    flags);
		break;
	case RECORD_PUNCH:
	case RECORD_ZERO:
		shadow_fallocate(export, entry);
		put_discard(export, entry->offset, entry->length);
		break;
	case RECORD_ALLOCATE:
		shadow_fallocate(export, entry);
		put_mark(export, "allocate %" PRIu64 "+%" PRIu64,
		    entry->offset, entry->length);
		break;
	case RECORD_TRUNCATE:
		export->shadow->ops->truncate(export->shadow, entry->offset);
		put_mark(export, "truncate %" PRIu64, entry->offset);
		break;
	default:
		break;
	}
}

static void
put_request(struct export *export, const struct record *entry, bool is_end)
{
	static const char *const names[] = {
		[RECORD_REQUEST_READ] = "read",
		[RECORD_REQUEST_WRITE] = "write",
		[RECORD_REQUEST_ZERO] = "zero",
		[RECORD_REQUEST_TRIM] = "trim",
		[RECORD_REQUEST_FLUSH] = "flush",
		[RECORD_REQUEST_OTHER] = "other",
	};

	if (is_end)
		put_mark(export, "replied %s connection %u %" PRIu64 "+%" PRIu64
		    " value %" PRIu64 " = %" PRId64, names[entry->kind],
		    entry->source, entry->offset, entry->length, entry->value,
		    entry->result);
	else
		put_mark(export, "received %s connection %u %" PRIu64 "+%"
		    PRIu64 "%s value %" PRIu64, names[entry->kind],
		    entry->source, entry->offset, entry->length,
		    entry->flags & RECORD_FUA ? " fua" : "", entry->value);
}

/* ---- the order ---- */

static int
compare_moments(const void *a, const void *b)
{
	const struct moment *x = a;
	const struct moment *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

/* Every submission and completion that concerns source; how many. */
static size_t
list_moments(const struct record_log *log, unsigned source,
    struct moment *moments)
{
	size_t count = 0;

	for (size_t i = 0; i < record_log_count(log); i++) {
		const struct record *entry = record_log_at(log, i);

		if (entry->kind < RECORD_REQUEST_READ &&
		    entry->source != source)
			continue;
		moments[count++] = (struct moment){entry->submitted, i, false};
		if (entry->completed != RECORD_NEVER)
			moments[count++] = (struct moment){
				entry->completed, i, true,
			};
	}
	qsort(moments, count, sizeof(*moments), compare_moments);
	return count;
}

/*
 * Writes out the operations that completed before the number and wait in
 * cached, a list in order of completion; what is left of the list.
 */
static size_t
put_cached(struct export *export, const struct record **cached, size_t count,
    uint64_t before)
{
	size_t done = 0;

	while (done < count && cached[done]->completed < before)
		put_operation(export, cached[done++]);
	memmove(cached, cached + done, (count - done) * sizeof(*cached));
	return count - done;
}

static void
export_moments(struct export *export, const struct record_log *log,
    const struct moment *moments, size_t count)
{
	const struct record **cached = sim_calloc(count + 1, sizeof(*cached));
	size_t cached_count = 0;

	for (size_t i = 0; i < count; i++) {
		const struct record *entry = record_log_at(log,
		    moments[i].index);

		if (entry->kind >= RECORD_REQUEST_READ) {
			put_request(export, entry, moments[i].is_end);
		} else if (!moments[i].is_end) {
			continue;
		} else if (entry->kind != RECORD_SYNC) {
			if (entry->flags & RECORD_DSYNC)
				put_operation(export, entry);
			else
				cached[cached_count++] = entry;
		} else if (entry->result == 0) {
			cached_count = put_cached(export, cached, cached_count,
			    entry->submitted);
			put_entry(export, 0, 0, LOG_FLUSH, NULL);
		}
	}
	put_cached(export, cached, cached_count, RECORD_NEVER);
	free(cached);
}

/* 0 or -errno of everything that was written to the stream. */
static int
finish(struct export *export)
{
	int err = 0;

	if (fseek(export->stream, 0, SEEK_SET))
		err = -errno;
	else
		put_super(export);
	if (ferror(export->stream) && !err)
		err = -EIO;
	if (fclose(export->stream) && !err)
		err = -errno;
	return err;
}

int
record_export(const struct record_log *log, unsigned source,
    struct file *base, const char *path)
{
	struct export export = {.stream = fopen(path, "wbe")};
	struct moment *moments;
	size_t count;
	int err;

	if (!export.stream)
		return -errno;
	if (base)
		err = file_sim_clone(base, NULL, &export.shadow);
	else
		err = file_sim_create(NULL, "shadow", 0, &export.shadow);
	assert(!err);
	moments = sim_calloc(2 * record_log_count(log) + 1, sizeof(*moments));
	count = list_moments(log, source, moments);
	put_super(&export);
	export_moments(&export, log, moments, count);
	err = finish(&export);
	free(moments);
	file_close(export.shadow);
	return err;
}
