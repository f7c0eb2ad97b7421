/* SPDX-License-Identifier: MIT */
/*
 * Confined opening: only what lies below certain directories.
 *
 * A path is judged twice.  As text, to find the directory it lies below; and
 * by the kernel, which walks from that directory's descriptor and refuses to
 * leave it and to follow a symbolic link.  The text decides only where the
 * walk begins, so a directory that is swapped meanwhile does no harm.
 *
 * Nothing here suspends, but opening files blocks: it is for start-up.
 */
#ifndef QCOW2_CONFINE_H
#define QCOW2_CONFINE_H


struct file;

/* Paths here are absolute, without empty or "." components. */
struct confine_directory {
	int fd;
	char *text;	/* as it was typed */
	char *real;	/* the same without symbolic links and ".." */
};

/* Opens path, following symbolic links: a person named it.  -errno. */
int confine_directory_open(const char *path,
    struct confine_directory *directory);
void confine_directory_close(struct confine_directory *directory);

/* path as an absolute one; or NULL, for lack of memory or a directory. */
char *confine_absolute(const char *path);

/* What is before the last slash of an absolute path; NULL: no memory. */
char *confine_parent(const char *path);

/*
 * The absolute path that name, a relative one, means in directory; NULL: no
 * memory.
 */
char *confine_join(const struct confine_directory *directory,
    const char *name);

/*
 * Opens the regular file at path, which is absolute, with flags as
 * file_open()'s, and the directory it is in, as one of the count.  -EXDEV if it
 * is below none of them, -ELOOP where a symbolic link is in the way, -EINVAL or
 * -EISDIR if it is no regular file; else what opening gave.
 */
int confine_open(const struct confine_directory *directories, unsigned count,
    const char *path, unsigned flags, struct confine_directory *parent,
    struct file **filep);

#endif
