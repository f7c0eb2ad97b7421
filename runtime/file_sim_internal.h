/* SPDX-License-Identifier: MIT */
/* What the simulated files share among themselves. */
#ifndef RUNTIME_FILE_SIM_INTERNAL_H
#define RUNTIME_FILE_SIM_INTERNAL_H

#include "runtime/file_sim.h"
#include "runtime/pages.h"
#include "runtime/sim_internal.h"

#define FILE_SIM_KINDS 7

struct disk_fault {
	struct file_sim_fault fault;
	uint64_t seen;		/* matching operations so far */
};

/* The content and what is to happen to it; its handles count. */
struct disk {
	unsigned references;
	struct sim *sim;	/* NULL: plain mode */
	unsigned number;	/* in the event log */
	struct file_id id;
	bool is_device;
	uint32_t request_alignment;
	uint64_t size;
	struct pages pages;	/* zeros past the size */
	struct random random;
	uint64_t budget_bytes;
	unsigned short_one_in;
	unsigned transient_one_in;
	unsigned faults_count;
	struct disk_fault faults[FILE_SIM_FAULTS_MAX];
	uint64_t failed;
	uint64_t counts[FILE_SIM_KINDS];
	struct file_sim_hold *holds;
};

struct disk_handle {
	struct file file;
	struct disk *disk;
};

/* One operation, on the stack of its coroutine. */
struct file_sim_request {
	struct file_sim_op op;
	struct disk *disk;
	int planned_error;	/* it will fail with this, whatever it does */
	uint64_t effect_bytes;	/* so much of it takes effect, from its start */
	uint64_t stopped_bytes;	/* no room was left for what comes after */
	int result_error;	/* what applying it ran into */
	int64_t result;

	/* In a world. */
	struct co *co;
	struct task task;
	struct sim_event event;
	uint64_t split_bytes;	/* where the second piece begins, 0: none */
	bool second_first;
	unsigned applied;	/* pieces that took effect */
	struct file_sim_hold *hold;
	struct file_sim_request *next;
};

static inline struct disk *
disk_of(struct file *file)
{
	return container_of(file, struct disk_handle, file)->disk;
}

/* Lets the bytes [from, to) of request take effect now. */
void file_sim_apply(struct file_sim_request *request, uint64_t from,
    uint64_t to);

/* What the system call would return, now that the effect is there. */
int64_t file_sim_result(const struct file_sim_request *request);

/* Decides whether request will fail or be short. */
void file_sim_plan(struct file_sim_request *request);

/* Finds the hold that wants request, if any. */
void file_sim_match_hold(struct file_sim_request *request);

/* Puts request aside if a hold wants it now; true if it did. */
bool file_sim_catch(struct file_sim_request *request, bool after_effect);

/* Goes on with a request that was held. */
void file_sim_go_on(struct file_sim_request *request);

/* Tells the coroutine. */
void file_sim_complete(struct file_sim_request *request);

#endif
