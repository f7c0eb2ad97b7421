/* SPDX-License-Identifier: MIT */
/*
 * Repair as a workload: an image that a seed has damaged is repaired over a
 * recorded disk.  Whatever a crash leaves of that, the next repair must end:
 * clean, every byte of the disk as it was, and fit to be written to.
 *
 * Guards against: refcounts that are lowered before their users have gone, a
 * new structure that is switched to before it is stable or that lies in
 * something else, bits that are cleared too early.
 */
#ifndef TESTS_CRASH_REPAIRING_H
#define TESTS_CRASH_REPAIRING_H

#include "qcow2/snapshot.h"
#include "tests/crash/trial.h"

/* Entries of the log about the disk. */
#define REPAIRING_DISK 1

struct repairing {
	struct sim *sim;
	struct record_log *log;
	struct file *damaged;		/* before the repair; plain mode */
	struct file *disk;		/* with the repair at work */
	uint8_t *content;		/* of the disk the image makes */
	uint64_t size_bytes;
	struct snapshot_table snapshots;
	bool verbose;
	char damage[256];		/* in words */
	char failure[1280];		/* or "" */

	struct trial *trial;		/* of a state */
};

/* Damages a copy of base and repairs it; failure says if that went wrong. */
void repairing_run(struct repairing *repairing, struct file *base,
    uint64_t seed);

/* Repairs what a crash has left, in trial's world, and judges it. */
void repairing_judge(struct repairing *repairing, struct trial *trial,
    const struct crash_state *state);

void repairing_free(struct repairing *repairing);

#endif
