/* SPDX-License-Identifier: MIT */
/* Certificates and keys in files, as PEM. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "server/certificate.h"

#define KEY_MODE 0600
#define PUBLIC_MODE 0644

/* One file to be made. */
struct pem_file {
	char path[PATH_MAX];
	char beside_path[PATH_MAX + 8];
};

static int
make_path(char path[PATH_MAX], const char *directory, const char *file,
    struct error *error)
{
	if (snprintf(path, PATH_MAX, "%s/%s", directory, file) < PATH_MAX)
		return 0;
	return error_set(error, -ENAMETOOLONG, "the name %s is too long",
	    directory);
}

/* ---- reading ---- */

static BIO *
open_pem(const char *directory, const char *file, char path[PATH_MAX],
    struct error *error)
{
	BIO *bio;
	int err;

	if (make_path(path, directory, file, error))
		return NULL;
	errno = 0;
	bio = BIO_new_file(path, "r");
	err = errno ? errno : EIO;
	ERR_clear_error();
	if (!bio)
		error_set(error, -err, "cannot read %s: %s", path,
		    strerror(err));
	return bio;
}

int
certificate_load_public(const char *directory, const char *file, X509 **x509p,
    struct error *error)
{
	char path[PATH_MAX];
	BIO *bio = open_pem(directory, file, path, error);
	X509 *x509;

	if (!bio)
		return -EIO;
	x509 = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	BIO_free(bio);
	ERR_clear_error();
	if (!x509)
		return error_set(error, -EINVAL, "%s holds no certificate",
		    path);
	*x509p = x509;
	return 0;
}

/* A key that is itself encrypted is refused rather than asked for. */
static int
no_passphrase(char *passphrase, int size, int writing, void *arg)
{
	(void)passphrase;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int
load_key(const char *directory, const char *file, EVP_PKEY **keyp,
    struct error *error)
{
	char path[PATH_MAX];
	BIO *bio = open_pem(directory, file, path, error);
	EVP_PKEY *key;

	if (!bio)
		return -EIO;
	key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	ERR_clear_error();
	if (!key)
		return error_set(error, -EINVAL,
		    "%s holds no private key that can be read without a "
		    "passphrase", path);
	*keyp = key;
	return 0;
}

int
certificate_load(const char *directory, const char *file, const char *key_file,
    struct certificate *certificate, struct error *error)
{
	struct certificate loaded = {0};
	int err = certificate_load_public(directory, file, &loaded.x509,
	    error);

	if (!err)
		err = load_key(directory, key_file, &loaded.key, error);
	if (!err && X509_check_private_key(loaded.x509, loaded.key) != 1) {
		ERR_clear_error();
		err = error_set(error, -EINVAL,
		    "%s/%s is not the key of %s/%s", directory, key_file,
		    directory, file);
	}
	if (err) {
		certificate_free(&loaded);
		return err;
	}
	*certificate = loaded;
	return 0;
}

/* ---- writing ---- */

static int
name_files(struct pem_file *pem_file, const char *directory, const char *file,
    struct error *error)
{
	int err = make_path(pem_file->path, directory, file, error);

	if (!err)
		snprintf(pem_file->beside_path, sizeof(pem_file->beside_path),
		    "%s.new", pem_file->path);
	return err;
}

/* Writes one of the two, and makes it stable. */
static int
write_pem(FILE *out, X509 *x509, EVP_PKEY *key)
{
	int done = x509 ? PEM_write_X509(out, x509) :
	    PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);

	ERR_clear_error();
	if (!done || fflush(out) || fsync(fileno(out)))
		return errno ? -errno : -EIO;
	return 0;
}

static int
write_beside(const char *path, X509 *x509, EVP_PKEY *key)
{
	FILE *out;
	int fd, err;

	/* What an earlier attempt left is of no use to anybody. */
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
	    key ? KEY_MODE : PUBLIC_MODE);
	if (fd < 0)
		return -errno;
	out = fdopen(fd, "w");
	if (!out) {
		err = -errno;
		close(fd);
		return err;
	}
	errno = 0;
	err = write_pem(out, x509, key);
	if (fclose(out) && !err)
		err = -errno;
	return err;
}

static int
give_name(const struct pem_file *pem_file, bool replace)
{
	if (replace)
		return rename(pem_file->beside_path, pem_file->path) ?
		    -errno : 0;
	if (link(pem_file->beside_path, pem_file->path))
		return -errno;
	unlink(pem_file->beside_path);
	return 0;
}

static int
sync_directory(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd))
		err = -errno;
	close(fd);
	return err;
}

static int
save(X509 *x509, EVP_PKEY *key, const char *directory, const char *file,
    bool replace, struct error *error)
{
	struct pem_file pem_file;
	int err = name_files(&pem_file, directory, file, error);

	if (err)
		return err;
	err = write_beside(pem_file.beside_path, x509, key);
	if (!err)
		err = give_name(&pem_file, replace);
	if (!err)
		err = sync_directory(directory);
	if (!err)
		return 0;
	unlink(pem_file.beside_path);
	return error_set(error, err, "cannot make %s: %s", pem_file.path,
	    strerror(-err));
}

int
certificate_save_public(X509 *x509, const char *directory, const char *file,
    bool replace, struct error *error)
{
	return save(x509, NULL, directory, file, replace, error);
}

int
certificate_save(const struct certificate *certificate, const char *directory,
    const char *file, const char *key_file, bool replace, struct error *error)
{
	char key_path[PATH_MAX];
	int err = make_path(key_path, directory, key_file, error);

	if (!err)
		err = save(NULL, certificate->key, directory, key_file,
		    replace, error);
	if (err)
		return err;
	err = save(certificate->x509, NULL, directory, file, replace, error);
	/* Beside a certificate of before it would be taken for its key. */
	if (err && !replace)
		unlink(key_path);
	return err;
}
