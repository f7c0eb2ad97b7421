/* SPDX-License-Identifier: MIT */
/*
 * Coroutines.
 *
 * Cost of a switch: the six callee-saved registers and the stack pointer, no
 * system call.  Cost of a start: a stack from the loop's pool; a new stack is
 * one mmap and one mprotect.  Memory: what a coroutine touched of its stack,
 * mostly two pages; at most STACKS_POOLED of them are kept by an idle loop.
 *
 * The struct co stands at the top of its own stack, below a guard page and
 * the stack proper:   | guard | stack ... <- sp | struct co |
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "runtime/co.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "runtime/loop_internal.h"
#include "runtime/monitor.h"

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#endif

#define GUARD_BYTES 4096
#define STACKS_POOLED 256

struct co {
	struct task task;	/* resumes it */
	struct loop *loop;
	struct monitor *monitor;
	void *context;		/* its stack pointer while suspended */
	void (*fn)(void *arg);
	void *arg;
	bool ended;
	char *stack;
	struct co *pool_next;
#ifdef WITH_ASAN
	void *fake_stack;
#endif
#ifdef WITH_TSAN
	void *fiber;
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
	unsigned valgrind_id;
#endif
};

static __thread struct co *current;
static __thread struct co *pool;
static __thread unsigned pool_count;
#ifdef WITH_ASAN
static __thread const void *loop_stack;
static __thread size_t loop_stack_bytes;
#endif
#ifdef WITH_TSAN
static __thread void *loop_fiber;
#endif

/*
 * co_switch(save, load): pushes what the calling convention wants kept, leaves
 * the stack pointer in *save and continues where load was left.
 */
void co_switch(void **save, void *load);

#if defined(__x86_64__)
__asm__(
	".text\n"
	".globl co_switch\n"
	".hidden co_switch\n"
	".type co_switch, @function\n"
	"co_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size co_switch, .-co_switch\n"
);

/* Six registers, the address to return to, and one word of alignment. */
static void *
first_context(char *top, void (*entry)(void))
{
	void **sp = (void **)(void *)top;

	*--sp = NULL;
	*--sp = (void *)entry;
	for (int i = 0; i < 6; i++)
		*--sp = NULL;
	return sp;
}
#elif defined(__aarch64__)
__asm__(
	".text\n"
	".globl co_switch\n"
	".hidden co_switch\n"
	".type co_switch, %function\n"
	"co_switch:\n"
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	".size co_switch, .-co_switch\n"
);

static void *
first_context(char *top, void (*entry)(void))
{
	char *sp = top - 160;

	memset(sp, 0, 160);
	memcpy(sp + 88, &entry, sizeof(entry));
	return sp;
}
#else
#error "co_switch is written for x86_64 and aarch64"
#endif

/* ---- switching, with what the sanitizers want to know ---- */

static void
switch_to_co(struct co *co)
{
#ifdef WITH_ASAN
	void *fake_stack;

	__sanitizer_start_switch_fiber(&fake_stack, co->stack, CO_STACK_BYTES);
#endif
#ifdef WITH_TSAN
	loop_fiber = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(co->fiber, 0);
#endif
	co_switch(&co->loop->context, co->context);
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
}

static void
switch_to_loop(struct co *co)
{
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(co->ended ? NULL : &co->fake_stack,
	    loop_stack, loop_stack_bytes);
#endif
#ifdef WITH_TSAN
	__tsan_switch_to_fiber(loop_fiber, 0);
#endif
	co_switch(&co->context, co->loop->context);
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(co->fake_stack, &loop_stack,
	    &loop_stack_bytes);
#endif
}

static void
entry(void)
{
	struct co *co = current;

#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(NULL, &loop_stack, &loop_stack_bytes);
#endif
	co->fn(co->arg);
	assert(!co->monitor);
	co->ended = true;
	switch_to_loop(co);
	abort();
}

/* ---- stacks ---- */

static struct co *
stack_map(void)
{
	char *map = mmap(NULL, GUARD_BYTES + CO_STACK_BYTES,
	    PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	struct co *co;

	if (map == MAP_FAILED)
		return NULL;
	if (mprotect(map, GUARD_BYTES, PROT_NONE)) {
		munmap(map, GUARD_BYTES + CO_STACK_BYTES);
		return NULL;
	}
	co = (struct co *)(void *)(map + GUARD_BYTES + CO_STACK_BYTES -
	    ((sizeof(*co) + 63) & ~63ul));
	co->stack = map + GUARD_BYTES;
#ifdef WITH_TSAN
	co->fiber = __tsan_create_fiber(0);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
	co->valgrind_id = VALGRIND_STACK_REGISTER(co->stack,
	    co->stack + CO_STACK_BYTES);
#endif
	return co;
}

static void
stack_unmap(struct co *co)
{
#ifdef WITH_TSAN
	__tsan_destroy_fiber(co->fiber);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
	VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
#ifdef WITH_ASAN
	__asan_unpoison_memory_region(co->stack, CO_STACK_BYTES);
#endif
	munmap(co->stack - GUARD_BYTES, GUARD_BYTES + CO_STACK_BYTES);
}

static struct co *
stack_get(void)
{
	struct co *co = pool;

	if (!co)
		return stack_map();
	pool = co->pool_next;
	pool_count--;
	return co;
}

static void
stack_put(struct co *co)
{
	if (pool_count >= STACKS_POOLED) {
		stack_unmap(co);
		return;
	}
	co->pool_next = pool;
	pool = co;
	pool_count++;
}

void
co_pool_drain(void)
{
	while (pool) {
		struct co *co = pool;

		pool = co->pool_next;
		stack_unmap(co);
	}
	pool_count = 0;
}

/* ---- starting, ending ---- */

/* Lets one start that was held back try again, now that a coroutine ended. */
static void
begin_waiting(struct loop *loop)
{
	struct task *task = task_list_take(&loop->co_waiting);

	if (task)
		task_list_append(&loop->ready, task);
}

void
co_resume(struct co *co)
{
	struct loop *loop = co->loop;

	assert(!current);
	current = co;
	switch_to_co(co);
	current = NULL;
	if (!co->ended)
		return;
	stack_put(co);
	loop->co_alive--;
	begin_waiting(loop);
}

static void
resume(struct task *task)
{
	co_resume(container_of(task, struct co, task));
}

static void
begin(struct task *task)
{
	struct co_start *start = container_of(task, struct co_start, task);
	struct loop *loop = start->loop;
	struct co *co = NULL;

	if (loop->co_alive < loop->co_alive_max || start->beyond_limit)
		co = stack_get();
	if (!co) {
		task_list_append(&loop->co_waiting, task);
		loop_retry_starts(loop);
		return;
	}
	loop->co_alive++;
	co->task.run = resume;
	co->loop = loop;
	co->monitor = NULL;
	co->fn = start->fn;
	co->arg = start->arg;
	co->ended = false;
	co->context = first_context((char *)co - 64, entry);
	co_resume(co);
}

static void
make_ready(struct co_start *start, void (*fn)(void *arg), void *arg,
    bool beyond_limit)
{
	struct loop *loop = loop_self();

	start->task.run = begin;
	start->loop = loop;
	start->fn = fn;
	start->arg = arg;
	start->beyond_limit = beyond_limit;
	task_list_append(&loop->ready, &start->task);
}

void
co_start(struct co_start *start, void (*fn)(void *arg), void *arg)
{
	make_ready(start, fn, arg, false);
}

void
co_start_beyond_limit(struct co_start *start, void (*fn)(void *arg),
    void *arg)
{
	make_ready(start, fn, arg, true);
}

/* ---- inside a coroutine ---- */

struct co *
co_self(void)
{
	return current;
}

struct loop *
co_loop(const struct co *co)
{
	return co->loop;
}

struct monitor *
co_monitor(void)
{
	return current ? current->monitor : NULL;
}

void
co_set_monitor(struct monitor *monitor)
{
	assert(current);
	current->monitor = monitor;
}

/*
 * The monitor may be unlocked before the switch: whoever wakes this coroutine
 * then only makes it ready on its own loop, which is still busy right here.
 */
void
co_suspend(void)
{
	struct co *co = current;

	assert(co);
	if (co->monitor)
		monitor_unlock(co->monitor);
	switch_to_loop(co);
	if (co->monitor)
		monitor_lock(co->monitor);
}

void
co_wake(struct co *co)
{
	loop_post(co->loop, &co->task);
}

void
co_yield(void)
{
	loop_post_next_turn(&current->task);
	co_suspend();
}
