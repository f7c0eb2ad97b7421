/* SPDX-License-Identifier: MIT */
/* Simulated files: faults, limits, and operations that a test holds. */
#include <assert.h>
#include <errno.h>
#include "runtime/file_sim_internal.h"

#define SECTOR_BYTES 512u

/* ---- what an operation is about ---- */

/* Whether op touches the range; a length of 0 stands for everything. */
static bool
touches(const struct file_sim_op *op, uint64_t offset, uint64_t length)
{
	uint64_t end = op->kind == FILE_SIM_TRUNCATE ? UINT64_MAX :
	    op->offset + op->length;

	if (length == 0)
		return true;
	return op->offset < offset + length && offset < end;
}

/* ---- faults ---- */

void
file_sim_fail(struct file *file, const struct file_sim_fault *fault)
{
	struct disk *disk = disk_of(file);

	assert(disk->faults_count < FILE_SIM_FAULTS_MAX);
	assert(fault->nth > 0 && fault->result != 0);
	/* It would be tried again for ever. */
	assert(!fault->from_then_on ||
	    (fault->result != -EINTR && fault->result != -EAGAIN &&
	    fault->result != -ECANCELED));
	disk->faults[disk->faults_count++] = (struct disk_fault){
		.fault = *fault,
	};
}

void
file_sim_heal(struct file *file)
{
	disk_of(file)->faults_count = 0;
}

uint64_t
file_sim_failed(struct file *file)
{
	return disk_of(file)->failed;
}

static void
plan_short(struct file_sim_request *request, uint64_t bytes)
{
	if (bytes < request->effect_bytes)
		request->effect_bytes = bytes;
}

/*
 * Some of a write, from its start to a sector's edge: no sector is ever half
 * old and half new.
 */
static uint64_t
draw_part(const struct file_sim_request *request)
{
	uint64_t end = request->op.offset +
	    random_below(&request->disk->random, request->effect_bytes + 1);

	end -= end % SECTOR_BYTES;
	return end > request->op.offset ? end - request->op.offset : 0;
}

/* How much of what fails stands is nobody's promise. */
static void
plan_error(struct file_sim_request *request, int error)
{
	struct random *random = &request->disk->random;
	bool is_write = request->op.kind == FILE_SIM_WRITE;

	request->planned_error = error;
	if (random_one_in(random, 2)) {
		request->effect_bytes = 0;
		return;
	}
	if (request->op.kind == FILE_SIM_TRUNCATE)
		request->effect_bytes = 1;
	else if (is_write && random_one_in(random, 2))
		request->effect_bytes = draw_part(request);
}

static void
plan_fault(struct file_sim_request *request, struct disk_fault *disk_fault)
{
	const struct file_sim_fault *fault = &disk_fault->fault;
	unsigned moves = FILE_SIM_READ | FILE_SIM_WRITE;

	if (!(fault->kinds & request->op.kind) ||
	    !touches(&request->op, fault->offset, fault->length))
		return;
	disk_fault->seen++;
	if (disk_fault->seen < fault->nth ||
	    (disk_fault->seen > fault->nth && !fault->from_then_on))
		return;
	if (request->planned_error)
		return;
	if (fault->result < 0)
		plan_error(request, fault->result);
	else if (request->op.kind & moves)
		plan_short(request, (uint64_t)fault->result);
	request->disk->failed++;
}

/* Short results are multiples of the alignment, as a device's are. */
static void
plan_chances(struct file_sim_request *request)
{
	struct disk *disk = request->disk;
	uint64_t units = request->op.length / disk->request_alignment;

	if (!(request->op.kind & (FILE_SIM_READ | FILE_SIM_WRITE)))
		return;
	if (units > 1 && random_one_in(&disk->random, disk->short_one_in))
		plan_short(request, disk->request_alignment *
		    (1 + random_below(&disk->random, units - 1)));
	if (random_one_in(&disk->random, disk->transient_one_in)) {
		request->planned_error = -EINTR;
		request->effect_bytes = 0;
	}
}

void
file_sim_plan(struct file_sim_request *request)
{
	struct disk *disk = request->disk;

	for (unsigned i = 0; i < disk->faults_count; i++)
		plan_fault(request, &disk->faults[i]);
	if (!request->planned_error)
		plan_chances(request);
}

/* ---- settings and numbers ---- */

void
file_sim_set_alignment(struct file *file, uint32_t request_alignment)
{
	assert(request_alignment > 0);
	file->request_alignment = request_alignment;
	disk_of(file)->request_alignment = request_alignment;
}

void
file_sim_set_budget(struct file *file, uint64_t bytes)
{
	disk_of(file)->budget_bytes = bytes;
}

void
file_sim_set_chances(struct file *file, unsigned short_one_in,
    unsigned transient_one_in)
{
	assert(transient_one_in != 1);
	disk_of(file)->short_one_in = short_one_in;
	disk_of(file)->transient_one_in = transient_one_in;
}

uint64_t
file_sim_count(struct file *file, unsigned kinds)
{
	const struct disk *disk = disk_of(file);
	uint64_t count = 0;

	for (unsigned i = 0; i < FILE_SIM_KINDS; i++) {
		if (kinds & (1u << i))
			count += disk->counts[i];
	}
	return count;
}

/* ---- holding ---- */

static bool
hold_wants(struct file_sim_hold *hold, const struct file_sim_op *op)
{
	if (!(hold->kinds & op->kind) ||
	    !touches(op, hold->offset, hold->length))
		return false;
	if (hold->match && !hold->match(op, hold->arg))
		return false;
	if (hold->skip > 0) {
		hold->skip--;
		return false;
	}
	return true;
}

void
file_sim_match_hold(struct file_sim_request *request)
{
	struct file_sim_hold *hold = request->disk->holds;

	while (hold && !hold_wants(hold, &request->op))
		hold = hold->next;
	request->hold = hold;
}

static void
log_hold(const struct file_sim_request *request, const char *what)
{
	const struct file_sim_op *op = &request->op;

	sim_log(request->disk->sim, &(struct sim_log_entry){
		.kind = SIM_LOG_FILE, .name = what,
		.loop_index = op->loop_index, .object = request->disk->number,
		.offset = op->offset, .length = op->length,
	});
}

bool
file_sim_catch(struct file_sim_request *request, bool after_effect)
{
	struct file_sim_hold *hold = request->hold;

	if (!hold || hold->after_effect != after_effect)
		return false;
	if (hold->limit > 0 && hold->caught >= hold->limit)
		return false;
	request->next = NULL;
	if (hold->first)
		hold->last->next = request;
	else
		hold->first = request;
	hold->last = request;
	hold->caught++;
	request->disk->sim->held_count++;
	log_hold(request, hold->name ? hold->name : "held");
	if (hold->waiter && hold->caught >= hold->waiter_wants) {
		co_wake(hold->waiter);
		hold->waiter = NULL;
	}
	return true;
}

void
file_sim_hold(struct file *file, struct file_sim_hold *hold)
{
	struct disk *disk = disk_of(file);

	assert(disk->sim);
	hold->caught = 0;
	hold->first = NULL;
	hold->waiter = NULL;
	hold->next = disk->holds;
	disk->holds = hold;
}

void
file_sim_await(struct file_sim_hold *hold, unsigned count)
{
	assert(!hold->waiter);
	if (hold->caught >= count)
		return;
	hold->waiter = co_self();
	hold->waiter_wants = count;
	co_suspend();
}

void
file_sim_release_one(struct file *file, struct file_sim_hold *hold)
{
	struct file_sim_request *request = hold->first;

	if (!request)
		return;
	hold->first = request->next;
	request->hold = NULL;
	disk_of(file)->sim->held_count--;
	log_hold(request, "released");
	file_sim_go_on(request);
}

void
file_sim_release(struct file *file, struct file_sim_hold *hold)
{
	struct file_sim_hold **link = &disk_of(file)->holds;

	while (*link && *link != hold)
		link = &(*link)->next;
	assert(*link && !hold->waiter);
	*link = hold->next;
	while (hold->first)
		file_sim_release_one(file, hold);
}
