/* SPDX-License-Identifier: MIT */
/*
 * Locks of files, on the bytes that QEMU 7.2 uses.
 */
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include "runtime/file.h"
#include "runtime/file_os.h"

/* How long between two tries. */
#define PAUSE_MS 20

/* Bits of a lock: byte 100 + bit is held, byte 200 + bit is not shared. */
#define PERMISSION_READ		(1u << 0)
#define PERMISSION_WRITE	(1u << 1)
#define PERMISSION_RESIZE	(1u << 3)
#define PERMISSION_BITS		4
#define LOCK_HELD_BASE		100
#define LOCK_UNSHARED_BASE	200

struct permissions {
	unsigned held;
	unsigned unshared;
};

static struct permissions
permissions_of(enum file_lock lock)
{
	struct permissions permissions = {
		.held = PERMISSION_READ,
		.unshared = PERMISSION_WRITE | PERMISSION_RESIZE,
	};

	if (lock == FILE_LOCK_SHARED)
		return (struct permissions){0};
	if (lock == FILE_LOCK_WRITE)
		permissions.held |= PERMISSION_WRITE | PERMISSION_RESIZE;
	return permissions;
}

static int
lock_byte(int fd, int command, short type, off_t byte)
{
	struct flock lock = {
		.l_type = type, .l_whence = SEEK_SET,
		.l_start = byte, .l_len = 1,
	};

	if (fcntl(fd, command, &lock))
		return errno == EACCES ? -EAGAIN : -errno;
	if (command == F_OFD_GETLK && lock.l_type != F_UNLCK)
		return -EAGAIN;
	return 0;
}

static int
lock_bytes(int fd, int command, short type, unsigned bits, off_t base)
{
	for (unsigned bit = 0; bit < PERMISSION_BITS; bit++) {
		int err;

		if (!(bits & (1u << bit)))
			continue;
		err = lock_byte(fd, command, type, base + bit);
		if (err)
			return err;
	}
	return 0;
}

/* Takes the bytes, whatever others have. */
static int
announce(int fd, struct permissions wanted)
{
	int err;

	err = lock_bytes(fd, F_OFD_SETLK, F_RDLCK, wanted.held,
	    LOCK_HELD_BASE);
	return err ? err : lock_bytes(fd, F_OFD_SETLK, F_RDLCK,
	    wanted.unshared, LOCK_UNSHARED_BASE);
}

/* Gives back all other bytes. */
static void
keep_only(int fd, struct permissions kept)
{
	lock_bytes(fd, F_OFD_SETLK, F_UNLCK, ~kept.held, LOCK_HELD_BASE);
	lock_bytes(fd, F_OFD_SETLK, F_UNLCK, ~kept.unshared,
	    LOCK_UNSHARED_BASE);
}

/* First announce, then look: of two that come at once, both see the other. */
static int
lock_once(int fd, struct permissions wanted)
{
	int err;

	err = announce(fd, wanted);
	if (!err)
		err = lock_bytes(fd, F_OFD_GETLK, F_WRLCK, wanted.held,
		    LOCK_UNSHARED_BASE);
	return err ? err : lock_bytes(fd, F_OFD_GETLK, F_WRLCK,
	    wanted.unshared, LOCK_HELD_BASE);
}

int
file_lock(struct file *file, enum file_lock lock, unsigned patience_ms)
{
	struct permissions wanted = permissions_of(lock);
	struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};
	int fd = file_os_fd(file), err;

	if (fd < 0)
		return 0;
	for (unsigned waited_ms = 0;; waited_ms += PAUSE_MS) {
		err = lock_once(fd, wanted);
		if (!err)
			return 0;
		keep_only(fd, (struct permissions){0});
		if (err != -EAGAIN || waited_ms >= patience_ms)
			return err;
		nanosleep(&pause, NULL);
	}
}

int
file_relock(struct file *file, enum file_lock from, enum file_lock to)
{
	int fd = file_os_fd(file), err;

	if (fd < 0)
		return 0;
	err = lock_once(fd, permissions_of(to));
	keep_only(fd, permissions_of(err ? from : to));
	return err;
}

int
file_lock_again(struct file *file, enum file_lock lock)
{
	int fd = file_os_fd(file);

	return fd < 0 ? 0 : announce(fd, permissions_of(lock));
}
