/* SPDX-License-Identifier: MIT */
/*
 * qnbd check: what its two parts share, the work and the printing.
 */
#ifndef SERVER_CHECK_H
#define SERVER_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include "qcow2/check.h"
#include "qcow2/repair.h"
#include "runtime/error.h"
#include "server/progress.h"

enum check_repair {
	CHECK_REPAIR_NOTHING = -1,
	CHECK_REPAIR_LEAKS,
	CHECK_REPAIR_ALL,
};

struct check_call {
	const char *path;
	enum check_repair repair;
	struct check_result result;	/* after the repair, if there was one */
	struct repair_result repaired;	/* zeros if not */
	struct error error;
	int err;
	struct progress progress;
	uint64_t reported[CHECK_ERROR + 1];
};

/* Prints what was found and done; the exit code. */
int check_print(const struct check_call *call, bool json);

#endif
