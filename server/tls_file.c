/* SPDX-License-Identifier: MIT */
#include "server/tls_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>
#include "runtime/log.h"
#include "runtime/secret.h"

static void
warn_if_open(const struct stat *status, const char *path)
{
	if (status->st_mode & S_IROTH)
		log_warning("every user of this machine can read the keys in "
		    "%s; chmod o-r would keep them secret", path);
}

static int
read_open(int fd, const char *path, size_t bytes_max, bool has_keys,
    char **textp, size_t *bytesp, struct error *error)
{
	struct stat status;
	size_t size;
	char *text;
	ssize_t got;

	if (fstat(fd, &status) < 0)
		return error_set(error, -errno, "cannot read %s: %s", path,
		    strerror(errno));
	if (!S_ISREG(status.st_mode))
		return error_set(error, -EINVAL, "cannot read %s: it is no "
		    "regular file", path);
	if ((uintmax_t)status.st_size > bytes_max)
		return error_set(error, -EFBIG, "%s has more than %zu bytes",
		    path, bytes_max);
	if (has_keys)
		warn_if_open(&status, path);
	size = (size_t)status.st_size + 1;
	text = secret_get(size);
	if (!text)
		return error_set(error, -ENOMEM, "out of memory");
	got = secret_read(fd, text, size - 1);
	if (got < 0) {
		secret_put(text, size);
		return error_set(error, (int)got, "cannot read %s: %s", path,
		    strerror((int)-got));
	}
	*textp = text;
	*bytesp = size;
	return 0;
}

static int
read_file(const char *path, size_t bytes_max, bool has_keys, char **textp,
    size_t *bytesp, struct error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int err;

	if (fd < 0)
		return error_set(error, -errno, "cannot read %s: %s", path,
		    strerror(errno));
	err = read_open(fd, path, bytes_max, has_keys, textp, bytesp, error);
	close(fd);
	return err;
}

int
tls_file_read(const char *path, size_t bytes_max, char **textp,
    size_t *bytesp, struct error *error)
{
	return read_file(path, bytes_max, true, textp, bytesp, error);
}

int
tls_file_open(const char *path, size_t bytes_max, BIO **biop,
    struct error *error)
{
	size_t bytes;
	char *text;
	BIO *bio;
	int err = read_file(path, bytes_max, false, &text, &bytes, error);

	if (err)
		return err;
	/* Its copy is wiped, too, when it is freed. */
	bio = BIO_new(BIO_s_mem());
	if (bio && bytes > 1 &&
	    BIO_write(bio, text, (int)bytes - 1) != (int)bytes - 1) {
		BIO_free(bio);
		bio = NULL;
	}
	secret_put(text, bytes);
	if (!bio)
		return error_set(error, -ENOMEM, "out of memory");
	BIO_set_mem_eof_return(bio, 0);
	*biop = bio;
	return 0;
}

const char *
tls_file_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);

	ERR_clear_error();
	return reason ? reason : "unknown error";
}
