/* SPDX-License-Identifier: MIT */
/*
 * AES as legacy encrypted images have it: AES-128 in CBC mode, each sector of
 * 512 bytes by itself, its number on the guest's disk being the initialisation
 * vector (plain64: 64 bits, the lowest byte first, then zeros).
 *
 * The key is the passphrase itself, cut or filled up with zero bytes to 16.
 * There is nothing in an image that tells a right key from a wrong one.
 *
 * Not in the monitor: what is longer than AES_INLINE_BYTES goes to a worker.
 * (Specification: "Header", crypt_method 1.)
 */
#ifndef QCOW2_AES_H
#define QCOW2_AES_H

#include <stddef.h>
#include <stdint.h>
#include "runtime/co.h"

struct aes;

#define AES_SECTOR_BYTES 512u
/* Takes some 70 us, where the processor has instructions for AES. */
#define AES_INLINE_BYTES (64u * 1024)
/* In one call. */
#define AES_BYTES_MAX (2u * 1024 * 1024)

/* -ENOMEM; -ENOTSUP: OpenSSL was built, or is set up, without this cipher. */
int aes_create(const void *passphrase, size_t passphrase_bytes,
    struct aes **aesp);

/* The same for one more user, who frees it, too. */
struct aes *aes_share(struct aes *aes);

/* The last user's wipes the key; NULL is fine. */
void aes_free(struct aes *aes);

/*
 * Whole sectors, the first of which is at guest; source may be target.
 * -ENOMEM: target is undefined then.
 */
co_fn int aes_encrypt(struct aes *aes, uint64_t guest, const void *source,
    void *target, size_t bytes);
co_fn int aes_decrypt(struct aes *aes, uint64_t guest, const void *source,
    void *target, size_t bytes);

#endif
