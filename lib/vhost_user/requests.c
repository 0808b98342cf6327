// SPDX-License-Identifier: MIT
#include "vhost_user/requests.h"

#include <errno.h>

#include "vhost_user/socket.h"

#define ANY_STATE  (1U << VU_STATE_NEW | 1U << VU_STATE_NEGOTIATED)
#define NEGOTIATED (1U << VU_STATE_NEGOTIATED)

static int reply_u64(struct vu_session *s, uint64_t value)
{
	s->payload.u64 = value;
	s->header.size = sizeof(s->payload.u64);
	return 0;
}

static int get_features(struct vu_session *s)
{
	vu_driver_may_be_gone(s);
	return reply_u64(s, s->device_ops->features(s->opaque) | VU_OWN_FEATURES);
}

static int set_features(struct vu_session *s)
{
	uint64_t wanted = s->payload.u64, old = s->features;

	if (s->device_ops->set_features(s->opaque, wanted & ~VU_OWN_FEATURES) < 0)
		return vu_fail(s, "SET_FEATURES has a bit that was not offered");
	s->features = wanted;
	s->state = VU_STATE_NEGOTIATED;
	return vu_features_changed(s, old);
}

static int set_owner(struct vu_session *s)
{
	(void)s;
	return 0;
}

/* Deprecated; some front ends send it for a device reset. */
static int reset_owner(struct vu_session *s)
{
	vu_restart_device(s);
	return 0;
}

static uint64_t protocol_features(const struct vu_session *s)
{
	return s->device_ops->transfer ? VU_PROTOCOL_FEATURES
				       : VU_PROTOCOL_FEATURES & ~(1ULL << VU_PF_DEVICE_STATE);
}

static int get_protocol_features(struct vu_session *s)
{
	return reply_u64(s, protocol_features(s));
}

static int set_protocol_features(struct vu_session *s)
{
	if (s->payload.u64 & ~protocol_features(s))
		return vu_fail(s, "SET_PROTOCOL_FEATURES has a bit that was not offered");
	s->protocol_features = s->payload.u64;
	return 0;
}

static int get_queue_num(struct vu_session *s)
{
	return reply_u64(s, VU_MAX_QUEUES);
}

static int get_max_mem_slots(struct vu_session *s)
{
	return reply_u64(s, GUEST_MEM_MAX_REGIONS);
}

static int set_backend_req_fd(struct vu_session *s)
{
	if (vu_socket_is_connection(s->fds[0]))
		return vu_fail(s, "back-end channel is the front end's own connection");
	vu_session_backend_lost(s);
	s->backend_fd = s->fds[0];
	s->fds[0] = -1;
	return 0;
}

/* A range of configuration space, and the message as long as it says. */
static bool config_valid(const struct vu_session *s)
{
	const struct vu_config *c = &s->payload.config;

	return c->size <= VU_CONFIG_MAX && c->offset <= VU_CONFIG_MAX - c->size &&
	       s->header.size == offsetof(struct vu_config, data) + c->size;
}

static int get_config(struct vu_session *s)
{
	struct vu_config *c = &s->payload.config;

	if (!config_valid(s)) {
		/* The protocol's way to say so. */
		s->header.size = 0;
		return 0;
	}
	s->device_ops->config_read(s->opaque, c->offset, c->data, c->size);
	return 0;
}

static int set_config(struct vu_session *s)
{
	const struct vu_config *c = &s->payload.config;

	if (!config_valid(s))
		return vu_fail(s, "SET_CONFIG beyond the configuration space");
	s->device_ops->config_write(s->opaque, c->offset, c->data, c->size);
	return 0;
}

static bool suspended(const struct vu_session *s)
{
	for (uint32_t i = 0; i < VU_MAX_QUEUES; i++) {
		if (vq_started(&s->ring[i].vq))
			return false;
	}
	return true;
}

/* What is wrong with the request ends the transfer, not the session: the guest goes on here. */
static int set_device_state_fd(struct vu_session *s)
{
	const struct vu_transfer t = s->payload.transfer;
	bool load = t.direction == VU_TRANSFER_LOAD;
	int fd = s->fds[0];

	if ((t.direction != VU_TRANSFER_SAVE && !load) || t.phase != VU_TRANSFER_PHASE_STOPPED ||
	    !suspended(s))
		return reply_u64(s, VU_TRANSFER_FAILED | VU_TRANSFER_NO_FD);
	s->fds[0] = -1;
	s->loading = false;
	if (s->device_ops->transfer(s->opaque, load, fd) < 0)
		return reply_u64(s, VU_TRANSFER_FAILED | VU_TRANSFER_NO_FD);
	s->loading = load;
	return reply_u64(s, VU_TRANSFER_NO_FD);
}

static int check_device_state(struct vu_session *s)
{
	bool loading = s->loading;

	s->loading = false;
	if (!suspended(s) || s->device_ops->transfer_check(s->opaque) < 0)
		return reply_u64(s, VU_TRANSFER_FAILED);
	if (loading)
		vu_device_loaded(s);
	return reply_u64(s, 0);
}

#define SIZE(member) sizeof(((union vu_payload *)NULL)->member)
#define CONFIG_MIN   offsetof(struct vu_config, data)
#define TABLE_MIN    offsetof(struct vu_mem_table, region)

static const struct vu_request_row rows[VU_REQUEST_COUNT] = {
	[VU_GET_FEATURES] = {"GET_FEATURES", 0, 0, 0, 0, -1, ANY_STATE, VU_REPLY_PAYLOAD,
			     get_features},
	[VU_SET_FEATURES] = {"SET_FEATURES", SIZE(u64), SIZE(u64), 0, 0, -1, ANY_STATE,
			     VU_REPLY_NONE, set_features},
	[VU_SET_OWNER] = {"SET_OWNER", 0, 0, 0, 0, -1, ANY_STATE, VU_REPLY_NONE, set_owner},
	[VU_RESET_OWNER] = {"RESET_OWNER", 0, 0, 0, 0, -1, ANY_STATE, VU_REPLY_NONE, reset_owner},
	[VU_SET_MEM_TABLE] = {"SET_MEM_TABLE", TABLE_MIN, SIZE(table), 0, VU_MEM_TABLE_MAX, -1,
			      NEGOTIATED, VU_REPLY_NONE, vu_handle_mem_table},
	/* Without LOG_SHMFD there would be an address of the front end's, of no use here. */
	[VU_SET_LOG_BASE] = {"SET_LOG_BASE", SIZE(log), SIZE(log), 1, 1, VU_PF_LOG_SHMFD, ANY_STATE,
			     VU_REPLY_PAYLOAD, vu_handle_log_base},
	[VU_SET_LOG_FD] = {"SET_LOG_FD", 0, SIZE(u64), 1, 1, -1, ANY_STATE, VU_REPLY_NONE,
			   vu_handle_log_fd},
	[VU_SET_VRING_NUM] = {"SET_VRING_NUM", SIZE(state), SIZE(state), 0, 0, -1, NEGOTIATED,
			      VU_REPLY_NONE, vu_handle_vring_num},
	[VU_SET_VRING_ADDR] = {"SET_VRING_ADDR", SIZE(addr), SIZE(addr), 0, 0, -1, NEGOTIATED,
			       VU_REPLY_NONE, vu_handle_vring_addr},
	[VU_SET_VRING_BASE] = {"SET_VRING_BASE", SIZE(state), SIZE(state), 0, 0, -1, NEGOTIATED,
			       VU_REPLY_NONE, vu_handle_set_base},
	[VU_GET_VRING_BASE] = {"GET_VRING_BASE", SIZE(state), SIZE(state), 0, 0, -1, ANY_STATE,
			       VU_REPLY_PAYLOAD, vu_handle_get_base},
	[VU_SET_VRING_KICK] = {"SET_VRING_KICK", SIZE(u64), SIZE(u64), 0, 1, -1, NEGOTIATED,
			       VU_REPLY_NONE, vu_handle_kick},
	/* QEMU sends these two before it knows the driver's features. */
	[VU_SET_VRING_CALL] = {"SET_VRING_CALL", SIZE(u64), SIZE(u64), 0, 1, -1, ANY_STATE,
			       VU_REPLY_NONE, vu_handle_call},
	[VU_SET_VRING_ERR] = {"SET_VRING_ERR", SIZE(u64), SIZE(u64), 0, 1, -1, ANY_STATE,
			      VU_REPLY_NONE, vu_handle_err},
	[VU_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", 0, 0, 0, 0, -1, ANY_STATE,
				      VU_REPLY_PAYLOAD, get_protocol_features},
	[VU_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", SIZE(u64), SIZE(u64), 0, 0, -1,
				      ANY_STATE, VU_REPLY_NONE, set_protocol_features},
	[VU_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", 0, 0, 0, 0, VU_PF_MQ, ANY_STATE, VU_REPLY_PAYLOAD,
			      get_queue_num},
	[VU_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", SIZE(state), SIZE(state), 0, 0, -1, NEGOTIATED,
				 VU_REPLY_NONE, vu_handle_enable},
	[VU_SET_BACKEND_REQ_FD] = {"SET_BACKEND_REQ_FD", 0, SIZE(u64), 1, 1, VU_PF_BACKEND_REQ,
				   ANY_STATE, VU_REPLY_NONE, set_backend_req_fd},
	[VU_GET_CONFIG] = {"GET_CONFIG", CONFIG_MIN, SIZE(config), 0, 0, VU_PF_CONFIG, ANY_STATE,
			   VU_REPLY_PAYLOAD, get_config},
	[VU_SET_CONFIG] = {"SET_CONFIG", CONFIG_MIN, SIZE(config), 0, 0, VU_PF_CONFIG, ANY_STATE,
			   VU_REPLY_NONE, set_config},
	[VU_GET_MAX_MEM_SLOTS] = {"GET_MAX_MEM_SLOTS", 0, 0, 0, 0, VU_PF_CONFIGURE_MEM_SLOTS,
				  ANY_STATE, VU_REPLY_PAYLOAD, get_max_mem_slots},
	[VU_ADD_MEM_REG] = {"ADD_MEM_REG", SIZE(single), SIZE(single), 1, 1,
			    VU_PF_CONFIGURE_MEM_SLOTS, NEGOTIATED, VU_REPLY_NONE,
			    vu_handle_add_mem},
	/* Some front ends send the descriptor here too. */
	[VU_REM_MEM_REG] = {"REM_MEM_REG", SIZE(single), SIZE(single), 0, 1,
			    VU_PF_CONFIGURE_MEM_SLOTS, NEGOTIATED, VU_REPLY_NONE,
			    vu_handle_rem_mem},
	[VU_SET_DEVICE_STATE_FD] = {"SET_DEVICE_STATE_FD", SIZE(transfer), SIZE(transfer), 1, 1,
				    VU_PF_DEVICE_STATE, ANY_STATE, VU_REPLY_PAYLOAD,
				    set_device_state_fd},
	[VU_CHECK_DEVICE_STATE] = {"CHECK_DEVICE_STATE", 0, 0, 0, 0, VU_PF_DEVICE_STATE, ANY_STATE,
				   VU_REPLY_PAYLOAD, check_device_state},
};
static_assert(VU_STATE_COUNT <= 8, "states fit the row's mask");

const struct vu_request_row *vu_request_row(uint32_t request)
{
	if (request >= VU_REQUEST_COUNT || !rows[request].handler)
		return NULL;
	return &rows[request];
}
