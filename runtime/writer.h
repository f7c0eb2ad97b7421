/* SPDX-License-Identifier: MIT */
/*
 * A writer: one thread that does the buffered writes of one file.
 *
 * Some file systems (ext4) refuse buffered writes that must not block, so
 * io_uring hands each of them to a kernel worker, at several times the cost of
 * the write.  Here a loop collects the writes of a turn and wakes the thread
 * once; the thread writes them one after the other and posts them back in
 * batches.  A write that has to wait for the disk so delays other writes of
 * this file, and no loop.
 */
#ifndef RUNTIME_WRITER_H
#define RUNTIME_WRITER_H

#include "runtime/loop.h"

struct writer;

/* -ENOMEM, -EAGAIN: no thread to be had; then operations go to the loop. */
int writer_start(struct writer **writerp);

/* Nothing is queued.  NULL is fine. */
void writer_stop(struct writer *writer);

/* As loop_submit(), for an OP_WRITEV. */
void writer_submit(struct writer *writer, struct op *op);

#endif
