/* SPDX-License-Identifier: BSD-3-Clause */
/* The embedded options at the end of a task's body, [args, kwargs, embed] (PROTOCOL §3.1.3), where they are JSON. A chain's
 * body is taken apart without reading the links: those behind the next one travel from message to message as the text they are. */
#ifndef PC_WIRE_EMBED_H
#define PC_WIRE_EMBED_H

#include "base/buf.h"

#define PC_EMBED_CHAIN "{\"callbacks\": null, \"errbacks\": null, \"chain\": "
#define PC_EMBED_CHORD ", \"chord\": null}"
#define PC_EMBED_NONE PC_EMBED_CHAIN "null" PC_EMBED_CHORD

/* All slices point into the body. */
typedef struct pc_links {
    pc_slice args;
    pc_slice kwargs;
    pc_slice embed;  // the whole of it
    pc_slice next;   // the link that comes next: the last of the list
    pc_slice rest;   // the links after it, without brackets around them; empty when there are none
} pc_links;

/* False: the embedded options are not those of a chain with at least one link and nothing else, or the text is not laid out as
 * Python's json does. What is not valid JSON may be taken for a chain: whoever parses the part finds out. */
bool pc_embed_split(pc_slice body, pc_links *out);

/* Appends the embedded options of the next link's message: the rest is its chain. */
int pc_embed_put_rest(const pc_links *links, pc_buf *out, pc_err *err);

#endif
