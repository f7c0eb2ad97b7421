/* SPDX-License-Identifier: MIT */
/*
 * Simulated files: disks, handles and operations.
 *
 * The life of an operation in a world: planned (shall it fail?), held or not,
 * applied in one or two pieces, perhaps late told, held or not, told.  Each
 * arrow may take its time, and other operations come between.
 */
#include "runtime/file_sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "runtime/file_sim_internal.h"
#include "runtime/iov.h"

#define SECTOR_BYTES 512u

/* ---- in a world: when it takes effect, and when it is told ---- */

static void
resume(struct task *task)
{
	co_resume(container_of(task, struct file_sim_request, task)->co);
}

const char *
file_sim_kind_name(unsigned kind)
{
	switch (kind) {
	case FILE_SIM_READ:
		return "read";
	case FILE_SIM_WRITE:
		return "write";
	case FILE_SIM_SYNC:
		return "sync";
	case FILE_SIM_PUNCH:
		return "punch";
	case FILE_SIM_ZERO:
		return "zero";
	case FILE_SIM_ALLOCATE:
		return "allocate";
	default:
		return "truncate";
	}
}

void
file_sim_complete(struct file_sim_request *request)
{
	struct sim *sim = request->disk->sim;
	const struct file_sim_op *op = &request->op;

	request->result = file_sim_result(request);
	sim_log(sim, &(struct sim_log_entry){
		.kind = SIM_LOG_FILE + op->kind,
		.name = file_sim_kind_name(op->kind),
		.loop_index = op->loop_index, .object = request->disk->number,
		.offset = op->offset, .length = op->length,
		.result = request->result,
	});
	task_list_append(&sim->loops[op->loop_index].completed,
	    &request->task);
}

static unsigned
pieces_of(const struct file_sim_request *request)
{
	return request->split_bytes ? 2 : 1;
}

static void
apply_next(struct file_sim_request *request)
{
	bool second = request->second_first == (request->applied == 0);

	request->applied++;
	if (!request->split_bytes)
		file_sim_apply(request, 0, request->effect_bytes);
	else if (second)
		file_sim_apply(request, request->split_bytes,
		    request->effect_bytes);
	else
		file_sim_apply(request, 0, request->split_bytes);
}

static void
go_later(struct file_sim_request *request)
{
	struct sim *sim = request->disk->sim;

	sim_event_start(sim, &request->event, sim_operation_ns(sim));
}

static void
fire(struct sim_event *event)
{
	struct file_sim_request *request =
	    container_of(event, struct file_sim_request, event);

	if (request->applied < pieces_of(request)) {
		apply_next(request);
		if (request->applied < pieces_of(request) ||
		    random_one_in(&request->disk->random, 2)) {
			go_later(request);
			return;
		}
	}
	if (!file_sim_catch(request, true))
		file_sim_complete(request);
}

/* A sector is never torn: pieces meet at a sector's edge. */
static void
draw_split(struct file_sim_request *request)
{
	struct random *random = &request->disk->random;
	uint64_t edge = SECTOR_BYTES - request->op.offset % SECTOR_BYTES;
	uint64_t bytes = request->effect_bytes;

	if (bytes <= edge || !random_one_in(random, 4))
		return;
	request->split_bytes = edge + SECTOR_BYTES * random_below(random,
	    (bytes - edge - 1) / SECTOR_BYTES + 1);
	request->second_first = random_one_in(random, 2);
}

void
file_sim_go_on(struct file_sim_request *request)
{
	if (request->applied > 0) {
		file_sim_complete(request);
		return;
	}
	draw_split(request);
	if (random_one_in(&request->disk->random, 3))
		apply_next(request);
	go_later(request);
}

static void
count(struct disk *disk, unsigned kind)
{
	disk->counts[__builtin_ctz(kind)]++;
}

static bool
is_aligned(const struct file_sim_request *request)
{
	const struct file_sim_op *op = &request->op;
	uint64_t bits = op->offset;

	if (!(op->kind & (FILE_SIM_READ | FILE_SIM_WRITE)))
		return true;
	for (unsigned i = 0; i < op->iov_count; i++)
		bits |= (uintptr_t)op->iov[i].iov_base | op->iov[i].iov_len;
	return bits % request->disk->request_alignment == 0;
}

/* Suspends in a world, else does it here and now. */
co_fn static int64_t
run(struct disk *disk, const struct file_sim_op *op)
{
	struct file_sim_request request = {
		.op = *op, .disk = disk, .effect_bytes = op->length,
		.stopped_bytes = UINT64_MAX, .event.fire = fire,
		.task.run = resume, .co = co_self(),
	};

	count(disk, op->kind);
	if (!is_aligned(&request))
		return -EINVAL;
	if (op->offset > FILE_SIM_BYTES_MAX ||
	    op->length > FILE_SIM_BYTES_MAX - op->offset)
		return -EFBIG;
	file_sim_plan(&request);
	if (!disk->sim) {
		file_sim_apply(&request, 0, request.effect_bytes);
		return file_sim_result(&request);
	}
	assert(sim_self() == disk->sim && request.co);
	request.op.loop_index = sim_loop_of(loop_self())->index;
	file_sim_match_hold(&request);
	if (!file_sim_catch(&request, false))
		file_sim_go_on(&request);
	co_suspend();
	return request.result;
}

/* ---- the operations ---- */

co_fn static int64_t
sim_preadv(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset)
{
	return run(disk_of(file), &(struct file_sim_op){
		.kind = FILE_SIM_READ, .offset = offset,
		.length = iov_bytes(iov, iov_count),
		.iov = iov, .iov_count = iov_count,
	});
}

co_fn static int64_t
sim_pwritev(struct file *file, struct iovec *iov, unsigned iov_count,
    uint64_t offset, unsigned flags)
{
	return run(disk_of(file), &(struct file_sim_op){
		.kind = FILE_SIM_WRITE, .offset = offset, .flags = flags,
		.length = iov_bytes(iov, iov_count),
		.iov = iov, .iov_count = iov_count,
	});
}

co_fn static int
sim_fdatasync(struct file *file)
{
	return (int)run(disk_of(file), &(struct file_sim_op){
		.kind = FILE_SIM_SYNC,
	});
}

co_fn static int
sim_fallocate(struct file *file, enum file_fallocate mode, uint64_t offset,
    uint64_t length)
{
	return (int)run(disk_of(file), &(struct file_sim_op){
		.kind = mode == FILE_PUNCH ? FILE_SIM_PUNCH :
		    mode == FILE_ZERO ? FILE_SIM_ZERO : FILE_SIM_ALLOCATE,
		.offset = offset, .length = length,
	});
}

co_fn static int
sim_truncate(struct file *file, uint64_t size)
{
	return (int)run(disk_of(file), &(struct file_sim_op){
		.kind = FILE_SIM_TRUNCATE, .offset = size,
	});
}

static int64_t
sim_size(struct file *file)
{
	return (int64_t)disk_of(file)->size;
}

static int64_t
sim_seek(struct file *file, uint64_t offset, bool data)
{
	const struct disk *disk = disk_of(file);
	uint64_t found;

	if (offset >= disk->size)
		return -ENXIO;
	if (disk->is_device)
		return data ? (int64_t)offset : (int64_t)disk->size;
	found = pages_seek(&disk->pages, offset, data);
	if (found < disk->size)
		return (int64_t)found;
	return data ? -ENXIO : (int64_t)disk->size;
}

static int64_t
sim_bytes_left(struct file *file)
{
	uint64_t budget = disk_of(file)->budget_bytes;
	uint64_t taken = disk_of(file)->pages.allocated * PAGE_BYTES;

	if (budget > INT64_MAX)
		return INT64_MAX;
	return budget > taken ? (int64_t)(budget - taken) : 0;
}

static void
disk_put(struct disk *disk)
{
	if (--disk->references > 0)
		return;
	assert(!disk->holds);
	pages_free(&disk->pages);
	free(disk);
}

static void
sim_close_file(struct file *file)
{
	disk_put(disk_of(file));
	free(file->name);
	free(container_of(file, struct disk_handle, file));
}

static int
sim_open_again(struct file *file, unsigned flags, struct file **filep)
{
	int err = file_sim_open(file, filep);

	if (!err)
		(*filep)->writable = flags & FILE_WRITE;
	return err;
}

static const struct file_ops sim_ops = {
	.preadv = sim_preadv,
	.pwritev = sim_pwritev,
	.fdatasync = sim_fdatasync,
	.fallocate = sim_fallocate,
	.truncate = sim_truncate,
	.size = sim_size,
	.seek = sim_seek,
	.bytes_left = sim_bytes_left,
	.open_again = sim_open_again,
	.close = sim_close_file,
};

/* ---- disks and handles ---- */

static struct disk *
disk_new(struct sim *sim, uint64_t size)
{
	static ino_t last_inode;
	struct disk *disk = sim_calloc(1, sizeof(*disk));

	disk->sim = sim;
	disk->size = size;
	disk->id = (struct file_id){.dev = (dev_t)-1, .ino = ++last_inode};
	disk->request_alignment = 1;
	disk->budget_bytes = UINT64_MAX;
	random_seed(&disk->random, sim ? random_next(&sim->random) : 0);
	if (sim)
		disk->number = sim->files_count++;
	return disk;
}

static void
open_handle(struct disk *disk, const char *name, struct file **filep)
{
	struct disk_handle *handle = sim_calloc(1, sizeof(*handle));

	disk->references++;
	handle->disk = disk;
	handle->file = (struct file){
		.ops = &sim_ops,
		.name = strcpy(sim_calloc(1, strlen(name) + 1), name),
		.id = disk->id,
		.is_regular = !disk->is_device,
		.writable = true,
		.request_alignment = disk->request_alignment,
	};
	*filep = &handle->file;
}

int
file_sim_create(struct sim *sim, const char *name, uint64_t size,
    struct file **filep)
{
	if (size > FILE_SIM_BYTES_MAX)
		return -EFBIG;
	open_handle(disk_new(sim, size), name, filep);
	return 0;
}

int
file_sim_create_device(struct sim *sim, const char *name, uint64_t size,
    uint8_t fill, struct file **filep)
{
	struct disk *disk;

	if (size > FILE_SIM_BYTES_MAX)
		return -EFBIG;
	disk = disk_new(sim, size);
	disk->is_device = true;
	disk->pages.fill = fill;
	open_handle(disk, name, filep);
	return 0;
}

int
file_sim_open(struct file *file, struct file **filep)
{
	assert(file->ops == &sim_ops);
	open_handle(disk_of(file), file->name, filep);
	return 0;
}

int
file_sim_clone(struct file *file, struct sim *sim, struct file **filep)
{
	const struct disk *source = disk_of(file);
	struct disk *disk = disk_new(sim, source->size);

	assert(file->ops == &sim_ops);
	disk->is_device = source->is_device;
	disk->request_alignment = source->request_alignment;
	pages_copy(&disk->pages, &source->pages);
	open_handle(disk, file->name, filep);
	return 0;
}
