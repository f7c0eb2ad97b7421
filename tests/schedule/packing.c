/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters as they are packed into host clusters, step by step.
 *
 * Guards against: streams that overlap or lie further apart than they must,
 * wrong counts of sectors, refcounts that do not count the streams, COPIED on
 * a compressed cluster, a refcount beyond its highest value; a cluster that is
 * freed, punched and reused while streams are still packed into it; references
 * lost by a write that failed; leaks after closing; a compressed write over
 * what is there already; a cluster that does not shrink, or is the disk's last
 * and cut short.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qcow2/compress.h"
#include "qcow2/entry.h"
#include "tests/schedule/races.h"

/* How long the stream of a cluster of value is. */
static size_t
stream_bytes(const struct world *world, uint8_t value)
{
	size_t cluster_bytes = world->options.cluster_bytes, bytes;
	uint8_t *plain = malloc(cluster_bytes), *stream =
	    malloc(cluster_bytes);

	ck_assert(plain && stream);
	memset(plain, value, cluster_bytes);
	ck_assert_int_eq(compress_cluster(world->options.compression, plain,
	    cluster_bytes, stream, &bytes), 0);
	free(plain);
	free(stream);
	return bytes;
}

/*
 * The entries of the first guest clusters, whose values are from 0x10 on, must
 * be compressed ones, each right behind the one before.
 */
static void
expect_packed(struct world *world, unsigned count)
{
	uint64_t cluster_bytes = world->options.cluster_bytes;
	unsigned bits = (unsigned)__builtin_ctzll(cluster_bytes);
	uint64_t end = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t entry = world_peek64(world, world_l2_entry(world,
		    i * cluster_bytes));
		struct entry_span span = entry_compressed(entry, bits);

		ck_assert_int_eq(entry_kind(entry), CLUSTER_COMPRESSED);
		ck_assert(!entry_copied(entry));
		if (end)
			ck_assert_uint_eq(span.host, end);
		end = span.host + stream_bytes(world, (uint8_t)(0x10 + i));
		/* To the end of its last sector. */
		ck_assert_uint_eq(span.host + span.bytes,
		    (end + 511) & ~511ull);
	}
}

static unsigned
refcount_of(struct world *world, uint64_t guest)
{
	uint64_t entry = world_peek64(world, world_l2_entry(world, guest));
	uint16_t count;

	file_sim_peek(world->disk, &count, sizeof(count),
	    world_refcount(world, entry_compressed(entry, 12).host));
	return be16toh(count);
}

/* ---- where streams go ---- */

co_fn static void
write_eight(struct world *world)
{
	for (uint8_t i = 0; i < 8; i++)
		world_write_compressed(world, i *
		    world->options.cluster_bytes, 0x10 + i);
	for (uint8_t i = 0; i < 8; i++)
		world_expect(world, i * world->options.cluster_bytes,
		    world->options.cluster_bytes, 0x10 + i);
}

static void
try_packed(enum compression compression, uint64_t cluster_bytes)
{
	struct world_options options = {
		.cluster_bytes = cluster_bytes, .compression = compression,
	};
	struct world world;

	world_create(&world, &options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, write_eight);
	ck_assert_int_eq(world_close(&world), 0);
	expect_packed(&world, 8);
	if (cluster_bytes == CLUSTER)
		ck_assert_uint_eq(refcount_of(&world, 0), 8);
	world_assert_clean(&world);
	world_free(&world);
}

START_TEST(streams_are_packed)
{
	try_packed(COMPRESSION_DEFLATE, 4096);
	try_packed(COMPRESSION_DEFLATE, 65536);
	try_packed(COMPRESSION_ZSTD, 4096);
	try_packed(COMPRESSION_ZSTD, 65536);
}
END_TEST

/* Refcounts of so many bits: clusters fill up with that many streams. */
START_TEST(refcounts_end_at_their_highest)
{
	struct world_options options = {.refcount_bits = 1u << _i};
	struct world world;

	world_create(&world, &options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, write_eight);
	world_finish(&world);
}
END_TEST

/* Bytes that no codec shrinks. */
static void
fill_random(uint8_t *data, size_t length)
{
	uint64_t state = 1;

	for (size_t i = 0; i < length; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		data[i] = (uint8_t)(state >> 56);
	}
}

/* Of 12 clusters of which each shrinks to about a third or two thirds. */
co_fn static void
write_mixed(struct world *world)
{
	uint8_t data[12][CLUSTER], back[CLUSTER];

	for (unsigned i = 0; i < 12; i++) {
		memset(data[i], (int)i + 1, CLUSTER);
		fill_random(data[i], CLUSTER / 3 * (1 + i % 2));
		ck_assert_int_eq(image_write_compressed(world->image,
		    i * CLUSTER, data[i], CLUSTER), 0);
	}
	for (unsigned i = 0; i < 12; i++) {
		ck_assert_int_eq(image_read(world->image, i * CLUSTER, back,
		    CLUSTER, NULL), 0);
		ck_assert(!memcmp(back, data[i], CLUSTER));
	}
}

/* Streams go on from one cluster into the next: no room is lost. */
START_TEST(streams_cross_into_the_next_cluster)
{
	struct world world;
	uint64_t first, last;

	world_create(&world, &(struct world_options){.seed = _i});
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, write_mixed);
	ck_assert_int_eq(world_close(&world), 0);
	first = entry_compressed(world_peek64(&world, world_l2_entry(&world,
	    0)), 12).host;
	last = entry_compressed(world_peek64(&world, world_l2_entry(&world,
	    11 * CLUSTER)), 12).host;
	ck_assert_uint_ge(last - first, 11 * CLUSTER / 3);
	ck_assert_uint_le(last - first, 6 * CLUSTER + 200);
	world_assert_clean(&world);
	world_free(&world);
}
END_TEST

/* ---- what is not compressed ---- */

co_fn static void
write_odd_ones(struct world *world)
{
	uint64_t size = image_size_bytes(world->image);
	uint8_t noise[CLUSTER], back[CLUSTER];
	struct image_extent extent;
	unsigned count;

	fill_random(noise, CLUSTER);
	ck_assert_int_eq(image_write_compressed(world->image, A, noise,
	    CLUSTER), 0);
	ck_assert_uint_ne(world_host(world, A), 0);
	ck_assert_int_eq(image_read(world->image, A, back, CLUSTER, NULL), 0);
	ck_assert(!memcmp(back, noise, CLUSTER));
	/* In place from now on. */
	world_write(world, A, CLUSTER, 0x22);

	world_do(world, ACTION_COMPRESS, size - 512, 512, 0x33, 0);
	world_expect(world, size - 512, 512, 0x33);
	ck_assert_int_eq(image_status(world->image, size - 512, 512, &extent,
	    1, &count), 0);
	ck_assert(extent.compressed && extent.allocated);
}

/* Half a cluster, not at the end; and beyond the end. */
co_fn static void
compress_parts(struct world *world)
{
	struct request request = request_of(ACTION_COMPRESS, A, HALF, 0x11, 0);

	request_start(world, 0, &request);
	ck_assert_int_eq(request_wait(&request), -EINVAL);
	request.guest = 256 * CLUSTER;
	request.length = CLUSTER;
	request_start(world, 1, &request);
	ck_assert_int_eq(request_wait(&request), -EINVAL);
	world_expect(world, A, CLUSTER, 0);
}

START_TEST(parts_of_clusters_are_refused)
{
	world_play(&(struct world_options){.seed = _i}, compress_parts);
}
END_TEST

co_fn static void
compress_encrypted(struct world *world)
{
	struct request request = request_of(ACTION_COMPRESS, A, CLUSTER, 0x11,
	    0);

	request_start(world, 0, &request);
	ck_assert_int_eq(request_wait(&request), -ENOTSUP);
	world_expect(world, A, CLUSTER, 0);
}

START_TEST(encrypted_images_are_not_compressed)
{
	struct world_options options = {.seed = _i, .encrypted = true};

	world_play(&options, compress_encrypted);
}
END_TEST

START_TEST(noise_is_written_as_it_is_and_the_last_cluster_padded)
{
	struct world_options options = {
		.seed = _i, .disk_bytes = 16 * CLUSTER + 512,
	};

	world_play(&options, write_odd_ones);
}
END_TEST

co_fn static void
compress_over(struct world *world)
{
	struct request over = request_of(ACTION_COMPRESS, A, CLUSTER, 0x22, 0);

	world_write(world, A, CLUSTER, 0x11);
	request_start(world, 0, &over);
	ck_assert_int_eq(request_wait(&over), -EIO);
	world_expect(world, A, CLUSTER, 0x11);
	world_write_compressed(world, B, 0x33);
	over.guest = B;
	request_start(world, 1, &over);
	ck_assert_int_eq(request_wait(&over), -EIO);
	world_expect(world, B, CLUSTER, 0x33);
	/* Zeros without room, and what was given back, are free again. */
	world_discard(world, A, CLUSTER);
	world_write_compressed(world, A, 0x44);
	world_expect(world, A, CLUSTER, 0x44);
}

START_TEST(what_is_there_is_not_written_over)
{
	world_play(&(struct world_options){.seed = _i}, compress_over);
}
END_TEST

/* ---- a cluster that loses its streams while it gets more ---- */

/*
 * The stream of A is overwritten and its loss stable, so nothing points to its
 * cluster.  It is punched and given to D only if the packer does not hold it,
 * and then the stream of C would land on D's data.
 */
co_fn static void
free_under_the_packer(struct world *world)
{
	world_write_compressed(world, A, 0x11);
	world_flush(world);
	world_discard(world, A, CLUSTER);
	flush_all(world);
	for (uint64_t i = 0; i < 4; i++)
		world_write(world, D + i * CLUSTER, CLUSTER, 0x44);
	world_write_compressed(world, C, 0x33);
	flush_all(world);
	for (uint64_t i = 0; i < 4; i++)
		world_expect(world, D + i * CLUSTER, CLUSTER, 0x44);
	world_expect(world, C, CLUSTER, 0x33);
	world_expect(world, A, CLUSTER, 0);
}

START_TEST(a_held_cluster_is_not_reused)
{
	world_play(&(struct world_options){.seed = _i}, free_under_the_packer);
}
END_TEST

/* The stream is on its way when all others in its cluster are freed. */
co_fn static void
free_beside_a_stream(struct world *world)
{
	struct request late = request_of(ACTION_COMPRESS, B, CLUSTER, 0x22, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE, .limit = 1};

	world_write_compressed(world, A, 0x11);
	flush_all(world);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &late);
	file_sim_await(&hold, 1);
	world_discard(world, A, CLUSTER);
	flush_all(world);
	world_write_compressed(world, C, 0x33);
	world_write(world, D, 16 * CLUSTER, 0x44);
	file_sim_release(world->disk, &hold);
	request_finish(&late);
	world_expect(world, A, CLUSTER, 0);
	world_expect(world, B, CLUSTER, 0x22);
	world_expect(world, C, CLUSTER, 0x33);
	world_expect(world, D, 16 * CLUSTER, 0x44);
}

START_TEST(a_stream_under_way_keeps_its_cluster)
{
	world_play(&(struct world_options){.seed = _i}, free_beside_a_stream);
}
END_TEST

/* Nobody sees the entry before the stream stands. */
co_fn static void
read_beside_a_stream(struct world *world)
{
	struct request late = request_of(ACTION_COMPRESS, A, CLUSTER, 0x22, 0);
	struct request second = request_of(ACTION_COMPRESS, A, CLUSTER, 0x33,
	    0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_WRITE, .limit = 1};

	world_write(world, B, CLUSTER, 0x11);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &late);
	file_sim_await(&hold, 1);
	request_start(world, 0, &second);
	world_expect(world, A, CLUSTER, 0);
	file_sim_release(world->disk, &hold);
	request_finish(&late);
	ck_assert_int_eq(request_wait(&second), -EIO);
	world_expect(world, A, CLUSTER, 0x22);
}

START_TEST(readers_and_writers_of_a_cluster_being_compressed)
{
	world_play(&(struct world_options){.seed = _i}, read_beside_a_stream);
}
END_TEST

/* ---- failures ---- */

/* The references of a stream that could not be written are given back. */
co_fn static void
fail_a_stream(struct world *world)
{
	struct request request = request_of(ACTION_COMPRESS, B, CLUSTER, 0x22,
	    0);
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_WRITE, .nth = 1, .result = -EIO,
	};

	world_write_compressed(world, A, 0x11);
	flush_all(world);
	file_sim_fail(world->disk, &fault);
	request_start(world, 0, &request);
	ck_assert_int_eq(request_wait(&request), -EIO);
	file_sim_heal(world->disk);
	world_expect(world, B, CLUSTER, 0);
	world_write_compressed(world, C, 0x33);
	world_expect(world, A, CLUSTER, 0x11);
	world_expect(world, C, CLUSTER, 0x33);
}

START_TEST(a_stream_that_fails_leaves_nothing)
{
	world_play(&(struct world_options){.seed = _i}, fail_a_stream);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("packing");
	TCase *tests = tcase_create("packing");
	const TTest *const seeded[] = {
		streams_cross_into_the_next_cluster,
		noise_is_written_as_it_is_and_the_last_cluster_padded,
		parts_of_clusters_are_refused,
		encrypted_images_are_not_compressed,
		what_is_there_is_not_written_over,
		a_held_cluster_is_not_reused,
		a_stream_under_way_keeps_its_cluster,
		readers_and_writers_of_a_cluster_being_compressed,
		a_stream_that_fails_leaves_nothing,
	};

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, streams_are_packed);
	tcase_add_loop_test(tests, refcounts_end_at_their_highest, 0, 7);
	for (size_t i = 0; i < sizeof(seeded) / sizeof(seeded[0]); i++)
		tcase_add_loop_test(tests, seeded[i], 0, RACE_SEEDS);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
