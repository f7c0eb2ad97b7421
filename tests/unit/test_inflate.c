/* SPDX-License-Identifier: MIT */
/*
 * Guards inflating: a cluster comes back whole or not at all, whatever follows
 * its stream and wherever the stream is cut, on any thread.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include "qcow2/inflate.h"
#include "tests/unit/test_runtime.h"

#define CLUSTER_BYTES	65536u

static uint8_t plain[2 * CLUSTER_BYTES];
static uint8_t packed[4 * CLUSTER_BYTES];
static uint8_t inflated[CLUSTER_BYTES + 1];

/* Text that compresses, with distances up to the whole of it. */
static void
make_plain(void)
{
	size_t i;

	srandom(1);
	for (i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)"abcdefgh"[random() % 8];
	memcpy(plain + 32768 + 300, plain + 300, 4000);
}

/* Compresses the first bytes bytes of plain; returns the stream's length. */
static size_t
pack_deflate(size_t bytes, int window_bits)
{
	z_stream stream = { 0 };
	size_t length;

	ck_assert_int_eq(deflateInit2(&stream, 9, Z_DEFLATED, window_bits, 9,
	    Z_DEFAULT_STRATEGY), Z_OK);
	stream.next_in = plain;
	stream.avail_in = (uInt)bytes;
	stream.next_out = packed;
	stream.avail_out = sizeof(packed);
	ck_assert_int_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
	length = stream.total_out;
	deflateEnd(&stream);
	return length;
}

/* Appends bytes bytes of plain at from as a zstd frame to packed. */
static size_t
pack_zstd(size_t packed_bytes, size_t from, size_t bytes)
{
	size_t length = ZSTD_compress(packed + packed_bytes,
	    sizeof(packed) - packed_bytes, plain + from, bytes, 3);

	ck_assert(!ZSTD_isError(length));
	return packed_bytes + length;
}

/* Inflates a copy of packed that ends where its memory ends. */
static int
inflate_exactly(enum compression compression, size_t packed_bytes)
{
	uint8_t *source = malloc(packed_bytes ? packed_bytes : 1);
	int err;

	ck_assert_ptr_nonnull(source);
	memcpy(source, packed, packed_bytes);
	memset(inflated, 0xee, sizeof(inflated));
	err = inflate_cluster(compression, source, packed_bytes, inflated,
	    CLUSTER_BYTES);
	ck_assert_uint_eq(inflated[CLUSTER_BYTES], 0xee);
	free(source);
	return err;
}

static void
must_inflate(enum compression compression, size_t packed_bytes)
{
	ck_assert_int_eq(inflate_exactly(compression, packed_bytes), 0);
	ck_assert_mem_eq(inflated, plain, CLUSTER_BYTES);
}

/* ---- deflate ---- */

START_TEST(deflate_with_any_window_is_inflated)
{
	make_plain();
	must_inflate(COMPRESSION_DEFLATE, pack_deflate(CLUSTER_BYTES, _i));
}
END_TEST

START_TEST(junk_after_deflate_data_does_not_matter)
{
	size_t length;

	make_plain();
	length = pack_deflate(CLUSTER_BYTES, -15);
	memset(packed + length, 0xff, 511);
	must_inflate(COMPRESSION_DEFLATE, length + 511);
}
END_TEST

/* The end of the stream is lost, but all of the output is there before it. */
START_TEST(deflate_data_cut_after_its_last_byte_of_output_is_inflated)
{
	z_stream stream = { 0 };
	size_t length;

	make_plain();
	ck_assert_int_eq(deflateInit2(&stream, 9, Z_DEFLATED, -15, 9,
	    Z_DEFAULT_STRATEGY), Z_OK);
	stream.next_in = plain;
	stream.avail_in = CLUSTER_BYTES;
	stream.next_out = packed;
	stream.avail_out = sizeof(packed);
	ck_assert_int_eq(deflate(&stream, Z_SYNC_FLUSH), Z_OK);
	length = stream.total_out;
	deflateEnd(&stream);
	must_inflate(COMPRESSION_DEFLATE, length);
}
END_TEST

START_TEST(deflate_data_of_more_than_a_cluster_gives_the_first)
{
	make_plain();
	must_inflate(COMPRESSION_DEFLATE,
	    pack_deflate(CLUSTER_BYTES + 5000, -15));
}
END_TEST

START_TEST(deflate_data_of_less_than_a_cluster_is_an_error)
{
	size_t length;

	make_plain();
	length = pack_deflate(CLUSTER_BYTES - 1, -15);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_DEFLATE, length), -EIO);
	memset(packed + length, 0, 512);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_DEFLATE, length + 512),
	    -EIO);
}
END_TEST

START_TEST(deflate_data_cut_in_the_middle_is_an_error)
{
	size_t length;

	make_plain();
	length = pack_deflate(CLUSTER_BYTES, -15);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_DEFLATE, length / 2),
	    -EIO);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_DEFLATE, 0), -EIO);
}
END_TEST

START_TEST(deflate_data_with_a_zlib_header_is_an_error)
{
	make_plain();
	ck_assert_int_eq(inflate_exactly(COMPRESSION_DEFLATE,
	    pack_deflate(CLUSTER_BYTES, 15)), -EIO);
}
END_TEST

/* ---- zstd ---- */

START_TEST(zstd_frame_is_inflated)
{
	make_plain();
	must_inflate(COMPRESSION_ZSTD, pack_zstd(0, 0, CLUSTER_BYTES));
}
END_TEST

START_TEST(several_zstd_frames_are_inflated)
{
	size_t length;

	make_plain();
	length = pack_zstd(0, 0, 10000);
	length = pack_zstd(length, 10000, 0);
	length = pack_zstd(length, 10000, CLUSTER_BYTES - 10000);
	must_inflate(COMPRESSION_ZSTD, length);
}
END_TEST

START_TEST(junk_after_zstd_data_does_not_matter)
{
	size_t length;

	make_plain();
	length = pack_zstd(0, 0, CLUSTER_BYTES);
	memset(packed + length, 0xff, 511);
	must_inflate(COMPRESSION_ZSTD, length + 511);
}
END_TEST

START_TEST(zstd_data_of_less_than_a_cluster_is_an_error)
{
	size_t length;

	make_plain();
	length = pack_zstd(0, 0, CLUSTER_BYTES - 1);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, length), -EIO);
	memset(packed + length, 0, 512);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, length + 512),
	    -EIO);
}
END_TEST

START_TEST(zstd_frame_that_is_too_long_is_an_error)
{
	size_t length;

	make_plain();
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD,
	    pack_zstd(0, 0, CLUSTER_BYTES + 1)), -EIO);
	length = pack_zstd(0, 0, 10000);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD,
	    pack_zstd(length, 10000, CLUSTER_BYTES - 9999)), -EIO);
}
END_TEST

START_TEST(zstd_data_cut_anywhere_is_an_error)
{
	size_t length;

	make_plain();
	length = pack_zstd(0, 0, CLUSTER_BYTES);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, length - 1), -EIO);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, length / 2), -EIO);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, 3), -EIO);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, 0), -EIO);
}
END_TEST

/* Frames that give nothing end with the input, not never. */
START_TEST(zstd_frames_without_output_end)
{
	size_t length = 0;

	make_plain();
	while (length < 1024)
		length = pack_zstd(length, 0, 0);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, length), -EIO);
}
END_TEST

/* A frame that claims a window of 128 MiB costs no 128 MiB. */
START_TEST(zstd_frame_with_a_huge_window_is_inflated)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	ZSTD_inBuffer in = { plain, CLUSTER_BYTES, 0 };
	ZSTD_outBuffer out = { packed, sizeof(packed), 0 };

	make_plain();
	ck_assert_ptr_nonnull(context);
	ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 27);
	/* Flushing first keeps the length out of the frame's head. */
	ck_assert_uint_eq(ZSTD_compressStream2(context, &out, &in,
	    ZSTD_e_flush), 0);
	ck_assert_uint_eq(ZSTD_compressStream2(context, &out, &in,
	    ZSTD_e_end), 0);
	ZSTD_freeCCtx(context);
	must_inflate(COMPRESSION_ZSTD, out.pos);
}
END_TEST

/* ---- both ---- */

START_TEST(random_bytes_are_an_error)
{
	unsigned round;
	size_t i;

	srandom(7);
	for (round = 0; round < 500; round++) {
		for (i = 0; i < 3000; i++)
			packed[i] = (uint8_t)random();
		ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, 3000),
		    -EIO);
		/* 3000 bytes can deflate to a cluster, but these do not. */
		ck_assert_int_eq(inflate_exactly(COMPRESSION_DEFLATE, 3000),
		    -EIO);
	}
}
END_TEST

START_TEST(decompressors_survive_an_error)
{
	size_t length;

	make_plain();
	length = pack_deflate(CLUSTER_BYTES + 1, -15);
	must_inflate(COMPRESSION_DEFLATE, length);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_DEFLATE, length / 3),
	    -EIO);
	must_inflate(COMPRESSION_DEFLATE, length);
	length = pack_zstd(0, 0, CLUSTER_BYTES);
	ck_assert_int_eq(inflate_exactly(COMPRESSION_ZSTD, length / 3), -EIO);
	must_inflate(COMPRESSION_ZSTD, length);
}
END_TEST

static void *
inflate_often(void *arg)
{
	uint8_t *target = malloc(CLUSTER_BYTES);
	intptr_t failed = 0;
	unsigned i;

	for (i = 0; target && i < 50; i++) {
		if (inflate_cluster(COMPRESSION_DEFLATE, packed, *(size_t *)arg,
		    target, CLUSTER_BYTES) ||
		    memcmp(target, plain, CLUSTER_BYTES) != 0)
			failed++;
	}
	free(target);
	return (void *)failed;
}

START_TEST(threads_have_decompressors_of_their_own)
{
	pthread_t threads[4];
	size_t length;
	void *failed;
	unsigned i;

	make_plain();
	/* Longer than a cluster: both libraries are asked. */
	length = pack_deflate(CLUSTER_BYTES + 1, -15);
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
		    inflate_often, &length), 0);
	for (i = 0; i < 4; i++) {
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("inflate");
	TCase *deflated = tcase_create("deflate");
	TCase *zstd = tcase_create("zstd");
	TCase *both = tcase_create("both");

	tcase_add_loop_test(deflated, deflate_with_any_window_is_inflated,
	    -15, -8);
	tcase_add_test(deflated, junk_after_deflate_data_does_not_matter);
	tcase_add_test(deflated,
	    deflate_data_cut_after_its_last_byte_of_output_is_inflated);
	tcase_add_test(deflated,
	    deflate_data_of_more_than_a_cluster_gives_the_first);
	tcase_add_test(deflated,
	    deflate_data_of_less_than_a_cluster_is_an_error);
	tcase_add_test(deflated, deflate_data_cut_in_the_middle_is_an_error);
	tcase_add_test(deflated, deflate_data_with_a_zlib_header_is_an_error);
	tcase_add_test(zstd, zstd_frame_is_inflated);
	tcase_add_test(zstd, several_zstd_frames_are_inflated);
	tcase_add_test(zstd, junk_after_zstd_data_does_not_matter);
	tcase_add_test(zstd, zstd_data_of_less_than_a_cluster_is_an_error);
	tcase_add_test(zstd, zstd_frame_that_is_too_long_is_an_error);
	tcase_add_test(zstd, zstd_data_cut_anywhere_is_an_error);
	tcase_add_test(zstd, zstd_frames_without_output_end);
	tcase_add_test(zstd, zstd_frame_with_a_huge_window_is_inflated);
	tcase_add_test(both, random_bytes_are_an_error);
	tcase_add_test(both, decompressors_survive_an_error);
	tcase_add_test(both, threads_have_decompressors_of_their_own);
	suite_add_tcase(suite, deflated);
	suite_add_tcase(suite, zstd);
	suite_add_tcase(suite, both);
	return test_main(suite);
}
