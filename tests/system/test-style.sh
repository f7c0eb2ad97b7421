#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the habits of HACKING.md that a program can check: licence lines, tabs
# and 80 columns, the length of functions and files, marks of unfinished work,
# scripts that shellcheck likes, includes that point upwards.
. "${abs_top_srcdir:-.}/tests/functions.sh"

columns_max=80
function_lines_max=105
file_lines_max=800
failures=0

# complain WHAT: standard input lists the places; none is good.
complain()
{
	local places
	places=$(cat)
	[ -n "$places" ] || return 0
	printf '%s:\n%s\n\n' "$1" "$places" >&2
	failures=$((failures + 1))
}

cd "$top"
mapfile -t sources < <(find runtime proto qcow2 server bench tests \
    -name '*.[chS]' | sort)
mapfile -t python < <(find tests bench -name '*.py' | sort)
mapfile -t scripts < <(grep -lE '^#!.*sh$|^# shellcheck shell=' \
    quickstart .ci/run tests/*.sh tests/*/*.sh bench/*)
[ ${#sources[@]} -gt 50 ] || fail "the sources were not found"

complain "no licence line in the first lines" < <(
	for file in "${sources[@]}" "${python[@]}" "${scripts[@]}"; do
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: MIT' ||
		    echo "$file"
	done)

# Tabs count as far as the next multiple of eight.
complain "lines over $columns_max columns" < <(
	for file in "${sources[@]}" "${scripts[@]}"; do
		expand "$file" | awk -v file="$file" -v max="$columns_max" \
		    'length > max { print file ":" NR ": " length }'
	done)

complain "spaces at the end of the line" < <(
	grep -nE '[[:space:]]+$' "${sources[@]}" "${scripts[@]}" "${python[@]}")
complain "marks of unfinished work" < <(
	grep -nE '\b(TODO|FIXME|XXX)\b' "${sources[@]}" "${python[@]}")
complain "typedefs for structs" < <(
	grep -nE '^typedef struct|^} [a-z_]+_t;' "${sources[@]}")

complain "functions over $function_lines_max lines" < <(
	awk -v max="$function_lines_max" '
	FNR == 1 { begin = 0 }
	/^{/ { begin = FNR }
	/^}/ && begin {
		if (FNR - begin - 1 > max)
			print FILENAME ":" begin ": " FNR - begin - 1
		begin = 0
	}' "${sources[@]}")
complain "files over $file_lines_max lines" < <(
	wc -l "${sources[@]}" | awk -v max="$file_lines_max" \
	    '$1 > max && $2 != "total"')

# The layers: proto/ and qcow2/ do not meet, nothing includes what is above.
complain "runtime/ includes what is above it" < <(
	grep -nE '#include "(server|qcow2|proto)/' runtime/*.[ch])
complain "proto/ includes more than itself" < <(
	grep -nE '#include "(server|qcow2|runtime)/' proto/*.[ch])
complain "qcow2/ includes what is above or beside it" < <(
	grep -nE '#include "(server|proto)/' qcow2/*.[ch])

complain "mutants that do not fit the code" < <(tests/mutants/run --fit)

if command -v shellcheck >/dev/null; then
	complain "shellcheck" < <(shellcheck -x "${scripts[@]}")
else
	echo "shellcheck is missing, so the scripts were not checked"
fi

[ "$failures" -eq 0 ] || fail "$failures habits are broken"
echo "${#sources[@]} C files, ${#python[@]} Python files," \
    "${#scripts[@]} scripts"
