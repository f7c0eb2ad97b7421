/* SPDX-License-Identifier: MIT */
/*
 * File threads: they block in the kernel so that a loop need not.
 *
 * For the thread engine alone.  One pool per process, FILE_POOL_THREADS_MAX
 * threads, each started when there is work that nobody is free to take.
 */
#ifndef RUNTIME_FILE_POOL_H
#define RUNTIME_FILE_POOL_H

#include "runtime/loop.h"
#include "runtime/op_list.h"

#define FILE_POOL_THREADS_MAX 16

/*
 * Runs all of list, which is empty afterwards, and calls file_pool_done() for
 * each batch.  Without a single thread to be had, the calling thread does it.
 */
void file_pool_run(struct op_list *list);

/*
 * Given by the engine and called by the thread that ran them: the tasks of
 * finished operations of one loop, with their results set.
 */
void file_pool_done(struct loop *loop, struct task_list *tasks);

#endif
