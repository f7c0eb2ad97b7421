/* SPDX-License-Identifier: MIT */
/*
 * What the load client was asked to do: its command line, parsed.
 */
#ifndef BENCH_SETTINGS_H
#define BENCH_SETTINGS_H

#include <stdbool.h>
#include "bench/workload.h"

#define CONNECTIONS_MAX		1024
#define SECONDS_DEFAULT		5
#define SECONDS_MAX		86400
#define VERIFY_BYTES_MAX	(1ull << 30)	/* buffers of all requests */

enum exit_code {
	EXIT_FAILED = 1,	/* errors, mismatches, or a lost connection */
	EXIT_UNSUPPORTED = 63,	/* the server does not offer what it takes */
	EXIT_USAGE = 64,
};

struct settings {
	struct workload_plan plan;
	const char *operation;
	const char *target;
	const char *export_name;
	double seconds;
	unsigned depth;
	unsigned connections;
	int pin_cpu;		/* -1: anywhere */
	bool structured;
	bool spin;
	bool json;
};

/* Parses the command line; ends the program if it is wrong. */
void settings_parse(int argc, char **argv, struct settings *settings);

/* Says what is wrong with the command line, and ends the program. */
void settings_refuse(const char *format, ...)
	__attribute__((noreturn, format(printf, 1, 2)));

/* Whether the workload changes the export. */
static inline bool
settings_write(const struct settings *settings)
{
	return settings->plan.operation != WORKLOAD_READ &&
		settings->plan.operation != WORKLOAD_RANDOM_READ;
}

/* Whether requests or replies carry data of the block's length. */
static inline bool
settings_have_payload(const struct settings *settings)
{
	return settings->plan.operation != WORKLOAD_TRIM &&
		settings->plan.operation != WORKLOAD_ZERO;
}

#endif
