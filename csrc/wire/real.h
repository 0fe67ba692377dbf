/* SPDX-License-Identifier: BSD-3-Clause */
/* Doubles as decimal text, both ways, whatever LC_NUMERIC says. */
#ifndef PC_WIRE_REAL_H
#define PC_WIRE_REAL_H

#include "base/buf.h"

#define PC_REAL_MAX 40

/* Writes Python's repr(float): the shortest text that reads back the same, "1e+16", "1e-05",
 * "nan", "inf", "-inf". Returns the length (< PC_REAL_MAX); there is no NUL. */
size_t pc_real_format(double value, char out[PC_REAL_MAX]);

/* The double nearest to the text of a JSON number; infinity when it is out of range. Mantissas are
 * read to 512 significant digits, which is nearer than any double needs but in contrived cases. */
double pc_real_parse(pc_slice text);

#endif
