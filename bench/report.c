/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include "bench/report.h"

static double
percentile_us(const struct histogram *latency, double percent)
{
	return (double)histogram_percentile(latency, percent) / 1000.0;
}

static void
print_latency(const char *key, const struct histogram *latency)
{
	printf(", \"%s\": {\"mean\": %.2f, \"p50\": %.2f, \"p90\": %.2f, "
		"\"p99\": %.2f, \"max\": %.2f}", key,
		histogram_mean(latency) / 1000.0,
		percentile_us(latency, 50), percentile_us(latency, 90),
		percentile_us(latency, 99), (double)latency->max / 1000.0);
}

void
report_json(const struct report *report)
{
	const struct settings *settings = report->settings;
	const struct workload *workload = report->workload;
	const struct workload_plan *plan = &workload->plan;
	const struct workload_counters *counters = &workload->counters;
	uint64_t requests = workload_requests(counters);

	printf("{\"op\": \"%s\", \"block_size\": %" PRIu32
		", \"depth\": %u, \"connections\": %u, \"span\": %" PRIu64
		", \"flush_every\": %u, \"fua\": %s, \"structured\": %s"
		", \"spin\": %s, \"seed\": %" PRIu64,
		settings->operation, plan->block_bytes, settings->depth,
		settings->connections, plan->span_bytes, plan->flush_every,
		plan->fua ? "true" : "false",
		settings->structured ? "true" : "false",
		settings->spin ? "true" : "false", plan->seed);
	printf(", \"complete\": %s, \"seconds\": %.6f, \"requests\": %" PRIu64
		", \"reads\": %" PRIu64 ", \"writes\": %" PRIu64
		", \"trims\": %" PRIu64 ", \"zeroes\": %" PRIu64
		", \"flushes\": %" PRIu64 ", \"bytes\": %" PRIu64
		", \"errors\": %" PRIu64 ", \"mismatches\": %" PRIu64
		", \"zero_sectors\": %" PRIu64,
		report->complete ? "true" : "false", report->seconds, requests,
		counters->reads, counters->writes, counters->trims,
		counters->zeroes, counters->flushes, counters->bytes,
		counters->errors, counters->mismatches,
		counters->zero_sectors);
	printf(", \"iops\": %.1f, \"mb_per_second\": %.2f"
		", \"client_cpu_seconds\": %.6f",
		(double)requests / report->seconds,
		(double)counters->bytes / 1e6 / report->seconds,
		report->client_cpu_seconds);
	print_latency("latency_us", &workload->latency);
	print_latency("flush_latency_us", &workload->flush_latency);
	puts("}");
}

void
report_text(const struct report *report)
{
	const struct workload *workload = report->workload;
	const struct workload_counters *counters = &workload->counters;
	const struct histogram *latency = &workload->latency;
	uint64_t requests = workload_requests(counters);

	printf("%" PRIu64 " requests in %.2f s: %.0f IOPS, %.1f MB/s\n",
		requests, report->seconds, (double)requests / report->seconds,
		(double)counters->bytes / 1e6 / report->seconds);
	printf("latency us: p50 %.1f  p90 %.1f  p99 %.1f  max %.1f\n",
		percentile_us(latency, 50), percentile_us(latency, 90),
		percentile_us(latency, 99), (double)latency->max / 1000.0);
	if (counters->flushes)
		printf("%" PRIu64 " flushes, us: p50 %.1f  p99 %.1f  "
			"max %.1f\n", counters->flushes,
			percentile_us(&workload->flush_latency, 50),
			percentile_us(&workload->flush_latency, 99),
			(double)workload->flush_latency.max / 1000.0);
	if (workload->model)
		printf("%" PRIu64 " sectors mismatched, %" PRIu64
			" were never written\n", counters->mismatches,
			counters->zero_sectors);
	printf("%" PRIu64 " errors; the client used %.0f %% of a CPU\n",
		counters->errors,
		100 * report->client_cpu_seconds / report->seconds);
}
