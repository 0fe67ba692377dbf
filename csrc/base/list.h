/* SPDX-License-Identifier: BSD-3-Clause */
/* An intrusive, circular, doubly linked list with a sentinel. */
#ifndef PC_BASE_LIST_H
#define PC_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct pc_link {
    struct pc_link *prev;
    struct pc_link *next;
} pc_link;

#define PC_CONTAINER_OF(ptr, type, member) \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* For a sentinel and for a link that is in no list. */
static inline void
pc_link_init(pc_link *link)
{
    link->prev = link;
    link->next = link;
}

static inline bool
pc_list_empty(const pc_link *head)
{
    return head->next == head;
}

/* True when the link is in a list. */
static inline bool
pc_link_in(const pc_link *link)
{
    return link->next != link;
}

static inline void
pc_list_put_after(pc_link *where, pc_link *link)
{
    link->prev = where;
    link->next = where->next;
    where->next->prev = link;
    where->next = link;
}

static inline void
pc_list_put_back(pc_link *head, pc_link *link)
{
    pc_list_put_after(head->prev, link);
}

static inline void
pc_list_put_front(pc_link *head, pc_link *link)
{
    pc_list_put_after(head, link);
}

static inline void
pc_link_remove(pc_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    pc_link_init(link);
}

/* Takes the first link, NULL when the list is empty. */
static inline pc_link *
pc_list_take_front(pc_link *head)
{
    pc_link *link = head->next;
    if (link == head) {
        return NULL;
    }
    pc_link_remove(link);
    return link;
}

#endif
