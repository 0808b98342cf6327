// SPDX-License-Identifier: MIT
#include "common/json_read.h"

#include <string.h>

struct json_object *json_read(struct json_object *obj, const char *key)
{
	struct json_object *value = NULL;

	if (!json_object_is_type(obj, json_type_object) ||
	    !json_object_object_get_ex(obj, key, &value))
		return NULL;
	return value;
}

bool json_read_u64(struct json_object *obj, const char *key, uint64_t *value)
{
	struct json_object *number = json_read(obj, key);
	int64_t as_signed;

	if (!json_object_is_type(number, json_type_int))
		return false;
	/* json-c clamps: what is negative has a signed value below 0 and an unsigned one of 0. */
	as_signed = json_object_get_int64(number);
	if (as_signed < 0)
		return false;
	*value = json_object_get_uint64(number);
	return true;
}

bool json_read_bool(struct json_object *obj, const char *key, bool *value)
{
	struct json_object *found = json_read(obj, key);

	if (!json_object_is_type(found, json_type_boolean))
		return false;
	*value = json_object_get_boolean(found);
	return true;
}

const char *json_read_str(struct json_object *obj, const char *key)
{
	struct json_object *found = json_read(obj, key);
	const char *text;

	if (!json_object_is_type(found, json_type_string))
		return NULL;
	text = json_object_get_string(found);
	return strlen(text) == (size_t)json_object_get_string_len(found) ? text : NULL;
}

struct json_object *json_read_array(struct json_object *obj, const char *key)
{
	struct json_object *found = json_read(obj, key);

	return json_object_is_type(found, json_type_array) ? found : NULL;
}
