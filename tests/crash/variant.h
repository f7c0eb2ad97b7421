/* SPDX-License-Identifier: MIT */
/* What a crash can leave of one operation. */
#ifndef TESTS_CRASH_VARIANT_H
#define TESTS_CRASH_VARIANT_H

#include <stdbool.h>
#include "tests/crash/state.h"

enum variant {
	VARIANT_WHOLE,
	VARIANT_LOST,
	VARIANT_SIZE,		/* the file grew, but the data is not there */
	VARIANT_CUT,		/* the file did not grow, the rest is there */
	VARIANT_TORN,		/* and the CRASH_TEAR_WAYS - 1 after it */
};

/* Lets what the variant says of record's operation take effect on file. */
void variant_apply(struct file *file, const struct record *record,
    enum variant variant, const struct crash_options *options);

/* Whether it consists of more than one piece that is old or new. */
bool variant_tears(const struct record *record,
    const struct crash_options *options);

/* Where the file ends at least after the operation, whatever it was before. */
uint64_t variant_end(const struct record *record);

/* Whether first, which comes first in the log, is under what second did. */
bool variant_must_precede(const struct record *first,
    const struct record *second);

/* "write 0x10000+4096", for people. */
void variant_describe(const struct record *record, char *text, size_t size);

#endif
