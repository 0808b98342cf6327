/* SPDX-License-Identifier: MIT */
/* Reading JSON that somebody else wrote: a member counts only if it is there and of its type. */
#ifndef COMMON_JSON_READ_H
#define COMMON_JSON_READ_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

/* The member of an object, NULL if obj is none or has no such member, or null. Borrowed. */
struct json_object *json_read(struct json_object *obj, const char *key);

/* A whole number from 0 to 2^64 - 1. False leaves *value alone, as below. */
bool json_read_u64(struct json_object *obj, const char *key, uint64_t *value);

bool json_read_bool(struct json_object *obj, const char *key, bool *value);

/* A string without NUL, valid as long as obj; NULL if there is none. */
const char *json_read_str(struct json_object *obj, const char *key);

/* The member if it is an array; NULL otherwise. */
struct json_object *json_read_array(struct json_object *obj, const char *key);

#endif
