/* SPDX-License-Identifier: BSD-3-Clause */
/* What client and server tell each other about themselves when an AMQP connection starts. */
#ifndef PC_IO_AMQP_LOGIN_H
#define PC_IO_AMQP_LOGIN_H

#include "io/broker.h"

typedef struct pc_amqp_server {
    bool rabbitmq;
    int version_major;  // 0 when unknown
    int version_minor;
} pc_amqp_server;

/* Reads the server's properties (a table without length). PC_EDATA, PC_ELIMIT. */
int pc_amqp_server_read(pc_slice properties, pc_amqp_server *server, pc_err *err);
/* basic.qos(global) means "for all consumers of the channel, changeable": RabbitMQ 3.3 up to 3.x.
 */
bool pc_amqp_server_global_qos(const pc_amqp_server *server);

/* Appends connection.start-ok with credentials and capabilities. PC_EUNSUP: a login method that we
 * or the server don't know. */
int pc_amqp_login_write(pc_buf *out, const pc_broker_config *config, pc_slice mechanisms,
                        pc_err *err);

#endif
