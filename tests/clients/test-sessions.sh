#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the server against clients that vanish: at each byte they send and at
# each byte they are sent, on unix sockets and TCP.  Half a write is never
# done, nothing of them stays behind, others do not notice.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3 qemu-img

/usr/bin/python3 -B "$top/tests/clients/sessions.py" "$@"
