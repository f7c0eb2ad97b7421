#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the server against names and texts as long as they may be, and its log
# against names that look like something else.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires /usr/bin/python3 qemu-img

/usr/bin/python3 -B "$top/tests/clients/names.py" "$@"
