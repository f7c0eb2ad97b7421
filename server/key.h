/* SPDX-License-Identifier: MIT */
/*
 * The passphrases of encrypted images: where they come from.
 *
 * From files, descriptors or systemd credentials, never from an argument or
 * the environment, which other programs can see.  One newline at the end is
 * dropped.  A passphrase is kept in memory of its own (runtime/secret.h), and a
 * process that has one leaves no core dump.
 *
 * A command has KEY_OPTIONS in its table and a struct key_options in the
 * struct that these fill.
 */
#ifndef SERVER_KEY_H
#define SERVER_KEY_H

#include <stddef.h>
#include "qcow2/image.h"
#include "server/options.h"

#define KEY_BYTES_MAX 1024

/* Each may be repeated, see image_options; only one kind is given. */
struct key_options {
	struct option_texts files;
	struct option_texts descriptors;
	struct option_texts credentials;
};

/* The lines of a table of options; member of type is the struct above. */
#define KEY_OPTIONS(type, member) \
	{ "key-file", 0, OPTION_TEXTS, "FILE", \
	  "the key of an encrypted image, repeatable", \
	  .offset = offsetof(type, member.files) }, \
	{ "key-fd", 0, OPTION_TEXTS, "N", \
	  "the same, from a descriptor", \
	  .offset = offsetof(type, member.descriptors) }, \
	{ "key-credential", 0, OPTION_TEXTS, "NAME", \
	  "the same, a credential of systemd", \
	  .offset = offsetof(type, member.credentials) }

struct key_ring {
	struct image_key *list;
	unsigned count;
};

/*
 * Reads them all, and closes the descriptors.  0, or the exit code after
 * saying what is wrong; on success it ends with key_ring_free().
 */
int key_ring_load(const struct command *command,
    const struct key_options *options, struct key_ring *keys);

/* Wipes them; fine without any. */
void key_ring_free(struct key_ring *keys);

#endif
