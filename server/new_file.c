/* SPDX-License-Identifier: MIT */
#include "server/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "runtime/file_holder.h"

/* A killed io_uring process holds its locks for some 50 ms more. */
#define LOCK_PATIENCE_MS 2000
/* Names to try for the file beside. */
#define NAMES_MAX 16

/* The directory of a path: all before its last slash. */
static char *
parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int
new_file_lock(struct file *file, enum file_lock kind, const char *path,
    struct error *error)
{
	char holder[FILE_HOLDER_BYTES];
	int err = file_lock(file, kind, LOCK_PATIENCE_MS);

	if (!err)
		return 0;
	if (err != -EAGAIN)
		return error_set(error, err, "cannot lock %s: %s",
		    path, strerror(-err));
	file_holder(file, holder);
	error_set(error, err, "cannot use %s: it is locked by %s",
	    path, holder);
	error_hint(error, "stop that program first");
	return err;
}

/* ---- the file that may be there already ---- */

static int
open_replaced(struct new_file *new_file, struct error *error)
{
	int err;

	new_file->target = realpath(new_file->path, NULL);
	if (!new_file->target)
		return error_set(error, -errno, "cannot replace %s: %s",
		    new_file->path, strerror(errno));
	err = file_open(AT_FDCWD, new_file->target, FILE_WRITE, 0,
	    &new_file->replaced);
	if (!err && !new_file->replaced->is_regular)
		err = -EINVAL;
	if (err)
		return error_set(error, err, "cannot replace %s: %s",
		    new_file->path, err == -EINVAL ? "it is no regular file" :
		    strerror(-err));
	return new_file_lock(new_file->replaced, FILE_LOCK_WRITE,
	    new_file->path, error);
}

int
new_file_settle(struct new_file *new_file, const char *path, bool force,
    struct error *error)
{
	struct stat st;
	int err = 0;

	*new_file = (struct new_file){ .path = path };
	if (lstat(path, &st) == 0) {
		if (!force) {
			error_set(error, -EEXIST, "%s is there already", path);
			error_hint(error,
			    "replace it, and lose what it holds: --force");
			return -EEXIST;
		}
		err = open_replaced(new_file, error);
	} else {
		new_file->target = strdup(path);
	}
	if (err)
		return err;
	if (new_file->target)
		new_file->directory = parent_of(new_file->target);
	if (!new_file->directory)
		return error_set(error, -ENOMEM, "out of memory");
	return 0;
}

/* ---- the file beside ---- */

/* What a signal shall remove; empty: nothing. */
static char beside_path[PATH_MAX];

static void
remove_beside(int number)
{
	if (beside_path[0])
		unlink(beside_path);
	signal(number, SIG_DFL);
	raise(number);
}

void
new_file_catch_signals(void)
{
	struct sigaction action = { .sa_handler = remove_beside };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

int
new_file_open(struct new_file *new_file, struct file **filep,
    struct error *error)
{
	int err = -EEXIST;

	for (unsigned i = 0; i < NAMES_MAX && err == -EEXIST; i++) {
		int length = snprintf(beside_path, sizeof(beside_path),
		    "%s/.qnbd-%ld-%u.new", new_file->directory, (long)getpid(),
		    i);

		if (length >= (int)sizeof(beside_path))
			err = -ENAMETOOLONG;
		else
			err = file_open(AT_FDCWD, beside_path,
			    FILE_WRITE | FILE_CREATE, 0, filep);
	}
	if (!err)
		return 0;
	beside_path[0] = '\0';
	return error_set(error, err, "cannot make a file in %s: %s",
	    new_file->directory, strerror(-err));
}

/* The name must still be free, unless it was to be replaced. */
static int
give_name(struct new_file *new_file, struct error *error)
{
	int result;

	if (new_file->replaced)
		result = rename(beside_path, new_file->target);
	else
		result = renameat2(AT_FDCWD, beside_path, AT_FDCWD,
		    new_file->target, RENAME_NOREPLACE);
	/* Not all file systems have that flag; a link does it, too. */
	if (result && errno == EINVAL && !new_file->replaced) {
		result = link(beside_path, new_file->target);
		if (!result)
			unlink(beside_path);
	}
	if (result)
		return error_set(error, -errno, "cannot name the new "
		    "file %s: %s", new_file->target, strerror(errno));
	beside_path[0] = '\0';
	return 0;
}

static int
sync_path(const char *path, int flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	int err = 0;

	if (fd < 0 || fsync(fd))
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

int
new_file_keep(struct new_file *new_file, bool sync, struct error *error)
{
	int err;

	/* What is replaced must not be lost together with what replaces it. */
	sync = sync || new_file->replaced;
	err = sync ? sync_path(beside_path, 0) : 0;
	if (err)
		return error_set(error, err, "cannot make all of %s stable: "
		    "%s", new_file->path, strerror(-err));
	err = give_name(new_file, error);
	if (!err && sync) {
		err = sync_path(new_file->directory, O_DIRECTORY);
		if (err)
			error_set(error, err, "%s is made, but may not "
			    "outlive a power failure: cannot sync %s: %s",
			    new_file->target, new_file->directory,
			    strerror(-err));
	}
	return err;
}

void
new_file_remove(void)
{
	if (beside_path[0])
		unlink(beside_path);
	beside_path[0] = '\0';
}

void
new_file_free(struct new_file *new_file)
{
	file_close(new_file->replaced);
	free(new_file->target);
	free(new_file->directory);
}
