/* SPDX-License-Identifier: MIT */
#include "qcow2/aes.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include "runtime/secret.h"
#include "runtime/worker.h"

#define KEY_BYTES 16
#define VECTOR_BYTES 16

/* In memory of secret_get(). */
struct aes {
	atomic_uint users;
	EVP_CIPHER *cipher;
	uint8_t key[KEY_BYTES];
};

struct job {
	const struct aes *aes;
	uint64_t guest;
	const uint8_t *source;
	uint8_t *target;
	size_t bytes;
	int encrypts;		/* 1, else 0: as OpenSSL has it */
	int err;
};

int
aes_create(const void *passphrase, size_t passphrase_bytes,
    struct aes **aesp)
{
	struct aes *aes = secret_get(sizeof(*aes));

	if (!aes)
		return -ENOMEM;
	atomic_init(&aes->users, 1);
	aes->cipher = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
	if (!aes->cipher) {
		aes_free(aes);
		return -ENOTSUP;
	}
	memcpy(aes->key, passphrase, passphrase_bytes < KEY_BYTES ?
	    passphrase_bytes : KEY_BYTES);
	*aesp = aes;
	return 0;
}

struct aes *
aes_share(struct aes *aes)
{
	atomic_fetch_add(&aes->users, 1);
	return aes;
}

void
aes_free(struct aes *aes)
{
	if (!aes || atomic_fetch_sub(&aes->users, 1) > 1)
		return;
	EVP_CIPHER_free(aes->cipher);
	secret_put(aes, sizeof(*aes));
}

static bool
run_sector(EVP_CIPHER_CTX *context, const struct job *job, size_t offset)
{
	uint64_t vector[VECTOR_BYTES / 8] = {
		htole64((job->guest + offset) / AES_SECTOR_BYTES),
	};
	int done;

	return EVP_CipherInit_ex2(context, NULL, NULL,
	    (const uint8_t *)vector, job->encrypts, NULL) &&
	    EVP_CipherUpdate(context, job->target + offset, &done,
	    job->source + offset, AES_SECTOR_BYTES) &&
	    done == AES_SECTOR_BYTES;
}

/*
 * The context, which holds the key, is made anew each time: that takes as long
 * as 300 bytes, and so nothing is shared.  To free it wipes it.
 */
static void
run_job(void *arg)
{
	struct job *job = arg;
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	bool good = context && EVP_CipherInit_ex2(context, job->aes->cipher,
	    job->aes->key, NULL, job->encrypts, NULL) &&
	    EVP_CIPHER_CTX_set_padding(context, 0);

	for (size_t offset = 0; offset < job->bytes && good;
	    offset += AES_SECTOR_BYTES)
		good = run_sector(context, job, offset);
	EVP_CIPHER_CTX_free(context);
	/* Nothing else can go wrong with a key and a cipher that fit. */
	job->err = good ? 0 : -ENOMEM;
}

co_fn static int
run(struct job job)
{
	assert(job.guest % AES_SECTOR_BYTES == 0 &&
	    job.bytes % AES_SECTOR_BYTES == 0 && job.bytes <= AES_BYTES_MAX);
	if (job.bytes > AES_INLINE_BYTES)
		worker_run(run_job, &job);
	else
		run_job(&job);
	return job.err;
}

int
aes_encrypt(struct aes *aes, uint64_t guest, const void *source, void *target,
    size_t bytes)
{
	return run((struct job){ .aes = aes, .guest = guest,
	    .source = source, .target = target, .bytes = bytes,
	    .encrypts = 1 });
}

int
aes_decrypt(struct aes *aes, uint64_t guest, const void *source, void *target,
    size_t bytes)
{
	return run((struct job){ .aes = aes, .guest = guest,
	    .source = source, .target = target, .bytes = bytes });
}
