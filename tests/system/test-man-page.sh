#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against a manual that lags behind the program: every command and every
# option that --help knows must be in it, and every option it has in --help.
. "${abs_top_srcdir:-.}/tests/functions.sh"

page=$top/doc/qnbd.1.scd

# The long options of a text, one a line.
options_in()
{
	grep -Eo -e '(^|[^-[:alnum:]])--[a-z][-a-z]+' | grep -Eo -e '--.*' |
	    sort -u
}

"$QNBD" --help >"$tmp/help"
expect_text "$tmp/help" '^Commands$'
mapfile -t commands < <(sed -n '/^Commands/,/^$/s/^  \([a-z]*\) .*/\1/p' \
    "$tmp/help")
[ ${#commands[@]} -gt 0 ] || fail "--help lists no commands"

for command in "${commands[@]}"; do
	for wanted in "^\*qnbd $command\*" "^# ${command^^}\$"; do
		grep -q "$wanted" "$page" ||
		    fail "the manual has no line $wanted"
	done
	"$QNBD" "$command" --help >>"$tmp/help"
done

# Options of other programs are named together with the program.
sed 's/\*qemu-img [^*]*\*//g' "$page" | options_in >"$tmp/documented"
options_in <"$tmp/help" >"$tmp/known"
diff -u "$tmp/known" "$tmp/documented" ||
    fail "the options of --help (-) and of the manual (+) differ"
echo "$(wc -l <"$tmp/known") options, commands: ${commands[*]}"

if command -v scdoc >/dev/null; then
	expect_status 0 scdoc <"$page"
else
	echo "scdoc is missing, so the page was not formatted"
fi
