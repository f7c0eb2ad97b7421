/* SPDX-License-Identifier: MIT */
/*
 * Who may connect to a unix socket, as the command line says it.
 */
#ifndef SERVER_SOCKET_ACCESS_H
#define SERVER_SOCKET_ACCESS_H

#include <stdbool.h>
#include "runtime/listener.h"

/* Octal permission bits, "0660". */
bool socket_mode_parse(const char *text, mode_t *modep);

/* "USER", "USER:GROUP" or ":GROUP", by name or number. */
bool socket_owner_parse(const char *text, struct listener_access *access);

#endif
