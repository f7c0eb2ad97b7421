/* SPDX-License-Identifier: MIT */
/*
 * Who uses which cluster.  Counts are as wide as they must be to tell every
 * refcount of the file from a higher one, but never wider than 32 bits: more
 * users than that could not be read in a lifetime.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/check_internal.h"

int
check_counts_init(struct check *check)
{
	unsigned order = check->header.refcount_order;
	uint64_t clusters = check->file_clusters + 1;
	uint64_t max = entry_refcount_max(order);
	size_t words = clusters / 64 + 1;

	if (check->file_clusters > CHECK_CLUSTERS_MAX)
		return error_set(check->error, -ENOTSUP, "%s has %" PRIu64
		    " clusters of %" PRIu32 " bytes; no more than %llu can be "
		    "checked", check->name, check->file_clusters,
		    check->cluster_bytes, CHECK_CLUSTERS_MAX);
	check->count_bytes = order <= 3 ? 1 : order == 4 ? 2 : 4;
	check->count_max = max < UINT32_MAX ? (uint32_t)max : UINT32_MAX;
	check->count_end = order <= 3 ? UINT8_MAX : check->count_max;
	check->counts = calloc(clusters, check->count_bytes);
	check->counts_clusters = clusters;
	check->tables = calloc(words, sizeof(uint64_t));
	check->l2_tables = calloc(words, sizeof(uint64_t));
	check->own_tables = calloc(words, sizeof(uint64_t));
	check->single_clusters = check->file_clusters +
	    CHECK_CLUSTERS_PAST_END;
	check->single = calloc(check->single_clusters / 64 + 1,
	    sizeof(uint64_t));
	if (!check->counts || !check->tables || !check->l2_tables ||
	    !check->own_tables || !check->single)
		return error_set(check->error, -ENOMEM, "%s: no memory to "
		    "count the users of %" PRIu64 " clusters", check->name,
		    check->file_clusters);
	return 0;
}

int
check_counts_extend(struct check *check, uint64_t clusters)
{
	uint64_t old = check->counts_clusters;
	uint8_t *counts;

	if (clusters <= old)
		return 0;
	counts = realloc(check->counts, clusters * check->count_bytes);
	if (!counts)
		return -ENOMEM;
	memset(counts + old * check->count_bytes, 0,
	    (clusters - old) * check->count_bytes);
	check->counts = counts;
	check->counts_clusters = clusters;
	return 0;
}

static const char *
mark_cluster(struct check *check, uint64_t cluster, enum check_use use)
{
	uint32_t count = check_count(check, cluster);
	bool in_table = check_bit(check->tables, cluster);
	bool in_l2 = check_bit(check->l2_tables, cluster);

	if (count < check->count_end)
		check_count_up(check, cluster);
	if (count >= check->count_max)
		return "has more users than its refcount can tell";
	switch (use) {
	case CHECK_TABLE:
		check_set_bit(check->tables, cluster);
		return in_table ? "overlaps a table" : NULL;
	case CHECK_L2:
		check_set_bit(check->l2_tables, cluster);
		if (in_table)
			return "overlaps another table";
		return count > 0 && !in_l2 ? "overlaps data" : NULL;
	default:
		return in_table || in_l2 ? "overlaps a table" : NULL;
	}
}

const char *
check_mark(struct check *check, uint64_t host, uint64_t bytes,
    enum check_use use)
{
	const char *fault = NULL;

	if (bytes == 0)
		return NULL;
	/* The last cluster may be there in part. */
	if (host >= check->file_bytes + check->cluster_bytes ||
	    bytes >= check->file_bytes + check->cluster_bytes - host) {
		check->points_past_end |= host >> check->cluster_bits <
		    check->file_clusters + CHECK_CLUSTERS_PAST_END;
		return "lies past the end of the file";
	}
	for (uint64_t cluster = host >> check->cluster_bits;
	    cluster <= (host + bytes - 1) >> check->cluster_bits; cluster++) {
		const char *found = mark_cluster(check, cluster, use);

		if (found)
			fault = found;
	}
	return fault;
}

bool
check_mark_table(struct check *check, uint64_t host, uint64_t bytes,
    const char *what)
{
	const char *fault = check_mark(check, host, bytes, CHECK_TABLE);

	if (fault)
		check_report(check, CHECK_CORRUPTION, "%s at 0x%" PRIx64
		    " (%" PRIu64 " bytes) %s", what, host, bytes, fault);
	return !fault;
}

void
check_report(struct check *check, enum check_finding kind,
    const char *format, ...)
{
	const struct check_listener *listener = check->listener;
	uint64_t *const totals[] = {
		[CHECK_CORRUPTION] = &check->result.corruptions,
		[CHECK_LEAK] = &check->result.leaks,
		[CHECK_ERROR] = &check->result.check_errors,
	};
	char line[256];
	va_list arguments;

	++*totals[kind];
	if (!listener || !listener->report ||
	    check->reports[kind]++ >= CHECK_REPORTS_MAX)
		return;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	listener->report(listener->arg, kind, line);
}

int
check_stop(struct check *check)
{
	const struct check_listener *listener = check->listener;

	if (!listener || !listener->stop || !listener->stop(listener->arg))
		return 0;
	return error_set(check->error, -EINTR, "%s: interrupted",
	    check->name);
}

void
check_advance(struct check *check, uint64_t steps)
{
	check->done += steps;
	if (check->listener && check->listener->progress)
		check->listener->progress(check->listener->arg, check->done,
		    check->total);
}
