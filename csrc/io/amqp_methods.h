/* SPDX-License-Identifier: BSD-3-Clause */
/* What each method of the server does to a connection. Private to amqp_conn.c. */
#ifndef PC_IO_AMQP_METHODS_H
#define PC_IO_AMQP_METHODS_H

#include "io/amqp_conn.h"
#include "io/amqp_frame.h"

enum {
    PC_AMQP_IN_CLOSED,
    PC_AMQP_IN_CONNECTING,  // TCP, TLS
    PC_AMQP_IN_GREETING,    // protocol header sent, start awaited
    PC_AMQP_IN_LOGIN,       // start-ok sent, tune awaited
    PC_AMQP_IN_OPENING,     // open sent
    PC_AMQP_IN_CHANNEL,     // channel.open sent
    PC_AMQP_IN_READY,
    PC_AMQP_IN_REFUSED,  // the server closed the channel
    PC_AMQP_IN_LEAVING,  // channel.close sent
    PC_AMQP_IN_CLOSING   // close sent
};

/* Handles a method frame; may end the connection. */
int pc_amqp_on_method(pc_amqp_conn *conn, const pc_amqp_frame *frame, pc_err *err);

/* Of amqp_conn.c: gives a reply to who awaits it; */
int pc_amqp_on_reply(pc_amqp_conn *conn, const pc_amqp_method *method, const pc_message *message,
                     pc_err *err);
/* reports the end, unless the owner asked for it; */
void pc_amqp_conn_go_down(pc_amqp_conn *conn, const pc_err *why);
/* appends connection.close. */
int pc_amqp_send_close(pc_amqp_conn *conn, pc_err *err);

/* For error texts: how much of a foreign text to print, and whom we log in as. */
int pc_amqp_clip(pc_slice text);
const char *pc_amqp_user_of(const pc_amqp_conn *conn);

#endif
