#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the server against clients that say nothing or a byte each second, that
# read no replies, and those that vanished without a word.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3 qemu-img openssl

/usr/bin/python3 -B "$top/tests/clients/silence.py" "$@"
