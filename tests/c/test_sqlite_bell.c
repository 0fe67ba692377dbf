/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts below broker and store: bells, and locks across fork. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "io/sqlite_bell.h"
#include "io/sqlite_db.h"

void
test_bell_wakes_whom_it_concerns(void)
{
    pc_bell bells[3];
    char byte;
    for (int i = 0; i < 3; i++) {
        pc_bell_init(&bells[i]);
        PC_ASSERT_INT(pc_bell_open(&bells[i], "r.db", NULL), 0);
    }
    PC_ASSERT_INT(pc_bell_sit(&bells[0], PC_BELL_QUEUE, NULL), 0);
    PC_ASSERT_INT(pc_bell_sit(&bells[1], PC_BELL_QUEUE, NULL), 0);
    PC_ASSERT(bells[0].slot != bells[1].slot);
    pc_bell_sleep(&bells[0], 1);
    pc_bell_sleep(&bells[1], 3);
    pc_bell_ring(&bells[2], PC_BELL_RESULT, PC_BELL_ALL, 9);
    pc_bell_ring(&bells[2], PC_BELL_QUEUE, 2, 9);
    PC_ASSERT_INT(read(bells[0].socket, &byte, 1), -1);
    PC_ASSERT_INT(read(bells[1].socket, &byte, 1), 1);
    pc_bell_ring(&bells[2], PC_BELL_QUEUE, 2, 9);  // once per sleep
    PC_ASSERT_INT(read(bells[1].socket, &byte, 1), -1);
    pc_bell_sleep(&bells[1], 3);
    pc_bell_ring(&bells[2], PC_BELL_QUEUE, 1, 1);
    int woken = (int)read(bells[0].socket, &byte, 1) + (int)read(bells[1].socket, &byte, 1);
    PC_ASSERT_INT(woken, 0);  // one got it, one did not
    int slot = bells[0].slot;
    pc_bell_fini(&bells[0]);
    PC_ASSERT_INT(pc_bell_sit(&bells[2], PC_BELL_RESULT, NULL), 0);
    PC_ASSERT_INT(bells[2].slot, slot);
    pc_bell_fini(&bells[1]);
    pc_bell_fini(&bells[2]);
}

/* A socket's path may have 107 characters only. */
void
test_bell_in_a_deep_directory(void)
{
    char path[300] = "r.db";
    for (int i = 0; i < 4; i++) {
        char deeper[300];
        snprintf(deeper, sizeof deeper, "%s", "a-directory-with-quite-a-long-name-of-forty");
        PC_ASSERT_INT(system("mkdir a-directory-with-quite-a-long-name-of-forty"), 0);
        PC_ASSERT_INT(chdir(deeper), 0);
    }
    pc_err err = {0};
    char here[250];
    PC_ASSERT(getcwd(here, sizeof here) != NULL);
    snprintf(path, sizeof path, "%s/r.db", here);
    pc_bell sleeper;
    pc_bell ringer;
    char byte;
    pc_bell_init(&sleeper);
    pc_bell_init(&ringer);
    PC_ASSERT(pc_bell_open(&sleeper, path, &err) == 0, "%s", err.msg);
    PC_ASSERT(pc_bell_open(&ringer, path, &err) == 0, "%s", err.msg);
    PC_ASSERT(pc_bell_sit(&sleeper, PC_BELL_QUEUE, &err) == 0, "%s", err.msg);
    pc_bell_sleep(&sleeper, 1);
    pc_bell_ring(&ringer, PC_BELL_QUEUE, 1, 1);
    PC_ASSERT_INT(read(sleeper.socket, &byte, 1), 1);
    pc_bell_fini(&sleeper);
    pc_bell_fini(&ringer);
}

/* The child's own connection has locks of its own in the kernel, though it inherited one. */
void
test_sqlite_child_has_its_own_locks(void)
{
    pc_err err = {0};
    pc_sqlite *db =
        pc_sqlite_open("r.db", PC_SQLITE_NORMAL, pc_mono_add(pc_mono_now(), PC_NS_PER_SEC), &err);
    PC_ASSERT(db != NULL, "%s", err.msg);
    PC_ASSERT(pc_sqlite_data_version(db, &err) >= 0, "%s", err.msg);
    pid_t pid = fork();
    if (pid == 0) {
        pc_sqlite_abandon(db, true);
        pc_sqlite *own = pc_sqlite_open("r.db", PC_SQLITE_NORMAL,
                                        pc_mono_add(pc_mono_now(), PC_NS_PER_SEC), &err);
        PC_ASSERT(own != NULL, "%s", err.msg);
        PC_ASSERT(pc_sqlite_data_version(own, &err) >= 0, "%s", err.msg);
        char command[100];
        snprintf(command, sizeof command, "test $(grep POSIX /proc/locks | grep -c ' %d ') -ge 2",
                 (int)getpid());
        int rc = system(command);
        pc_sqlite_close(own);
        _exit(rc == 0 ? 0 : 1);
    }
    int status;
    PC_ASSERT(waitpid(pid, &status, 0) == pid && status == 0, "status %d", status);
    char command[100];
    snprintf(command, sizeof command, "test $(grep POSIX /proc/locks | grep -c ' %d ') -ge 2",
             (int)getpid());
    PC_ASSERT_INT(system(command), 0);
    pc_sqlite_close(db);
}

void
test_sqlite_version_check(void)
{
    const char *version = NULL;
    (void)pc_sqlite_has_wal_bug(&version);
    PC_ASSERT(version != NULL && version[0] == '3');
}
