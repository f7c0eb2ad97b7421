/* SPDX-License-Identifier: MIT */
/*
 * A chain that is about to change: an overlay over an old backing file, and a
 * new one; what is done to it; and whether the disk is still what it was.
 *
 * All files are simulated.  Of each there is one as it was found, which stays,
 * and one that the work is done to.  Sectors hold one value each; what the
 * overlay shows of its chain is known, and must be shown after whatever has
 * happened, by whichever backing file the header names.
 */
#ifndef TESTS_CRASH_SCENE_H
#define TESTS_CRASH_SCENE_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/image.h"
#include "runtime/file_sim.h"
#include "runtime/record.h"
#include "runtime/sim.h"

#define SCENE_SECTORS_MAX 256

/* The files, by their numbers in the record. */
enum scene_file { SCENE_TOP, SCENE_OLD, SCENE_NEW, SCENE_FILES };

enum scene_work {
	SCENE_REBASE,	/* onto the new file */
	SCENE_FLATTEN,
	SCENE_COMMIT,	/* into the old one */
	SCENE_RENAME,	/* the header alone, to a name of the old one */
};

struct scene_options {
	enum scene_work work;
	unsigned cluster_bytes;
	unsigned version;
	bool raw;		/* the backing files are */
	unsigned sectors[SCENE_FILES];	/* of each disk */
	unsigned name_bytes;	/* of the backing file's name; 0: 4 */
	unsigned extension_bytes;	/* of an unknown extension; 0: none */
	unsigned refcount_bits;	/* of the overlay; 0: 16 */
	bool no_format;		/* the overlay does not say it */
};

struct scene {
	const struct scene_options *options;
	struct sim *sim;
	struct file *found[SCENE_FILES];
	struct file *files[SCENE_FILES];
	uint8_t shown[SCENE_SECTORS_MAX];	/* the value of each sector */
	struct record_log *log;	/* NULL: nothing is recorded */

	/* Of the last work. */
	int err;
	struct error error;
	uint64_t committed;	/* when the lower file had it all */

	/* Of the last verdict. */
	struct file *judged[SCENE_FILES];
	char name[1024];	/* of the backing file, as the header says */
};

/* Makes the files; no work is done yet. */
void scene_create(struct scene *scene, const struct scene_options *options);
void scene_free(struct scene *scene);

/* Files as they were found, in a world of their own, of that seed. */
void scene_reset(struct scene *scene, uint64_t seed, bool recorded);

/* Does the work, from opening the files to closing them. */
void scene_work(struct scene *scene);

/*
 * Asserts of these files (NULL: as they were found), which are in plain mode:
 * those that are qcow2 have leaks at most, the overlay shows what it shall, and
 * its header is the old or the new one.  *finishedp: it is as after the work.
 */
void scene_judge(struct scene *scene, struct file *const files[SCENE_FILES],
    bool *finishedp);

/* Asserts that the old file alone has what the overlay showed. */
void scene_judge_committed(struct scene *scene, struct file *old);

#endif
