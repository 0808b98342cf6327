/* SPDX-License-Identifier: MIT */
#ifndef QMP_BUILTIN_H
#define QMP_BUILTIN_H

#include "qmp/server.h"

/* Between server.c and the commands that every server has; not for programs. */

extern const struct qmp_schema qmp_builtin_schema;

/* The answer to query-version, also in the greeting. NULL: out of memory. */
struct json_object *qmp_version_info(const struct qmp_server *server);

/* The server @req came to. While its handler runs, that is, while its connection is there. */
const struct qmp_server *qmp_request_server(const struct qmp_request *req);

/* Capabilities negotiation of @conn is over, once and for all. */
void qmp_conn_set_negotiated(struct qmp_conn *conn);

#endif
