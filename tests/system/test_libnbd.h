/* SPDX-License-Identifier: MIT */
/*
 * What the tests by libnbd share: connections to the exports that
 * test-libnbd.sh serves, requests that must succeed or fail in one way, and
 * bytes that tell where they belong.
 *
 * Tests run one after the other, each in a process of its own; those that look
 * at the state of clusters begin with a disk that was cleared.
 */
#ifndef TESTS_SYSTEM_TEST_LIBNBD_H
#define TESTS_SYSTEM_TEST_LIBNBD_H
#include <check.h>
#include <libnbd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Variables of the environment that hold URIs; test-libnbd.sh sets them. */
#define MAIN "QNBD_MAIN"		/* MAIN_BYTES, clusters of CLUSTER */
#define ODD "QNBD_ODD"			/* ODD_BYTES */
#define READ_ONLY "QNBD_READ_ONLY"	/* READ_ONLY_BYTES, all 0x5a */
/* And one that holds the path of the image that is MAIN. */
#define MAIN_IMAGE "QNBD_MAIN_IMAGE"

#define MIB (1024 * 1024)
#define CLUSTER 65536
#define MAIN_BYTES (128u * MIB)
#define ODD_BYTES (1u * MIB + 5 * 512 + 24)
#define READ_ONLY_BYTES (1u * MIB)
#define REQUEST_BYTES_MAX (32 * MIB)

#define REPLY_KINDS 2	/* for loop tests: 0 is simple, 1 structured */

/* What the base:allocation context says. */
#define STATE_HOLE 1
#define STATE_ZERO 2

/* Connected; without libnbd's own checks, so that all reaches the server. */
struct nbd_handle *client_open(const char *variable, bool structured);
void client_close(struct nbd_handle *nbd);

/* The result of a call that must have succeeded, or failed with errno. */
#define MUST(call) must((call), #call)
#define MUST_FAIL(call, expected) must_fail((call), #call, (expected))
int64_t must(int64_t result, const char *what);
void must_fail(int64_t result, const char *what, int expected_errno);

/* length bytes that depend on seed and position; and whether they still do. */
void fill(char *data, size_t length, unsigned seed);
void expect_same(const char *data, const char *expected, size_t length);
void expect_filled(const char *data, size_t length, unsigned seed);
void expect_bytes(const char *data, size_t length, char byte);

/* The same for a range of the disk. */
void write_filled(struct nbd_handle *nbd, size_t length, uint64_t offset,
    unsigned seed, uint32_t flags);
void read_filled(struct nbd_handle *nbd, size_t length, uint64_t offset,
    unsigned seed);
void read_bytes(struct nbd_handle *nbd, size_t length, uint64_t offset,
    char byte);

/* Everything zero and no cluster in use. */
void clear(struct nbd_handle *nbd);

/* The states of a range, neighbours alike merged. */
#define RUNS_MAX 64
struct run {
	uint64_t length;
	uint32_t state;
};
struct runs {
	unsigned count;
	struct run run[RUNS_MAX];
};
void get_runs(struct nbd_handle *nbd, uint64_t length, uint64_t offset,
    uint32_t flags, struct runs *runs);

TCase *case_of_negotiation(void);
TCase *case_of_commands(void);
TCase *case_of_status(void);
TCase *case_of_errors(void);
TCase *case_of_load(void);

#endif
