#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `create` against options that do not go together, or that go together
# otherwise than in qemu-img: all combinations are made or refused by both, as
# create_options.py says.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img python3

# A prime, so that it meets all values of all options.
draw_seeds 7 7
python3 -B "$top/tests/system/create_options.py" "$QNBD" "$slower" ||
    fail "there are combinations that are not as they must be"
