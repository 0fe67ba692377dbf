/* SPDX-License-Identifier: BSD-3-Clause */
/* A locale whose decimal point is a comma, as an application may choose it with setlocale(). */
#ifndef PC_TESTS_COMMA_H
#define PC_TESTS_COMMA_H

/* Makes it in the test's directory, on machines without any locales too, and sets it. */
void comma_locale(void);

#endif
