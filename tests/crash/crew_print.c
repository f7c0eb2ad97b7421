/* SPDX-License-Identifier: MIT */
/* The record of a crew, for people. */
#include <stdio.h>
#include "tests/crash/crew.h"
#include "tests/crash/resizer.h"

static void
print_entry(const struct record *entry)
{
	static const char *const names[] = {
		"  read", "  write", "  sync", "  punch", "  zero",
		"  allocate", "  truncate", "READ", "WRITE", "ZERO", "TRIM",
		"FLUSH",
	};

	printf("%5llu-%-5lld ", (unsigned long long)entry->submitted,
	    entry->completed == RECORD_NEVER ? -1ll :
	    (long long)entry->completed);
	if (entry->kind == RECORD_REQUEST_OTHER &&
	    entry->source == RESIZER_SOURCE) {
		printf("RESIZE to 0x%llx preallocation %s%s\n",
		    (unsigned long long)entry->offset,
		    resizer_preallocation_name(entry->value),
		    entry->result < 0 ? " FAILED" : "");
		return;
	}
	if (entry->kind == RECORD_REQUEST_OTHER) {
		printf("SNAPSHOT %llu %s%s\n",
		    (unsigned long long)entry->offset, keeper_operation_name(
		    (enum keeper_operation)entry->value),
		    entry->result < 0 ? " FAILED" : "");
		return;
	}
	printf("%-9s 0x%llx+%llu", names[entry->kind],
	    (unsigned long long)entry->offset,
	    (unsigned long long)entry->length);
	if (entry->kind >= RECORD_REQUEST_READ)
		printf(" client %u", entry->source);
	if (entry->value)
		printf(" value %llu", (unsigned long long)entry->value);
	if (entry->flags & (RECORD_FUA | RECORD_DSYNC))
		printf(" %s", entry->flags & RECORD_FUA ? "FUA" : "DSYNC");
	if (entry->flags & CREW_NO_HOLE)
		printf(" NO_HOLE");
	if (entry->flags & CREW_COMPRESSED)
		printf(" COMPRESSED");
	printf("%s\n", entry->result < 0 ? " FAILED" : "");
}

void
crew_print(const struct crew *crew)
{
	for (size_t i = 0; i < record_log_count(crew->log); i++)
		print_entry(record_log_at(crew->log, i));
}
