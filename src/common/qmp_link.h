/* SPDX-License-Identifier: MIT */
/*
 * A connection to somebody's QMP monitor, over libuv: lib/qmp/client.h with a socket and a timer.
 * The program ignores SIGPIPE.
 */
#ifndef COMMON_QMP_LINK_H
#define COMMON_QMP_LINK_H

#include <json-c/json.h>
#include <stdint.h>
#include <uv.h>

#include "qmp/client.h"

struct qmp_link;

/*
 * Connects to the Unix socket at path. Then ops->ready or ops->lost is called, each as
 * lib/qmp/client.h has it, and never from within this call; ready within timeout_ms. limits as
 * qmp_client_new(). NULL: out of memory, or out of descriptors.
 */
struct qmp_link *qmp_link_connect(uv_loop_t *loop, const char *path, uint64_t timeout_ms,
				  const struct qmp_limits *limits, const struct qmp_client_ops *ops,
				  void *opaque);

/* As qmp_client_execute(), with a time from now on. */
int qmp_link_execute(struct qmp_link *link, const char *command, struct json_object *args,
		     uint64_t timeout_ms, qmp_client_done *done, void *opaque);

/*
 * Ends it, at any time, also from a callback: requests that are pending have their answer LOST from
 * within this call (in an answer LOST: after it, as they would have), and from then on nothing is
 * called any more. The loop frees it. NULL is allowed.
 */
void qmp_link_close(struct qmp_link *link);

#endif
