/* SPDX-License-Identifier: BSD-3-Clause */
#include "comma.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness.h"

static const char numbers[] = "LC_NUMERIC\ndecimal_point \",\"\nthousands_sep \"\"\ngrouping -1\nEND LC_NUMERIC\n";
static const char characters[] = "<code_set_name> ASCII\n<comment_char> %\n<escape_char> /\n"
                                 "CHARMAP\n<U0000>..<U007F> /x00 ASCII\nEND CHARMAP\n";

static void
put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    PC_ASSERT(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

void
comma_locale(void)
{
    put("numbers", numbers);
    put("characters", characters);
    // -c: categories that are not there are those of C, with a warning and status 1
    (void)!system("localedef -c -f ./characters -i ./numbers ./comma 2>localedef.log");
    setenv("LOCPATH", ".", 1);
    PC_ASSERT(setlocale(LC_ALL, "comma") != NULL, "is localedef (libc-bin) there?");
    PC_ASSERT_STR(localeconv()->decimal_point, ",");
}
