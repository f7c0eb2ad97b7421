/* SPDX-License-Identifier: MIT */
/*
 * One try at a socket operation, without waiting.
 *
 * For the thread engine alone.  A long send or receive takes several tries;
 * op->result, 0 at the start, keeps count of the bytes between them.
 */
#ifndef RUNTIME_SOCKET_TRY_H
#define RUNTIME_SOCKET_TRY_H

#include "runtime/loop.h"

/*
 * The result of op, which is any socket operation but OP_RECV_POOLED; -EAGAIN
 * if it has to wait.  A failure after the first bytes is left for the next
 * operation to meet: the caller has to know how far this one got.
 */
int64_t socket_try(struct op *op);

#endif
