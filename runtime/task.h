/* SPDX-License-Identifier: MIT */
/*
 * A task: something a loop shall run once.
 *
 * It is embedded in whatever it is about (a coroutine, an operation, a
 * connection), so making work ready never allocates.
 */
#ifndef RUNTIME_TASK_H
#define RUNTIME_TASK_H

#include <stddef.h>

struct task {
	struct task *next;
	void (*run)(struct task *task);
};

/* A first-in first-out list of tasks; all zeros is an empty one. */
struct task_list {
	struct task *first;
	struct task *last;
};

static inline void
task_list_append(struct task_list *list, struct task *task)
{
	task->next = NULL;
	if (list->first)
		list->last->next = task;
	else
		list->first = task;
	list->last = task;
}

/* Moves all of from to the end of list. */
static inline void
task_list_join(struct task_list *list, struct task_list *from)
{
	if (!from->first)
		return;
	if (list->first)
		list->last->next = from->first;
	else
		list->first = from->first;
	list->last = from->last;
	from->first = NULL;
}

static inline struct task *
task_list_take(struct task_list *list)
{
	struct task *task = list->first;

	if (task)
		list->first = task->next;
	return task;
}

#define container_of(pointer, type, member) \
	((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#endif
