// SPDX-License-Identifier: MIT
/* Which monitors there are: in directories that are watched, in the configuration, and libvirt's.
 */
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "fleet_parts.h"

static struct fleet_vm *find_path(const struct fleet *f, const char *path)
{
	for (uint32_t i = 0; i < f->used; i++) {
		if (f->vms[i].endpoint && strcmp(endpoint_path(f->vms[i].endpoint), path) == 0)
			return &f->vms[i];
	}
	return NULL;
}

static struct endpoint *make_endpoint(struct fleet *f, const char *path, bool libvirt)
{
	if (libvirt)
		return libvirt_endpoint_new(f->libvirt, path, f->interval_ms, f->config.dry_run,
					    &fleet_endpoint_ops, f);
	return endpoint_new(f->loop, path, f->interval_ms, f->config.dry_run, &fleet_endpoint_ops,
			    f);
}

/* libvirt: it is a domain, and not the path of a socket. */
static struct fleet_vm *add_path(struct fleet *f, const char *path, bool libvirt)
{
	struct fleet_vm *vm = find_path(f, path);
	uint32_t slot = 0;

	if (vm)
		return vm;
	while (slot < f->used && f->vms[slot].endpoint)
		slot++;
	if (slot == FLEET_VMS_MAX) {
		if (!f->full_told)
			log_line("there are more than %u monitors: further ones are left out",
				 FLEET_VMS_MAX);
		f->full_told = true;
		return NULL;
	}
	vm = &f->vms[slot];
	*vm = (struct fleet_vm){.wishes = STATE_NO_WISHES};
	vm->endpoint = make_endpoint(f, path, libvirt);
	if (!vm->endpoint)
		return NULL;
	endpoint_set_user(vm->endpoint, vm);
	if (slot == f->used)
		f->used++;
	fleet_name_vm(f, vm);
	return vm;
}

static void remove_vm(struct fleet *f, struct fleet_vm *vm, const char *why)
{
	fleet_unmanage(f, (uint32_t)(vm - f->vms), why);
	endpoint_free(vm->endpoint);
	*vm = (struct fleet_vm){0};
	while (f->used && !f->vms[f->used - 1].endpoint)
		f->used--;
	f->full_told = false;
}

static bool on_found(void *opaque, const char *path)
{
	return add_path(opaque, path, false) != NULL;
}

static void on_lost(void *opaque, const char *path)
{
	struct fleet *f = opaque;
	struct fleet_vm *vm = find_path(f, path);

	if (vm && !vm->configured)
		remove_vm(f, vm, "its monitor's socket was removed");
}

static void on_unreadable(void *opaque, const char *directory, const char *why)
{
	(void)opaque;
	log_line("%s: %s: looking for it again", directory, why);
}

static const struct discover_ops discover_ops = {on_found, on_lost, on_unreadable};

static bool on_domain(void *opaque, const char *path)
{
	return add_path(opaque, path, true) != NULL;
}

static void on_domain_lost(void *opaque, const char *path)
{
	struct fleet_vm *vm = find_path(opaque, path);

	if (vm)
		remove_vm(opaque, vm, "libvirt runs it no more");
}

static const struct libvirt_ops libvirt_ops = {on_domain, on_domain_lost};

static bool is_of_libvirt(const struct fleet_vm *vm)
{
	return vm->endpoint && endpoint_view(vm->endpoint)->kind == ENDPOINT_KIND_LIBVIRT;
}

/* Another libvirt than before, or none. */
static void leave_libvirt(struct fleet *f)
{
	if (!f->libvirt ||
	    (f->config.libvirt && strcmp(f->config.libvirt, libvirt_uri(f->libvirt)) == 0))
		return;
	for (uint32_t i = f->used; i-- > 0;) {
		if (is_of_libvirt(&f->vms[i]))
			remove_vm(f, &f->vms[i], "the configuration has it no more");
	}
	libvirt_stop(f->libvirt);
	f->libvirt = NULL;
}

static bool is_configured(const struct config *config, const char *directory)
{
	for (size_t i = 0; i < config->n_directories; i++) {
		if (strcmp(config->directories[i], directory) == 0)
			return true;
	}
	return false;
}

/* Stops watching directories that are in the configuration no more, and libvirt. */
void roster_leave(struct fleet *f)
{
	size_t kept = 0;

	leave_libvirt(f);
	for (size_t i = 0; i < f->n_directories; i++) {
		if (is_configured(&f->config, discover_directory(f->directories[i])))
			f->directories[kept++] = f->directories[i];
		else
			discover_stop(f->directories[i]);
	}
	f->n_directories = kept;
}

void roster_watch(struct fleet *f)
{
	for (size_t i = 0; i < f->config.n_directories; i++) {
		struct discover *d;
		bool watched = false;

		for (size_t j = 0; !watched && j < f->n_directories; j++)
			watched = strcmp(discover_directory(f->directories[j]),
					 f->config.directories[i]) == 0;
		if (watched)
			continue;
		d = discover_start(f->loop, f->config.directories[i], &discover_ops, f);
		if (d)
			f->directories[f->n_directories++] = d;
		else
			log_line("%s: out of memory", f->config.directories[i]);
	}
	if (f->config.libvirt && !f->libvirt) {
		f->libvirt = libvirt_start(f->loop, f->config.libvirt, &libvirt_ops, f);
		if (!f->libvirt)
			log_line("libvirt %s: out of memory, or of threads", f->config.libvirt);
	}
}

void roster_add_configured(struct fleet *f)
{
	for (size_t i = 0; i < f->config.n_vms; i++) {
		struct fleet_vm *vm = NULL;

		if (f->config.vms[i].monitor)
			vm = add_path(f, f->config.vms[i].monitor, false);
		if (vm)
			vm->configured = true;
	}
}

/* Those that were found in a directory that is watched no more. */
void roster_drop_strangers(struct fleet *f)
{
	for (uint32_t i = f->used; i-- > 0;) {
		struct fleet_vm *vm = &f->vms[i];
		const char *path;
		bool known;

		if (!vm->endpoint)
			continue;
		path = endpoint_path(vm->endpoint);
		known = vm->configured || is_of_libvirt(vm);
		for (size_t d = 0; !known && d < f->config.n_directories; d++) {
			const char *directory = f->config.directories[d];
			size_t len = strlen(directory);

			/* One that was configured as well may have lost its socket long ago. */
			known = strncmp(path, directory, len) == 0 && path[len] == '/' &&
				!strchr(path + len + 1, '/') && access(path, F_OK) == 0;
		}
		if (!known)
			remove_vm(f, vm, "the configuration has it no more");
	}
}
