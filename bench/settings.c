/* SPDX-License-Identifier: MIT */
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/settings.h"
#include "bench/stream.h"

static const struct {
	const char *name;
	enum workload_operation operation;
} operations[] = {
	{ "read", WORKLOAD_READ },
	{ "write", WORKLOAD_WRITE },
	{ "randread", WORKLOAD_RANDOM_READ },
	{ "randwrite", WORKLOAD_RANDOM_WRITE },
	{ "mixed", WORKLOAD_MIXED },
	{ "trim", WORKLOAD_TRIM },
	{ "zero", WORKLOAD_ZERO },
};

static const char usage_text[] =
"Usage: load [OPTION]... unix:PATH | tcp:HOST:PORT\n"
"\n"
"Drives an NBD server and prints its throughput and latency.\n"
"\n"
"  --op OPERATION      read, write, trim, zero (in order), randread,\n"
"                      randwrite, mixed (default randread)\n"
"  --read-percent N    reads among the requests of mixed (default 50)\n"
"  --block-size BYTES  of each request (default 4096)\n"
"  --depth N           requests in flight a connection (default 1)\n"
"  --connections N     default 1\n"
"  --seconds S         stop after S seconds (default 5)\n"
"  --requests N        stop after N requests, flushes not counted\n"
"  --span BYTES        use only the first BYTES of the export\n"
"  --stride BYTES      random operations meet each piece of BYTES once\n"
"                      before they meet one again\n"
"  --flush-every N     a flush after each N writes\n"
"  --fua               every write, trim and zero is to be stable\n"
"  --verify off|pattern  write self-describing sectors, and check them\n"
"  --seed N            of offsets and of the pattern (default 1)\n"
"  --structured        negotiate structured replies\n"
"  --export NAME       default: the empty name\n"
"  --pin-cpu N         run on this CPU only\n"
"  --spin              never sleep: replies are looked for all the time,\n"
"                      so the server is spared waking the client\n"
"  --json              one JSON object instead of text\n"
"\n"
"BYTES may end in K, M, G or T (powers of 1024).\n"
"Exit status: 0 all requests succeeded; 1 some did not, or the connection\n"
"was lost; 63 the server does not offer what this takes; 64 usage.\n";

enum {
	OPTION_OP = 256, OPTION_READ_PERCENT, OPTION_BLOCK_SIZE, OPTION_DEPTH,
	OPTION_CONNECTIONS, OPTION_SECONDS, OPTION_REQUESTS, OPTION_SPAN,
	OPTION_STRIDE, OPTION_FLUSH_EVERY, OPTION_FUA, OPTION_VERIFY,
	OPTION_SEED, OPTION_STRUCTURED, OPTION_EXPORT, OPTION_PIN_CPU,
	OPTION_SPIN, OPTION_JSON, OPTION_HELP,
};

static const struct option options[] = {
	{ "op", required_argument, NULL, OPTION_OP },
	{ "read-percent", required_argument, NULL, OPTION_READ_PERCENT },
	{ "block-size", required_argument, NULL, OPTION_BLOCK_SIZE },
	{ "depth", required_argument, NULL, OPTION_DEPTH },
	{ "connections", required_argument, NULL, OPTION_CONNECTIONS },
	{ "seconds", required_argument, NULL, OPTION_SECONDS },
	{ "requests", required_argument, NULL, OPTION_REQUESTS },
	{ "span", required_argument, NULL, OPTION_SPAN },
	{ "stride", required_argument, NULL, OPTION_STRIDE },
	{ "flush-every", required_argument, NULL, OPTION_FLUSH_EVERY },
	{ "fua", no_argument, NULL, OPTION_FUA },
	{ "verify", required_argument, NULL, OPTION_VERIFY },
	{ "seed", required_argument, NULL, OPTION_SEED },
	{ "structured", no_argument, NULL, OPTION_STRUCTURED },
	{ "export", required_argument, NULL, OPTION_EXPORT },
	{ "pin-cpu", required_argument, NULL, OPTION_PIN_CPU },
	{ "spin", no_argument, NULL, OPTION_SPIN },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ NULL, 0, NULL, 0 },
};

void
settings_refuse(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vwarnx(format, arguments);
	va_end(arguments);
	fputs("try: load --help\n", stderr);
	exit(EXIT_USAGE);
}

/* A number from min to max, with a suffix if it is one of bytes. */
static uint64_t
parse_number(const char *option, const char *text, bool bytes, uint64_t min,
	uint64_t max)
{
	const char *suffixes = "KMGT", *suffix;
	uint64_t value, unit = 1;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (bytes && *end) {
		suffix = strchr(suffixes, *end);
		if (suffix) {
			unit = 1024ull << 10 * (suffix - suffixes);
			end++;
		}
	}
	if (errno || end == text || *end || *text == '-' ||
	    value > max / unit || value * unit < min)
		settings_refuse("--%s: %s is not a number from %" PRIu64 " to %"
			PRIu64, option, text, min, max);
	return value * unit;
}

static double
parse_seconds(const char *text)
{
	double value;
	char *end;

	value = strtod(text, &end);
	if (end == text || *end || !(value > 0 && value <= SECONDS_MAX))
		settings_refuse("--seconds: %s is not a time up to %d s", text,
			SECONDS_MAX);
	return value;
}

static void
set_operation(struct settings *settings, const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
		if (strcmp(name, operations[i].name) == 0) {
			settings->plan.operation = operations[i].operation;
			settings->operation = operations[i].name;
			return;
		}
	}
	settings_refuse("--op: there is no operation %s", name);
}

static bool
parse_verify(const char *text)
{
	if (strcmp(text, "off") != 0 && strcmp(text, "pattern") != 0)
		settings_refuse("--verify: %s is neither off nor pattern",
			text);
	return *text == 'p';
}

static void
set_option(struct settings *settings, int option, const char *text)
{
	struct workload_plan *plan = &settings->plan;

	switch (option) {
	case OPTION_OP:
		set_operation(settings, text);
		break;
	case OPTION_READ_PERCENT:
		plan->read_percent = (unsigned)parse_number("read-percent",
			text, false, 0, 100);
		break;
	case OPTION_BLOCK_SIZE:
		plan->block_bytes = (uint32_t)parse_number("block-size", text,
			true, 1, UINT32_MAX);
		break;
	case OPTION_DEPTH:
		settings->depth = (unsigned)parse_number("depth", text, false,
			1, STREAM_DEPTH_MAX);
		break;
	case OPTION_CONNECTIONS:
		settings->connections = (unsigned)parse_number("connections",
			text, false, 1, CONNECTIONS_MAX);
		break;
	case OPTION_SECONDS:
		settings->seconds = parse_seconds(text);
		break;
	case OPTION_REQUESTS:
		plan->requests_max = parse_number("requests", text, false, 1,
			INT64_MAX);
		break;
	case OPTION_SPAN:
		plan->span_bytes = parse_number("span", text, true, 1,
			INT64_MAX);
		break;
	case OPTION_STRIDE:
		plan->stride_bytes = parse_number("stride", text, true, 1,
			INT64_MAX);
		break;
	case OPTION_FLUSH_EVERY:
		plan->flush_every = (unsigned)parse_number("flush-every",
			text, false, 1, UINT32_MAX);
		break;
	case OPTION_FUA:
		plan->fua = true;
		break;
	case OPTION_VERIFY:
		plan->verify = parse_verify(text);
		break;
	case OPTION_SEED:
		plan->seed = parse_number("seed", text, false, 0, UINT64_MAX);
		break;
	case OPTION_STRUCTURED:
		settings->structured = true;
		break;
	case OPTION_EXPORT:
		settings->export_name = text;
		break;
	case OPTION_PIN_CPU:
		settings->pin_cpu = (int)parse_number("pin-cpu", text, false,
			0, CPU_SETSIZE - 1);
		break;
	case OPTION_SPIN:
		settings->spin = true;
		break;
	case OPTION_JSON:
		settings->json = true;
		break;
	case OPTION_HELP:
		fputs(usage_text, stdout);
		exit(0);
	default:
		fputs("try: load --help\n", stderr);
		exit(EXIT_USAGE);
	}
}

/* Refuses options that would have no effect, or no meaning, together. */
static void
check_settings(const struct settings *settings)
{
	const struct workload_plan *plan = &settings->plan;
	enum workload_operation operation = plan->operation;
	bool random = operation == WORKLOAD_RANDOM_READ ||
		operation == WORKLOAD_RANDOM_WRITE ||
		operation == WORKLOAD_MIXED;

	if (!settings_write(settings) && (plan->fua || plan->flush_every))
		settings_refuse("--fua and --flush-every want an operation "
			"that writes");
	if (plan->stride_bytes && !random)
		settings_refuse("--stride wants a random operation");
	if (plan->verify && !settings_have_payload(settings))
		settings_refuse("--verify wants an operation with a payload");
	if (plan->verify && (uint64_t)settings->depth *
	    settings->connections * plan->block_bytes > VERIFY_BYTES_MAX)
		settings_refuse("--verify: the requests in flight would take "
			"more than %llu bytes", VERIFY_BYTES_MAX);
}

void
settings_parse(int argc, char **argv, struct settings *settings)
{
	int option;

	*settings = (struct settings){
		.plan = {
			.operation = WORKLOAD_RANDOM_READ,
			.block_bytes = 4096,
			.read_percent = 50,
			.seed = 1,
		},
		.operation = "randread",
		.export_name = "",
		.depth = 1,
		.connections = 1,
		.pin_cpu = -1,
	};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		set_option(settings, option, optarg);
	if (optind + 1 != argc)
		settings_refuse("one target is needed: unix:PATH or "
			"tcp:HOST:PORT");
	settings->target = argv[optind];
	if (strncmp(settings->target, "unix:", 5) != 0 &&
	    strncmp(settings->target, "tcp:", 4) != 0)
		settings_refuse("%s: a target is unix:PATH or tcp:HOST:PORT",
			settings->target);
	if (settings->seconds == 0 && settings->plan.requests_max == 0)
		settings->seconds = SECONDS_DEFAULT;
	check_settings(settings);
}
