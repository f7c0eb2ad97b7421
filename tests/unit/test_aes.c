/* SPDX-License-Identifier: MIT */
/*
 * AES of legacy images, against sectors that qemu-io 7.2 wrote.
 *
 * Guards against: another key, vector or mode than QEMU's, sector numbers of
 * less than 64 bits, results that depend on how a range is cut or on which
 * thread does the work.
 */
#include <string.h>
#include "qcow2/aes.h"
#include "runtime/worker.h"
#include "tests/unit/test_runtime.h"

/* More than is done in place, and no power of two. */
#define LONG_BYTES (AES_INLINE_BYTES + 5 * AES_SECTOR_BYTES)

/* How sectors of one byte, with the passphrase "key", begin and end. */
static const struct vector {
	uint64_t guest;
	uint8_t value;
	uint8_t begin[16];
	uint8_t end[16];
} vectors[] = {
	{ 0, 0,
	    { 0x83, 0xd9, 0x96, 0x17, 0x39, 0xb8, 0x7f, 0x2e,
	    0xd6, 0xc2, 0x12, 0x01, 0x2a, 0x91, 0xb8, 0x39 },
	    { 0xc0, 0xb5, 0x9c, 0x29, 0xdd, 0xcb, 0x7c, 0x62,
	    0x19, 0xa4, 0x35, 0xc4, 0xec, 0x2d, 0xb0, 0x14 } },
	{ 0x40000000400, 0x5a,
	    { 0xed, 0xb0, 0xeb, 0x9a, 0xcc, 0x0c, 0x50, 0x70,
	    0x1c, 0x7a, 0x0f, 0x3e, 0x2c, 0x3e, 0xa5, 0x88 },
	    { 0x73, 0x1d, 0x71, 0x5b, 0x1f, 0x8f, 0x31, 0x1c,
	    0x19, 0x16, 0xcd, 0xce, 0xac, 0x1f, 0xae, 0xd0 } },
};

#define VECTORS (sizeof(vectors) / sizeof(vectors[0]))

static struct aes *
make_aes(const char *passphrase)
{
	struct aes *aes;

	ck_assert_int_eq(aes_create(passphrase, strlen(passphrase), &aes), 0);
	return aes;
}

static co_fn void
try_vector(void *arg)
{
	const struct vector *vector = arg;
	uint8_t plain[AES_SECTOR_BYTES], sealed[AES_SECTOR_BYTES];
	struct aes *aes = make_aes("key");

	memset(plain, vector->value, sizeof(plain));
	ck_assert_int_eq(aes_encrypt(aes, vector->guest, plain, sealed,
	    sizeof(sealed)), 0);
	ck_assert_mem_eq(sealed, vector->begin, 16);
	ck_assert_mem_eq(sealed + sizeof(sealed) - 16, vector->end, 16);
	ck_assert_int_eq(aes_decrypt(aes, vector->guest, sealed, sealed,
	    sizeof(sealed)), 0);
	ck_assert_mem_eq(sealed, plain, sizeof(plain));
	aes_free(aes);
}

START_TEST(as_qemu_has_it)
{
	struct vector vector = vectors[_i];

	test_run(try_vector, &vector);
}
END_TEST

static uint8_t plain[LONG_BYTES], whole[LONG_BYTES], pieces[LONG_BYTES];

static co_fn void
cut_into_sectors(void *unused)
{
	struct aes *aes = make_aes("a passphrase that is longer than a key");
	struct aes *cut = make_aes("a passphrase tha");
	const uint64_t guest = 77 * AES_SECTOR_BYTES;

	(void)unused;
	test_fill(plain, LONG_BYTES, 1);
	ck_assert_int_eq(aes_encrypt(aes, guest, plain, whole, LONG_BYTES),
	    0);
	for (size_t at = 0; at < LONG_BYTES; at += AES_SECTOR_BYTES)
		ck_assert_int_eq(aes_encrypt(cut, guest + at, plain + at,
		    pieces + at, AES_SECTOR_BYTES), 0);
	ck_assert_mem_eq(whole, pieces, LONG_BYTES);
	test_verify(plain, LONG_BYTES, 1);
	ck_assert_int_eq(aes_decrypt(cut, guest, whole, whole, LONG_BYTES),
	    0);
	test_verify(whole, LONG_BYTES, 1);
	aes_free(cut);
	aes_free(aes);
}

START_TEST(however_it_is_cut)
{
	test_run(cut_into_sectors, NULL);
	worker_stop();
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("aes");
	TCase *tests = tcase_create("aes");

	tcase_add_loop_test(tests, as_qemu_has_it, 0, VECTORS);
	tcase_add_test(tests, however_it_is_cut);
	suite_add_tcase(suite, tests);
	return test_main(suite);
}
