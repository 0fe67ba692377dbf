#!/bin/sh
# Checks what the linker sees: no writable globals in the objects, one exported name in the module.
#
# Usage: tools/check_symbols.sh <directory with objects or with _core*.so> ...
set -eu

# "<end of the object's path> <symbol>", both regular expressions. CPython wants its method, slot,
# spec and member tables writable; their names end so.
allowed='
/base/mem\.o .*
/py/[a-z_]*\.o ([a-z_]*_)?(methods|slots|spec|module|members|getset|keywords|def)(\.[0-9]+)?
'

objects=$(find "$@" -name '*.o' | sort)
[ -n "$objects" ] || { echo "symbols: no objects in $*" >&2; exit 1; }

# Constants with addresses in them lie in .data.rel.ro, which is read-only once the program runs.
found=$(nm -A --format=sysv $objects | allowed=$allowed awk -F '|' '
    BEGIN { n = split(ENVIRON["allowed"], rule, "\n") }
    {
        class = $3; type = $4; section = $7
        gsub(/ /, "", class); gsub(/ /, "", section); gsub(/ /, "", type)
        if (class !~ /^[bBdDC]$/ || section ~ /^\.data\.rel\.ro/) next
        object = $1; sub(/:[^:]*$/, "", object)
        name = $1; sub(/^.*:/, "", name); gsub(/ /, "", name)
        for (i = 1; i <= n; i++) {
            split(rule[i], part, " ")
            if (rule[i] != "" && object ~ part[1] "$" && name ~ "^" part[2] "$") next
        }
        print object ": writable global: " name
    }')

for module in $(find "$@" -name '_core*.so'); do
    exported=$(nm -D --defined-only --format=posix "$module" | cut -d ' ' -f 1 | tr '\n' ' ')
    [ "$exported" = "PyInit__core " ] || found="$found
$module: exports $exported; only PyInit__core may be seen"
done

[ -z "$found" ] || { echo "$found"; exit 1; }
echo "symbols: $(echo "$objects" | wc -l) objects, no writable globals"
