/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "qcow2/confine.h"
#include "runtime/file.h"

#define RESOLVE_STRICTLY \
	(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)

/* ---- paths as text ---- */

/* Drops empty and "." components in place; ".." stays. */
static void
path_clean(char *path)
{
	char *source = path, *target = path;
	size_t bytes;

	while (*source) {
		source += strspn(source, "/");
		bytes = strcspn(source, "/");
		if (bytes > 0 && !(bytes == 1 && *source == '.')) {
			*target++ = '/';
			memmove(target, source, bytes);
			target += bytes;
		}
		source += bytes;
	}
	if (target == path)
		*target++ = '/';
	*target = '\0';
}

/* The first directory_bytes of directory, a slash, and name; cleaned. */
static char *
path_join(const char *directory, size_t directory_bytes, const char *name)
{
	char *path;

	if (asprintf(&path, "%.*s/%s", (int)directory_bytes, directory,
	    name) < 0)
		return NULL;
	path_clean(path);
	return path;
}

char *
confine_absolute(const char *path)
{
	char *cwd = *path == '/' ? strdup("") : getcwd(NULL, 0);
	char *absolute = cwd ? path_join(cwd, strlen(cwd), path) : NULL;

	free(cwd);
	return absolute;
}

char *
confine_parent(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == path ? strdup("/") :
	    strndup(path, (size_t)(slash - path));
}

/*
 * A name that begins with ".." is taken as seen from the real directory, where
 * ".." and the text before it cancel out; so the result can be compared with
 * the directories that are allowed.
 */
char *
confine_join(const struct confine_directory *directory, const char *name)
{
	size_t kept = strlen(directory->real);

	for (;;) {
		name += strspn(name, "/");
		if (strncmp(name, "./", 2) == 0) {
			name += 2;
			continue;
		}
		if (strncmp(name, "../", 3) != 0)
			break;
		while (kept > 0 && directory->real[--kept] != '/')
			;
		name += 3;
	}
	if (kept == strlen(directory->real))
		return path_join(directory->text, strlen(directory->text),
		    name);
	return path_join(directory->real, kept, name);
}

/* How many bytes of path are before what is below directory; 0 if it is not. */
static size_t
path_below(const char *path, const char *directory)
{
	size_t bytes = strcmp(directory, "/") == 0 ? 0 : strlen(directory);

	if (strncmp(path, directory, bytes) != 0 || path[bytes] != '/')
		return 0;
	return path[bytes + 1] ? bytes + 1 : 0;
}

/* ---- directories ---- */

int
confine_directory_open(const char *path, struct confine_directory *directory)
{
	int err;

	directory->text = confine_absolute(path);
	if (!directory->text)
		return -ENOMEM;
	directory->real = realpath(path, NULL);
	if (!directory->real) {
		err = -errno;
		goto free_text;
	}
	directory->fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory->fd < 0) {
		err = -errno;
		goto free_real;
	}
	return 0;
free_real:
	free(directory->real);
free_text:
	free(directory->text);
	return err;
}

void
confine_directory_close(struct confine_directory *directory)
{
	close(directory->fd);
	free(directory->real);
	free(directory->text);
}

/* ---- the walk ---- */

/* Opens the directory that is parent_bytes of path long, seen from base. */
static int
open_parent(const struct confine_directory *base, const char *path,
    size_t parent_bytes)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_STRICTLY,
	};
	char *parent = parent_bytes ? strndup(path, parent_bytes) :
	    strdup(".");
	long fd;

	if (!parent)
		return -ENOMEM;
	fd = syscall(SYS_openat2, base->fd, parent, &how, sizeof(how));
	if (fd < 0)
		fd = -errno;
	free(parent);
	return (int)fd;
}

/* Opens path and the directory it is in, seen from base. */
static int
walk(const struct confine_directory *base, const char *path, unsigned flags,
    int *directory_fdp, struct file **filep)
{
	const char *slash = strrchr(path, '/');
	const char *leaf = slash ? slash + 1 : path;
	struct file *file;
	int fd, err;

	fd = open_parent(base, path, slash ? (size_t)(slash - path) : 0);
	if (fd < 0)
		return fd;
	err = file_open(fd, leaf, flags, RESOLVE_STRICTLY, &file);
	if (err)
		goto close_fd;
	if (!file->is_regular) {
		err = -EINVAL;
		goto close_file;
	}
	*directory_fdp = fd;
	*filep = file;
	return 0;
close_file:
	file_close(file);
close_fd:
	close(fd);
	return err;
}

/* The longest is where the fewest symbolic links can be in the way. */
static const struct confine_directory *
longest_match(const struct confine_directory *directories, unsigned count,
    const char *path, size_t *bytesp)
{
	const struct confine_directory *best = NULL;
	size_t text, real;
	unsigned i;

	*bytesp = 0;
	for (i = 0; i < count; i++) {
		text = path_below(path, directories[i].text);
		real = path_below(path, directories[i].real);
		if (real > text)
			text = real;
		if (text > *bytesp) {
			*bytesp = text;
			best = &directories[i];
		}
	}
	return best;
}

int
confine_open(const struct confine_directory *directories, unsigned count,
    const char *path, unsigned flags, struct confine_directory *parent,
    struct file **filep)
{
	const struct confine_directory *base;
	struct confine_directory found;
	struct file *file;
	size_t bytes;
	int err;

	base = longest_match(directories, count, path, &bytes);
	if (!base)
		return -EXDEV;
	found.text = confine_parent(path);
	if (!found.text)
		return -ENOMEM;
	err = walk(base, path + bytes, flags, &found.fd, &file);
	if (err)
		goto free_text;
	found.real = realpath(found.text, NULL);
	if (!found.real) {
		err = -errno;
		goto close_files;
	}
	*parent = found;
	*filep = file;
	return 0;
close_files:
	file_close(file);
	close(found.fd);
free_text:
	free(found.text);
	return err;
}
