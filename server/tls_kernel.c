/* SPDX-License-Identifier: MIT */
#include "server/tls_kernel.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define KEY_BYTES_MAX 32
#define IV_BYTES 12
#define SALT_BYTES 4		/* the first of the IV, as the kernel has it */

#define RECORD_ALERT 21
#define ALERT_WARNING 1
#define ALERT_CLOSE_NOTIFY 0

/* ---- keys (RFC 8446, section 7) ---- */

/* HKDF-Expand-Label() with an empty context. */
static int
expand(const EVP_MD *digest, const uint8_t *secret, size_t secret_bytes,
    const char *label, uint8_t *key, size_t key_bytes)
{
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	uint8_t info[32] = {0, (uint8_t)key_bytes, (uint8_t)strlen(label)};
	size_t info_bytes = 3 + strlen(label) + 1;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST,
		    (char *)(uintptr_t)EVP_MD_get0_name(digest), 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
		    (void *)(uintptr_t)secret, secret_bytes),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info,
		    info_bytes),
		OSSL_PARAM_construct_end(),
	};
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	int derived = 0;

	memcpy(info + 3, label, strlen(label));
	if (context)
		derived = EVP_KDF_derive(context, key, key_bytes, params);
	EVP_KDF_CTX_free(context);
	EVP_KDF_free(kdf);
	return derived == 1 ? 0 : -ENOMEM;
}

struct keys {
	uint8_t key[KEY_BYTES_MAX];
	uint8_t iv[IV_BYTES];
};

static int
derive_keys(const EVP_MD *digest, const uint8_t *secret, size_t secret_bytes,
    size_t key_bytes, struct keys *keys)
{
	int err = expand(digest, secret, secret_bytes, "tls13 key", keys->key,
	    key_bytes);

	return err ? err : expand(digest, secret, secret_bytes, "tls13 iv",
	    keys->iv, IV_BYTES);
}

/* ---- the socket ---- */

/* The sequence number of the first record is zero. */
static int
set_keys(int fd, int cipher, const struct keys *keys)
{
	union {
		struct tls_crypto_info info;
		struct tls12_crypto_info_aes_gcm_128 gcm_128;
		struct tls12_crypto_info_aes_gcm_256 gcm_256;
	} crypto = {.info = {TLS_1_3_VERSION, (uint16_t)cipher}};
	socklen_t bytes;
	int result;

	if (cipher == TLS_CIPHER_AES_GCM_128) {
		memcpy(crypto.gcm_128.key, keys->key,
		    sizeof(crypto.gcm_128.key));
		memcpy(crypto.gcm_128.salt, keys->iv, SALT_BYTES);
		memcpy(crypto.gcm_128.iv, keys->iv + SALT_BYTES,
		    sizeof(crypto.gcm_128.iv));
		bytes = sizeof(crypto.gcm_128);
	} else {
		memcpy(crypto.gcm_256.key, keys->key,
		    sizeof(crypto.gcm_256.key));
		memcpy(crypto.gcm_256.salt, keys->iv, SALT_BYTES);
		memcpy(crypto.gcm_256.iv, keys->iv + SALT_BYTES,
		    sizeof(crypto.gcm_256.iv));
		bytes = sizeof(crypto.gcm_256);
	}
	result = setsockopt(fd, SOL_TLS, TLS_TX, &crypto, bytes);
	if (result < 0)
		result = -errno;
	explicit_bzero(&crypto, sizeof(crypto));
	return result;
}

/* The kernel's name of the cipher, or -ENOTSUP. */
static int
find_cipher(const SSL *ssl, size_t *key_bytesp)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);

	if (!cipher || SSL_version(ssl) != TLS1_3_VERSION)
		return -ENOTSUP;
	switch (SSL_CIPHER_get_cipher_nid(cipher)) {
	case NID_aes_128_gcm:
		*key_bytesp = TLS_CIPHER_AES_GCM_128_KEY_SIZE;
		return TLS_CIPHER_AES_GCM_128;
	case NID_aes_256_gcm:
		*key_bytesp = TLS_CIPHER_AES_GCM_256_KEY_SIZE;
		return TLS_CIPHER_AES_GCM_256;
	default:
		return -ENOTSUP;
	}
}

int
tls_kernel_start(const SSL *ssl, int fd, const uint8_t *secret,
    size_t secret_bytes)
{
	static const char name[] = "tls";
	struct keys keys;
	size_t key_bytes;
	int cipher = find_cipher(ssl, &key_bytes);
	int err;

	if (cipher < 0)
		return cipher;
	/* Without keys yet it lets everything pass. */
	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, name, sizeof(name)) < 0)
		return -errno;
	err = derive_keys(SSL_CIPHER_get_handshake_digest(
	    SSL_get_current_cipher(ssl)), secret, secret_bytes, key_bytes,
	    &keys);
	if (!err)
		err = set_keys(fd, cipher, &keys);
	explicit_bzero(&keys, sizeof(keys));
	return err;
}

void
tls_kernel_end(int fd)
{
	uint8_t alert[] = {ALERT_WARNING, ALERT_CLOSE_NOTIFY};
	struct iovec iov = {.iov_base = alert, .iov_len = sizeof(alert)};
	union {
		char room[CMSG_SPACE(1)];
		struct cmsghdr aligned;
	} control = {{0}};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control.room),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_TLS;
	header->cmsg_type = TLS_SET_RECORD_TYPE;
	header->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(header) = RECORD_ALERT;
	(void)sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}
