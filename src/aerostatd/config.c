// SPDX-License-Identifier: MIT
#include "config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/size.h"
#include "libvirt.h"

#define LINE_MAX_BYTES    4096 /* of a configuration file */
#define SECTION_MAX_BYTES 49   /* inih keeps no more of its name, and says nothing */
#define PATH_BYTES_MAX    4096

/* One file as it is read, and the configuration that grows. */
struct reading {
	struct config *config;
	const char *path;
	FILE *file;
	unsigned int line;
	unsigned int seen; /* keys of the section that stand in this file already, by number */
	char section[CONFIG_NAME_MAX + 8];
	char *error;
	size_t error_size;
	int status; /* -errno of the first thing that is wrong */
};

__attribute__((format(printf, 3, 4))) static int wrong(struct reading *r, int status,
						       const char *fmt, ...)
{
	va_list ap;
	int n;

	if (r->status)
		return 0;
	r->status = status;
	n = r->line ? snprintf(r->error, r->error_size, "%s:%u: ", r->path, r->line)
		    : snprintf(r->error, r->error_size, "%s: ", r->path); /* it was not read */
	if (n < 0 || (size_t)n >= r->error_size)
		return 0;
	va_start(ap, fmt);
	vsnprintf(r->error + n, r->error_size - (size_t)n, fmt, ap);
	va_end(ap);
	return 0;
}

/* --- values ----------------------------------------------------------------------------------- */

/* Each takes a value: true, or false with the word for what it should have been. */
typedef bool take_value(void *place, const char *value, const char **expected);

static bool replace(char **place, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return false;
	free(*place);
	*place = copy;
	return true;
}

static bool take_path(void *place, const char *value, const char **expected)
{
	*expected = "an absolute path";
	return value[0] == '/' && strlen(value) < PATH_BYTES_MAX && replace(place, value);
}

static bool take_path_or_off(void *place, const char *value, const char **expected)
{
	char **path = place;

	if (strcasecmp(value, "off") == 0) {
		free(*path);
		*path = NULL;
		return true;
	}
	return take_path(place, value, expected);
}

/* What libvirt calls a URI; what it is finds who connects to it. */
static bool take_libvirt(void *place, const char *value, const char **expected)
{
	char **uri = place;

	if (strcasecmp(value, "off") == 0) {
		free(*uri);
		*uri = NULL;
		return true;
	}
	*expected = "of use: this aerostatd was built without libvirt";
	if (!HAVE_LIBVIRT)
		return false;
	*expected = "a URI of libvirt such as qemu:///system, or off";
	return isalpha((unsigned char)value[0]) && strstr(value, ":/") && replace(uri, value);
}

/* An address in numbers and a port: 127.0.0.1:9177 or [::1]:9177. What it is finds who binds it. */
static bool take_listener(void *place, const char *value, const char **expected)
{
	const char *port = strrchr(value, ':');
	char **listener = place, *end;
	unsigned long n;

	*expected = "address:port, or off";
	if (strcasecmp(value, "off") == 0) {
		free(*listener);
		*listener = NULL;
		return true;
	}
	if (!port || port == value || !isdigit((unsigned char)port[1]))
		return false;
	n = strtoul(port + 1, &end, 10);
	return !*end && n <= UINT16_MAX && replace(listener, value);
}

static bool take_size(void *place, const char *value, const char **expected)
{
	*expected = "a size such as 512M";
	return size_parse(value, place) == 0;
}

/* No host and no VM shares out nothing. */
static bool take_some(void *place, const char *value, const char **expected)
{
	uint64_t bytes;

	*expected = "a size such as 48G";
	if (size_parse(value, &bytes) < 0 || bytes == 0)
		return false;
	*(uint64_t *)place = bytes;
	return true;
}

static bool take_priority(void *place, const char *value, const char **expected)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	*expected = "a number from 1 to 10000";
	if (*end || !isdigit((unsigned char)value[0]) || n < 1 || n > CONFIG_PRIORITY_MAX)
		return false;
	*(uint32_t *)place = (uint32_t)n;
	return true;
}

static bool take_bool(void *place, const char *value, const char **expected)
{
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

	*expected = "yes or no";
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(value, words[i]) == 0) {
			*(bool *)place = i % 2 == 1;
			return true;
		}
	}
	return false;
}

static bool take_directory(void *place, const char *value, const char **expected)
{
	struct config *config = place;
	char **grown, *copy = NULL;

	*expected = "the absolute path of a directory, and 64 of these at most";
	if (config->n_directories == CONFIG_DIRECTORIES_MAX || !take_path(&copy, value, expected))
		return false;
	/* One directory has one name: else what is in it were there twice. */
	for (size_t len = strlen(copy); len > 1 && copy[len - 1] == '/'; len--)
		copy[len - 1] = '\0';
	grown = realloc(config->directories, (config->n_directories + 1) * sizeof(*grown));
	if (!grown) {
		free(copy);
		return false;
	}
	config->directories = grown;
	config->directories[config->n_directories++] = copy;
	return true;
}

/* --- keys ------------------------------------------------------------------------------------- */

struct key {
	const char *name;
	take_value *take;
	size_t offset; /* in struct config, or struct config_vm */
	bool repeats;  /* may stand there any number of times */
};

static const struct key manager_keys[] = {
	{"monitors", take_directory, 0, true},
	{"libvirt", take_libvirt, offsetof(struct config, libvirt), false},
	{"control", take_path, offsetof(struct config, control), false},
	{"metrics", take_listener, offsetof(struct config, metrics), false},
	{"state", take_path_or_off, offsetof(struct config, state), false},
	{"dry-run", take_bool, offsetof(struct config, dry_run), false},
	{0},
};

static const struct key host_keys[] = {
	{"reserve", take_size, offsetof(struct config, reserve_bytes), false},
	{"budget", take_some, offsetof(struct config, budget_bytes), false},
	{0},
};

static const struct key vm_keys[] = {
	{"floor", take_size, offsetof(struct config_vm, floor_bytes), false},
	{"priority", take_priority, offsetof(struct config_vm, priority), false},
	{"monitor", take_path, offsetof(struct config_vm, monitor), false},
	{0},
};

static struct config_vm *find_vm(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_vms; i++) {
		if (strcmp(config->vms[i].name, name) == 0)
			return &config->vms[i];
	}
	return NULL;
}

/* The VM of that name, which is made if it is not there. NULL: no memory, or too many. */
static struct config_vm *get_vm(struct config *config, const char *name)
{
	struct config_vm *vm = find_vm(config, name), *grown;
	char *copy;

	if (vm || config->n_vms == CONFIG_VMS_MAX)
		return vm;
	copy = strdup(name);
	grown = realloc(config->vms, (config->n_vms + 1) * sizeof(*grown));
	if (grown)
		config->vms = grown;
	if (!copy || !grown) {
		free(copy);
		return NULL;
	}
	vm = &config->vms[config->n_vms++];
	*vm = (struct config_vm){
		.name = copy, .floor_bytes = CONFIG_AUTO, .priority = CONFIG_PRIORITY_DEFAULT};
	return vm;
}

/* What the section of this name holds, and where its values go. NULL: no such section. */
static const struct key *find_section(struct reading *r, const char *section, void **place)
{
	struct config *config = r->config;

	*place = config;
	if (strcmp(section, "manager") == 0)
		return manager_keys;
	if (strcmp(section, "host") == 0)
		return host_keys;
	if (strncmp(section, "vm ", 3) != 0 || !section[3])
		return NULL;
	*place = get_vm(config, section + 3);
	return vm_keys;
}

static int on_value(void *opaque, const char *section, const char *name, const char *value)
{
	struct reading *r = opaque;
	const char *expected = "";
	const struct key *keys, *key;
	void *place;

	if (r->status)
		return 0;
	if (strcmp(section, r->section) != 0) {
		snprintf(r->section, sizeof(r->section), "%s", section);
		r->seen = 0;
	}
	keys = find_section(r, section, &place);
	if (!keys)
		return wrong(r, -EINVAL,
			     "unknown section '[%s]': there are [manager], [host], [vm NAME]",
			     section);
	if (!place)
		return wrong(r, -ENOMEM, "too many VMs, or no memory for them");
	key = keys;
	while (key->name && strcmp(key->name, name) != 0)
		key++;
	if (!key->name)
		return wrong(r, -EINVAL, "unknown key '%s' in [%s]", name, section);
	if (!key->repeats && (r->seen >> (key - keys) & 1))
		return wrong(r, -EINVAL, "'%s' stands in [%s] twice", name, section);
	r->seen |= 1U << (key - keys);
	if (!key->take((char *)place + key->offset, value, &expected))
		return wrong(r, -EINVAL, "%s: '%s' is not %s", name, value, expected);
	return 1;
}

/* --- files ------------------------------------------------------------------------------------ */

/* Whether inih would cut off the end of the section's name that this line is. */
static bool long_section(const char *line)
{
	static const char mark[] = "\xef\xbb\xbf"; /* a byte order mark, which inih skips */
	const char *end;

	if (strncmp(line, mark, strlen(mark)) == 0)
		line += strlen(mark);
	line += strspn(line, " \t");
	end = strchr(line, ']');
	return line[0] == '[' && end && end - line - 1 > SECTION_MAX_BYTES;
}

/*
 * As fgets(), for inih; which would cut a long line in two, and take the rest for another one, and
 * not see what stands behind a NUL.
 */
static char *next_line(char *line, int size, void *stream)
{
	struct reading *r = stream;
	int c = 0, n = 0;

	if (r->status)
		return NULL;
	while (n + 1 < size && c != '\n' && (c = getc(r->file)) != EOF)
		line[n++] = (char)c;
	if (!n)
		return NULL;
	line[n] = '\0';
	r->line++;
	if (memchr(line, '\0', (size_t)n))
		wrong(r, -EINVAL, "there is a NUL byte in it");
	if (n + 1 == size && c != '\n')
		wrong(r, -EINVAL, "the line is longer than %d bytes", LINE_MAX_BYTES - 3);
	if (long_section(line))
		wrong(r, -EINVAL, "'[vm NAME]' is longer than %d bytes: name the VM by its UUID",
		      SECTION_MAX_BYTES);
	return r->status ? NULL : line;
}

static int read_file(struct config *config, const char *path, char *error, size_t error_size)
{
	struct reading r = {
		.config = config, .path = path, .error = error, .error_size = error_size};
	int bad_line;

	r.file = fopen(path, "re");
	if (!r.file)
		return wrong(&r, -errno, "%s", strerror(errno)), r.status;
	ini_allow_multiline = false; /* a line that is indented is no more than that */
	ini_use_stack = false;
	ini_max_line = LINE_MAX_BYTES;
	ini_initial_alloc = LINE_MAX_BYTES;
	ini_stop_on_first_error = true;
	bad_line = ini_parse_stream(next_line, &r, on_value, &r);
	if (ferror(r.file))
		wrong(&r, -EIO, "cannot be read");
	if (bad_line > 0) {
		r.line = (unsigned int)bad_line;
		wrong(&r, -EINVAL, "neither a [section] nor 'key = value'");
	} else if (bad_line < 0) {
		wrong(&r, -ENOMEM, "out of memory");
	}
	fclose(r.file);
	return r.status;
}

static int is_fragment(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return len > 5 && entry->d_name[0] != '.' && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

static int read_fragments(struct config *config, const char *path, char *error, size_t error_size)
{
	char folder[PATH_BYTES_MAX], file[PATH_BYTES_MAX + NAME_MAX + 2];
	struct dirent **entries;
	int n, status = 0;

	if ((size_t)snprintf(folder, sizeof(folder), "%s.d", path) >= sizeof(folder)) {
		snprintf(error, error_size, "the configuration's path is too long");
		return -ENAMETOOLONG;
	}
	n = scandir(folder, &entries, is_fragment, alphasort);
	if (n < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return 0;
		status = -errno;
		snprintf(error, error_size, "%s: %s", folder, strerror(errno));
		return status;
	}
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/%s", folder, entries[i]->d_name);
		if (status == 0)
			status = read_file(config, file, error, error_size);
		free(entries[i]);
	}
	free(entries);
	return status;
}

int config_defaults(struct config *config)
{
	*config = (struct config){
		.control = strdup("/run/aerostat/control"),
		.metrics = strdup("127.0.0.1:9177"),
		.state = strdup("/var/lib/aerostat/state.json"),
		.reserve_bytes = CONFIG_AUTO,
		.budget_bytes = CONFIG_AUTO,
	};
	if (config->control && config->metrics && config->state)
		return 0;
	config_free(config);
	return -ENOMEM;
}

int config_load(const char *path, bool must_exist, struct config *config, char *error,
		size_t error_size)
{
	const char *usual = "/run/aerostat/vm", *expected;
	struct config fresh;
	int status = config_defaults(&fresh);

	if (status == 0) {
		status = read_file(&fresh, path, error, error_size);
		if (status == -ENOENT && !must_exist)
			status = 0;
	} else {
		snprintf(error, error_size, "%s: out of memory", path);
	}
	if (status == 0)
		status = read_fragments(&fresh, path, error, error_size);
	if (status == 0 && fresh.n_directories == 0 && !take_directory(&fresh, usual, &expected)) {
		snprintf(error, error_size, "%s: out of memory", path);
		status = -ENOMEM;
	}
	if (status == 0)
		*config = fresh;
	else
		config_free(&fresh);
	return status;
}

int config_override(struct config *config, const char *control, const char *metrics,
		    const char *state, char *error, size_t error_size)
{
	const struct {
		const char *option, *value;
		take_value *take;
		void *place;
	} given[] = {
		{"--control", control, take_path, &config->control},
		{"--metrics", metrics, take_listener, &config->metrics},
		{"--state", state, take_path_or_off, &config->state},
	};

	for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
		const char *expected;

		if (!given[i].value || given[i].take(given[i].place, given[i].value, &expected))
			continue;
		snprintf(error, error_size, "%s: '%s' is not %s", given[i].option, given[i].value,
			 expected);
		return -EINVAL;
	}
	return 0;
}

void config_free(struct config *config)
{
	for (size_t i = 0; i < config->n_directories; i++)
		free(config->directories[i]);
	for (size_t i = 0; i < config->n_vms; i++) {
		free(config->vms[i].name);
		free(config->vms[i].monitor);
	}
	free(config->directories);
	free(config->vms);
	free(config->libvirt);
	free(config->control);
	free(config->metrics);
	free(config->state);
	*config = (struct config){0};
}

const struct config_vm *config_find_vm(const struct config *config, const char *name)
{
	return find_vm(config, name);
}
