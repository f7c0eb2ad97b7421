/* SPDX-License-Identifier: MIT */
/* Simulated files: what each operation does to the content. */
#include <errno.h>
#include "runtime/file_sim_internal.h"

/* How many of the bytes from offset on there is room for. */
static uint64_t
room_for(const struct disk *disk, uint64_t offset, uint64_t length)
{
	uint64_t allocated = disk->pages.allocated * PAGE_BYTES;
	uint64_t free_pages, end;

	if (disk->budget_bytes == UINT64_MAX)
		return length;
	free_pages = disk->budget_bytes > allocated ?
	    (disk->budget_bytes - allocated) / PAGE_BYTES : 0;
	if (pages_holes(&disk->pages, offset, length) <= free_pages)
		return length;
	for (end = offset; end < offset + length;
	    end = (end / PAGE_BYTES + 1) * PAGE_BYTES) {
		if (pages_holes(&disk->pages, end, 1) == 0)
			continue;
		if (free_pages-- == 0)
			break;
	}
	return end > offset + length ? length : end - offset;
}

static void
grow(struct disk *disk, uint64_t end)
{
	if (!disk->is_device && end > disk->size)
		disk->size = end;
}

/* Copies the bytes [from, to) of the request's buffers to or from the disk. */
static void
move_bytes(struct file_sim_request *request, uint64_t from, uint64_t to)
{
	const struct file_sim_op *op = &request->op;
	struct disk *disk = request->disk;
	uint64_t start = 0;

	for (unsigned i = 0; i < op->iov_count; i++) {
		uint64_t end = start + op->iov[i].iov_len;
		uint64_t first = from > start ? from : start;
		uint64_t last = to < end ? to : end;
		char *data = (char *)op->iov[i].iov_base + (first - start);

		if (first < last && op->kind == FILE_SIM_WRITE)
			pages_write(&disk->pages, data, last - first,
			    op->offset + first);
		else if (first < last)
			pages_read(&disk->pages, data, last - first,
			    op->offset + first);
		start = end;
	}
}

static void
apply_read(struct file_sim_request *request, uint64_t from, uint64_t to)
{
	uint64_t offset = request->op.offset;
	uint64_t size = request->disk->size;

	if (offset + to > size)
		to = size > offset ? size - offset : 0;
	if (from < to)
		move_bytes(request, from, to);
}

static void
apply_write(struct file_sim_request *request, uint64_t from, uint64_t to)
{
	struct disk *disk = request->disk;
	uint64_t offset = request->op.offset + from;
	uint64_t room = to - from;

	if (disk->is_device && offset + room > disk->size)
		room = disk->size > offset ? disk->size - offset : 0;
	room = room_for(disk, offset, room);
	if (from + room < to && from + room < request->stopped_bytes)
		request->stopped_bytes = from + room;
	move_bytes(request, from, from + room);
	if (room > 0)
		grow(disk, offset + room);
}

static void
apply_punch(struct file_sim_request *request, uint64_t from, uint64_t to)
{
	struct disk *disk = request->disk;
	uint64_t offset = request->op.offset;

	if (offset + to > disk->size)
		to = disk->size > offset ? disk->size - offset : 0;
	if (from < to)
		pages_zero(&disk->pages, offset + from, to - from, false);
}

static void
apply_allocate(struct file_sim_request *request, uint64_t from, uint64_t to)
{
	struct disk *disk = request->disk;
	uint64_t offset = request->op.offset + from;
	uint64_t length = to - from, room;

	if (disk->is_device && offset + length > disk->size)
		request->result_error = -EINVAL;
	else if (disk->is_device && request->op.kind == FILE_SIM_ALLOCATE)
		request->result_error = -EOPNOTSUPP;
	if (request->result_error || length == 0)
		return;
	/* The room that there is stays taken, as on ext4. */
	room = room_for(disk, offset, length);
	if (room < length)
		request->result_error = -ENOSPC;
	if (room == 0)
		return;
	length = room;
	if (request->op.kind == FILE_SIM_ZERO)
		pages_zero(&disk->pages, offset, length, true);
	else
		pages_allocate(&disk->pages, offset, length);
	grow(disk, offset + length);
}

static void
apply_truncate(struct file_sim_request *request)
{
	struct disk *disk = request->disk;
	uint64_t size = request->op.offset;

	if (disk->is_device) {
		request->result_error = -EINVAL;
		return;
	}
	if (size < disk->size)
		pages_zero(&disk->pages, size, disk->size - size, false);
	disk->size = size;
}

void
file_sim_apply(struct file_sim_request *request, uint64_t from, uint64_t to)
{
	switch (request->op.kind) {
	case FILE_SIM_READ:
		apply_read(request, from, to);
		break;
	case FILE_SIM_WRITE:
		apply_write(request, from, to);
		break;
	case FILE_SIM_PUNCH:
		apply_punch(request, from, to);
		break;
	case FILE_SIM_ZERO:
	case FILE_SIM_ALLOCATE:
		apply_allocate(request, from, to);
		break;
	case FILE_SIM_TRUNCATE:
		if (request->effect_bytes > 0 || !request->planned_error)
			apply_truncate(request);
		break;
	default:
		break;
	}
}

int64_t
file_sim_result(const struct file_sim_request *request)
{
	const struct file_sim_op *op = &request->op;
	uint64_t bytes = request->effect_bytes;
	uint64_t size = request->disk->size;

	if (request->planned_error)
		return request->planned_error;
	if (request->result_error)
		return request->result_error;
	if (op->kind == FILE_SIM_READ) {
		uint64_t there = size > op->offset ? size - op->offset : 0;

		return (int64_t)(bytes < there ? bytes : there);
	}
	if (op->kind != FILE_SIM_WRITE)
		return 0;
	if (request->stopped_bytes < bytes)
		bytes = request->stopped_bytes;
	return bytes == 0 && op->length > 0 ? -ENOSPC : (int64_t)bytes;
}
