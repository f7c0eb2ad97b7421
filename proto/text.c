/* SPDX-License-Identifier: MIT */
#include "proto/text.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proto/nbd.h"

struct nbd_text
nbd_text_of(const char *string)
{
	return (struct nbd_text){
		.start = string,
		.bytes = string ? strlen(string) : 0,
	};
}

static bool
continues_character(char byte)
{
	return ((unsigned char)byte & 0xc0) == 0x80;
}

struct nbd_text
nbd_text_cut(struct nbd_text text)
{
	size_t bytes = NBD_NAME_BYTES_MAX;
	int step;

	if (text.bytes <= bytes)
		return text;
	/* A character has at most three bytes after its first. */
	for (step = 0; step < 3 && continues_character(text.start[bytes]);
	     step++)
		bytes--;
	/* Still none begins here: it is not UTF-8, so any place will do. */
	if (continues_character(text.start[bytes]))
		bytes = NBD_NAME_BYTES_MAX;
	text.bytes = bytes;
	return text;
}

bool
nbd_text_equal(struct nbd_text text, const char *string)
{
	return text.bytes == strlen(string) &&
		(text.bytes == 0 ||
		 memcmp(text.start, string, text.bytes) == 0);
}

int
nbd_text_parse(const uint8_t *wire, size_t bytes, struct nbd_text *text)
{
	if (bytes > NBD_NAME_BYTES_MAX)
		return -EINVAL;
	if (bytes > 0 && memchr(wire, '\0', bytes))
		return -EINVAL;
	text->start = (const char *)wire;
	text->bytes = bytes;
	return 0;
}

size_t
nbd_text_put(uint8_t *wire, struct nbd_text text)
{
	assert(text.bytes <= NBD_NAME_BYTES_MAX);
	if (text.bytes > 0)
		memcpy(wire, text.start, text.bytes);
	return text.bytes;
}
