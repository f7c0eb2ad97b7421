/* SPDX-License-Identifier: MIT */
/*
 * A server killed under load, again and again.
 *
 *	kill QNBD IMAGE SEED ROUNDS
 *
 * Each round starts "QNBD serve IMAGE", lets four threads with a connection
 * each write, zero, trim, flush and use FUA, eight requests at a time, and
 * kills the server at a random moment.  Then the image must need no more than
 * the repair of leaks, by qemu-img check; and when it is served again, the
 * oracle judges every sector: what a FUA or a later FLUSH on any connection
 * covered is there, all else is old or new, nothing is foreign or torn.
 *
 * The kernel keeps what the process had given to it, so there is more to ask
 * of writes in place: in the first eighth of the disk, which is written once
 * and flushed and then only written, each write that was answered is there.
 * Elsewhere it may have been in tables that only the process knew.
 *
 * Numbers of the record are taken before a request is sent and after its reply
 * has come, so "before" here implies "before" in the server.
 *
 * Guards against: replies to FLUSH and FUA that come too early, an image that
 * a kill leaves torn, data of one place that appears at another, locks that
 * outlive their process.
 */
#include <assert.h>
#include <err.h>
#include <inttypes.h>
#include <libnbd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "runtime/random.h"
#include "tests/crash/crew.h"
#include "tests/crash/oracle.h"

#define CLIENTS 4
#define SLOTS 8			/* requests in flight on each connection */
#define LENGTH_MAX (256u * 1024)
#define READ_BYTES (1024u * 1024)
#define KILL_US_MAX 120000
#define IN_PLACE_ONE_IN 8	/* what part of the disk is written in place */

struct round;

struct slot {
	bool busy;
	struct record request;
	size_t index;		/* in the record */
	int64_t cookie;
	char *data;
};

struct client {
	pthread_t thread;
	struct round *round;
	unsigned number;
	struct random random;
	struct nbd_handle *nbd;
	struct slot slots[SLOTS];
};

/* What is the same for all rounds, and what is new in each. */
struct round {
	const char *qnbd;
	const char *image;
	const char *socket;
	uint64_t bytes;
	uint64_t in_place_bytes;
	atomic_uint_fast64_t values;	/* written so far, in all rounds */

	pid_t server;
	uint64_t start_ms_max;	/* from a kill's end to clients let in */
	atomic_bool killed;
	struct record_log *log;
	struct oracle *oracle;
	struct client clients[CLIENTS];
};

/* ---- processes ---- */

/* How it ended, or 128 + the signal that ended it. */
static int
wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		err(1, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) :
	    128 + WTERMSIG(status);
}

/* Returns when it listens. */
static void
start_server(struct round *round)
{
	char listen[128], ready[16], word;
	int ends[2];

	snprintf(listen, sizeof(listen), "unix:%s", round->socket);
	if (pipe(ends))
		err(1, "pipe");
	round->server = fork();
	if (round->server < 0)
		err(1, "fork");
	if (round->server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		snprintf(ready, sizeof(ready), "%d", ends[1]);
		execl(round->qnbd, round->qnbd, "serve", "--listen", listen,
		    "--ready-fd", ready, "--threads", "2", round->image,
		    (char *)NULL);
		err(127, "%s", round->qnbd);
	}
	close(ends[1]);
	if (read(ends[0], &word, 1) != 1)
		errx(1, "the server did not start");
	close(ends[0]);
}

static uint64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void
restart_server(struct round *round)
{
	uint64_t begin_ms = now_ms();
	uint64_t ms;

	start_server(round);
	ms = now_ms() - begin_ms;
	if (ms > round->start_ms_max)
		round->start_ms_max = ms;
}

static void
kill_server(struct round *round)
{
	int status;

	atomic_store(&round->killed, true);
	kill(round->server, SIGKILL);
	status = wait_for(round->server);
	if (status != 128 + SIGKILL)
		errx(1, "the server had ended by itself: status %d", status);
}

/* Its locks may outlive a killed process a little, so they are not asked. */
static int
run_check(const struct round *round, bool quiet)
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		/* It names each leaked cluster, and there are thousands. */
		if (quiet && (!freopen("/dev/null", "w", stdout) ||
		    !freopen("/dev/null", "w", stderr)))
			_exit(127);
		execlp("qemu-img", "qemu-img", "check", "-U", "-f", "qcow2",
		    round->image, (char *)NULL);
		err(127, "qemu-img");
	}
	return wait_for(pid);
}

static void
check_image(const struct round *round)
{
	int status = run_check(round, true);

	/* 3 says that there are leaks and nothing worse. */
	if (status == 0 || status == 3)
		return;
	run_check(round, false);
	errx(1, "qemu-img check ends with %d", status);
}

static struct nbd_handle *
connect_client(const struct round *round)
{
	struct nbd_handle *nbd = nbd_create();

	if (!nbd || nbd_connect_unix(nbd, round->socket))
		errx(1, "cannot connect: %s", nbd_get_error());
	return nbd;
}

/* ---- the load ---- */

static void
choose_range(struct client *client, struct record *request)
{
	const struct round *round = client->round;
	bool in_place = random_below(&client->random, 3) == 0;
	uint64_t begin = in_place ? 0 : round->in_place_bytes;
	uint64_t end = in_place ? round->in_place_bytes : round->bytes;
	uint64_t room = (end - begin) / SECTOR_BYTES;
	uint64_t bits = random_below(&client->random, 10);
	uint64_t length = 1 + random_below(&client->random, 1u << bits);
	uint64_t at;

	/* Half of them go to one place, to meet each other. */
	if (random_below(&client->random, 2))
		room /= 8;
	if (length > room)
		length = room;
	at = random_below(&client->random, room - length + 1);
	request->offset = begin + at * SECTOR_BYTES;
	request->length = length * SECTOR_BYTES;
	if (request->length > LENGTH_MAX)
		request->length = LENGTH_MAX;
	if (in_place)
		request->kind = RECORD_REQUEST_WRITE;
}

static void
choose(struct client *client, struct record *request)
{
	static const enum record_kind kinds[] = {
		RECORD_REQUEST_WRITE, RECORD_REQUEST_WRITE,
		RECORD_REQUEST_WRITE, RECORD_REQUEST_WRITE,
		RECORD_REQUEST_WRITE, RECORD_REQUEST_WRITE,
		RECORD_REQUEST_ZERO, RECORD_REQUEST_TRIM,
		RECORD_REQUEST_FLUSH, RECORD_REQUEST_FLUSH,
	};

	*request = (struct record){
		.kind = kinds[random_below(&client->random,
		    sizeof(kinds) / sizeof(kinds[0]))],
		.source = client->number,
	};
	if (request->kind == RECORD_REQUEST_FLUSH)
		return;
	choose_range(client, request);
	if (random_one_in(&client->random, 8))
		request->flags = RECORD_FUA;
	if (request->kind == RECORD_REQUEST_WRITE)
		request->value = atomic_fetch_add(&client->round->values, 1);
}

/* False once the server is gone. */
static bool
submit(struct client *client, struct slot *slot)
{
	const struct record *request = &slot->request;
	struct nbd_handle *nbd = client->nbd;
	uint32_t flags;

	choose(client, &slot->request);
	flags = request->flags & RECORD_FUA ? LIBNBD_CMD_FLAG_FUA : 0;
	slot->index = record_begin(client->round->log, request);
	switch (request->kind) {
	case RECORD_REQUEST_WRITE:
		sector_fill(slot->data, request->length, CREW_SECTOR_SEED,
		    request->value, request->offset);
		slot->cookie = nbd_aio_pwrite(nbd, slot->data,
		    request->length, request->offset, NBD_NULL_COMPLETION,
		    flags);
		break;
	case RECORD_REQUEST_ZERO:
		if (random_below(&client->random, 2))
			flags |= LIBNBD_CMD_FLAG_NO_HOLE;
		slot->cookie = nbd_aio_zero(nbd, request->length,
		    request->offset, NBD_NULL_COMPLETION, flags);
		break;
	case RECORD_REQUEST_TRIM:
		slot->cookie = nbd_aio_trim(nbd, request->length,
		    request->offset, NBD_NULL_COMPLETION, flags);
		break;
	default:
		slot->cookie = nbd_aio_flush(nbd, NBD_NULL_COMPLETION, 0);
		break;
	}
	slot->busy = slot->cookie >= 0;
	return slot->busy;
}

/* Notes a reply, if there is one; false once the server is gone. */
static bool
collect(struct client *client, struct slot *slot)
{
	int result = nbd_aio_command_completed(client->nbd, slot->cookie);

	if (result < 0)
		return false;
	if (result == 0)
		return true;
	record_end(client->round->log, slot->index, 0);
	slot->busy = false;
	return true;
}

/* Until the server is killed: nothing else may end a request badly. */
static void *
client_run(void *arg)
{
	struct client *client = arg;
	bool alive = true;

	while (alive) {
		for (unsigned i = 0; i < SLOTS && alive; i++) {
			struct slot *slot = &client->slots[i];

			if (slot->busy)
				alive = collect(client, slot);
			if (alive && !slot->busy)
				alive = submit(client, slot);
		}
		alive = alive && nbd_poll(client->nbd, 60000) > 0;
	}
	if (!atomic_load(&client->round->killed))
		errx(1, "a request failed: %s", nbd_get_error());
	return NULL;
}

static void
begin_client(struct client *client)
{
	client->nbd = connect_client(client->round);
	for (unsigned i = 0; i < SLOTS; i++)
		client->slots[i].busy = false;
	if (pthread_create(&client->thread, NULL, client_run, client))
		errx(1, "no thread");
}

static void
end_client(struct client *client)
{
	pthread_join(client->thread, NULL);
	nbd_close(client->nbd);
}

/* ---- the verdict ---- */

/* What was asked for around one sector in this round, and every flush. */
static void
print_history(const struct round *round, uint64_t offset)
{
	static const char *const names[] = {
		[RECORD_REQUEST_WRITE] = "write",
		[RECORD_REQUEST_ZERO] = "zero",
		[RECORD_REQUEST_TRIM] = "trim",
		[RECORD_REQUEST_FLUSH] = "flush",
	};

	for (size_t i = 0; i < record_log_count(round->log); i++) {
		const struct record *entry = record_log_at(round->log, i);

		if (entry->kind != RECORD_REQUEST_FLUSH &&
		    (offset < entry->offset ||
		    offset - entry->offset >= entry->length))
			continue;
		fprintf(stderr, "client %u: %s%s 0x%" PRIx64 "+0x%" PRIx64
		    " value %" PRIu64 ", %" PRIu64 " to %" PRId64 "\n",
		    entry->source, names[entry->kind],
		    entry->flags & RECORD_FUA ? " fua" : "", entry->offset,
		    entry->length, entry->value, entry->submitted,
		    (int64_t)entry->completed);
	}
}

static void
judge(const struct round *round, uint64_t offset, const char *data,
    size_t length)
{
	uint64_t now = record_log_next(round->log);
	struct oracle_finding finding;
	enum oracle_verdict verdict;
	bool in_place = offset < round->in_place_bytes;
	char text[256];

	if (in_place)
		verdict = oracle_judge_read(round->oracle, now, now, offset,
		    data, length, &finding);
	else
		verdict = oracle_judge_crash(round->oracle, now, offset, data,
		    length, &finding);
	if (verdict == ORACLE_GOOD)
		return;
	print_history(round, finding.offset);
	errx(1, "%s: %s", in_place ? "what was answered, in place" :
	    "what a flush or FUA covered",
	    oracle_explain(&finding, text, sizeof(text)));
}

/* The value of a sector, or 0 for one of zeros; values begin at 1. */
static uint64_t
value_at(const char *sector)
{
	struct sector_label label = {0};

	return sector_parse(sector, &label) == SECTOR_LABELLED ?
	    label.value : 0;
}

/* What one round leaves is what the next one finds. */
static void
learn(struct oracle *oracle, uint64_t offset, const char *data, size_t length)
{
	size_t end;

	for (size_t at = 0; at < length; at = end) {
		uint64_t value = value_at(data + at);

		for (end = at + SECTOR_BYTES; end < length; end += SECTOR_BYTES)
			if (value_at(data + end) != value)
				break;
		if (value)
			oracle_set_initial(oracle, offset + at, end - at,
			    value);
	}
}

/* Reads the disk; judges it by the last round's oracle; makes the next one. */
static void
read_all(struct round *round)
{
	struct nbd_handle *nbd = connect_client(round);
	char *data = malloc(READ_BYTES);
	struct oracle *next;

	if (!data || oracle_create(CREW_SECTOR_SEED, round->bytes, &next))
		errx(1, "out of memory");
	for (uint64_t at = 0; at < round->bytes; at += READ_BYTES) {
		if (nbd_pread(nbd, data, READ_BYTES, at, 0))
			errx(1, "reading after the kill: %s",
			    nbd_get_error());
		if (round->oracle)
			judge(round, at, data, READ_BYTES);
		learn(next, at, data, READ_BYTES);
	}
	oracle_free(round->oracle);
	round->oracle = next;
	free(data);
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
}

/* ---- rounds ---- */

/* From here on no write to the first part of the disk changes a table. */
static void
fill_in_place(struct round *round)
{
	struct nbd_handle *nbd = connect_client(round);
	char *data = malloc(round->in_place_bytes);

	if (!data)
		errx(1, "out of memory");
	sector_fill(data, round->in_place_bytes, CREW_SECTOR_SEED,
	    atomic_fetch_add(&round->values, 1), 0);
	if (nbd_pwrite(nbd, data, round->in_place_bytes, 0, 0) ||
	    nbd_flush(nbd, 0))
		errx(1, "filling: %s", nbd_get_error());
	free(data);
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
}

static void
sleep_us(uint64_t us)
{
	struct timespec time = {
		.tv_sec = (time_t)(us / 1000000),
		.tv_nsec = (long)(us % 1000000 * 1000),
	};

	nanosleep(&time, NULL);
}

/* Requests that were answered before the kill, and those that were not. */
static void
count_requests(const struct round *round, uint64_t counts[2])
{
	for (size_t i = 0; i < record_log_count(round->log); i++)
		counts[record_log_at(round->log, i)->completed ==
		    RECORD_NEVER]++;
}

/* The server runs when it begins, and when it ends. */
static void
run_round(struct round *round, struct random *random, uint64_t counts[2])
{
	if (record_log_create(&round->log))
		errx(1, "out of memory");
	atomic_store(&round->killed, false);
	for (unsigned i = 0; i < CLIENTS; i++)
		begin_client(&round->clients[i]);
	sleep_us(random_below(random, KILL_US_MAX));
	kill_server(round);
	for (unsigned i = 0; i < CLIENTS; i++)
		end_client(&round->clients[i]);
	check_image(round);
	restart_server(round);
	oracle_add_log(round->oracle, round->log);
	read_all(round);
	count_requests(round, counts);
	record_log_free(round->log);
}

static void
prepare(struct round *round, uint64_t seed)
{
	struct nbd_handle *nbd;

	start_server(round);
	nbd = connect_client(round);
	round->bytes = (uint64_t)nbd_get_size(nbd);
	nbd_close(nbd);
	assert(round->bytes % (READ_BYTES * IN_PLACE_ONE_IN) == 0);
	round->in_place_bytes = round->bytes / IN_PLACE_ONE_IN;
	fill_in_place(round);
	read_all(round);
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *client = &round->clients[i];

		client->round = round;
		client->number = i;
		random_seed(&client->random, seed * CLIENTS + i);
		for (unsigned j = 0; j < SLOTS; j++) {
			client->slots[j].data = malloc(LENGTH_MAX);
			if (!client->slots[j].data)
				errx(1, "out of memory");
		}
	}
}

static void
release(struct round *round)
{
	oracle_free(round->oracle);
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned j = 0; j < SLOTS; j++)
			free(round->clients[i].slots[j].data);
}

int
main(int argc, char **argv)
{
	static struct round round = {.socket = "kill.sock"};
	uint64_t counts[2] = {0};
	struct random random;
	uint64_t seed, rounds;
	int status;

	if (argc != 5)
		errx(64, "usage: kill QNBD IMAGE SEED ROUNDS");
	round.qnbd = argv[1];
	round.image = argv[2];
	seed = strtoull(argv[3], NULL, 10);
	rounds = strtoull(argv[4], NULL, 10);
	/* Values of other seeds, and 1 of the base image, may be there. */
	atomic_store(&round.values, (seed << 32) + 2);
	random_seed(&random, seed);
	prepare(&round, seed);
	for (uint64_t i = 0; i < rounds; i++)
		run_round(&round, &random, counts);
	kill(round.server, SIGTERM);
	status = wait_for(round.server);
	if (status != 0)
		errx(1, "the server's status is %d at the end", status);
	check_image(&round);
	printf("%" PRIu64 " kills, %" PRIu64 " requests answered, %" PRIu64
	    " not; served again after %" PRIu64 " ms at most\n", rounds,
	    counts[0], counts[1], round.start_ms_max);
	release(&round);
	return 0;
}
