/* SPDX-License-Identifier: MIT */
/*
 * The result of a run on standard output, for people or for programs.
 */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdbool.h>
#include "bench/settings.h"
#include "bench/workload.h"

struct report {
	const struct settings *settings;
	const struct workload *workload;
	double seconds;			/* first request to last reply */
	double client_cpu_seconds;	/* what the client itself used */
	bool complete;			/* no connection was lost */
};

void report_text(const struct report *report);

/* One object on one line; times are in microseconds. */
void report_json(const struct report *report);

#endif
