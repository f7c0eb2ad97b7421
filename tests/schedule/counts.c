/* SPDX-License-Identifier: MIT */
/*
 * What the engine is allowed to spend: fdatasyncs for each kind of flush, room
 * in the file, memory, turns.
 *
 * Guards against: a barrier that syncs once more than it has to (DESIGN.md,
 * section 5), requests that each pay for a sync they could share, a file that
 * grows while what is freed waits, a cache of tables without a limit, work that
 * keeps others on its loop waiting, and a barrier that cannot begin because too
 * much waits for it.
 */
#include <errno.h>
#include <stdlib.h>
#include "qcow2/entry.h"
#include "runtime/loop.h"
#include "tests/schedule/world.h"

#define CLUSTER 65536u
#define DISK_BYTES (2ull << 30)

/* What one L2 table maps. */
#define TABLE_SPAN (512ull << 20)

/* The first part of the disk is allocated, and all is stable. */
#define FILLED (64 * CLUSTER)

/* ---- counting ---- */

/* Counts the writes that are stable by themselves, holding none. */
static bool
count_stable(const struct file_sim_op *op, void *arg)
{
	if (op->flags & FILE_DSYNC)
		++*(unsigned *)arg;
	return false;
}

struct count {
	struct file_sim_hold hold;
	unsigned stable_writes;
	uint64_t syncs;
	uint64_t writes;
};

static void
count_begin(struct world *world, struct count *count)
{
	*count = (struct count){
		.hold = {
			.kinds = FILE_SIM_WRITE, .match = count_stable,
			.arg = &count->stable_writes,
		},
		.syncs = file_sim_count(world->disk, FILE_SIM_SYNC),
		.writes = file_sim_count(world->disk, FILE_SIM_WRITE),
	};
	file_sim_hold(world->disk, &count->hold);
}

static void
count_end(struct world *world, struct count *count)
{
	file_sim_release(world->disk, &count->hold);
	count->syncs = file_sim_count(world->disk, FILE_SIM_SYNC) -
	    count->syncs;
	count->writes = file_sim_count(world->disk, FILE_SIM_WRITE) -
	    count->writes;
}

/* fdatasyncs of a flush. */
co_fn static uint64_t
flush_cost(struct world *world)
{
	struct count count;

	count_begin(world, &count);
	world_flush(world);
	loop_sleep(WORLD_PAUSE_NS);
	count_end(world, &count);
	return count.syncs;
}

/* Until nothing is dirty, and nothing is left in quarantine. */
co_fn static void
settle(struct world *world)
{
	for (int i = 0; i < 4; i++) {
		world_flush(world);
		loop_sleep(WORLD_PAUSE_NS);
	}
}

co_fn static void
fill(struct world *world)
{
	for (uint64_t guest = 0; guest < FILLED; guest += CLUSTER)
		world_write(world, guest, CLUSTER, 0x11);
	settle(world);
}

static void
play(uint64_t seed, void (*fn)(struct world *world))
{
	world_play(&(struct world_options){
		.seed = seed, .cluster_bytes = CLUSTER,
		.disk_bytes = DISK_BYTES,
	}, fn);
}

/* ---- a flush alone ---- */

co_fn static void
flush_nothing(struct world *world)
{
	/* What was written by others, before the opening. */
	ck_assert_uint_eq(flush_cost(world), 1);
	ck_assert_uint_eq(flush_cost(world), 0);
	fill(world);
	ck_assert_uint_eq(flush_cost(world), 0);
	world_expect(world, 0, CLUSTER, 0x11);
	ck_assert_uint_eq(flush_cost(world), 0);
}

START_TEST(none_if_nothing_was_written)
{
	play(_i, flush_nothing);
}
END_TEST

co_fn static void
flush_in_place(struct world *world)
{
	fill(world);
	for (unsigned i = 0; i < 4; i++)
		world_write(world, i * 5000, 3000, 0x22);
	ck_assert_uint_eq(flush_cost(world), 1);
	ck_assert_uint_eq(flush_cost(world), 0);
}

START_TEST(one_after_writes_in_place)
{
	play(_i, flush_in_place);
}
END_TEST

/* The reserve: other engines need two. */
co_fn static void
flush_allocating(struct world *world)
{
	fill(world);
	for (uint64_t i = 0; i < 20; i++) {
		world_write(world, FILLED + i * CLUSTER, 4096, 0x22);
		ck_assert_uint_eq(flush_cost(world), 1);
	}
}

START_TEST(one_after_allocating_from_the_reserve)
{
	play(_i, flush_allocating);
}
END_TEST

/* Freed clusters hold other data: the L2 entry must wait for the new. */
co_fn static void
flush_reused(struct world *world)
{
	fill(world);
	world_discard(world, 0, 8 * CLUSTER);
	settle(world);
	world_write(world, FILLED, CLUSTER, 0x22);
	ck_assert_uint_eq(flush_cost(world), 2);
	world_write(world, FILLED + CLUSTER, 4096, 0x22);
	ck_assert_uint_eq(flush_cost(world), 2);
}

START_TEST(two_after_reusing_clusters)
{
	play(_i, flush_reused);
}
END_TEST

/* What a failed barrier has to order, the next one has, too. */
co_fn static void
flush_again(struct world *world)
{
	struct file_sim_fault fault = {
		.kinds = FILE_SIM_WRITE, .nth = 1, .result = -EIO,
		.length = 8,
	};

	fill(world);
	world_discard(world, 0, 8 * CLUSTER);
	settle(world);
	world_write(world, FILLED, CLUSTER, 0x22);
	fault.offset = world_l2_entry(world, FILLED);
	file_sim_fail(world->disk, &fault);
	ck_assert_int_eq(image_flush(world->image), -EIO);
	ck_assert_uint_eq(flush_cost(world), 2);
	world_expect(world, FILLED, CLUSTER, 0x22);
}

START_TEST(two_again_after_a_failed_barrier)
{
	play(_i, flush_again);
}
END_TEST

co_fn static void
flush_new_table(struct world *world)
{
	fill(world);
	world_write(world, TABLE_SPAN, CLUSTER, 0x22);
	ck_assert_uint_eq(flush_cost(world), 2);
}

START_TEST(two_after_a_new_l2_table)
{
	play(_i, flush_new_table);
}
END_TEST

co_fn static void
flush_discard(struct world *world)
{
	fill(world);
	world_discard(world, 0, CLUSTER);
	ck_assert_uint_le(flush_cost(world), 2);
	/* The refcounts of what left the quarantine. */
	ck_assert_uint_le(flush_cost(world), 1);
	ck_assert_uint_eq(flush_cost(world), 0);
	world_zero(world, CLUSTER, CLUSTER, IMAGE_NO_HOLE);
	ck_assert_uint_le(flush_cost(world), 2);
	ck_assert_uint_eq(flush_cost(world), 0);
}

START_TEST(two_at_most_after_discard_and_zero)
{
	play(_i, flush_discard);
}
END_TEST

co_fn static void
write_first(struct world *world)
{
	world_write(world, 0, 2 * CLUSTER, 0x11);
}

co_fn static void
flush_copied(struct world *world)
{
	world_write(world, CLUSTER, 4096, 0x22);
	/* The first also makes the first reserve stable. */
	ck_assert_uint_le(flush_cost(world), 2);
	world_write(world, 2 * CLUSTER, 4096, 0x33);
	ck_assert_uint_eq(flush_cost(world), 2);
	/* The other one is alone now, but its entry does not say so. */
	world_write(world, 0, 4096, 0x33);
	ck_assert_uint_eq(flush_cost(world), 2);
}

START_TEST(two_after_copy_on_write)
{
	struct world_options options = {
		.seed = _i, .cluster_bytes = CLUSTER,
		.disk_bytes = DISK_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, write_first);
	world_share(&world, 0, 2 * CLUSTER);
	world_compress(&world, CLUSTER, 0x44);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, flush_copied);
	world_finish(&world);
}
END_TEST

/*
 * A block of 512-byte clusters is full after 256 of them; the flushes between
 * that make one cost three, and no more.
 */
co_fn static void
flush_new_blocks(struct world *world)
{
	unsigned threes = 0;

	for (unsigned i = 0; i < 24; i++) {
		uint64_t cost;

		world_write(world, i * 32768ull, 32768, 0x11);
		cost = flush_cost(world);
		ck_assert_uint_le(cost, 3);
		threes += cost == 3;
	}
	ck_assert_uint_ge(threes, 4);
	ck_assert_uint_le(threes, 12);
}

START_TEST(three_for_a_new_refcount_block)
{
	world_play(&(struct world_options){
		.seed = _i, .cluster_bytes = 512, .disk_bytes = 1u << 20,
	}, flush_new_blocks);
}
END_TEST

/* ---- FUA ---- */

co_fn static void
fua_in_place(struct world *world)
{
	struct count count;

	fill(world);
	count_begin(world, &count);
	for (unsigned i = 0; i < 5; i++)
		world_do(world, ACTION_WRITE, i * 4096, 4096, 0x22,
		    IMAGE_FUA);
	count_end(world, &count);
	ck_assert_uint_eq(count.syncs, 0);
	ck_assert_uint_eq(count.writes, 5);
	ck_assert_uint_eq(count.stable_writes, 5);
}

START_TEST(fua_in_place_is_one_write)
{
	play(_i, fua_in_place);
}
END_TEST

/*
 * Whoever wrote the tables that are found at the opening may have left them in
 * the cache of the host: a stable write of data would be worth nothing.
 */
co_fn static void
fua_after_opening(struct world *world)
{
	struct count count;

	count_begin(world, &count);
	world_do(world, ACTION_WRITE, 0, 4096, 0x22, IMAGE_FUA);
	count_end(world, &count);
	ck_assert_uint_eq(count.stable_writes, 0);
	ck_assert_uint_eq(count.syncs, 1);
	count_begin(world, &count);
	world_do(world, ACTION_WRITE, 0, 4096, 0x33, IMAGE_FUA);
	count_end(world, &count);
	ck_assert_uint_eq(count.stable_writes, 1);
	ck_assert_uint_eq(count.syncs, 0);
}

START_TEST(fua_first_makes_what_was_found_stable)
{
	struct world_options options = {
		.seed = _i, .cluster_bytes = CLUSTER,
		.disk_bytes = DISK_BYTES,
	};
	struct world world;

	world_prepare(&world, &options, fill);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fua_after_opening);
	world_finish(&world);
}
END_TEST

/* The mapping is not on disk yet: a stable write would be worth nothing. */
co_fn static void
fua_on_new_mapping(struct world *world)
{
	struct count count;

	fill(world);
	world_write(world, FILLED, CLUSTER, 0x22);
	count_begin(world, &count);
	world_do(world, ACTION_WRITE, FILLED, 4096, 0x33, IMAGE_FUA);
	count_end(world, &count);
	ck_assert_uint_eq(count.stable_writes, 0);
	ck_assert_uint_eq(count.syncs, 1);
	count_begin(world, &count);
	world_do(world, ACTION_WRITE, FILLED + CLUSTER, CLUSTER, 0x33,
	    IMAGE_FUA);
	count_end(world, &count);
	ck_assert_uint_eq(count.stable_writes, 0);
	ck_assert_uint_eq(count.syncs, 1);
}

START_TEST(fua_on_a_new_mapping_takes_the_barrier)
{
	play(_i, fua_on_new_mapping);
}
END_TEST

#define AT_ONCE 32

/* Starts requests of one kind on both loops and waits for all of them. */
co_fn static void
all_at_once(struct world *world, enum action action, unsigned flags)
{
	struct request *requests = calloc(AT_ONCE, sizeof(*requests));

	ck_assert_ptr_nonnull(requests);
	for (unsigned i = 0; i < AT_ONCE; i++) {
		requests[i] = request_of(action,
		    action == ACTION_FLUSH ? 0 : i * CLUSTER,
		    action == ACTION_FLUSH ? 0 : 4096, 0x22, flags);
		request_start(world, i % 2, &requests[i]);
	}
	for (unsigned i = 0; i < AT_ONCE; i++)
		request_finish(&requests[i]);
	free(requests);
}

/* One may go alone; those that come while it does share what follows. */
co_fn static void
fua_together(struct world *world)
{
	struct count count;

	fill(world);
	count_begin(world, &count);
	all_at_once(world, ACTION_WRITE, IMAGE_FUA);
	count_end(world, &count);
	ck_assert_uint_le(count.stable_writes + count.syncs, AT_ONCE / 2);
}

START_TEST(fua_at_once_share_barriers)
{
	play(_i, fua_together);
}
END_TEST

/* ---- flushes at once ---- */

co_fn static void
flush_together(struct world *world)
{
	struct count count;

	fill(world);
	all_at_once(world, ACTION_WRITE, 0);
	count_begin(world, &count);
	all_at_once(world, ACTION_FLUSH, 0);
	count_end(world, &count);
	ck_assert_uint_eq(count.syncs, 1);
}

START_TEST(flushes_at_once_share_one_barrier)
{
	play(_i, flush_together);
}
END_TEST

/* Each writes and flushes, again and again, beside the others. */
#define CLIENTS 16
#define ROUNDS 10

struct client {
	struct world *world;
	unsigned number;
	struct co_start start;
	unsigned *left;
	struct co *waiter;
};

co_fn static void
write_and_flush(void *arg)
{
	struct client *client = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		world_write(client->world, client->number * CLUSTER, 4096,
		    0x33);
		world_flush(client->world);
	}
	if (--*client->left == 0)
		co_wake(client->waiter);
}

co_fn static void
flush_in_rounds(struct world *world)
{
	struct client clients[CLIENTS];
	struct count count;
	unsigned left = CLIENTS;

	fill(world);
	count_begin(world, &count);
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = (struct client){
			.world = world, .number = i, .left = &left,
			.waiter = co_self(),
		};
		sim_start(world->sim, i % 2, &clients[i].start,
		    write_and_flush, &clients[i]);
	}
	co_suspend();
	count_end(world, &count);
	ck_assert_uint_lt(count.syncs, CLIENTS * ROUNDS / 2);
}

START_TEST(flushes_under_load_share_barriers)
{
	play(_i, flush_in_rounds);
}
END_TEST

/*
 * More requests wait for a barrier than a loop may have coroutines: the
 * barrier must begin all the same.
 */
#define MANY 200
#define MANY_LOOPS 64

co_fn static void
flush_many(struct world *world)
{
	struct request *requests = calloc(MANY, sizeof(*requests));

	ck_assert_ptr_nonnull(requests);
	for (unsigned i = 0; i < MANY; i++) {
		requests[i] = request_of(ACTION_WRITE, i % 8 * CLUSTER, 4096,
		    0x22, IMAGE_FUA);
		request_start(world, 0, &requests[i]);
	}
	for (unsigned i = 0; i < MANY; i++)
		request_finish(&requests[i]);
	free(requests);
}

START_TEST(more_flushes_than_coroutines)
{
	world_play(&(struct world_options){
		.seed = _i, .loops = MANY_LOOPS, .cluster_bytes = CLUSTER,
	}, flush_many);
}
END_TEST

/* ---- room ---- */

#define HOUR_NS 3600000000000ull
#define HOUR_DISK (8u << 20)
#define HOUR_PIECE (4 * 4096u)

/* Nobody flushes: what is freed must come back by itself. */
co_fn static void
trim_and_write(struct world *world)
{
	uint64_t end_ns = sim_now_ns(world->sim) + HOUR_NS;
	uint64_t step = 0;

	for (; sim_now_ns(world->sim) < end_ns; step++) {
		uint64_t guest = sim_below(world->sim,
		    HOUR_DISK / HOUR_PIECE) * HOUR_PIECE;

		if (step % 2)
			world_discard(world, guest, HOUR_PIECE);
		else
			world_write(world, guest, HOUR_PIECE, 0x11);
		loop_sleep(200000000);
		ck_assert_int_lt(file_size(world->disk), 2 * HOUR_DISK);
	}
	ck_assert_uint_lt(file_sim_allocated_bytes(world->disk),
	    2 * HOUR_DISK);
}

START_TEST(an_hour_without_a_flush)
{
	world_play(&(struct world_options){
		.seed = _i, .cluster_bytes = 4096, .disk_bytes = HOUR_DISK,
	}, trim_and_write);
}
END_TEST

/* The disk is written over as fast as it goes; 5 s never pass. */
co_fn static void
churn(struct world *world)
{
	for (unsigned i = 0; i < 40; i++) {
		world_write(world, 0, HOUR_DISK, (uint8_t)i);
		world_discard(world, 0, HOUR_DISK);
		world_flush(world);
	}
	ck_assert_int_lt(file_size(world->disk), 6 * HOUR_DISK);
}

START_TEST(a_disk_written_and_trimmed_again_and_again)
{
	world_play(&(struct world_options){
		.seed = _i, .cluster_bytes = 4096, .disk_bytes = HOUR_DISK,
	}, churn);
}
END_TEST

/* Trimmed, flushed, left alone: the room goes back to the host. */
co_fn static void
trim_and_leave(struct world *world)
{
	struct request late = request_of(ACTION_READ, 0, CLUSTER, 0x11, 0);
	struct file_sim_hold hold = {.kinds = FILE_SIM_READ};
	uint64_t before;

	fill(world);
	file_sim_hold(world->disk, &hold);
	request_start(world, 1, &late);
	file_sim_await(&hold, 1);
	before = file_sim_allocated_bytes(world->disk);
	world_discard(world, 0, FILLED);
	world_flush(world);
	file_sim_release(world->disk, &hold);
	request_finish(&late);
	loop_sleep(30000000000ull);
	ck_assert_uint_lt(file_sim_allocated_bytes(world->disk),
	    before - FILLED / 2);
}

START_TEST(trimmed_room_goes_back_without_more_requests)
{
	play(_i, trim_and_leave);
}
END_TEST

/* ---- turns ---- */

#define LONG_CLUSTERS 4096u
#define LONG_BYTES (LONG_CLUSTERS * 512u)

/* How often others had a turn before a request of much work was done. */
co_fn static unsigned
turns_of_others(struct world *world, enum action action, unsigned flags)
{
	struct request request = request_of(action, 0, LONG_BYTES, 0, flags);
	unsigned turns = 0;

	request_start(world, 0, &request);
	while (!request.done) {
		co_yield();
		turns++;
	}
	request_finish(&request);
	return turns;
}

/* All tables are in memory, so there is nothing to wait for. */
co_fn static void
trim_and_zero_much(struct world *world)
{
	unsigned turns_min = LONG_CLUSTERS / 512;

	world_write(world, 0, LONG_BYTES, 0x11);
	ck_assert_uint_ge(turns_of_others(world, ACTION_ZERO, IMAGE_NO_HOLE),
	    turns_min);
	ck_assert_uint_ge(turns_of_others(world, ACTION_DISCARD, 0),
	    turns_min);
	settle(world);
}

START_TEST(long_trims_let_others_have_turns)
{
	world_play(&(struct world_options){
		.seed = _i, .loops = 1, .cluster_bytes = 512,
		.disk_bytes = LONG_BYTES,
	}, trim_and_zero_much);
}
END_TEST

/* ---- memory ---- */

/* Looks at one cluster of every slice; how many reads of tables that took. */
co_fn static uint64_t
visit_slices(struct world *world, uint64_t from, uint64_t to)
{
	uint64_t reads = file_sim_count(world->disk, FILE_SIM_READ);

	for (uint64_t guest = from; guest < to; guest += 512 * 4096)
		world_host(world, guest);
	return file_sim_count(world->disk, FILE_SIM_READ) - reads;
}

#define SLICES 512
#define CACHED 128
#define SLICE_SPAN (512ull * 4096)

co_fn static void
map_all(struct world *world)
{
	for (uint64_t i = 0; i < SLICES; i++)
		world_write(world, i * SLICE_SPAN, 4096, 0x11);
}

/*
 * From outside, a cache that keeps everything is one that never reads a table
 * twice.
 */
co_fn static void
wander(struct world *world)
{
	for (uint64_t i = 0; i < CACHED / 8; i++)
		world_write(world, i * SLICE_SPAN + 4096, 4096, 0x22);
	visit_slices(world, 0, SLICES * SLICE_SPAN);
	ck_assert_uint_ge(visit_slices(world, 0, SLICES * SLICE_SPAN),
	    SLICES - 2 * CACHED);
	/* And what fits is kept. */
	visit_slices(world, 0, CACHED / 2 * SLICE_SPAN);
	ck_assert_uint_eq(visit_slices(world, 0, CACHED / 2 * SLICE_SPAN), 0);
}

static void
play_cache(uint64_t seed, void (*fn)(struct world *world))
{
	struct world_options options = {
		.seed = seed, .disk_bytes = SLICES * SLICE_SPAN,
		.cache_bytes = CACHED * 4096,
	};
	struct world world;

	world_prepare(&world, &options, map_all);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fn);
	world_finish(&world);
}

START_TEST(cache_is_bounded)
{
	play_cache(_i, wander);
}
END_TEST

/* Dirty slices cannot go, and must not keep the others from going. */
co_fn static void
wander_behind_dirty(struct world *world)
{
	for (uint64_t i = 0; i < 18; i++)
		world_write(world, i * SLICE_SPAN + 4096, 4096, 0x22);
	visit_slices(world, 0, SLICES * SLICE_SPAN);
	for (uint64_t i = 0; i < 18; i++)
		world_write(world, i * SLICE_SPAN + 8192, 4096, 0x22);
	visit_slices(world, 0, SLICES * SLICE_SPAN);
	ck_assert_uint_ge(visit_slices(world, 0, SLICES * SLICE_SPAN),
	    SLICES - 2 * CACHED);
}

START_TEST(cache_is_bounded_behind_dirty_slices)
{
	play_cache(_i, wander_behind_dirty);
}
END_TEST

/* ---- all of them ---- */

#define SEEDS 6

int
main(void)
{
	Suite *suite = suite_create("counts");
	TCase *tests = tcase_create("counts");
	const TTest *const counts[] = {
		none_if_nothing_was_written,
		one_after_writes_in_place,
		one_after_allocating_from_the_reserve,
		two_after_reusing_clusters,
		two_again_after_a_failed_barrier,
		two_after_a_new_l2_table,
		two_at_most_after_discard_and_zero,
		two_after_copy_on_write,
		three_for_a_new_refcount_block,
		fua_in_place_is_one_write,
		fua_first_makes_what_was_found_stable,
		fua_on_a_new_mapping_takes_the_barrier,
		fua_at_once_share_barriers,
		flushes_at_once_share_one_barrier,
		flushes_under_load_share_barriers,
		trimmed_room_goes_back_without_more_requests,
		long_trims_let_others_have_turns,
		cache_is_bounded,
		cache_is_bounded_behind_dirty_slices,
	};

	tcase_set_timeout(tests, 120);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		tcase_add_loop_test(tests, counts[i], 0, SEEDS);
	tcase_add_loop_test(tests, more_flushes_than_coroutines, 0, 2);
	tcase_add_loop_test(tests, an_hour_without_a_flush, 0, 2);
	tcase_add_loop_test(tests,
	    a_disk_written_and_trimmed_again_and_again, 0, 2);
	suite_add_tcase(suite, tests);
	return world_main(suite);
}
