/* SPDX-License-Identifier: MIT */
/*
 * Words to the service manager, as sd_notify(3) documents them.
 */
#ifndef RUNTIME_NOTIFY_H
#define RUNTIME_NOTIFY_H

/*
 * Sends state ("READY=1", several lines allowed) to the socket named by
 * NOTIFY_SOCKET.  1 if sent, 0 if nobody asked for it, -errno on failure,
 * which callers may ignore.  Never blocks.
 */
int notify_systemd(const char *state);

#endif
