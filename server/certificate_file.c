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
#include "server/tls_file.h"

#define KEY_MODE 0600
#define PUBLIC_MODE 0644

/* One file to be made, of one of the two. */
struct pem_file {
	X509 *x509;
	EVP_PKEY *key;
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

static int
open_pem(const char *directory, const char *file, char path[PATH_MAX],
    BIO **biop, struct error *error)
{
	int err = make_path(path, directory, file, error);

	return err ? err : tls_file_open(path,
	    TLS_FILE_CERTIFICATES_BYTES_MAX, biop, error);
}

int
certificate_load_public(const char *directory, const char *file, X509 **x509p,
    struct error *error)
{
	char path[PATH_MAX];
	X509 *x509;
	BIO *bio;
	int err = open_pem(directory, file, path, &bio, error);

	if (err)
		return err;
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

int
certificate_load_key(const char *directory, const char *key_file,
    EVP_PKEY **keyp, struct error *error)
{
	char path[PATH_MAX];
	EVP_PKEY *key;
	BIO *bio;
	int err = open_pem(directory, key_file, path, &bio, error);

	if (err)
		return err;
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
		err = certificate_load_key(directory, key_file, &loaded.key,
		    error);
	if (!err && X509_check_private_key(loaded.x509, loaded.key) != 1) {
		ERR_clear_error();
		err = error_set(error, -EINVAL,
		    "%s/%s is not the key of %s/%s", directory, key_file,
		    directory, file);
		error_hint(error, "a new certificate for this key comes with "
		    "the command that made both, and --renew");
	}
	if (err) {
		certificate_free(&loaded);
		return err;
	}
	*certificate = loaded;
	return 0;
}

/* ---- writing ---- */

/* Writes it, and makes it stable. */
static int
write_pem(FILE *out, const struct pem_file *pem_file)
{
	int done = pem_file->x509 ? PEM_write_X509(out, pem_file->x509) :
	    PEM_write_PrivateKey(out, pem_file->key, NULL, NULL, 0, NULL,
	    NULL);

	ERR_clear_error();
	if (!done || fflush(out) || fsync(fileno(out)))
		return errno ? -errno : -EIO;
	return 0;
}

static int
write_beside(const struct pem_file *pem_file)
{
	FILE *out;
	int fd, err;

	/* What an earlier attempt left is of no use to anybody. */
	unlink(pem_file->beside_path);
	fd = open(pem_file->beside_path,
	    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
	    pem_file->key ? KEY_MODE : PUBLIC_MODE);
	if (fd < 0)
		return -errno;
	out = fdopen(fd, "w");
	if (!out) {
		err = -errno;
		close(fd);
		return err;
	}
	errno = 0;
	err = write_pem(out, pem_file);
	if (fclose(out) && !err)
		err = -errno;
	return err;
}

static int
complain(const struct pem_file *pem_file, int err, struct error *error)
{
	unlink(pem_file->beside_path);
	return error_set(error, err, "cannot make %s: %s", pem_file->path,
	    strerror(-err));
}

/* All of it, but for its name. */
static int
prepare(struct pem_file *pem_file, const char *directory, const char *file,
    struct error *error)
{
	int err = make_path(pem_file->path, directory, file, error);

	if (err)
		return err;
	snprintf(pem_file->beside_path, sizeof(pem_file->beside_path),
	    "%s.new", pem_file->path);
	err = write_beside(pem_file);
	return err ? complain(pem_file, err, error) : 0;
}

static int
give_name(const struct pem_file *pem_file, bool replace, struct error *error)
{
	int result = replace ?
	    rename(pem_file->beside_path, pem_file->path) :
	    link(pem_file->beside_path, pem_file->path);

	if (result)
		return complain(pem_file, -errno, error);
	if (!replace)
		unlink(pem_file->beside_path);
	return 0;
}

/* Makes the names stable. */
static int
sync_directory(const char *directory, struct error *error)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0 || fsync(fd))
		err = error_set(error, -errno, "cannot make what is in %s "
		    "stable: %s", directory, strerror(errno));
	if (fd >= 0)
		close(fd);
	return err;
}

int
certificate_save_public(X509 *x509, const char *directory, const char *file,
    bool replace, struct error *error)
{
	struct pem_file pem_file = {.x509 = x509};
	int err = prepare(&pem_file, directory, file, error);

	if (!err)
		err = give_name(&pem_file, replace, error);
	return err ? err : sync_directory(directory, error);
}

int
certificate_save(const struct certificate *certificate, const char *directory,
    const char *file, const char *key_file, bool replace, struct error *error)
{
	struct pem_file public = {.x509 = certificate->x509};
	struct pem_file key = {.key = certificate->key};
	int err = prepare(&key, directory, key_file, error);

	if (err)
		return err;
	err = prepare(&public, directory, file, error);
	if (err)
		goto remove_key_beside;
	err = give_name(&key, replace, error);
	if (err)
		goto remove_public_beside;
	err = give_name(&public, replace, error);
	/* Beside a certificate of before it would be taken for its key. */
	if (err && !replace)
		unlink(key.path);
	return err ? err : sync_directory(directory, error);
remove_public_beside:
	unlink(public.beside_path);
remove_key_beside:
	unlink(key.beside_path);
	return err;
}
