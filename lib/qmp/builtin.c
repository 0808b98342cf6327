// SPDX-License-Identifier: MIT
#include "qmp/builtin.h"

struct json_object *qmp_version_info(const struct qmp_server *server)
{
	struct json_object *triple = json_object_new_object(), *ret = json_object_new_object();

	qmp_obj_add(&triple, "major", json_object_new_int(server->version.major));
	qmp_obj_add(&triple, "minor", json_object_new_int(server->version.minor));
	qmp_obj_add(&triple, "micro", json_object_new_int(server->version.micro));
	qmp_obj_add(&ret, "qemu", triple);
	qmp_obj_add(&ret, "package", json_object_new_string(server->version.package));
	return ret;
}

static enum qmp_outcome cmd_capabilities(struct qmp_request *req, struct json_object *args,
					 struct json_object **result, struct qmp_error *err)
{
	struct json_object *enable;

	(void)result;
	if (qmp_conn_negotiated(qmp_request_conn(req))) {
		qmp_error_set(err, QMP_COMMAND_NOT_FOUND,
			      "Capabilities negotiation is already complete, command ignored");
		return QMP_FAILED;
	}
	if (json_object_object_get_ex(args, "enable", &enable) &&
	    json_object_array_length(enable)) {
		qmp_error_set(err, QMP_GENERIC_ERROR, "Capability %s not available",
			      json_object_get_string(json_object_array_get_idx(enable, 0)));
		return QMP_FAILED;
	}
	qmp_conn_set_negotiated(qmp_request_conn(req));
	return QMP_DONE;
}

static enum qmp_outcome cmd_version(struct qmp_request *req, struct json_object *args,
				    struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)err;
	*result = qmp_version_info(qmp_request_server(req));
	return QMP_DONE;
}

static enum qmp_outcome cmd_commands(struct qmp_request *req, struct json_object *args,
				     struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)err;
	*result = qmp_schema_commands(&qmp_request_server(req)->schema);
	return QMP_DONE;
}

static enum qmp_outcome cmd_schema(struct qmp_request *req, struct json_object *args,
				   struct json_object **result, struct qmp_error *err)
{
	(void)args;
	(void)err;
	*result = qmp_schema_introspect(&qmp_request_server(req)->schema);
	return QMP_DONE;
}

static const struct qmp_type capability = QMP_ENUM("oob");
static const struct qmp_type capability_list = QMP_ARRAY(&capability);

static const struct qmp_type version_triple =
	QMP_OBJECT(QMP_MEMBER("major", &qmp_int, "raised for what breaks users"),
		   QMP_MEMBER("minor", &qmp_int, "raised for what is new"),
		   QMP_MEMBER("micro", &qmp_int, "raised for what was mended"));
static const struct qmp_type version_info = QMP_OBJECT(
	QMP_MEMBER("qemu", &version_triple, "version; the name is QEMU's, for its clients"),
	QMP_MEMBER("package", &qmp_str, "name and version of the program"));

static const struct qmp_type command_info =
	QMP_OBJECT(QMP_MEMBER("name", &qmp_str, "name of the command"));
static const struct qmp_type command_list = QMP_ARRAY(&command_info);

/*
 * SchemaInfo is a union in QEMU. To show its variants as optional members is as true, and spares
 * the type system a kind of type that nothing else needs.
 */
static const struct qmp_type meta_type =
	QMP_ENUM("builtin", "enum", "array", "object", "alternate", "command", "event");
static const struct qmp_type json_kind =
	QMP_ENUM("string", "number", "int", "boolean", "null", "object", "array", "value");
static const struct qmp_type str_list = QMP_ARRAY(&qmp_str);
static const struct qmp_type schema_member =
	QMP_OBJECT(QMP_MEMBER("name", &qmp_str, "name of the member"),
		   QMP_MEMBER("type", &qmp_str, "name of its type"),
		   QMP_OPTIONAL("default", &qmp_any, "null if the member is optional"));
static const struct qmp_type schema_member_list = QMP_ARRAY(&schema_member);
static const struct qmp_type schema_info =
	QMP_OBJECT(QMP_MEMBER("name", &qmp_str, "name; for types, one that means nothing"),
		   QMP_MEMBER("meta-type", &meta_type, "what is described"),
		   QMP_OPTIONAL("json-type", &json_kind, "builtin: type on the wire"),
		   QMP_OPTIONAL("values", &str_list, "enum: its values"),
		   QMP_OPTIONAL("element-type", &qmp_str, "array: type of its elements"),
		   QMP_OPTIONAL("members", &schema_member_list, "object: its members"),
		   QMP_OPTIONAL("arg-type", &qmp_str, "command, event: object with its arguments"),
		   QMP_OPTIONAL("ret-type", &qmp_str, "command: type of its result"));
static const struct qmp_type schema_info_list = QMP_ARRAY(&schema_info);

static const struct qmp_command builtin_commands[] = {
	{.name = "qmp_capabilities",
	 .args = QMP_ARGS(QMP_OPTIONAL("enable", &capability_list, "capabilities wanted")),
	 .handler = cmd_capabilities,
	 .doc = "Leave capabilities negotiation; must come first."},
	{.name = "query-version",
	 .returns = &version_info,
	 .handler = cmd_version,
	 .doc = "Version of the program."},
	{.name = "query-commands",
	 .returns = &command_list,
	 .handler = cmd_commands,
	 .doc = "Names of all commands."},
	{.name = "query-qmp-schema",
	 .returns = &schema_info_list,
	 .handler = cmd_schema,
	 .doc = "Commands, events and their types."},
};

const struct qmp_schema qmp_builtin_schema = {QMP_COMMANDS(builtin_commands)};
