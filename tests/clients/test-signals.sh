#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the end of the server, and its life under signals: SIGTERM beside a
# thousand half-open handshakes and busy clients, 10,000 signals that it must
# not mind.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3 qemu-img

/usr/bin/python3 -B "$top/tests/clients/signals.py" "$@"
