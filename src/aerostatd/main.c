// SPDX-License-Identifier: MIT
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/usage.h"
#include "config.h"
#include "control.h"
#include "fleet.h"
#include "http.h"
#include "metrics.h"
#include "options.h"
#include "service.h"

struct daemon {
	uv_loop_t loop;
	struct options options;
	struct fleet fleet;
	struct control control;
	struct http *http;
	struct service service;
	uv_signal_t signals[3];
	bool stopping;
};

/* Too large for a stack. */
static struct daemon the_daemon;

/* The configuration as files and command line have it together. */
static int load(const struct options *o, struct config *config, char *error, size_t error_size)
{
	int r = config_load(o->config, o->config_given, config, error, error_size);

	if (r < 0)
		return r;
	r = config_override(config, o->control, o->metrics, o->state, error, error_size);
	if (o->dry_run)
		config->dry_run = true;
	if (r < 0)
		config_free(config);
	return r;
}

static void stop(struct daemon *d)
{
	if (d->stopping)
		return;
	d->stopping = true;
	service_stopping();
	http_stop(d->http);
	fleet_stop(&d->fleet);
	control_stop(&d->control);
	service_stop(&d->service);
	for (size_t i = 0; i < sizeof(d->signals) / sizeof(d->signals[0]); i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
}

static bool differ(const char *a, const char *b)
{
	return !a != !b || (a && strcmp(a, b) != 0);
}

static int reload(void *opaque, char *error, size_t error_size)
{
	struct daemon *d = opaque;
	struct config config;
	const struct config *before = &d->fleet.config;
	int r;

	service_reloading();
	r = load(&d->options, &config, error, error_size);
	if (r == 0) {
		if (differ(config.control, before->control) ||
		    differ(config.metrics, before->metrics) || differ(config.state, before->state))
			log_line("where control and metrics are offered, and where the state is "
				 "kept, changes with a restart only");
		fleet_configure(&d->fleet, &config);
		log_line("the configuration was read anew");
	} else {
		log_line("%s: the configuration stays as it was", error);
	}
	service_ready();
	return r;
}

static void on_quit(void *opaque)
{
	struct daemon *d = opaque;

	/* The answer to `quit` is on its way still: leave by the way of a signal. */
	(void)d;
	raise(SIGTERM);
}

static char *on_metrics(void *opaque)
{
	struct daemon *d = opaque;

	return metrics_text(&d->fleet, clock_now(), true);
}

static char *on_scrape(void *opaque, bool openmetrics)
{
	struct daemon *d = opaque;

	return metrics_text(&d->fleet, clock_now(), openmetrics);
}

static void on_news(void *opaque, const struct news_item *item)
{
	struct daemon *d = opaque;

	if (!d->stopping)
		control_news(&d->control, item);
}

static void on_reserved(void *opaque, uint64_t id, enum reserve_change change)
{
	struct daemon *d = opaque;

	control_reserved(&d->control, id, change);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *d = handle->data;
	char error[512] = "";

	if (number == SIGHUP)
		(void)reload(d, error, sizeof(error));
	else
		stop(d);
}

static void watch_signals(struct daemon *d)
{
	static const int numbers[] = {SIGHUP, SIGINT, SIGTERM};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uv_signal_init(&d->loop, &d->signals[i]);
		d->signals[i].data = d;
		uv_signal_start(&d->signals[i], on_signal, numbers[i]);
	}
}

/* 0, or a line in error. */
static int start(struct daemon *d, struct config *config, char *error, size_t error_size)
{
	static const struct fleet_ops fleet_ops = {on_news, on_reserved};
	static const struct control_ops control_ops = {reload, on_quit, on_metrics};
	int r = uv_loop_init(&d->loop);

	if (r < 0) {
		snprintf(error, error_size, "%s", uv_strerror(r));
		return r;
	}
	/* What may fail for reasons outside of us comes first. */
	watch_signals(d);
	r = control_start(&d->control, &d->loop, config->control, service_socket(), &d->fleet,
			  &control_ops, d);
	if (r < 0) {
		snprintf(error, error_size, "control socket %s: %s", config->control,
			 r == -ENOENT ? "there is no such directory" : strerror(-r));
		return r;
	}
	if (config->metrics) {
		d->http = http_start(&d->loop, config->metrics, on_scrape, d, error, error_size);
		if (!d->http) {
			control_stop(&d->control);
			return -EADDRNOTAVAIL;
		}
		log_line("metrics at http://%.*s:%d/metrics",
			 (int)(strrchr(config->metrics, ':') - config->metrics), config->metrics,
			 http_port(d->http));
	}
	r = fleet_start(&d->fleet, &d->loop, config, d->options.interval_ms, &fleet_ops, d);
	if (r < 0) {
		snprintf(error, error_size, "%s", strerror(-r));
		control_stop(&d->control);
	}
	return r;
}

/* A descriptor for each VM and some more: the usual 1024 are too few, and nothing here needs them
 * to be small. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct daemon *d = &the_daemon;
	struct config config = {0};
	char error[512] = "";
	int r = options_parse(argc, argv, &d->options);

	if (r < 0)
		return usage_status(r);
	log_set_name("aerostatd", NULL);
	if (load(&d->options, &config, error, sizeof(error)) < 0) {
		log_line("%s", error);
		return EXIT_FAILURE;
	}
	if (d->options.check) {
		config_free(&config);
		puts("The configuration is right.");
		return EXIT_SUCCESS;
	}
	signal(SIGPIPE, SIG_IGN);
	raise_descriptor_limit();
	if (start(d, &config, error, sizeof(error)) < 0) {
		log_line("%s", error);
		config_free(&config); /* nothing is in it if the fleet has taken it */
		return EXIT_FAILURE;
	}
	service_start(&d->service, &d->loop);
	service_ready();
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_loop_close(&d->loop);
	fleet_free(&d->fleet);
	return EXIT_SUCCESS;
}
