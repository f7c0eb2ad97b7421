/* SPDX-License-Identifier: MIT */
#include "runtime/file_holder.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runtime/file.h"

static bool
has_open(int pid, const struct file *file)
{
	char path[64];
	struct dirent *entry;
	bool found = false;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	directory = opendir(path);
	if (!directory)
		return false;
	while (!found && (entry = readdir(directory))) {
		struct stat st;

		if (fstatat(dirfd(directory), entry->d_name, &st, 0))
			continue;
		if (S_ISREG(st.st_mode))
			found = st.st_dev == file->id.dev &&
			    st.st_ino == file->id.ino;
		else if (S_ISBLK(st.st_mode))
			found = st.st_rdev == file->id.dev &&
			    file->id.ino == 0;
	}
	closedir(directory);
	return found;
}

static void
describe(int pid, char target[FILE_HOLDER_BYTES])
{
	char path[64], name[32] = "process";
	FILE *comm;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	comm = fopen(path, "re");
	if (comm && fgets(name, sizeof(name), comm))
		name[strcspn(name, "\n")] = '\0';
	if (comm)
		fclose(comm);
	snprintf(target, FILE_HOLDER_BYTES, "%s (pid %d)", name, pid);
}

void
file_holder(const struct file *file, char target[FILE_HOLDER_BYTES])
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	snprintf(target, FILE_HOLDER_BYTES, "another process");
	if (!proc)
		return;
	while ((entry = readdir(proc))) {
		int pid = atoi(entry->d_name);

		if (pid <= 0 || pid == getpid() || !has_open(pid, file))
			continue;
		describe(pid, target);
		break;
	}
	closedir(proc);
}
