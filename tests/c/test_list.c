/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/list.h"

#include "harness.h"

typedef struct item {
    int id;
    pc_link link;
} item;

/* The ids from front to back as one number, checked from both directions. */
static long
ids(const pc_link *head)
{
    long forth = 0, back = 0, digit = 1;
    for (const pc_link *at = head->next; at != head; at = at->next) {
        forth = forth * 10 + PC_CONTAINER_OF(at, item, link)->id;
        PC_ASSERT(at->next->prev == at && at->prev->next == at);
    }
    for (const pc_link *at = head->prev; at != head; at = at->prev) {
        back += digit * PC_CONTAINER_OF(at, item, link)->id;
        digit *= 10;
    }
    PC_ASSERT_INT(forth, back);
    return forth;
}

static void
make(item *items, int n)
{
    for (int i = 0; i < n; i++) {
        items[i].id = i + 1;
        pc_link_init(&items[i].link);
    }
}

void
test_list_empty(void)
{
    pc_link head;
    pc_link_init(&head);
    PC_ASSERT(pc_list_empty(&head));
    PC_ASSERT(!pc_link_in(&head));
    PC_ASSERT(pc_list_take_front(&head) == NULL);
}

void
test_list_puts_at_both_ends_and_between(void)
{
    item items[4];
    pc_link head;
    make(items, 4);
    pc_link_init(&head);
    pc_list_put_back(&head, &items[0].link);
    pc_list_put_back(&head, &items[1].link);
    pc_list_put_front(&head, &items[2].link);
    pc_list_put_after(&items[0].link, &items[3].link);
    PC_ASSERT_INT(ids(&head), 3142);
    PC_ASSERT(!pc_list_empty(&head) && pc_link_in(&items[3].link));
}

void
test_list_remove_from_anywhere(void)
{
    item items[4];
    pc_link head;
    make(items, 4);
    pc_link_init(&head);
    for (int i = 0; i < 4; i++) {
        pc_list_put_back(&head, &items[i].link);
    }
    pc_link_remove(&items[1].link);
    PC_ASSERT_INT(ids(&head), 134);
    PC_ASSERT(!pc_link_in(&items[1].link));
    pc_link_remove(&items[1].link);  // twice is harmless
    pc_link_remove(&items[3].link);
    pc_link_remove(&items[0].link);
    PC_ASSERT_INT(ids(&head), 3);
    pc_list_put_front(&head, &items[1].link);
    PC_ASSERT_INT(ids(&head), 23);
}

void
test_list_take_front_empties_in_order(void)
{
    item items[3];
    pc_link head;
    make(items, 3);
    pc_link_init(&head);
    for (int i = 0; i < 3; i++) {
        pc_list_put_back(&head, &items[i].link);
    }
    for (int i = 0; i < 3; i++) {
        pc_link *link = pc_list_take_front(&head);
        PC_ASSERT(link == &items[i].link && !pc_link_in(link));
    }
    PC_ASSERT(pc_list_take_front(&head) == NULL);
}
