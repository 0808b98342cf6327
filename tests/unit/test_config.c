// SPDX-License-Identifier: MIT
/* The manager's configuration: each key, each error with its file and line, fragments, and what is
 * no text at all. Every allocation fails once, too. */
#include "alloc_helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/aerostatd/config.h"
#include "tree_helpers.h"

#define GIB (1ULL << 30)

struct place {
	char directory[64];
	char file[80];
	char fragments[96];
};

static void write_bytes(const char *path, const void *bytes, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void write_text(const char *path, const char *text)
{
	write_bytes(path, text, strlen(text));
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(mkdtemp(tree_pattern(p->directory, sizeof(p->directory))));
	snprintf(p->file, sizeof(p->file), "%s/c", p->directory);
	snprintf(p->fragments, sizeof(p->fragments), "%s.d", p->file);
	assert_int_equal(mkdir(p->fragments, 0755), 0);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	assert_int_equal(tree_remove(p->directory), 0);
	free(p);
	return 0;
}

static void fragment(const struct place *p, const char *name, const char *text)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/%s", p->fragments, name);
	write_text(path, text);
}

static void loads(const struct place *p, const char *text, struct config *config)
{
	char error[512] = "";

	write_text(p->file, text);
	if (config_load(p->file, true, config, error, sizeof(error)) != 0)
		fail_msg("%s", error);
}

static void fails_with(const struct place *p, const char *words)
{
	struct config config = {.n_vms = 77};
	char error[512] = "";

	assert_true(config_load(p->file, true, &config, error, sizeof(error)) < 0);
	if (!strstr(error, words))
		fail_msg("'%s' and not '%s'", error, words);
	assert_int_equal(config.n_vms, 77); /* untouched */
}

static void defaults(void **state)
{
	const struct place *p = *state;
	struct config c;
	char error[512];

	assert_int_equal(config_load(p->file, false, &c, error, sizeof(error)), 0);
	assert_string_equal(c.control, "/run/aerostat/control");
	assert_string_equal(c.metrics, "127.0.0.1:9177");
	assert_string_equal(c.state, "/var/lib/aerostat/state.json");
	assert_int_equal(c.n_directories, 1);
	assert_string_equal(c.directories[0], "/run/aerostat/vm");
	assert_true(c.reserve_bytes == CONFIG_AUTO && c.budget_bytes == CONFIG_AUTO);
	assert_false(c.dry_run);
	assert_int_equal(c.n_vms, 0);
	config_free(&c);
	assert_int_equal(config_load(p->file, true, &c, error, sizeof(error)), -ENOENT);
	assert_null(strstr(error, ":0:")); /* there is no line to speak of */
	assert_non_null(strstr(error, p->file));
	loads(*state, "", &c);
	assert_int_equal(c.n_directories, 1);
	config_free(&c);
}

static void every_key(void **state)
{
	const struct config_vm *web;
	struct config c;

	loads(*state,
	      "; a comment\n# another\n[manager]\nmonitors = /a\n  monitors=/b/\nmonitors = //\n"
	      "control = /c\nmetrics = [::1]:0\nstate = off\ndry-run = Yes\nlibvirt = off\n\n"
	      "[host]\nreserve = 2g\nbudget = 48G\n"
	      "[vm web]\nfloor = 0\npriority = 1\nmonitor = /srv/w\n"
	      "[vm my mail]\npriority = 10000\n[vm x]\nfloor = 512M ; why\n",
	      &c);
	assert_int_equal(c.n_directories, 3);
	assert_string_equal(c.directories[0], "/a");
	assert_string_equal(c.directories[1], "/b");
	assert_string_equal(c.directories[2], "/");
	assert_string_equal(c.control, "/c");
	assert_string_equal(c.metrics, "[::1]:0");
	assert_true(!c.state && !c.libvirt);
	assert_true(c.dry_run);
	assert_true(c.reserve_bytes == 2 * GIB && c.budget_bytes == 48 * GIB);
	web = config_find_vm(&c, "web");
	assert_true(web && web->floor_bytes == 0 && web->priority == 1);
	assert_string_equal(web->monitor, "/srv/w");
	assert_int_equal(config_find_vm(&c, "my mail")->priority, 10000);
	assert_true(config_find_vm(&c, "my mail")->floor_bytes == CONFIG_AUTO);
	assert_int_equal(config_find_vm(&c, "x")->floor_bytes, 512 << 20);
	assert_int_equal(config_find_vm(&c, "x")->priority, CONFIG_PRIORITY_DEFAULT);
	assert_null(config_find_vm(&c, "Web"));
	config_free(&c);
	loads(*state, "[manager]\nmetrics = OFF\nstate = /s\ndry-run = 0\n[host]\nreserve = 0\n",
	      &c);
	assert_null(c.metrics);
	assert_string_equal(c.state, "/s");
	assert_true(!c.dry_run && c.reserve_bytes == 0);
	config_free(&c);
}

static void every_error(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		{"[manager]\ncontrol = here\n", "c:2: control: 'here' is not an absolute path"},
		{"[manager]\nmonitors = x\n", "c:2: monitors: 'x' is not an absolute path"},
		{"[manager]\nmetrics = 9177\n", "c:2: metrics: '9177' is not address:port"},
		{"[manager]\nmetrics = :9177\n", "c:2: metrics"},
		{"[manager]\nmetrics = a:\n", "c:2: metrics"},
		{"[manager]\nmetrics = a:65536\n", "c:2: metrics"},
		{"[manager]\nmetrics = a:99999999999999999999\n", "c:2: metrics"},
		{"[manager]\nmetrics = a:1x\n", "c:2: metrics"},
		{"[manager]\nstate =\n", "c:2: state: '' is not an absolute path"},
		{"[manager]\ndry-run = maybe\n", "c:2: dry-run: 'maybe' is not yes or no"},
		{"[manager]\n\n\nfloor = 1\n", "c:4: unknown key 'floor' in [manager]"},
		{"[host]\nreserve = much\n", "c:2: reserve: 'much' is not a size"},
		{"[host]\nreserve = -1\n", "c:2: reserve"},
		{"[host]\nreserve = 99999999999T\n", "c:2: reserve"},
		{"[host]\nbudget = 0\n", "c:2: budget: '0' is not a size"},
		{"[host]\nbudget = 1G 2G\n", "c:2: budget"},
		{"[vm a]\npriority = 0\n", "c:2: priority: '0' is not a number from 1 to 10000"},
		{"[vm a]\npriority = 10001\n", "c:2: priority"},
		{"[vm a]\npriority = +5\n", "c:2: priority"},
		{"[vm a]\npriority = 5k\n", "c:2: priority"},
		{"[vm a]\nmonitor = qmp\n", "c:2: monitor"},
		{"[vm a]\nfloor = 1\nfloor = 2\n", "c:3: 'floor' stands in [vm a] twice"},
		{"[vm ]\nfloor = 1\n", "c:2: unknown section '[vm ]'"},
		{"[vms]\nfloor = 1\n", "c:2: unknown section '[vms]'"},
		{"floor = 1\n", "c:1: unknown section '[]'"},
		{"[manager]\nwhat\n", "c:2: neither a [section] nor 'key = value'"},
		{"[manager\nstate = off\n", "c:1: neither a [section]"},
		{"[manager]\nControl = /x\n", "c:2: unknown key 'Control'"},
	};
	const struct place *p = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_text(p->file, cases[i].text);
		fails_with(p, cases[i].words);
	}
}

static void long_lines_and_names(void **state)
{
	const struct place *p = *state;
	static char text[16384];
	struct config c;
	int n = snprintf(text, sizeof(text), "[manager]\n# ");

	memset(text + n, 'x', 4000);
	snprintf(text + n + 4000, 64, "\nstate = off\n");
	loads(p, text, &c);
	assert_null(c.state);
	config_free(&c);
	/* Cut in two, the rest of it would be a line of its own. */
	memset(text + n, 'x', 4090);
	snprintf(text + n + 4090, 64, " state = off\n");
	write_text(p->file, text);
	fails_with(p, "c:2: the line is longer than 4093 bytes");
	snprintf(text, sizeof(text), "[vm %046d]\nfloor = 1\n", 5);
	loads(p, text, &c);
	assert_int_equal(strlen(c.vms[0].name), 46);
	config_free(&c);
	snprintf(text, sizeof(text), "[manager]\n [vm %047d]\nfloor = 1\n", 5);
	write_text(p->file, text);
	fails_with(p, "c:2: '[vm NAME]' is longer than 49 bytes");
	snprintf(text, sizeof(text), "\xef\xbb\xbf[vm %047d]\nfloor = 1\n", 5);
	write_text(p->file, text);
	fails_with(p, "c:1: '[vm NAME]' is longer");
	snprintf(text, sizeof(text), "[manager]\ncontrol = /%04094d\n", 5);
	write_text(p->file, text);
	fails_with(p, "c:2: ");
}

static void bytes_that_are_no_text(void **state)
{
	static const char nul[] = "[manager]\nstate = /a\0b\n", hidden[] = "[manager]\n\0bad\n";
	const struct place *p = *state;
	unsigned char garbage[8192];
	struct config c;

	loads(p, "\xef\xbb\xbf[manager]\r\nstate = off\r\ncontrol = /x\r\n", &c);
	assert_null(c.state);
	assert_string_equal(c.control, "/x");
	config_free(&c);
	loads(p, "[manager]\nstate = off", &c); /* no end of the last line */
	assert_null(c.state);
	config_free(&c);
	write_bytes(p->file, nul, sizeof(nul) - 1);
	fails_with(p, "c:2: there is a NUL byte in it");
	write_bytes(p->file, hidden, sizeof(hidden) - 1);
	fails_with(p, "c:2: there is a NUL byte in it");
	for (unsigned int seed = 1; seed <= 200; seed++) {
		char error[512] = "";
		uint32_t x = seed * 2654435761U;
		int r;

		for (size_t i = 0; i < sizeof(garbage); i++) {
			x ^= x << 13;
			x ^= x >> 17;
			x ^= x << 5;
			garbage[i] = seed % 2 ? (unsigned char)x
					      : (unsigned char)"[]=;vm \n\rhost/09"[x % 17];
		}
		write_bytes(p->file, garbage, sizeof(garbage));
		r = config_load(p->file, true, &c, error, sizeof(error));
		if (r == 0)
			config_free(&c);
		else
			assert_non_null(strstr(error, p->file));
	}
	unlink(p->file);
	assert_int_equal(mkdir(p->file, 0755), 0);
	fails_with(p, "cannot be read");
}

static void fragments_in_order(void **state)
{
	const struct place *p = *state;
	struct config c;

	fragment(p, "20-b.conf", "[manager]\ncontrol = /b\nmonitors = /m2\n[vm w]\nfloor = 2\n");
	fragment(p, "10-a.conf", "[manager]\ncontrol = /a\nstate = /a\nmonitors = /m1\n");
	fragment(p, "30-c.conf~", "nonsense\n");
	fragment(p, ".hidden.conf", "nonsense\n");
	fragment(p, ".conf", "nonsense\n");
	loads(p, "[manager]\ncontrol = /main\nmonitors = /m0\n[vm w]\nfloor = 1\npriority = 5\n",
	      &c);
	assert_string_equal(c.control, "/b");
	assert_string_equal(c.state, "/a");
	assert_int_equal(c.n_directories, 3);
	assert_string_equal(c.directories[0], "/m0");
	assert_string_equal(c.directories[1], "/m1");
	assert_string_equal(c.directories[2], "/m2");
	assert_int_equal(c.n_vms, 1);
	assert_true(c.vms[0].floor_bytes == 2 && c.vms[0].priority == 5);
	config_free(&c);
	fragment(p, "15.conf", "[vm w]\n\nfloor = no\n");
	fails_with(p, "15.conf:3: floor: 'no' is not a size");
}

static void too_much(void **state)
{
	const struct place *p = *state;
	FILE *f = fopen(p->file, "w");

	fputs("[manager]\n", f);
	for (unsigned int i = 0; i <= CONFIG_DIRECTORIES_MAX; i++)
		fprintf(f, "monitors = /%u\n", i);
	fclose(f);
	fails_with(p, "c:66: monitors: '/64' is not the absolute path of a directory, and 64");
}

static void a_path_too_long(void **state)
{
	static char path[4200];
	struct config c;
	char error[512] = "";

	(void)state;
	memset(path, '/', sizeof(path) - 1);
	assert_true(config_load(path, false, &c, error, sizeof(error)) < 0);
	assert_string_not_equal(error, "");
	path[4094] = '\0';
	error[0] = '\0';
	assert_true(config_load(path, false, &c, error, sizeof(error)) < 0);
	assert_string_not_equal(error, "");
}

static void the_command_line(void **state)
{
	char error[512] = "";
	struct config c;

	loads(*state, "[manager]\ncontrol = /file\n", &c);
	assert_int_equal(config_override(&c, NULL, NULL, NULL, error, sizeof(error)), 0);
	assert_string_equal(c.control, "/file");
	assert_int_equal(config_override(&c, "/line", "off", "off", error, sizeof(error)), 0);
	assert_string_equal(c.control, "/line");
	assert_true(!c.metrics && !c.state);
	assert_int_equal(config_override(&c, NULL, "x", NULL, error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "--metrics: 'x' is not address:port, or off");
	assert_int_equal(config_override(&c, "off", NULL, NULL, error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "--control: 'off' is not an absolute path");
	config_free(&c);
}

/* Whichever allocation fails: an error in words, nothing is left behind, and nothing half is
 * taken. */
static void out_of_memory(void **state)
{
	const struct place *p = *state;
	bool whole = false;

	write_text(p->file, "[manager]\nmonitors = /a\nmetrics = 1.2.3.4:5\n[vm a]\nfloor = 1\n"
			    "monitor = /x\n[vm b]\npriority = 2\n");
	fragment(p, "1.conf", "[manager]\nstate = /s\n");
	for (unsigned long n = 1; !whole; n++) {
		struct config c = {.n_vms = 77};
		char error[512] = "";
		int r;

		assert_true(n < 1000);
		alloc_fail_at(n);
		r = config_load(p->file, true, &c, error, sizeof(error));
		whole = !alloc_failed();
		alloc_fail_at(0);
		if (r == 0) {
			assert_int_equal(c.n_vms, 2);
			assert_string_equal(c.state, "/s");
			config_free(&c);
		} else {
			assert_false(whole);
			assert_int_equal(c.n_vms, 77);
			assert_string_not_equal(error, "");
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(every_key, setup, teardown),
		cmocka_unit_test_setup_teardown(every_error, setup, teardown),
		cmocka_unit_test_setup_teardown(long_lines_and_names, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_that_are_no_text, setup, teardown),
		cmocka_unit_test_setup_teardown(fragments_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(too_much, setup, teardown),
		cmocka_unit_test_setup_teardown(a_path_too_long, setup, teardown),
		cmocka_unit_test_setup_teardown(the_command_line, setup, teardown),
		cmocka_unit_test_setup_teardown(out_of_memory, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
