/* SPDX-License-Identifier: MIT */
/*
 * What each sector of a disk may hold, as sets of values: now; and if what was
 * not flushed may be lost.
 */
#ifndef TESTS_FAULT_MODEL_H
#define TESTS_FAULT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model {
	uint64_t sectors;
	uint32_t *now;
	uint32_t *kept;
};

/* A disk of zeros; and a copy of another model. */
void model_create(struct model *model, uint64_t disk_bytes);
void model_copy(struct model *model, const struct model *other);
void model_free(struct model *model);

/* The disk may get so many bytes: what is behind its end are zeros. */
void model_extend(struct model *model, uint64_t disk_bytes);

/* value may be there from now on, or certainly is. */
void model_add(struct model *model, uint64_t guest, uint64_t length,
    uint8_t value, bool certain);

/* What is there is stable; and what is not stable may be gone. */
void model_keep(struct model *model, uint64_t guest, uint64_t length);
void model_lose(struct model *model);

/*
 * Asserts that what was read at guest may be there.  What a sector holds now
 * it holds for good, so what is in doubt is settled by that.
 */
void model_judge(struct model *model, uint64_t guest, const uint8_t *data,
    size_t length);

#endif
