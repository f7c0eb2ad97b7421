/* SPDX-License-Identifier: MIT */
/*
 * qnbd with an allocator that fails when it is told to, for builds in which
 * none can be put before it by LD_PRELOAD: with sanitizers, which find what is
 * not given back on the way out.
 */
#include "tests/fault/allocator.h"
#include "tests/fault/control.h"

bool
allocator_fails(void)
{
	return control_fails_allocation();
}
