/* SPDX-License-Identifier: MIT */
/*
 * Simulated files.  Guards against: content that differs from what a plain
 * array would hold, faults that strike another operation than they were set
 * for, trouble that never comes (a seed that tries no other order), clones
 * that share what they should not, and a sparse file that costs its size.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runtime/file_sim.h"
#include "runtime/random.h"
#include "tests/unit/test_runtime.h"

#define TIB (UINT64_C(1) << 40)

/* ---- running in a world ---- */

struct world {
	struct sim *sim;
	struct file *file;
	struct co_start starts[4];
	void *arg;
	int result;
	int results[4];
	uint8_t data[4][8192];
};

/* Runs up to three coroutines on two loops; the file is closed by the test. */
static enum sim_end
world_run(struct world *world, void (*one)(void *arg), void (*two)(void *arg),
    void (*three)(void *arg))
{
	void (*fns[3])(void *arg) = {one, two, three};

	for (unsigned i = 0; i < 3; i++) {
		if (fns[i])
			sim_start(world->sim, i % 2, &world->starts[i], fns[i],
			    world);
	}
	return sim_run(world->sim);
}

static void
world_open(struct world *world, uint64_t seed, uint64_t size)
{
	memset(world, 0, sizeof(*world));
	ck_assert_int_eq(sim_create(seed, 2, &world->sim), 0);
	ck_assert_int_eq(file_sim_create(world->sim, "disk", size,
	    &world->file), 0);
}

static void
world_close(struct world *world)
{
	file_close(world->file);
	sim_free(world->sim);
}

/* ---- against a plain array ---- */

#define MODEL_BYTES 300000

struct model {
	struct random random;
	uint64_t size;
	uint8_t bytes[MODEL_BYTES];
	uint8_t scratch[MODEL_BYTES];
};

static void
model_set(struct model *model, uint64_t offset, uint64_t length,
    const uint8_t *data)
{
	if (data)
		memcpy(model->bytes + offset, data, length);
	else
		memset(model->bytes + offset, 0, length);
}

static void
model_grow(struct model *model, uint64_t end)
{
	if (end > model->size)
		model->size = end;
}

co_fn static void
model_write(struct model *model, struct file *file, uint64_t offset,
    uint64_t length)
{
	struct iovec iov[2];
	size_t cut = random_below(&model->random, length + 1);

	for (uint64_t i = 0; i < length; i++)
		model->scratch[i] = (uint8_t)random_next(&model->random);
	model_set(model, offset, length, model->scratch);
	model_grow(model, length ? offset + length : 0);
	iov[0] = (struct iovec){model->scratch, cut};
	iov[1] = (struct iovec){model->scratch + cut, length - cut};
	ck_assert_int_eq(file_pwritev(file, iov, 2, offset, 0), 0);
}

co_fn static void
model_read(struct model *model, struct file *file, uint64_t offset,
    uint64_t length)
{
	memset(model->scratch, 0xee, length);
	ck_assert_int_eq(file_pread(file, model->scratch, length, offset), 0);
	ck_assert_int_eq(memcmp(model->scratch, model->bytes + offset, length),
	    0);
}

co_fn static void
model_step(struct model *model, struct file *file)
{
	uint64_t offset = random_below(&model->random, MODEL_BYTES);
	uint64_t length = random_below(&model->random, MODEL_BYTES - offset);
	enum file_fallocate mode = FILE_PUNCH;

	if (random_one_in(&model->random, 2))
		length %= 5000;
	length++;
	switch (random_below(&model->random, 8)) {
	case 0:
	case 1:
	case 2:
		model_write(model, file, offset, length);
		return;
	case 3:
		length = random_below(&model->random, MODEL_BYTES);
		ck_assert_int_eq(file_truncate(file, length), 0);
		memset(model->bytes + length, 0, MODEL_BYTES - length);
		model->size = length;
		return;
	case 4:
		break;
	case 5:
		mode = FILE_ZERO;
		break;
	case 6:
		mode = FILE_ALLOCATE;
		break;
	default:
		model_read(model, file, offset, length);
		return;
	}
	ck_assert_int_eq(file_fallocate(file, mode, offset, length), 0);
	if (mode != FILE_ALLOCATE)
		model_set(model, offset, length, NULL);
	if (mode != FILE_PUNCH)
		model_grow(model, offset + length);
}

/* Not one check a byte: each costs a message to the parent process. */
static bool
is_all(const uint8_t *data, size_t length, uint8_t value)
{
	for (size_t i = 0; i < length; i++) {
		if (data[i] != value)
			return false;
	}
	return true;
}

/* At any offset it is data or hole, and where it says hole all is zero. */
static void
check_seek(struct model *model, struct file *file)
{
	uint64_t at = random_below(&model->random, MODEL_BYTES);
	int64_t data = file_seek_data(file, at);
	int64_t hole = file_seek_hole(file, at);

	if (at >= model->size) {
		ck_assert_int_eq(data, -ENXIO);
		ck_assert_int_eq(hole, -ENXIO);
		return;
	}
	ck_assert(data == (int64_t)at || hole == (int64_t)at);
	if (data < 0)
		data = (int64_t)model->size;
	ck_assert(is_all(model->bytes + at, (size_t)data - at, 0));
}

co_fn static void
model_run(struct model *model, struct file *file, uint64_t seed)
{
	random_seed(&model->random, seed);
	for (unsigned i = 0; i < 200; i++) {
		model_step(model, file);
		ck_assert_int_eq(file_size(file), (int64_t)model->size);
		check_seek(model, file);
	}
	file_sim_peek(file, model->scratch, MODEL_BYTES, 0);
	ck_assert_int_eq(memcmp(model->scratch, model->bytes, MODEL_BYTES), 0);
}

START_TEST(test_plain_mode_is_an_array)
{
	file_sim_plain();
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct model *model = calloc(1, sizeof(*model));
		struct file *file;

		ck_assert_int_eq(file_sim_create(NULL, "plain", 0, &file), 0);
		file_sim_set_chances(file, seed % 2 ? 2 : 0,
		    seed % 2 ? 3 : 0);
		model_run(model, file, seed);
		file_close(file);
		free(model);
	}
}
END_TEST

co_fn static void
model_in_world(void *arg)
{
	struct world *world = arg;

	model_run(world->arg, world->file, 7);
}

START_TEST(test_world_is_an_array)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct world world;

		world_open(&world, seed, 0);
		world.arg = calloc(1, sizeof(struct model));
		file_sim_set_chances(world.file, 2, 3);
		ck_assert_int_eq(world_run(&world, model_in_world, NULL, NULL),
		    SIM_DONE);
		free(world.arg);
		world_close(&world);
	}
}
END_TEST

/* ---- orders ---- */

co_fn static void
write_ones(void *arg)
{
	struct world *world = arg;

	memset(world->data[1], 1, 4096);
	world->results[1] = file_pwrite(world->file, world->data[1], 4096, 0,
	    0);
}

co_fn static void
write_twos(void *arg)
{
	struct world *world = arg;

	memset(world->data[2], 2, 4096);
	world->results[2] = file_pwrite(world->file, world->data[2], 4096, 0,
	    0);
}

co_fn static void
read_page(void *arg)
{
	struct world *world = arg;

	world->results[0] = file_pread(world->file, world->data[0], 4096, 0);
}

/* Each sector is of one kind; how many kinds there are. */
static unsigned
kinds_of(const uint8_t *data)
{
	bool found[3] = {false};

	for (unsigned sector = 0; sector < 8; sector++) {
		uint8_t kind = data[sector * 512];

		ck_assert_uint_le(kind, 2);
		found[kind] = true;
		ck_assert(is_all(data + sector * 512, 512, kind));
	}
	return (unsigned)found[0] + found[1] + found[2];
}

START_TEST(test_concurrent_operations_take_any_order)
{
	unsigned ones = 0, twos = 0, mixed = 0;
	unsigned read_old = 0, read_new = 0, read_mixed = 0;

	for (uint64_t seed = 0; seed < 300; seed++) {
		struct world world;
		uint8_t after[4096];

		world_open(&world, seed, 4096);
		ck_assert_int_eq(world_run(&world, write_ones, write_twos,
		    read_page), SIM_DONE);
		ck_assert_int_eq(world.results[0], 0);
		file_sim_peek(world.file, after, sizeof(after), 0);
		mixed += kinds_of(after) > 1;
		ones += kinds_of(after) == 1 && after[0] == 1;
		twos += kinds_of(after) == 1 && after[0] == 2;
		read_mixed += kinds_of(world.data[0]) > 1;
		read_old += kinds_of(world.data[0]) == 1 &&
		    world.data[0][0] == 0;
		read_new += kinds_of(world.data[0]) == 1 &&
		    world.data[0][0] != 0;
		world_close(&world);
	}
	ck_assert_uint_gt(ones, 30);
	ck_assert_uint_gt(twos, 30);
	ck_assert_uint_gt(mixed, 3);
	ck_assert_uint_gt(read_old, 30);
	ck_assert_uint_gt(read_new, 30);
	ck_assert_uint_gt(read_mixed, 3);
}
END_TEST

/* Long before it completes, even as early as it is submitted. */
START_TEST(test_effect_may_come_at_once)
{
	unsigned at_once = 0;

	for (uint64_t seed = 0; seed < 100; seed++) {
		struct world world;
		uint8_t byte;

		world_open(&world, seed, 4096);
		world.results[1] = 1;
		sim_start(world.sim, 0, &world.starts[0], write_ones, &world);
		ck_assert_int_eq(sim_run_until(world.sim,
		    sim_now_ns(world.sim) + 500), SIM_TIME);
		file_sim_peek(world.file, &byte, 1, 0);
		at_once += byte;
		ck_assert_int_eq(world.results[1], 1);
		ck_assert_int_eq(sim_run(world.sim), SIM_DONE);
		ck_assert_int_eq(world.results[1], 0);
		world_close(&world);
	}
	ck_assert_uint_gt(at_once, 10);
	ck_assert_uint_lt(at_once, 60);
}
END_TEST

/* ---- faults ---- */

co_fn static int
write_byte(struct file *file, uint64_t offset)
{
	return file_pwrite(file, "x", 1, offset, 0);
}

START_TEST(test_nth_fails_once)
{
	struct file *file;

	file_sim_plain();
	ck_assert_int_eq(file_sim_create(NULL, "f", 0, &file), 0);
	file_sim_fail(file, &(struct file_sim_fault){
		.kinds = FILE_SIM_WRITE, .nth = 3, .result = -EIO,
	});
	ck_assert_int_eq(write_byte(file, 0), 0);
	ck_assert_int_eq(file_fdatasync(file), 0);
	ck_assert_int_eq(write_byte(file, 0), 0);
	ck_assert_int_eq(write_byte(file, 0), -EIO);
	ck_assert_int_eq(write_byte(file, 0), 0);
	ck_assert_uint_eq(file_sim_failed(file), 1);
	ck_assert_uint_eq(file_sim_count(file, FILE_SIM_WRITE), 4);
	ck_assert_uint_eq(file_sim_count(file, FILE_SIM_ANY), 5);
	file_close(file);
}
END_TEST

START_TEST(test_fails_from_then_on_until_healed)
{
	struct file *file;

	file_sim_plain();
	ck_assert_int_eq(file_sim_create(NULL, "f", 0, &file), 0);
	file_sim_fail(file, &(struct file_sim_fault){
		.kinds = FILE_SIM_SYNC, .nth = 2, .from_then_on = true,
		.result = -EIO,
	});
	ck_assert_int_eq(file_fdatasync(file), 0);
	ck_assert_int_eq(file_fdatasync(file), -EIO);
	ck_assert_int_eq(file_fdatasync(file), -EIO);
	file_sim_heal(file);
	ck_assert_int_eq(file_fdatasync(file), 0);
	file_close(file);
}
END_TEST

START_TEST(test_fault_in_a_range)
{
	struct file *file;
	char data[100];

	file_sim_plain();
	ck_assert_int_eq(file_sim_create(NULL, "f", 8192, &file), 0);
	file_sim_fail(file, &(struct file_sim_fault){
		.kinds = FILE_SIM_ANY, .offset = 4096, .length = 10, .nth = 1,
		.from_then_on = true, .result = -EIO,
	});
	ck_assert_int_eq(file_pread(file, data, 100, 3996), 0);
	ck_assert_int_eq(file_pread(file, data, 100, 3997), -EIO);
	ck_assert_int_eq(file_pread(file, data, 100, 4105), -EIO);
	ck_assert_int_eq(file_pread(file, data, 100, 4106), 0);
	ck_assert_int_eq(file_truncate(file, 4106), 0);
	ck_assert_int_eq(file_truncate(file, 4096), -EIO);
	ck_assert_int_eq(file_fdatasync(file), 0);
	file_close(file);
}
END_TEST

/* Short results at every count of bytes are finished by the wrapper. */
START_TEST(test_short_at_every_byte)
{
	char data[64], back[64];

	file_sim_plain();
	test_fill(data, sizeof(data), 1);
	for (int bytes = 1; bytes < 64; bytes++) {
		struct file *file;

		ck_assert_int_eq(file_sim_create(NULL, "f", 0, &file), 0);
		file_sim_fail(file, &(struct file_sim_fault){
			.kinds = FILE_SIM_WRITE | FILE_SIM_READ, .nth = 1,
			.result = bytes,
		});
		ck_assert_int_eq(file_pwrite(file, data, 64, 5, 0), 0);
		ck_assert_uint_eq(file_sim_count(file, FILE_SIM_WRITE), 2);
		ck_assert_int_eq(file_pread(file, back, 64, 5), 0);
		test_verify(back, 64, 1);
		file_close(file);
	}
}
END_TEST

/* Nobody may count on a failed write: none, some or all of it may stand. */
START_TEST(test_failed_write_may_stand)
{
	unsigned none = 0, some = 0, all = 0;
	struct file *file;
	uint8_t ones[1000], back[1000];

	file_sim_plain();
	memset(ones, 1, sizeof(ones));
	ck_assert_int_eq(file_sim_create(NULL, "f", 0, &file), 0);
	file_sim_fail(file, &(struct file_sim_fault){
		.kinds = FILE_SIM_WRITE, .nth = 1, .from_then_on = true,
		.result = -EIO,
	});
	for (unsigned i = 0; i < 100; i++) {
		unsigned count = 0;

		ck_assert_int_eq(file_truncate(file, 0), 0);
		ck_assert_int_eq(file_pwrite(file, ones, 1000, 0, 0), -EIO);
		file_sim_peek(file, back, sizeof(back), 0);
		for (unsigned j = 0; j < sizeof(back); j++)
			count += back[j];
		none += count == 0;
		all += count == 1000;
		some += count > 0 && count < 1000;
	}
	ck_assert_uint_gt(none, 10);
	ck_assert_uint_gt(some, 5);
	ck_assert_uint_gt(all, 5);
	file_close(file);
}
END_TEST

START_TEST(test_no_space_and_space_again)
{
	struct file *file;
	char data[16384];

	file_sim_plain();
	memset(data, 1, sizeof(data));
	ck_assert_int_eq(file_sim_create(NULL, "f", 0, &file), 0);
	file_sim_set_budget(file, 3 * 4096);
	ck_assert_int_eq(file_pwrite(file, data, 16384, 100, 0), -ENOSPC);
	ck_assert_int_le(file_size(file), 3 * 4096);
	ck_assert_int_eq(file_truncate(file, 0), 0);
	ck_assert_int_eq(file_pwrite(file, data, 3 * 4096, 4096, 0), 0);
	ck_assert_int_eq(file_pwrite(file, data, 4096, 0, 0), -ENOSPC);
	/* What has its room may be written. */
	ck_assert_int_eq(file_pwrite(file, data, 4096, 8192, 0), 0);
	ck_assert_int_eq(file_fallocate(file, FILE_ALLOCATE, 0, 4096),
	    -ENOSPC);
	ck_assert_int_eq(file_fallocate(file, FILE_PUNCH, 4096, 4096), 0);
	ck_assert_int_eq(file_fallocate(file, FILE_ALLOCATE, 0, 4096), 0);
	ck_assert_uint_eq(file_sim_allocated_bytes(file), 3 * 4096);
	file_sim_set_budget(file, UINT64_MAX);
	ck_assert_int_eq(file_pwrite(file, data, 16384, 100, 0), 0);
	file_close(file);
}
END_TEST

START_TEST(test_alignment)
{
	_Alignas(512) char data[1024];
	struct file *file;

	file_sim_plain();
	memset(data, 1, sizeof(data));
	ck_assert_int_eq(file_sim_create(NULL, "f", 4096, &file), 0);
	file_sim_set_alignment(file, 512);
	ck_assert_uint_eq(file->request_alignment, 512);
	ck_assert_int_eq(file_pread(file, data, 512, 512), 0);
	ck_assert_int_eq(file_pread(file, data, 512, 513), -EINVAL);
	ck_assert_int_eq(file_pread(file, data, 511, 512), -EINVAL);
	ck_assert_int_eq(file_pwrite(file, data + 1, 512, 512, 0), -EINVAL);
	file_close(file);
}
END_TEST

/* ---- holding ---- */

co_fn static void
race_with_a_held_write(void *arg)
{
	struct world *world = arg;
	struct file_sim_hold *hold = world->arg;
	uint8_t byte;

	file_sim_await(hold, 1);
	loop_sleep(1000000000);
	ck_assert_int_eq(file_pread(world->file, &byte, 1, 0), 0);
	ck_assert_uint_eq(byte, hold->after_effect ? 1 : 0);
	write_twos(world);
	file_sim_release(world->file, hold);
}

/* The named race of two writes, in both orders and without luck. */
START_TEST(test_held_operation_waits)
{
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct file_sim_hold hold = {
			.name = "ones", .kinds = FILE_SIM_WRITE, .limit = 1,
			.after_effect = seed % 2,
		};
		struct world world;
		uint8_t byte;

		world_open(&world, seed, 4096);
		world.arg = &hold;
		file_sim_hold(world.file, &hold);
		ck_assert_int_eq(world_run(&world, write_ones,
		    race_with_a_held_write, NULL), SIM_DONE);
		ck_assert_int_eq(world.results[1], 0);
		ck_assert_uint_eq(hold.caught, 1);
		file_sim_peek(world.file, &byte, 1, 0);
		ck_assert_uint_eq(byte, hold.after_effect ? 2 : 1);
		world_close(&world);
	}
}
END_TEST

static bool
begins_with_two(const struct file_sim_op *op, void *arg)
{
	(void)arg;
	return *(uint8_t *)op->iov[0].iov_base == 2;
}

START_TEST(test_held_until_the_test_lets_go)
{
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_WRITE, .match = begins_with_two,
	};
	struct world world;

	world_open(&world, 1, 4096);
	world.results[1] = 1;
	world.results[2] = 1;
	file_sim_hold(world.file, &hold);
	ck_assert_int_eq(world_run(&world, write_ones, write_twos, NULL),
	    SIM_HELD);
	ck_assert_int_eq(world.results[1], 0);
	ck_assert_int_eq(world.results[2], 1);
	file_sim_release_one(world.file, &hold);
	ck_assert_int_eq(sim_run(world.sim), SIM_DONE);
	ck_assert_int_eq(world.results[2], 0);
	file_sim_release(world.file, &hold);
	world_close(&world);
}
END_TEST

/* The second sync, whatever else goes on. */
co_fn static void
sync_three_times(void *arg)
{
	struct world *world = arg;

	for (world->result = 0; world->result < 3; world->result++)
		ck_assert_int_eq(file_fdatasync(world->file), 0);
}

START_TEST(test_hold_skips)
{
	struct file_sim_hold hold = {
		.kinds = FILE_SIM_SYNC, .skip = 1, .limit = 1,
	};
	struct world world;

	world_open(&world, 1, 0);
	file_sim_hold(world.file, &hold);
	ck_assert_int_eq(world_run(&world, sync_three_times, NULL, NULL),
	    SIM_HELD);
	ck_assert_int_eq(world.result, 1);
	file_sim_release(world.file, &hold);
	ck_assert_int_eq(sim_run(world.sim), SIM_DONE);
	ck_assert_int_eq(world.result, 3);
	world_close(&world);
}
END_TEST

/* ---- content ---- */

START_TEST(test_huge_and_sparse)
{
	uint64_t end = 16 * TIB;
	struct file *file;
	char back[6];

	file_sim_plain();
	ck_assert_int_eq(file_sim_create(NULL, "f", end, &file), 0);
	ck_assert_int_eq(file_seek_data(file, 0), -ENXIO);
	ck_assert_int_eq(file_pwrite(file, "hello", 6, end - 6, 0), 0);
	ck_assert_int_eq(file_pwrite(file, "hello", 6, TIB - 3, 0), 0);
	ck_assert_int_eq(file_seek_data(file, 5), TIB - 4096);
	ck_assert_int_eq(file_seek_hole(file, TIB - 4096), TIB + 4096);
	ck_assert_int_eq(file_seek_data(file, TIB + 4096), end - 4096);
	ck_assert_int_eq(file_fallocate(file, FILE_PUNCH, 0, end - 4096), 0);
	ck_assert_int_eq(file_seek_data(file, 0), end - 4096);
	ck_assert_uint_eq(file_sim_allocated_bytes(file), 4096);
	ck_assert_int_eq(file_pread(file, back, 6, end - 6), 0);
	ck_assert_str_eq(back, "hello");
	ck_assert_int_eq(file_truncate(file, FILE_SIM_BYTES_MAX + 1), -ENOSPC);
	ck_assert_int_eq(file_pwrite(file, "x", 1, FILE_SIM_BYTES_MAX, 0),
	    -ENOSPC);
	file_close(file);
}
END_TEST

START_TEST(test_clone_goes_its_own_way)
{
	struct file *file, *clone, *other;
	uint64_t hash;
	char byte;

	file_sim_plain();
	ck_assert_int_eq(file_sim_create(NULL, "f", 100000, &file), 0);
	ck_assert_int_eq(file_pwrite(file, "a", 1, 50000, 0), 0);
	hash = file_sim_hash(file);
	ck_assert_int_eq(file_sim_clone(file, NULL, &clone), 0);
	ck_assert_uint_eq(file_sim_hash(clone), hash);
	ck_assert_int_eq(file_pwrite(clone, "b", 1, 50000, 0), 0);
	ck_assert_uint_ne(file_sim_hash(clone), hash);
	ck_assert_uint_eq(file_sim_hash(file), hash);
	file_sim_peek(file, &byte, 1, 50000);
	ck_assert_int_eq(byte, 'a');
	ck_assert_int_eq(file_sim_open(file, &other), 0);
	ck_assert_uint_eq(other->id.ino, file->id.ino);
	ck_assert_uint_ne(clone->id.ino, file->id.ino);
	file_close(file);
	ck_assert_int_eq(file_pwrite(other, "b", 1, 50000, 0), 0);
	ck_assert_uint_eq(file_sim_hash(clone), file_sim_hash(other));
	file_close(clone);
	file_close(other);
}
END_TEST

/* Equal content, equal hash: holes, zeros and the way there do not count. */
START_TEST(test_hash_is_of_the_content)
{
	struct file *one, *two;
	char zeros[10000] = {0};

	file_sim_plain();
	ck_assert_int_eq(file_sim_create(NULL, "f", 100000, &one), 0);
	ck_assert_int_eq(file_sim_create(NULL, "f", 100000, &two), 0);
	ck_assert_int_eq(file_pwrite(one, zeros, sizeof(zeros), 3, 0), 0);
	ck_assert_int_eq(file_fallocate(one, FILE_ALLOCATE, 0, 100000), 0);
	ck_assert_uint_eq(file_sim_hash(one), file_sim_hash(two));
	ck_assert_int_eq(file_pwrite(one, "x", 1, 40960, 0), 0);
	ck_assert_int_eq(file_pwrite(two, "x", 1, 45056, 0), 0);
	ck_assert_uint_ne(file_sim_hash(one), file_sim_hash(two));
	ck_assert_int_eq(file_pwrite(one, "", 1, 40960, 0), 0);
	ck_assert_int_eq(file_pwrite(one, "x", 1, 45056, 0), 0);
	ck_assert_uint_eq(file_sim_hash(one), file_sim_hash(two));
	ck_assert_int_eq(file_truncate(one, 100001), 0);
	ck_assert_uint_ne(file_sim_hash(one), file_sim_hash(two));
	file_close(one);
	file_close(two);
}
END_TEST

START_TEST(test_device_keeps_its_size)
{
	struct file *file;
	uint8_t data[8192];

	file_sim_plain();
	ck_assert_int_eq(file_sim_create_device(NULL, "d", 8192, 0xa5, &file),
	    0);
	ck_assert(!file->is_regular);
	ck_assert_int_eq(file_pread(file, data, 8192, 0), 0);
	ck_assert_uint_eq(data[0], 0xa5);
	ck_assert_uint_eq(data[8191], 0xa5);
	ck_assert_int_eq(file_pwrite(file, data, 8192, 100, 0), -ENOSPC);
	ck_assert_int_eq(file_truncate(file, 100), -EINVAL);
	ck_assert_int_eq(file_fallocate(file, FILE_ALLOCATE, 0, 10),
	    -EOPNOTSUPP);
	ck_assert_int_eq(file_fallocate(file, FILE_ZERO, 0, 10), 0);
	ck_assert_int_eq(file_fallocate(file, FILE_PUNCH, 4096, 4096), 0);
	ck_assert_int_eq(file_pread(file, data, 8192, 0), 0);
	ck_assert_uint_eq(data[9], 0);
	ck_assert_uint_eq(data[10], 0xa5);
	ck_assert_uint_eq(data[4096], 0);
	ck_assert_int_eq(file_size(file), 8192);
	file_close(file);
}
END_TEST

START_TEST(test_load_and_save)
{
	struct file *file, *back, *device;
	char path[512];
	struct stat st;
	char byte;

	file_sim_plain();
	snprintf(path, sizeof(path), "%s/image", test_directory());
	ck_assert_int_eq(file_sim_create(NULL, "f", 10 << 20, &file), 0);
	ck_assert_int_eq(file_pwrite(file, "x", 1, 5 << 20, 0), 0);
	ck_assert_int_eq(file_sim_save(file, path), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 10 << 20);
	ck_assert_int_lt(st.st_blocks * 512, 1 << 20);
	ck_assert_int_eq(file_sim_create(NULL, "f", 0, &back), 0);
	ck_assert_int_eq(file_sim_load(back, path), 0);
	ck_assert_uint_eq(file_sim_hash(back), file_sim_hash(file));
	ck_assert_uint_lt(file_sim_allocated_bytes(back), 1 << 20);
	ck_assert_int_eq(file_sim_create_device(NULL, "d", 20 << 20, 0xa5,
	    &device), 0);
	ck_assert_int_eq(file_sim_load(device, path), 0);
	file_sim_peek(device, &byte, 1, 0);
	ck_assert_int_eq(byte, 0);
	file_sim_peek(device, &byte, 1, 10 << 20);
	ck_assert_int_eq((uint8_t)byte, 0xa5);
	ck_assert_int_eq(file_sim_load(back, "/nonexistent/x"), -ENOENT);
	unlink(path);
	file_close(file);
	file_close(back);
	file_close(device);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("file_sim");
	TCase *tcase = tcase_create("file_sim");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_plain_mode_is_an_array);
	tcase_add_test(tcase, test_world_is_an_array);
	tcase_add_test(tcase, test_concurrent_operations_take_any_order);
	tcase_add_test(tcase, test_effect_may_come_at_once);
	tcase_add_test(tcase, test_nth_fails_once);
	tcase_add_test(tcase, test_fails_from_then_on_until_healed);
	tcase_add_test(tcase, test_fault_in_a_range);
	tcase_add_test(tcase, test_short_at_every_byte);
	tcase_add_test(tcase, test_failed_write_may_stand);
	tcase_add_test(tcase, test_no_space_and_space_again);
	tcase_add_test(tcase, test_alignment);
	tcase_add_test(tcase, test_held_operation_waits);
	tcase_add_test(tcase, test_held_until_the_test_lets_go);
	tcase_add_test(tcase, test_hold_skips);
	tcase_add_test(tcase, test_huge_and_sparse);
	tcase_add_test(tcase, test_clone_goes_its_own_way);
	tcase_add_test(tcase, test_hash_is_of_the_content);
	tcase_add_test(tcase, test_device_keeps_its_size);
	tcase_add_test(tcase, test_load_and_save);
	suite_add_tcase(suite, tcase);
	return test_main(suite);
}
