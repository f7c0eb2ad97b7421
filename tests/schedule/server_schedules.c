/* SPDX-License-Identifier: MIT */
/*
 * Random schedules of the whole server: clients that speak NBD on simulated
 * sockets, the server on two to four simulated loops, and its simulated disk,
 * in one process and every order that the seed brings.
 *
 *	server_schedules IMAGE FIRST-SEED COUNT [trace]
 *
 * IMAGE is an empty qcow2 file.  In one seed of four the disk is interrupted
 * now and then, and in one of eight it fails.  After each: every reply was one
 * that the protocol allows, no read and no block status told of a sector what
 * it must not hold, nobody waits for ever, no connection is left, and the file
 * is clean and still holds what it must.  A failure prints its seed; with COUNT
 * 1 what was asked and done is printed, too, and with "trace" every event.
 *
 * The first seeds are run twice and must give the same events and the same
 * disk.  The last line but one is a hash of all seeds' events: it is the same
 * in another process.
 *
 * Guards against: replies that are swapped, lost, sent twice or before their
 * request is done; headers and payloads cut in pieces; a flush that does not
 * cover other connections; clients that vanish with requests under way; a
 * server that stops and forgets somebody; deadlocks between loops.  Of TLS,
 * which half of the clients of every other seed use: records that are cut
 * anywhere, sends that do not get on, clients that vanish in its handshake or
 * in a record, and one that fails, which the client has to be told.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/log.h"
#include "runtime/random.h"
#include "tests/schedule/server_crew.h"

/* So many of the first seeds are run twice. */
#define REPEATED 20

static const struct crew_options crowded = {
	.clients = 5, .requests = 24,
	.reads = 5, .writes = 6, .zeros = 2, .trims = 2, .flushes = 2,
	.fua_one_in = 8, .length_max = 8192,
	.places = 2, .place_bytes = 32768, .served = true,
};

/* What one seed came to. */
struct outcome {
	uint64_t hash;		/* of all events and the disk */
	bool failed;
};

static void
print_failure(const struct crew *crew, bool alone)
{
	printf("seed %llu: %s\n", (unsigned long long)crew->options.seed,
	    crew->failure);
	if (alone)
		crew_print(crew);
}

/*
 * Interrupted operations; from somewhere on, one or all that fail.  (Short ones
 * would tear sectors, which a read at the same time may see.)
 */
static void
make_trouble(struct crew *crew)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_READ | FILE_SIM_WRITE | FILE_SIM_SYNC,
		.nth = 20 + sim_below(crew->sim, 200),
		.from_then_on = sim_below(crew->sim, 4) == 0,
		.result = -EIO,
	};

	if (sim_below(crew->sim, 4) == 0)
		file_sim_set_chances(crew->disk, 0, 12);
	if (crew->options.troubled)
		file_sim_fail(crew->disk, &fault);
}

static struct outcome
try_seed(struct file *base, struct tls_pairs *tls, uint64_t seed, bool alone,
    bool trace)
{
	struct crew_options options = crowded;
	struct outcome outcome;
	struct crew crew;
	bool closed_well;

	options.seed = seed;
	options.loops = 2 + (unsigned)(seed % 3);
	options.troubled = seed % 8 == 7;
	crew_create(&crew, &options, base);
	if (trace)
		sim_set_trace(crew.sim, stdout);
	crew_open(&crew);
	make_trouble(&crew);
	closed_well = server_crew_work(&crew, seed % 2 ? tls : NULL);
	file_sim_heal(crew.disk);
	if (!crew.failure[0])
		crew_check(&crew);
	if (!crew.failure[0] && closed_well) {
		crew_open(&crew);
		crew_read_all(&crew);
		crew_close(&crew);
	}
	outcome.failed = crew.failure[0] != '\0';
	outcome.hash = random_mix(sim_hash(crew.sim)) ^
	    file_sim_hash(crew.disk);
	if (outcome.failed)
		print_failure(&crew, alone);
	if (!strncmp(crew.failure, "deadlock", 8))
		exit(1);	/* its coroutines cannot be freed */
	crew_free(&crew);
	return outcome;
}

int
main(int argc, char **argv)
{
	uint64_t first, count, failed = 0, hash = 0;
	struct tls_pairs tls;
	struct file *base;
	bool trace;

	if (argc < 4) {
		fprintf(stderr, "usage: server_schedules IMAGE FIRST-SEED "
		    "COUNT [trace]\n");
		return 64;
	}
	log_set_level((enum log_level)0);
	first = strtoull(argv[2], NULL, 10);
	count = strtoull(argv[3], NULL, 10);
	trace = argc > 4;
	if (file_sim_create(NULL, "disk", 0, &base) ||
	    file_sim_load(base, argv[1])) {
		fprintf(stderr, "cannot load %s\n", argv[1]);
		return 1;
	}
	tls_pairs_open(&tls, NULL);
	for (uint64_t i = 0; i < count && failed < 10; i++) {
		struct outcome outcome = try_seed(base, &tls, first + i,
		    count == 1, trace);

		failed += outcome.failed;
		hash = random_mix(hash ^ outcome.hash);
		if (i >= REPEATED || count == 1)
			continue;
		if (try_seed(base, &tls, first + i, false,
		    false).hash == outcome.hash)
			continue;
		printf("seed %llu: other events when it is run again\n",
		    (unsigned long long)(first + i));
		failed++;
	}
	tls_pairs_close(&tls);
	file_close(base);
	printf("hash %016llx\n", (unsigned long long)hash);
	printf("%s: %llu schedules from seed %llu, %llu failed\n", argv[1],
	    (unsigned long long)count, (unsigned long long)first,
	    (unsigned long long)failed);
	return failed > 0;
}
