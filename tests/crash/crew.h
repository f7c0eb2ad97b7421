/* SPDX-License-Identifier: MIT */
/*
 * A crew: clients that send random requests to one image in a simulated world.
 *
 * Each client is a coroutine of one of the loops, sends one request after the
 * other and tells the record and the oracle of each.  What a read returns is
 * judged at once.  Everything follows from the seed.
 */
#ifndef TESTS_CRASH_CREW_H
#define TESTS_CRASH_CREW_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/image.h"
#include "runtime/file_sim.h"
#include "runtime/record.h"
#include "runtime/sim.h"
#include "tests/crash/oracle.h"

#define CREW_CLIENTS_MAX 16

/* The number of the image's disk in the record. */
#define CREW_DISK 1000

struct crew_options {
	uint64_t seed;
	unsigned loops;
	unsigned clients;
	unsigned requests;	/* of each client */
	/* Weights of what a request is. */
	unsigned reads, writes, zeros, trims, flushes;
	unsigned fua_one_in;	/* of writes, zeros and trims; 0: none */
	unsigned length_max;	/* of a request, in bytes */
	/* Where they go: the first clusters of as many equal parts of the
	 * disk, so that L2 slices and tables are many and clusters few. */
	unsigned places;
	unsigned place_bytes;
	bool prepared;		/* base is as crew_prepare() made it */
	bool served;		/* by server_crew.h: a loop more, for clients */
	bool troubled;		/* the disk fails: errors, leaks are fair */
};

/* What the sectors of all runs are made from; see sector.h. */
#define CREW_SECTOR_SEED 42

struct crew {
	struct crew_options options;
	struct sim *sim;
	struct record_log *log;
	struct oracle *oracle;
	struct file *disk;	/* the test's own handle */
	struct image *image;	/* NULL: closed */
	uint64_t size_bytes;	/* of the disk, known once it was open */
	uint64_t cluster_bytes;
	uint64_t values;	/* written so far; each write has its own */
	unsigned clients_left;
	unsigned errors;	/* requests that failed */
	char failure[1280];	/* the first thing that went wrong, or "" */
};

/*
 * Makes a world with a clone of base, whose content reads as zeros unless it
 * was prepared, as the disk.  Opens nothing.
 */
void crew_create(struct crew *crew, const struct crew_options *options,
    struct file *base);
void crew_free(struct crew *crew);

/* Writes sectors of value 1 to the first three quarters of the disk. */
void crew_prepare(struct crew *crew);

/*
 * Each runs the world until nothing happens any more.  The oracle lasts, so the
 * image may be opened again.
 */
void crew_open(struct crew *crew);
void crew_work(struct crew *crew);	/* all requests of all clients */
void crew_read_all(struct crew *crew);	/* and judges every sector */
void crew_close(struct crew *crew);

/* The disk of a closed image must be clean: without leaks, if not troubled. */
void crew_check(struct crew *crew);

/* A client's next request, at random: kind, source, place, flags, value. */
struct record crew_choose(struct crew *crew, unsigned client);

/* Judges what a read returned that was received and replied to then. */
void crew_judge(struct crew *crew, uint64_t received, uint64_t replied,
    uint64_t offset, const void *data, size_t length);

/* Prints what was requested and what was done to the disk, in order. */
void crew_print(const struct crew *crew);

/* Notes a failure, unless there was one before. */
void crew_fail(struct crew *crew, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
