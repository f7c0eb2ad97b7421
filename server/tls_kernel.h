/* SPDX-License-Identifier: MIT */
/*
 * The kernel as the one who encrypts what is sent (kTLS).
 *
 * The handshake and all receiving stay with OpenSSL; of TLS 1.3 with AES-GCM
 * the keys for sending can be given to the socket, and from then on what is
 * sent to it, or spliced into it, leaves encrypted.  Where the kernel has no
 * such thing (CONFIG_TLS, the module tls), or the socket is none of TCP, this
 * fails and nothing has changed.
 */
#ifndef SERVER_TLS_KERNEL_H
#define SERVER_TLS_KERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <openssl/ssl.h>

/* Of a traffic secret: SHA-384's. */
#define TLS_KERNEL_SECRET_BYTES_MAX 48

/*
 * Gives the socket fd the keys that secret, the server's first traffic secret,
 * stands for; no record of application data was sent yet.  -errno.
 */
int tls_kernel_start(const SSL *ssl, int fd, const uint8_t *secret,
    size_t secret_bytes);

/* Sends close_notify, if there is room for it. */
void tls_kernel_end(int fd);

#endif
