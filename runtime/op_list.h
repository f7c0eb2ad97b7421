/* SPDX-License-Identifier: MIT */
/* Lists of operations that an engine, or a thread of its, has taken over. */
#ifndef RUNTIME_OP_LIST_H
#define RUNTIME_OP_LIST_H

#include <stdbool.h>
#include "runtime/loop.h"

/* Operations linked by engine_next; all zeros is an empty list. */
struct op_list {
	struct op *first;
	struct op *last;
};

static inline void
op_list_append(struct op_list *list, struct op *op)
{
	op->engine_next = NULL;
	if (list->first)
		list->last->engine_next = op;
	else
		list->first = op;
	list->last = op;
}

static inline struct op *
op_list_take(struct op_list *list)
{
	struct op *op = list->first;

	if (op)
		list->first = op->engine_next;
	return op;
}

/* False if op is not in the list. */
static inline bool
op_list_remove(struct op_list *list, struct op *op)
{
	struct op *previous = NULL;
	struct op *here;

	for (here = list->first; here && here != op; here = here->engine_next)
		previous = here;
	if (!here)
		return false;
	if (previous)
		previous->engine_next = op->engine_next;
	else
		list->first = op->engine_next;
	if (list->last == op)
		list->last = previous;
	return true;
}

/* Moves all of from to the end of list. */
static inline void
op_list_join(struct op_list *list, struct op_list *from)
{
	if (!from->first)
		return;
	if (list->first)
		list->last->engine_next = from->first;
	else
		list->first = from->first;
	list->last = from->last;
	from->first = NULL;
}

#endif
