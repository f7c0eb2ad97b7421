#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the server against very many clients: 10,000 at once, 20,000 that come
# and go, more than are allowed, and more than there are descriptors for.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3 qemu-img

/usr/bin/python3 -B "$top/tests/clients/crowds.py" "$@"
