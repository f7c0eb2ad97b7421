/* SPDX-License-Identifier: MIT */
/*
 * Unit tests of proto/, one case per module, and what they share.
 */
#ifndef TESTS_UNIT_TEST_PROTO_H
#define TESTS_UNIT_TEST_PROTO_H
#include <check.h>
#include <stddef.h>
#include <stdint.h>

TCase *test_proto_error(void);
TCase *test_proto_extended(void);
TCase *test_proto_handshake(void);
TCase *test_proto_option(void);
TCase *test_proto_option_meta(void);
TCase *test_proto_option_reply(void);
TCase *test_proto_reply(void);
TCase *test_proto_reply_parse(void);
TCase *test_proto_request(void);
TCase *test_proto_request_check(void);
TCase *test_proto_text(void);

/*
 * A copy of bytes that ends where readable memory ends, so that a parser that
 * looks one byte too far crashes in every kind of build.  At most 64 KiB.
 */
const uint8_t *at_the_edge(const void *bytes, size_t count);

/* A terminated string of count times the same character; never freed. */
char *repeat(char character, size_t count);

/*
 * Lengths at which parsers of 32-bit lengths went wrong elsewhere: around
 * the limit of a string, around the sign bit, and wrapping round.
 */
#define NASTY_LENGTHS 8
extern const uint32_t nasty_lengths[NASTY_LENGTHS];
#endif
