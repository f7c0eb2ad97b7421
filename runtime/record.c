/* SPDX-License-Identifier: MIT */
#include "runtime/record.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/sim_internal.h"

struct record_log {
	pthread_mutex_t lock;
	uint64_t next;		/* the number of the next event */
	size_t count;
	size_t room;
	struct record **entries;
};

int
record_log_create(struct record_log **logp)
{
	struct record_log *log = sim_calloc(1, sizeof(*log));
	int err = -pthread_mutex_init(&log->lock, NULL);

	if (err) {
		free(log);
		return err;
	}
	log->next = 1;
	*logp = log;
	return 0;
}

void
record_log_free(struct record_log *log)
{
	if (!log)
		return;
	for (size_t i = 0; i < log->count; i++) {
		free(log->entries[i]->data);
		free(log->entries[i]);
	}
	free(log->entries);
	pthread_mutex_destroy(&log->lock);
	free(log);
}

uint64_t
record_log_next(const struct record_log *log)
{
	return log->next;
}

size_t
record_log_count(const struct record_log *log)
{
	return log->count;
}

const struct record *
record_log_at(const struct record_log *log, size_t index)
{
	assert(index < log->count);
	return log->entries[index];
}

/* Called with the lock held. */
static size_t
append(struct record_log *log, struct record *entry)
{
	assert(log->count < RECORD_ENTRIES_MAX);
	if (log->count == log->room) {
		log->room = 2 * log->room + 64;
		log->entries = sim_realloc(log->entries,
		    log->room * sizeof(*log->entries));
	}
	log->entries[log->count] = entry;
	return log->count++;
}

static struct record *
copy_of(const struct record *entry)
{
	struct record *copy = sim_calloc(1, sizeof(*copy));

	*copy = *entry;
	if (entry->data) {
		copy->data = sim_calloc(1, entry->length + 1);
		memcpy(copy->data, entry->data, entry->length);
	}
	return copy;
}

size_t
record_begin(struct record_log *log, const struct record *entry)
{
	struct record *copy = copy_of(entry);
	size_t index;

	copy->completed = RECORD_NEVER;
	copy->result = 0;
	pthread_mutex_lock(&log->lock);
	copy->submitted = log->next++;
	index = append(log, copy);
	pthread_mutex_unlock(&log->lock);
	return index;
}

void
record_end(struct record_log *log, size_t index, int64_t result)
{
	struct record *entry;

	pthread_mutex_lock(&log->lock);
	entry = log->entries[index];
	assert(entry->completed == RECORD_NEVER);
	entry->completed = log->next++;
	entry->result = result;
	pthread_mutex_unlock(&log->lock);
}

size_t
record_add(struct record_log *log, const struct record *entry)
{
	struct record *copy = copy_of(entry);
	uint64_t last = entry->completed == RECORD_NEVER ? entry->submitted :
	    entry->completed;
	size_t index;

	assert(entry->submitted > 0 && entry->submitted < entry->completed);
	pthread_mutex_lock(&log->lock);
	if (log->next <= last)
		log->next = last + 1;
	index = append(log, copy);
	pthread_mutex_unlock(&log->lock);
	return index;
}
