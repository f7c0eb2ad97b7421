/* SPDX-License-Identifier: MIT */
/*
 * Strings of the wire: counted, at most 4096 bytes, no NUL inside.
 *
 * A struct nbd_text is a view of bytes that somebody else owns, most often
 * the payload it was parsed from; it is not terminated, so print it with
 * "%.*s".  Its bytes may be anything but NUL: escape them before logging.
 * (Specification: "Conventions".)
 */
#ifndef PROTO_TEXT_H
#define PROTO_TEXT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nbd_text {
	const char *start;
	size_t bytes;
};

/* A view of a terminated string, which may be NULL: that is an empty one. */
struct nbd_text nbd_text_of(const char *string);

/*
 * As much of a text for people as may be sent: NBD_NAME_BYTES_MAX bytes or
 * less, cut between characters if the text is UTF-8.
 */
struct nbd_text nbd_text_cut(struct nbd_text text);

bool nbd_text_equal(struct nbd_text text, const char *string);

/*
 * Takes bytes of wire as a string.  -EINVAL if there are more than
 * NBD_NAME_BYTES_MAX, or one of them is NUL.
 */
int nbd_text_parse(const uint8_t *wire, size_t bytes, struct nbd_text *text);

/* Copies the text to wire and returns its bytes.  It must fit there. */
size_t nbd_text_put(uint8_t *wire, struct nbd_text text);
#endif
