/* SPDX-License-Identifier: MIT */
#include "runtime/thread.h"

#include <sched.h>
#include <signal.h>

int
thread_start(pthread_t *thread, const char *name, void *(*fn)(void *arg),
    void *arg)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return -err;
	pthread_setname_np(*thread, name);
	return 0;
}

unsigned
thread_cpus(void)
{
	cpu_set_t set;
	int cpus;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	cpus = CPU_COUNT(&set);
	return cpus > 0 ? (unsigned)cpus : 1;
}
