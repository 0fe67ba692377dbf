#!/bin/sh
# Writes the table of tests/c: one row for every test_* and bench_* function of the objects given.
set -eu
rows=$(nm -A -g --defined-only "$@" | awk '
    $2 == "T" && $3 ~ /^(test|bench)_/ {
        file = $1
        sub(/:.*/, "", file)
        sub(/.*\//, "", file)
        sub(/\.o$/, "", file)
        print file, $3
    }')
echo '#include "harness.h"'
echo "$rows" | awk '{ print "void " $2 "(" ($2 ~ /^test_/ ? "void" : "long n") ");" }'
echo 'const ct_case ct_cases[] = {'
echo "$rows" | awk '{
    print "    {\"" $1 "\", \"" $2 "\", " ($2 ~ /^test_/ ? $2 ", 0" : "0, " $2) "},"
}'
echo '    {0, 0, 0, 0},'
echo '};'
