/* SPDX-License-Identifier: MIT */
/*
 * The configuration: an INI file, and fragments beside it. It is read whole or not at all.
 *
 *	[manager]
 *	monitors = /run/aerostat/vm   ; a directory of QMP sockets, watched; any number of these
 *	libvirt = qemu:///system      ; ask it for its machines; off by default
 *	control = /run/aerostat/control
 *	metrics = 127.0.0.1:9177      ; or off
 *	state = /var/lib/aerostat/state.json
 *	dry-run = no
 *
 *	[host]
 *	reserve = 2G                  ; stays free on the host
 *	budget = 48G                  ; what all VMs together may keep; none by default
 *
 *	[vm web]                      ; by its name, or by its UUID
 *	floor = 512M                  ; it keeps that much, whatever happens
 *	priority = 200                ; of two VMs that need memory, this one gets more; 1 to 10000
 *	monitor = /srv/web/qmp        ; its QMP socket, where that is in none of the directories
 */
#ifndef AEROSTATD_CONFIG_H
#define AEROSTATD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_PRIORITY_DEFAULT 100U
#define CONFIG_PRIORITY_MAX     10000U
#define CONFIG_NAME_MAX         256U /* bytes of a VM's name, with the NUL */
#define CONFIG_VMS_MAX          16384U
#define CONFIG_DIRECTORIES_MAX  64U

struct config_vm {
	char *name;
	char *monitor;        /* path of its QMP socket, or NULL */
	uint64_t floor_bytes; /* CONFIG_AUTO: by its size */
	uint32_t priority;
};

struct config {
	char **directories;
	size_t n_directories;
	struct config_vm *vms;
	size_t n_vms;
	char *libvirt;          /* URI, or NULL: off */
	char *control;          /* path of the control socket */
	char *metrics;          /* address:port, or NULL: off */
	char *state;            /* file, or NULL: nothing is kept */
	uint64_t reserve_bytes; /* CONFIG_AUTO: by the size of the host */
	uint64_t budget_bytes;  /* CONFIG_AUTO: none */
	bool dry_run;
};

#define CONFIG_AUTO UINT64_MAX

/*
 * Reads the file at path, then those in the directory path.d whose names end in .conf, in the order
 * of their names. What a later file says once replaces what an earlier one said; directories of
 * monitors add up. must_exist: no file at path is an error.
 * 0, or -errno with one line in error that names file and line; *config is untouched then.
 */
int config_load(const char *path, bool must_exist, struct config *config, char *error,
		size_t error_size);

/* What is true without any file. 0 or -ENOMEM. */
int config_defaults(struct config *config);

/*
 * What the command line says instead; NULL: nothing, and "off" as in the file. 0, or -errno with a
 * line in error.
 */
int config_override(struct config *config, const char *control, const char *metrics,
		    const char *state, char *error, size_t error_size);

void config_free(struct config *config);

/* What it says of a VM, by that name or UUID; or NULL: nothing. */
const struct config_vm *config_find_vm(const struct config *config, const char *name);

#endif
