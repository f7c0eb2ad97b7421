/* SPDX-License-Identifier: MIT */
/*
 * What of the options of `qnbd serve` does not go together.
 *
 * Each returns 0, or an exit code after it has said what is wrong and what to
 * type instead.
 */
#ifndef SERVER_SERVE_CHECK_H
#define SERVER_SERVE_CHECK_H

struct serve_options;

/* All but TLS; fills in socket_access. */
int serve_check_options(struct serve_options *options);

/* TLS, once the exports have their names; fills in allow. */
int serve_check_tls(struct serve_options *options);

#endif
