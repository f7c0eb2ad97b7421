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
#include "tests/crash/keeper.h"
#include "tests/crash/lengths.h"
#include "tests/crash/oracle.h"

#define CREW_CLIENTS_MAX 64

/* The number of the image's disk in the record. */
#define CREW_DISK 1000

/* What the disk holds at the beginning, as sectors of value 1. */
enum crew_content {
	CREW_EMPTY,
	CREW_FILLED,		/* the first three quarters */
	CREW_PLACES,		/* the full clusters of sequence.h */
};

/* A flag of zeros in the record, beside those of record.h: keep the room. */
#define CREW_NO_HOLE 256u
/* And of writes: of one whole cluster, compressed if it has no host cluster. */
#define CREW_COMPRESSED 512u

struct crew_options {
	uint64_t seed;
	unsigned loops;
	unsigned clients;
	unsigned requests;	/* of each client */
	/* Weights of what a request is. */
	unsigned reads, writes, zeros, trims, flushes;
	unsigned fua_one_in;	/* of writes, zeros and trims; 0: none */
	enum image_discard discard;
	bool leaves_room;	/* of zeros that may be holes */
	unsigned compressed_one_in; /* of writes; 0: none */
	unsigned length_max;	/* of a request, in bytes */
	/* Where they go: the first clusters of as many equal parts of the
	 * disk, so that L2 slices and tables are many and clusters few. */
	unsigned places;
	unsigned place_bytes;
	/* Or of this length, aligned to it, anywhere; 0: as above. */
	unsigned fixed_bytes;
	/* Or each behind the one before, of whichever client. */
	bool sequential;
	bool closes;		/* the image, as soon as all is answered */
	enum crew_content content; /* of base, by crew_prepare() */
	/* Nobody minds -ENOSPC; the file may have so many bytes more until the
	 * first client is at three quarters of its requests.  0: any. */
	bool may_fill;
	uint64_t room_bytes;
	/* What stands below, filled as by CREW_FILLED; stays the caller's. */
	struct file *backing;
	bool backing_is_raw;
	bool served;		/* by server_crew.h: a loop more, for clients */
	bool troubled;		/* the disk fails: errors, leaks are fair */
	bool encrypted;		/* crew_create() sees that of base */
	/* Of the keeper, who works beside the clients; and their weights. */
	unsigned operations;
	unsigned creates, deletes, applies;
	/* Of the resizer, who does so, too; how many times as long as it is
	 * the disk may become, 0 being 1. */
	unsigned resizes;
	unsigned growth;
	/* So often the image is opened anew, in place, beside the clients. */
	unsigned reopenings;
	/* What is opened is what this snapshot has, for reading alone. */
	const char *snapshot;
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
	/* The most that the disk ever has, known once it was open. */
	uint64_t size_bytes;
	uint64_t cluster_bytes;
	unsigned image_version;
	uint64_t values;	/* written so far; each write has its own */
	uint64_t next;		/* where the next sequential request begins */
	struct lengths lengths;
	struct keeper keeper;
	unsigned clients_left;
	unsigned errors;	/* requests that failed */
	char failure[1280];	/* the first thing that went wrong, or "" */
};

/* Ends the program, saying what, unless err is 0. */
void crew_must(int err, const char *what);

/* Makes a world with a clone of base as the disk.  Opens nothing. */
void crew_create(struct crew *crew, const struct crew_options *options,
    struct file *base);
void crew_free(struct crew *crew);

/* Writes what the options call the content to an empty disk. */
void crew_prepare(struct crew *crew);

/*
 * Opens file, which is the image's from then on, over what the options say
 * stands below; sim is the world of both, or NULL.
 */
co_fn int crew_open_image(const struct crew_options *options,
    struct sim *sim, struct file *file, struct image **imagep,
    struct error *error);

/*
 * Each runs the world until nothing happens any more.  The oracle lasts, so the
 * image may be opened again.
 */
void crew_open(struct crew *crew);
void crew_work(struct crew *crew);	/* all requests of all clients */
/* These instead, whose source is the client; each write gets a value. */
void crew_play(struct crew *crew, const struct record *requests,
    unsigned count, bool at_once);
void crew_read_all(struct crew *crew);	/* and judges every sector */
/* In the record a flush: all that was answered must be stable after. */
void crew_close(struct crew *crew);

/* The disk of a closed image must be clean: without leaks, if not troubled. */
void crew_check(struct crew *crew);

/* A client's next request, at random: kind, source, place, flags, value. */
struct record crew_choose(struct crew *crew, unsigned client);

/* Judges what a read returned that was received and replied to then. */
void crew_judge(struct crew *crew, uint64_t received, uint64_t replied,
    uint64_t offset, const void *data, size_t length);

/*
 * Reads a piece of an image of the crew's disk, 64 KiB at most.  Most of a disk
 * is nothing but a hole where nobody wrote: that is as it must be, so *emptyp
 * is set, and data is not filled in.
 */
co_fn int crew_read_piece(const struct crew *crew, struct image *image,
    uint64_t offset, uint8_t *data, size_t length, bool *emptyp);

/* Prints what was requested and what was done to the disk, in order. */
void crew_print(const struct crew *crew);

/* Whether err is more than a disk that may be full, being so. */
bool crew_is_failure(const struct crew *crew, int err);

/* Runs what ends by making all stable, which is a flush in the record. */
co_fn int crew_record_flush(struct crew *crew,
    int (*fn)(struct crew *crew));

/* Notes a failure, unless there was one before. */
void crew_fail(struct crew *crew, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
