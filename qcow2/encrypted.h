/* SPDX-License-Identifier: MIT */
/*
 * Encrypted clusters: reading them, and writing them.
 *
 * What is in normal clusters of an encrypted image is encrypted, sector by
 * sector, by its place on the guest's disk; zero clusters hold nothing, and
 * compressed ones are plain deflate, as other programs have it.  So nothing
 * that a guest wrote reaches the file but through here.
 *
 * A change of one byte changes the rest of its sector in the file.  Therefore
 * a write in place that covers a sector only in part reads it first, and
 * whoever reads or writes a sector that may be written in place claims it
 * (claim.h): otherwise one of two writers of a sector would undo the other,
 * and a reader could see half of a sector's old content and half of the new,
 * which decrypts to neither.
 */
#ifndef QCOW2_ENCRYPTED_H
#define QCOW2_ENCRYPTED_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include "qcow2/aes.h"
#include "qcow2/internal.h"

struct l2_run;

/*
 * Gives each encrypted image from this one down its key.  -ENOKEY: there is
 * none; -EINVAL: there are more than encrypted images; -ENOMEM, -ENOTSUP.
 */
int encrypted_take_keys(struct image *image,
    const struct image_options *options, struct error *error);

/*
 * How much of a write goes in one step: up to where the next AES_BYTES_MAX
 * begin, so that with whole clusters around it, it is not longer either.
 */
static inline size_t
encrypted_step(uint64_t guest, size_t length)
{
	static_assert(CLAIM_PART_BYTES % AES_BYTES_MAX == 0,
	    "a step is claimed as one");
	size_t room = AES_BYTES_MAX - guest % AES_BYTES_MAX;

	return length < room ? length : room;
}

/* Reads a run of normal clusters into target.  -EIO, -ENOMEM. */
co_fn int encrypted_read(struct image *image, char *target, uint64_t guest,
    const struct l2_run *run);

/* What a write in place has to write. */
struct encrypted_sectors {
	void *data;		/* ends with buf_put(data, length) */
	size_t length;		/* whole sectors */
	uint64_t host;
};

/*
 * Encrypts length bytes, at most AES_BYTES_MAX, that go to host in place, with
 * what is around them in their sectors, which are claimed.  -EIO, -ENOMEM.
 */
co_fn int encrypted_seal(struct image *image, uint64_t guest,
    const void *data, size_t length, uint64_t host,
    struct encrypted_sectors *sectors);

/*
 * Writes them to new clusters, the first of which is at host, with what the
 * guest sees around them; their guest clusters are claimed.  -EIO, -ENOSPC,
 * -ENOMEM.
 */
co_fn int encrypted_write_new(struct image *image, uint64_t guest,
    const void *data, size_t length, uint64_t host);

#endif
