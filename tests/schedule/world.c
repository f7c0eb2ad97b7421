/* SPDX-License-Identifier: MIT */
#include "tests/schedule/world.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "qcow2/create.h"
#include "qcow2/entry.h"
#include "qcow2/image_resize.h"
#include "qcow2/image_snapshot.h"
#include "runtime/file_record.h"
#include "runtime/log.h"
#include "tests/key.h"

#define CREATE_CLUSTER_BYTES 4096u

/* Of one world_run(); an hour with a request now and then takes a tenth. */
#define STEPS_MAX 5000000u

/* ---- worlds ---- */

void
world_clone(struct world *world, const struct world_options *options,
    struct file *disk)
{
	*world = (struct world){.options = *options};
	if (!options->cluster_bytes)
		world->options.cluster_bytes = CREATE_CLUSTER_BYTES;
	if (!options->loops)
		world->options.loops = 2;
	ck_assert_int_eq(sim_create(options->seed, world->options.loops,
	    &world->sim), 0);
	ck_assert_int_eq(file_sim_clone(disk, world->sim, &world->disk), 0);
	if (options->recorded)
		ck_assert_int_eq(record_log_create(&world->log), 0);
}

static void
copy_to_device(struct file *file, struct file *device)
{
	uint64_t bytes = (uint64_t)file_size(file);
	void *data = malloc(bytes);

	ck_assert_ptr_nonnull(data);
	file_sim_peek(file, data, bytes, 0);
	file_sim_poke(device, data, bytes, 0);
	free(data);
}

void
world_create(struct world *world, const struct world_options *options)
{
	struct create_options create = {
		.version = 3,
		.cluster_bytes = options->cluster_bytes ?
		    options->cluster_bytes : CREATE_CLUSTER_BYTES,
		.refcount_bits = options->refcount_bits ?
		    options->refcount_bits : CREATE_REFCOUNT_BITS_DEFAULT,
		.compression = options->compression,
		.encrypted = options->encrypted,
	};
	struct file *empty, *device;
	struct error error;

	create.size_bytes = options->disk_bytes ? options->disk_bytes :
	    256 * create.cluster_bytes;
	ck_assert_int_eq(file_sim_create(NULL, "disk", 0, &empty), 0);
	file_sim_plain();
	if (create_image(empty, "disk", &create, &error))
		ck_abort_msg("%s", error.message);
	if (options->device_bytes) {
		ck_assert_int_eq(file_sim_create_device(NULL, "disk",
		    options->device_bytes, 0xa5, &device), 0);
		copy_to_device(empty, device);
		file_close(empty);
		empty = device;
	}
	world_clone(world, options, empty);
	file_close(empty);
}

void
world_free(struct world *world)
{
	ck_assert_ptr_null(world->image);
	file_close(world->disk);
	record_log_free(world->log);
	sim_free(world->sim);
}

co_fn static void
run_fn(void *arg)
{
	struct world *world = arg;

	world->fn(world);
	sim_stop(world->sim);
}

void
world_run(struct world *world, void (*fn)(struct world *world))
{
	enum sim_end end;

	world->fn = fn;
	sim_set_steps_max(world->sim, STEPS_MAX);
	sim_start(world->sim, 0, &world->start, run_fn, world);
	end = sim_run(world->sim);
	ck_assert_msg(end != SIM_DEADLOCK, "a deadlock");
	ck_assert_msg(end != SIM_ENDLESS, "it does not come to an end");
	ck_assert_msg(end == SIM_STOPPED, "something is still held");
}

co_fn static void
open_image(struct world *world)
{
	struct image_options options = {
		.format = IMAGE_QCOW2, .writable = true, .no_backing = true,
		.loops = world->options.loops,
		.metadata_cache_bytes = world->options.cache_bytes,
		.discard = world->options.discard,
		.detect_zeroes = world->options.detect_zeroes,
		.keys = &test_key, .keys_count = world->options.encrypted,
	};
	struct file *handle;

	ck_assert_int_eq(file_sim_open(world->disk, &handle), 0);
	if (world->log) {
		ck_assert_int_eq(file_record_open(world->log, WORLD_DISK,
		    handle, false, &handle), 0);
		world->recorder = handle;
	}
	world->result = image_open_file(handle, &options, &world->image,
	    &world->error);
	if (world->result)
		world->image = NULL;
}

int
world_open(struct world *world)
{
	world_run(world, open_image);
	return world->result;
}

co_fn static void
close_image(struct world *world)
{
	if (world->recorder)
		ck_assert_uint_eq(file_record_changed(world->recorder), 0);
	world->recorder = NULL;
	world->result = image_close(world->image);
	world->image = NULL;
}

int
world_close(struct world *world)
{
	world_run(world, close_image);
	ck_assert_msg(sim_run(world->sim) == SIM_DONE,
	    "the image is closed, but something goes on");
	return world->result;
}

void
world_prepare(struct world *world, const struct world_options *options,
    void (*prepare)(struct world *world))
{
	struct world_options quiet = *options;

	quiet.recorded = false;
	world_create(world, &quiet);
	ck_assert_int_eq(world_open(world), 0);
	world_run(world, prepare);
	ck_assert_int_eq(world_close(world), 0);
	if (options->recorded)
		ck_assert_int_eq(record_log_create(&world->log), 0);
}

void
world_finish(struct world *world)
{
	ck_assert_int_eq(world_close(world), 0);
	world_assert_clean(world);
	world_free(world);
}

void
world_play(const struct world_options *options,
    void (*fn)(struct world *world))
{
	struct world world;

	world_create(&world, options);
	ck_assert_int_eq(world_open(&world), 0);
	world_run(&world, fn);
	world_finish(&world);
}

/* ---- checking ---- */

static void
tell_corruption(void *arg, enum check_finding kind, const char *line)
{
	(void)arg;
	if (kind == CHECK_CORRUPTION)
		fprintf(stderr, "%s\n", line);
}

struct check_result
world_check(struct world *world)
{
	struct check_listener listener = {.report = tell_corruption};
	struct check_result result;
	struct error error;
	struct file *copy;

	ck_assert_int_eq(file_sim_clone(world->disk, NULL, &copy), 0);
	file_sim_plain();
	if (check_file_listen(copy, "disk", &listener, &result, &error))
		ck_abort_msg("check: %s", error.message);
	file_close(copy);
	return result;
}

void
world_assert_clean(struct world *world)
{
	struct check_result result = world_check(world);

	ck_assert_uint_eq(result.corruptions, 0);
	ck_assert_uint_eq(result.check_errors, 0);
	ck_assert_uint_eq(result.leaks, 0);
}

/* ---- on the disk ---- */

uint32_t
world_peek32(struct world *world, uint64_t offset)
{
	uint32_t value;

	file_sim_peek(world->disk, &value, sizeof(value), offset);
	return be32toh(value);
}

void
world_poke32(struct world *world, uint64_t offset, uint32_t value)
{
	value = htobe32(value);
	file_sim_poke(world->disk, &value, sizeof(value), offset);
}

uint64_t
world_peek64(struct world *world, uint64_t offset)
{
	uint64_t value;

	file_sim_peek(world->disk, &value, sizeof(value), offset);
	return be64toh(value);
}

void
world_poke64(struct world *world, uint64_t offset, uint64_t value)
{
	value = htobe64(value);
	file_sim_poke(world->disk, &value, sizeof(value), offset);
}

uint64_t
world_l2_entry(struct world *world, uint64_t guest)
{
	uint64_t cluster_bytes = world->options.cluster_bytes;
	uint64_t entries = cluster_bytes / ENTRY_BYTES;
	uint64_t index = guest / cluster_bytes;
	uint64_t l1 = world_peek64(world, 40);
	uint64_t l2 = entry_host(world_peek64(world,
	    l1 + index / entries * ENTRY_BYTES));

	ck_assert_uint_ne(l2, 0);
	return l2 + index % entries * ENTRY_BYTES;
}

uint64_t
world_refcount(struct world *world, uint64_t host)
{
	uint64_t cluster_bytes = world->options.cluster_bytes;
	uint64_t counts = cluster_bytes / 2;
	uint64_t index = host / cluster_bytes;
	uint64_t table = world_peek64(world, 48);

	return world_peek64(world, table + index / counts * ENTRY_BYTES) +
	    index % counts * 2;
}

void
world_compress(struct world *world, uint64_t guest, uint8_t value)
{
	uint64_t cluster_bytes = world->options.cluster_bytes;
	uint64_t at = world_l2_entry(world, guest);
	uint64_t host = entry_host(world_peek64(world, at));
	uint8_t *plain = malloc(cluster_bytes);
	uint8_t packed[512] = {0};
	z_stream stream = {
		.next_in = plain, .avail_in = (uInt)cluster_bytes,
		.next_out = packed, .avail_out = sizeof(packed),
	};

	ck_assert_uint_ne(host, 0);
	memset(plain, value, cluster_bytes);
	ck_assert_int_eq(deflateInit2(&stream, 9, Z_DEFLATED, -12, 9,
	    Z_DEFAULT_STRATEGY), Z_OK);
	ck_assert_int_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
	deflateEnd(&stream);
	free(plain);
	file_sim_poke(world->disk, packed, sizeof(packed), host);
	/* One sector: no more of them. */
	world_poke64(world, at, ENTRY_COMPRESSED | host);
}

void
world_share(struct world *world, uint64_t guest, uint64_t other)
{
	uint64_t entry = world_peek64(world, world_l2_entry(world, guest));
	uint64_t other_at = world_l2_entry(world, other);
	uint64_t count_at = world_refcount(world, entry_host(entry));
	uint16_t count;

	ck_assert_uint_eq(world_peek64(world, other_at), 0);
	entry &= ~ENTRY_COPIED;
	world_poke64(world, world_l2_entry(world, guest), entry);
	world_poke64(world, other_at, entry);
	file_sim_peek(world->disk, &count, sizeof(count), count_at);
	count = htobe16((uint16_t)(be16toh(count) + 1));
	file_sim_poke(world->disk, &count, sizeof(count), count_at);
}

/* ---- requests ---- */

bool
is_all(const uint8_t *data, size_t length, uint8_t value)
{
	return data[0] == value && !memcmp(data, data + 1, length - 1);
}

co_fn static int
ask_status(struct request *request)
{
	struct image_extent extents[16];
	unsigned count;

	return image_status(request->world->image, request->guest,
	    request->length, extents, 16, &count);
}

co_fn static int
resize(struct request *request)
{
	struct image_resize how = {
		.size_bytes = request->guest, .shrink = true,
		.preallocation = (enum create_preallocation)request->value,
	};
	struct error error;

	return image_resize(request->world->image, &how, &error);
}

#define SNAPSHOT_NAME_BYTES 24

static void
name_snapshot(uint64_t number, char *name)
{
	snprintf(name, SNAPSHOT_NAME_BYTES, "s%llu",
	    (unsigned long long)number);
}

co_fn static int
change_snapshots(struct request *request)
{
	static const struct timespec date = {.tv_sec = 1};
	struct image *image = request->world->image;
	char name[SNAPSHOT_NAME_BYTES];
	struct error error;

	name_snapshot(request->guest, name);
	switch (request->action) {
	case ACTION_SNAPSHOT_CREATE:
		return image_snapshot_create(image, name, &date, NULL, &error);
	case ACTION_SNAPSHOT_DELETE:
		return image_snapshot_delete(image, name, NULL, &error);
	default:
		return image_snapshot_apply(image, name, NULL, &error);
	}
}

co_fn static void
carry_out(struct request *request)
{
	struct image *image = request->world->image;
	uint64_t guest = request->guest;
	size_t length = request->length;

	if (length > 0) {
		request->data = malloc(length);
		ck_assert_ptr_nonnull(request->data);
		memset(request->data, request->value, length);
	}
	switch (request->action) {
	case ACTION_READ:
		memset(request->data, ~request->value, length);
		request->err = image_read(image, guest, request->data, length,
		    NULL);
		return;
	case ACTION_WRITE:
		request->err = image_write(image, guest, request->data,
		    length, request->flags);
		break;
	case ACTION_COMPRESS:
		request->err = image_write_compressed(image, guest,
		    request->data, length);
		break;
	case ACTION_ZERO:
		request->err = image_zero(image, guest, length,
		    request->flags);
		break;
	case ACTION_DISCARD:
		request->err = image_discard(image, guest, length,
		    request->flags);
		break;
	case ACTION_FLUSH:
		request->err = image_flush(image);
		break;
	case ACTION_STATUS:
		request->err = ask_status(request);
		break;
	case ACTION_RESIZE:
		request->err = resize(request);
		break;
	default:
		request->err = change_snapshots(request);
		break;
	}
	free(request->data);
	request->data = NULL;
}

co_fn static void
request_main(void *arg)
{
	struct request *request = arg;

	carry_out(request);
	request->done = true;
	if (request->waiter)
		co_wake(request->waiter);
}

void
request_start(struct world *world, unsigned loop, struct request *request)
{
	request->world = world;
	request->done = false;
	request->waiter = NULL;
	request->data = NULL;
	sim_start(world->sim, loop, &request->start, request_main, request);
}

int
request_wait(struct request *request)
{
	if (!request->done) {
		request->waiter = co_self();
		co_suspend();
	}
	return request->err;
}

static void
tell_first_wrong(const struct request *request)
{
	size_t i = 0;

	while (request->data[i] == request->value)
		i++;
	ck_abort_msg("0x%02x at 0x%llx where 0x%02x should be",
	    request->data[i], (unsigned long long)request->guest + i,
	    request->value);
}

static void
judge(struct request *request)
{
	ck_assert_int_eq(request->err, 0);
	if (request->data &&
	    !is_all(request->data, request->length, request->value))
		tell_first_wrong(request);
	free(request->data);
	request->data = NULL;
}

void
request_finish(struct request *request)
{
	request_wait(request);
	judge(request);
}

void
world_do(struct world *world, enum action action, uint64_t guest,
    size_t length, uint8_t value, unsigned flags)
{
	struct request request = {
		.world = world, .action = action, .guest = guest,
		.length = length, .value = value, .flags = flags,
	};

	carry_out(&request);
	judge(&request);
}

co_fn static int
open_snapshot(struct world *world, unsigned number, struct image **imagep)
{
	char name[SNAPSHOT_NAME_BYTES];
	struct image_options options = {
		.format = IMAGE_QCOW2, .no_backing = true, .snapshot = name,
		.force_share = true, .loops = world->options.loops,
		.keys = &test_key, .keys_count = world->options.encrypted,
	};
	struct file *handle;
	struct error error;

	name_snapshot(number, name);
	ck_assert_int_eq(file_sim_open(world->disk, &handle), 0);
	return image_open_file(handle, &options, imagep, &error);
}

bool
world_has_snapshot(struct world *world, unsigned number)
{
	struct image *image;
	int err = open_snapshot(world, number, &image);

	ck_assert(!err || err == -ENOENT);
	if (!err)
		image_close(image);
	return !err;
}

uint64_t
world_snapshot_bytes(struct world *world, unsigned number)
{
	struct image *image;
	uint64_t bytes;

	ck_assert_int_eq(open_snapshot(world, number, &image), 0);
	bytes = image_size_bytes(image);
	image_close(image);
	return bytes;
}

void
world_read_snapshot(struct world *world, unsigned number, uint64_t guest,
    void *data, size_t length)
{
	struct image *image;

	ck_assert_int_eq(open_snapshot(world, number, &image), 0);
	ck_assert_int_eq(image_read(image, guest, data, length, NULL), 0);
	image_close(image);
}

void
world_expect_snapshot(struct world *world, unsigned number, uint64_t guest,
    size_t length, uint8_t value)
{
	uint8_t *data = malloc(length);

	ck_assert_ptr_nonnull(data);
	world_read_snapshot(world, number, guest, data, length);
	ck_assert_msg(is_all(data, length, value), "snapshot %u: 0x%02x at "
	    "0x%llx where 0x%02x should be", number, data[0],
	    (unsigned long long)guest, value);
	free(data);
}

uint64_t
world_host(struct world *world, uint64_t guest)
{
	struct image_extent extent;
	unsigned count;

	ck_assert_int_eq(image_status(world->image, guest, 1, &extent, 1,
	    &count), 0);
	return extent.host_valid ? extent.host : 0;
}

void
pause_world(void)
{
	loop_sleep(WORLD_PAUSE_NS);
}

void
flush_all(struct world *world)
{
	for (int i = 0; i < 3; i++) {
		world_flush(world);
		pause_world();
	}
}

int
world_main(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level((enum log_level)0);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
