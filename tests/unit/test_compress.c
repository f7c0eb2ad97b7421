/* SPDX-License-Identifier: MIT */
/*
 * Guards compressing: a cluster of any size comes back from its stream, to
 * readers with a window of 4 KiB, too, or is said not to shrink, on any thread
 * and whatever its compressor did before; looking for zeros misses no byte, and
 * only noise is taken for noise.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "qcow2/compress.h"
#include "qcow2/noise.h"
#include "qcow2/zeros_only.h"
#include "tests/unit/test_runtime.h"

#define BYTES_MAX (2u << 20)

static const enum compression codecs[] = {
	COMPRESSION_DEFLATE, COMPRESSION_ZSTD,
};

static uint8_t plain[BYTES_MAX], packed[BYTES_MAX], back[BYTES_MAX];

/* Text that compresses, with matches at distances of 5,000 bytes. */
static void
make_plain(size_t bytes)
{
	srandom(1);
	for (size_t i = 0; i < bytes; i++)
		plain[i] = i >= 5000 && i / 500 % 2 ? plain[i - 5000] :
		    (uint8_t)"abcdefgh"[random() % 8];
}

START_TEST(clusters_come_back)
{
	for (size_t bytes = 512; bytes <= BYTES_MAX; bytes *= 2) {
		size_t stream = 0;

		make_plain(bytes);
		ck_assert_int_eq(compress_cluster(codecs[_i], plain, bytes,
		    packed, &stream), 0);
		ck_assert_uint_gt(stream, 0);
		ck_assert_uint_lt(stream, bytes);
		memset(back, 0, bytes);
		ck_assert_int_eq(inflate_cluster(codecs[_i], packed, stream,
		    back, bytes), 0);
		ck_assert(!memcmp(plain, back, bytes));
	}
}
END_TEST

/*
 * Some readers have no more.  Output goes to small pieces, since zlib takes
 * longer distances for granted as long as they lie in its output.
 */
START_TEST(deflate_keeps_to_a_window_of_4_kib)
{
	z_stream stream = {.next_in = packed};
	size_t bytes = 65536, packed_bytes = 0;
	uint8_t piece[1024];

	make_plain(bytes);
	ck_assert_int_eq(compress_cluster(COMPRESSION_DEFLATE, plain, bytes,
	    packed, &packed_bytes), 0);
	stream.avail_in = (uInt)packed_bytes;
	ck_assert_int_eq(inflateInit2(&stream, -12), Z_OK);
	for (size_t done = 0; done < bytes; done += sizeof(piece)) {
		stream.next_out = piece;
		stream.avail_out = sizeof(piece);
		ck_assert_int_ge(inflate(&stream, Z_SYNC_FLUSH), Z_OK);
		ck_assert_uint_eq(stream.avail_out, 0);
		ck_assert(!memcmp(plain + done, piece, sizeof(piece)));
	}
	inflateEnd(&stream);
}
END_TEST

START_TEST(noise_does_not_shrink)
{
	for (size_t bytes = 512; bytes <= BYTES_MAX; bytes *= 2) {
		size_t stream = 77;

		srandom(2);
		for (size_t i = 0; i < bytes; i++)
			plain[i] = (uint8_t)(random() >> 7);
		ck_assert_int_eq(compress_cluster(codecs[_i], plain, bytes,
		    packed, &stream), -E2BIG);
		ck_assert_uint_eq(stream, 77);
	}
}
END_TEST

/* A compressor is kept: one that ran out of room must not tell the next. */
static void
make_noise(size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		plain[i] = (uint8_t)(random() >> 8);
}

START_TEST(noise_is_known)
{
	for (unsigned seed = 0; seed < 200; seed++) {
		srandom(seed);
		make_noise(65536);
		for (size_t bytes = 4096; bytes <= 65536; bytes *= 2)
			ck_assert(noise_is_all(plain, bytes));
	}
}
END_TEST

/* All of these shrink by some percent. */
START_TEST(what_shrinks_is_not_taken_for_noise)
{
	size_t bytes = 65536;

	srandom(1);
	/* Sequences of 64 bytes that come again, at an odd distance. */
	make_noise(bytes);
	for (size_t i = 4096; i + 64 < bytes; i += 1500)
		memcpy(plain + i, plain + i - 1333, 64);
	ck_assert(!noise_is_all(plain, bytes));
	/* A part that is text. */
	make_noise(bytes);
	memset(plain + bytes - 3000, 'x', 3000);
	ck_assert(!noise_is_all(plain, bytes));
	/* Half of the values, two of them more often than others. */
	make_noise(bytes);
	for (size_t i = 0; i < bytes; i++)
		plain[i] |= 128;
	ck_assert(!noise_is_all(plain, bytes));
	make_noise(bytes);
	for (size_t i = 0; i < bytes; i += 16)
		plain[i] = i % 32 ? 'e' : 0;
	ck_assert(!noise_is_all(plain, bytes));
	/* What is too short to tell. */
	make_noise(2048);
	ck_assert(!noise_is_all(plain, 2048));
}
END_TEST

START_TEST(compressors_survive_what_does_not_shrink)
{
	size_t bytes = 65536, first = 0, again = 0;

	make_plain(bytes);
	ck_assert_int_eq(compress_cluster(codecs[_i], plain, bytes, packed,
	    &first), 0);
	for (size_t i = 0; i < bytes; i++)
		plain[i] = (uint8_t)(random() >> 7);
	ck_assert_int_eq(compress_cluster(codecs[_i], plain, bytes, packed,
	    &again), -E2BIG);
	make_plain(bytes);
	ck_assert_int_eq(compress_cluster(codecs[_i], plain, bytes, back,
	    &again), 0);
	ck_assert_uint_eq(again, first);
	ck_assert_int_eq(inflate_cluster(codecs[_i], back, again, packed,
	    bytes), 0);
	ck_assert(!memcmp(plain, packed, bytes));
}
END_TEST

static void *
compress_often(void *arg)
{
	enum compression codec = *(const enum compression *)arg;
	size_t bytes = 65536, stream;
	uint8_t *target = malloc(bytes), *copy = malloc(bytes);
	intptr_t failed = 0;

	for (unsigned i = 0; target && copy && i < 50; i++)
		failed += compress_cluster(codec, plain + i * 4096, bytes,
		    target, &stream) ||
		    inflate_cluster(codec, target, stream, copy, bytes) ||
		    memcmp(copy, plain + i * 4096, bytes);
	free(target);
	free(copy);
	return (void *)failed;
}

START_TEST(threads_have_compressors_of_their_own)
{
	pthread_t threads[4];
	void *failed;

	make_plain(BYTES_MAX);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
		    compress_often, (void *)(uintptr_t)&codecs[i % 2]), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
}
END_TEST

START_TEST(no_byte_is_taken_for_zero)
{
	for (size_t length = 1; length < 1200; length += 1 + length / 7) {
		memset(plain, 0xff, sizeof(plain[0]) * 1300);
		memset(plain + 3, 0, length);
		ck_assert(zeros_only(plain + 3, length));
		for (size_t i = 0; i < length; i++) {
			plain[3 + i] = 0x10;
			ck_assert(!zeros_only(plain + 3, length));
			plain[3 + i] = 0;
		}
	}
	ck_assert(zeros_only(plain, 0));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("compress");
	TCase *tests = tcase_create("compress");

	tcase_add_loop_test(tests, clusters_come_back, 0, 2);
	tcase_add_test(tests, deflate_keeps_to_a_window_of_4_kib);
	tcase_add_loop_test(tests, noise_does_not_shrink, 0, 2);
	tcase_add_test(tests, noise_is_known);
	tcase_add_test(tests, what_shrinks_is_not_taken_for_noise);
	tcase_add_loop_test(tests, compressors_survive_what_does_not_shrink,
	    0, 2);
	tcase_add_test(tests, threads_have_compressors_of_their_own);
	tcase_add_test(tests, no_byte_is_taken_for_zero);
	suite_add_tcase(suite, tests);
	return test_main(suite);
}
