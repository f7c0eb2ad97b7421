/* SPDX-License-Identifier: MIT */
/*
 * load: drives an NBD server with a steady load and says how it did.
 *
 * One thread.  See stream.h for how it stays cheap, workload.h for what the
 * requests are, and README.md here for how to run it.
 */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include "bench/client.h"
#include "bench/report.h"
#include "bench/settings.h"
#include "bench/stream.h"
#include "bench/workload.h"

/* Fits a core's second-level cache, and holds what a socket does. */
#define RECEIVE_BYTES		(256u << 10)

struct run {
	const struct settings *settings;
	struct client_export export;
	struct stream_shared shared;
	struct stream **streams;
	int epoll_fd;
	uint64_t start_ns, end_ns;
	double client_cpu_seconds;
};

static void
pin_to_cpu(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		err(EXIT_FAILED, "cannot run on CPU %d", cpu);
}

static double
cpu_seconds(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* What the server must offer for this run; NULL, or the first it does not. */
static const char *
missing_feature(const struct settings *settings, uint16_t flags)
{
	const struct workload_plan *plan = &settings->plan;
	bool writes = settings_write(settings);

	if (writes && flags & NBD_FLAG_READ_ONLY)
		return "writes";
	if (plan->flush_every && !(flags & NBD_FLAG_SEND_FLUSH))
		return "flush";
	if (plan->fua && !(flags & NBD_FLAG_SEND_FUA))
		return "FUA";
	if (plan->operation == WORKLOAD_TRIM && !(flags & NBD_FLAG_SEND_TRIM))
		return "trim";
	if (plan->operation == WORKLOAD_ZERO &&
	    !(flags & NBD_FLAG_SEND_WRITE_ZEROES))
		return "write zeroes";
	/* Otherwise one connection may see less than another has written. */
	if (plan->verify && settings->connections > 1 && writes &&
	    !(flags & NBD_FLAG_CAN_MULTI_CONN))
		return "several connections that agree";
	return NULL;
}

/* Opens one connection and remembers what the server says of the export. */
static int
open_connection(struct run *run)
{
	const struct settings *settings = run->settings;
	int fd, result;

	if (client_connect(settings->target, &fd))
		exit(EXIT_FAILED);
	result = client_negotiate(fd, settings->export_name,
		settings->structured, &run->export);
	if (result)
		exit(result == -ENOTSUP ? EXIT_UNSUPPORTED : EXIT_FAILED);
	return fd;
}

/* Fits the plan to the export, or ends the program. */
static void
settle_plan(const struct run *run, struct workload_plan *plan)
{
	const struct client_export *export = &run->export;
	const char *missing;

	missing = missing_feature(run->settings, export->transmission_flags);
	if (missing)
		errx(EXIT_UNSUPPORTED, "the server does not offer %s",
			missing);
	if (plan->block_bytes % export->block_bytes_min)
		errx(EXIT_UNSUPPORTED, "the server wants multiples of %" PRIu32
			" bytes", export->block_bytes_min);
	if (settings_have_payload(run->settings) &&
	    plan->block_bytes > export->payload_bytes_max)
		errx(EXIT_UNSUPPORTED, "requests may carry %" PRIu32
			" bytes at most", export->payload_bytes_max);
	if (plan->span_bytes == 0)
		plan->span_bytes = export->bytes;
	if (plan->span_bytes > export->bytes)
		settings_refuse("--span: the export has %" PRIu64 " bytes only",
			export->bytes);
}

/*
 * What plain writes carry: noise, so that no server can take a short cut for
 * zeros or repetitions.
 */
static uint8_t *
make_payload(uint32_t bytes, uint64_t state)
{
	uint8_t *payload = malloc(bytes);
	uint32_t i;

	for (i = 0; payload && i < bytes; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		payload[i] = (uint8_t)(state >> 56);
	}
	return payload;
}

static void
add_stream(struct run *run, unsigned index, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = index };
	int result;

	result = stream_create(&run->shared, fd, &run->export,
		run->settings->depth, &run->streams[index]);
	if (result)
		errx(EXIT_FAILED, "connection %u: %s", index,
			strerror(-result));
	if (epoll_ctl(run->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		err(EXIT_FAILED, "epoll");
}

/* Connects, and makes all that is needed before the clock starts. */
static void
set_up(struct run *run, const struct settings *settings)
{
	struct workload_plan plan = settings->plan;
	unsigned i, connections = settings->connections;
	int fd, result;

	run->settings = settings;
	run->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (run->epoll_fd < 0)
		err(EXIT_FAILED, "epoll");
	fd = open_connection(run);
	settle_plan(run, &plan);
	result = workload_create(&plan, settings->depth * connections,
		&run->shared.workload);
	if (result == -EINVAL)
		exit(EXIT_USAGE);
	run->streams = calloc(connections, sizeof(struct stream *));
	run->shared.receive_bytes = RECEIVE_BYTES;
	run->shared.receive_buffer = malloc(RECEIVE_BYTES);
	/* Trims and zeroes have no payload, and may be of any length. */
	run->shared.write_payload = make_payload(
		settings_have_payload(settings) ? plan.block_bytes : 1,
		plan.seed);
	if (result || !run->streams || !run->shared.receive_buffer ||
	    !run->shared.write_payload)
		errx(EXIT_FAILED, "out of memory");
	add_stream(run, 0, fd);
	for (i = 1; i < connections; i++)
		add_stream(run, i, open_connection(run));
}

static void
tear_down(struct run *run)
{
	unsigned i;

	for (i = 0; i < run->settings->connections; i++)
		stream_free(run->streams[i]);
	free(run->streams);
	free(run->shared.receive_buffer);
	free((void *)(uintptr_t)run->shared.write_payload);
	workload_free(run->shared.workload);
	close(run->epoll_fd);
}

/* Asks for EPOLLOUT as long as a part of a batch waits for the socket. */
static int
watch(struct run *run, unsigned index, bool writable)
{
	struct epoll_event event = {
		.events = EPOLLIN | (writable ? EPOLLOUT : 0),
		.data.u32 = index,
	};

	if (epoll_ctl(run->epoll_fd, EPOLL_CTL_MOD,
		stream_fd(run->streams[index]), &event) < 0)
		return -errno;
	return 0;
}

static int
serve_event(struct run *run, const struct epoll_event *event)
{
	unsigned index = event->data.u32;
	struct stream *stream = run->streams[index];
	bool was_unsent = stream_unsent(stream);
	int result = 0;

	if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		result = stream_receive(stream, STREAM_WAIT_NOT);
	if (!result)
		result = stream_send(stream);
	if (!result && stream_unsent(stream) != was_unsent)
		result = watch(run, index, !was_unsent);
	return result;
}

static bool
any_in_flight(const struct run *run)
{
	unsigned i;

	for (i = 0; i < run->settings->connections; i++) {
		if (stream_in_flight(run->streams[i]) > 0)
			return true;
	}
	return false;
}

static int
drive_by_events(struct run *run)
{
	struct stream_patience patience = { 0 };
	struct epoll_event events[64];
	bool spin = run->settings->spin;
	int count, i, result;

	while (any_in_flight(run)) {
		count = epoll_wait(run->epoll_fd, events, 64,
			spin ? 0 : CLIENT_TIMEOUT_SECONDS * 1000);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		if (count == 0 && (!spin || stream_patience_over(&patience))) {
			warnx("no reply for %d s", CLIENT_TIMEOUT_SECONDS);
			return -ETIMEDOUT;
		}
		if (count > 0)
			patience = (struct stream_patience){ 0 };
		for (i = 0; i < count; i++) {
			result = serve_event(run, &events[i]);
			if (result)
				return result;
		}
	}
	return 0;
}

/* Waits until the server sends or, if unsent, takes more of what we send. */
static int
wait_asleep(int fd, bool unsent)
{
	struct pollfd poll_fd = {
		.fd = fd, .events = POLLIN | (unsent ? POLLOUT : 0),
	};
	int count;

	do {
		count = poll(&poll_fd, 1, CLIENT_TIMEOUT_SECONDS * 1000);
	} while (count < 0 && errno == EINTR);
	if (count == 0)
		warnx("no reply for %d s", CLIENT_TIMEOUT_SECONDS);
	return count > 0 ? 0 : count == 0 ? -ETIMEDOUT : -errno;
}

/*
 * A lone connection needs no epoll.  It sleeps in poll(), as real clients do:
 * one that sleeps in recv() is woken whenever the server takes a request off
 * its socket, too, and the server pays for that.
 */
static int
drive_one(struct stream *stream, bool spin)
{
	int result = 0;

	while (!result && stream_in_flight(stream) > 0) {
		bool unsent = stream_unsent(stream);
		bool asleep = unsent || !spin;

		if (asleep)
			result = wait_asleep(stream_fd(stream), unsent);
		if (!result)
			result = stream_receive(stream, asleep ?
				STREAM_WAIT_NOT : STREAM_WAIT_SPINNING);
		if (!result)
			result = stream_send(stream);
	}
	return result;
}

static int
drive(struct run *run)
{
	unsigned i;
	int result = 0;

	run->client_cpu_seconds = -cpu_seconds();
	run->start_ns = stream_clock_ns();
	if (run->settings->seconds > 0)
		run->shared.workload->plan.deadline_ns = run->start_ns +
			(uint64_t)(run->settings->seconds * 1e9);
	for (i = 0; !result && i < run->settings->connections; i++) {
		result = stream_send(run->streams[i]);
		if (!result && stream_unsent(run->streams[i]) &&
		    run->settings->connections > 1)
			result = watch(run, i, true);
	}
	if (!result && run->settings->connections == 1)
		result = drive_one(run->streams[0], run->settings->spin);
	else if (!result)
		result = drive_by_events(run);
	run->end_ns = stream_clock_ns();
	run->client_cpu_seconds += cpu_seconds();
	return result;
}

int
main(int argc, char **argv)
{
	const struct workload_counters *counters;
	struct settings settings;
	struct report report;
	struct run run = { 0 };
	bool good;

	settings_parse(argc, argv, &settings);
	pin_to_cpu(settings.pin_cpu);
	set_up(&run, &settings);
	report = (struct report){
		.settings = &settings,
		.workload = run.shared.workload,
		.complete = drive(&run) == 0,
	};
	/* A run of one request may be shorter than the clock's step. */
	report.seconds = (double)(run.end_ns - run.start_ns + 1) / 1e9;
	report.client_cpu_seconds = run.client_cpu_seconds;
	if (settings.json)
		report_json(&report);
	else
		report_text(&report);
	counters = &run.shared.workload->counters;
	good = report.complete && !counters->errors && !counters->mismatches;
	tear_down(&run);
	return good ? 0 : EXIT_FAILED;
}
