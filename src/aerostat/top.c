// SPDX-License-Identifier: MIT
/*
 * top: asks for all virtual machines and the host at every interval, over one connection that is
 * made again when it is lost, and waits for answers, keys and signals at the same time.
 */
#include <curses.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/json_read.h"
#include "common/size.h"
#include "format.h"
#include "qmp/json.h"
#include "top_terminal.h"
#include "top_view.h"
#include "verbs.h"

#define INTERVAL_MS  1000
#define RECONNECT_MS 1000
#define MESSAGE_MS   4000
#define CTRL_L       ('L' & 0x1f)
#define ESCAPE       27

struct top {
	struct context *ctx;
	struct model model;
	struct view view;
	uint64_t interval_ms, due_ms, reconnect_ms, message_end_ms;
	bool vms_asked, host_asked, explain_asked;
	bool changed, quit;
};

static void tell(struct top *t, const char *text)
{
	snprintf(t->view.message, sizeof(t->view.message), "%.*s", VIEW_TEXT - 1, text);
	t->message_end_ms = control_now() + MESSAGE_MS;
	t->changed = true;
}

/* --- asking ---------------------------------------------------------------------------------- */

/* Whether it is a good answer; else it is told, but for a connection that is lost anyway. */
static bool is_good(struct top *t, const struct qmp_answer *answer, const char *command)
{
	struct failure failure;

	t->changed = true;
	if (control_judge(answer, command, "aerostatd", &failure) == STATUS_DONE)
		return true;
	if (answer->kind != QMP_ANSWER_LOST)
		tell(t, failure.text);
	return false;
}

static void on_vms(void *opaque, const struct qmp_answer *answer)
{
	struct top *t = opaque;

	t->vms_asked = false;
	if (!is_good(t, answer, "query-vms") ||
	    !json_object_is_type(answer->value, json_type_array))
		return;
	if (model_update(&t->model, answer->value, control_now()) < 0)
		tell(t, "out of memory");
	view_keep_selection(&t->view);
}

static void on_host(void *opaque, const struct qmp_answer *answer)
{
	struct top *t = opaque;

	t->host_asked = false;
	if (is_good(t, answer, "query-host"))
		model_host(&t->model, answer->value);
}

static void on_explain(void *opaque, const struct qmp_answer *answer)
{
	struct top *t = opaque;

	t->explain_asked = false;
	json_object_put(t->view.explanation);
	t->view.explanation = NULL;
	if (is_good(t, answer, "explain"))
		t->view.explanation = json_object_get(answer->value);
}

static void on_set(void *opaque, const struct qmp_answer *answer)
{
	struct top *t = opaque;
	const char *name = json_read_str(answer->value, "name");
	char text[VIEW_TEXT], size[FORMAT_ROOM] = "?";
	uint64_t target;

	if (!is_good(t, answer, "set-vm"))
		return;
	if (json_read_u64(answer->value, "target", &target))
		format_size(target, size, sizeof(size));
	snprintf(text, sizeof(text), "%s: its target is %s now", name ? name : "done", size);
	tell(t, text);
	t->due_ms = control_now();
}

static struct json_object *about(const char *name)
{
	struct json_object *args = json_object_new_object();

	qmp_obj_add(&args, "name", json_object_new_string(name));
	return args;
}

/* Asks, unless the answer to the same question is still to come. */
static void ask_once(struct top *t, bool *asked, const char *command, struct json_object *args,
		     qmp_client_done *done)
{
	if (*asked) {
		json_object_put(args);
		return;
	}
	*asked = control_start(t->ctx->control, command, args, t->ctx->timeout_ms, done, t) == 0;
}

static void ask_explanation(struct top *t)
{
	if (t->view.pane == PANE_EXPLAIN && *t->view.name)
		ask_once(t, &t->explain_asked, "explain", about(t->view.name), on_explain);
}

static void ask_all(struct top *t, uint64_t now)
{
	if (now < t->due_ms)
		return;
	t->due_ms += t->interval_ms;
	if (t->due_ms <= now)
		t->due_ms = now + t->interval_ms;
	ask_once(t, &t->vms_asked, "query-vms", NULL, on_vms);
	ask_once(t, &t->host_asked, "query-host", NULL, on_host);
	ask_explanation(t);
}

static void set_target(struct top *t)
{
	struct json_object *args = about(t->view.name);
	bool automatic = strcmp(t->view.input, "auto") == 0;
	uint64_t size = 0;

	if (!automatic) {
		(void)size_parse(t->view.input, &size); /* it was checked */
		qmp_obj_add(&args, "floor", json_object_new_uint64(size));
		qmp_obj_add(&args, "ceiling", json_object_new_uint64(size));
	}
	if (!t->ctx->control || !control_ready(t->ctx->control)) {
		json_object_put(args);
		tell(t, "there is no connection");
		return;
	}
	if (control_start(t->ctx->control, automatic ? "reset-vm" : "set-vm", args,
			  t->ctx->timeout_ms, on_set, t) < 0)
		tell(t, "it cannot be asked at this moment");
}

/* --- keys ------------------------------------------------------------------------------------ */

static void sort_by(struct top *t, enum sort_key key)
{
	t->model.reverse = t->model.sort == key && !t->model.reverse;
	t->model.sort = key;
	model_arrange(&t->model);
	view_keep_selection(&t->view);
}

static void begin_prompt(struct top *t, enum prompt prompt, const char *text)
{
	t->view.prompt = prompt;
	t->view.message[0] = '\0';
	snprintf(t->view.input, sizeof(t->view.input), "%s", text);
}

static void toggle_pane(struct top *t, enum pane pane)
{
	t->view.pane = t->view.pane == pane ? PANE_NONE : pane;
	t->view.pane_first = 0;
	json_object_put(t->view.explanation);
	t->view.explanation = NULL;
	if (t->ctx->control && control_ready(t->ctx->control))
		ask_explanation(t);
}

/* Another one is selected: what is shown of the old one goes. */
static void go(struct top *t, long by)
{
	view_move(&t->view, by);
	if (t->view.pane != PANE_EXPLAIN)
		return;
	toggle_pane(t, PANE_EXPLAIN);
	toggle_pane(t, PANE_EXPLAIN);
}

static void set_filter(struct top *t, const char *text)
{
	snprintf(t->model.filter, sizeof(t->model.filter), "%.*s", MODEL_FILTER - 1, text);
	model_arrange(&t->model);
	view_keep_selection(&t->view);
}

static void end_input(struct top *t)
{
	uint64_t size;

	if (t->view.prompt == PROMPT_FILTER) {
		t->view.prompt = PROMPT_NONE;
		return;
	}
	if (!*t->view.input) {
		t->view.prompt = PROMPT_NONE;
	} else if (strcmp(t->view.input, "auto") != 0 && size_parse(t->view.input, &size) < 0) {
		t->view.prompt = PROMPT_NONE;
		tell(t, "that is no size such as 512M or 4G");
	} else {
		t->view.prompt = PROMPT_CONFIRM;
	}
}

/* A key while something is being typed. */
static void type_key(struct top *t, int key)
{
	char *input = t->view.input;
	size_t n = strlen(input);

	if (t->view.prompt == PROMPT_CONFIRM) {
		t->view.prompt = PROMPT_NONE;
		if (key == 'y' || key == 'Y')
			set_target(t);
		return;
	}
	if (key == ESCAPE) {
		if (t->view.prompt == PROMPT_FILTER)
			set_filter(t, "");
		t->view.prompt = PROMPT_NONE;
		return;
	}
	if (key == '\r' || key == '\n' || key == KEY_ENTER) {
		end_input(t);
		return;
	}
	if (key == KEY_BACKSPACE || key == 127 || key == '\b') {
		/* A whole character, which may have several bytes. */
		while (n && ((unsigned char)input[--n] & 0xc0) == 0x80)
			;
		input[n] = '\0';
	} else if (key >= ' ' && key < 256 && n + 1 < MODEL_FILTER) {
		input[n] = (char)key;
		input[n + 1] = '\0';
	}
	if (t->view.prompt == PROMPT_FILTER)
		set_filter(t, input);
}

static const struct {
	int key;
	enum sort_key sort;
} sort_keys[] = {
	{'n', SORT_NAME}, {'t', SORT_TARGET},  {'a', SORT_ACTUAL}, {'r', SORT_RESIDENT},
	{'f', SORT_FREE}, {'v', SORT_VERDICT}, {'h', SORT_HEALTH}, {'d', SORT_AGE},
};

static bool sort_key(struct top *t, int key)
{
	for (size_t i = 0; i < sizeof(sort_keys) / sizeof(sort_keys[0]); i++) {
		if (sort_keys[i].key == key) {
			sort_by(t, sort_keys[i].sort);
			return true;
		}
	}
	if (key != '<' && key != '>')
		return false;
	t->model.reverse = false;
	t->model.sort =
		(enum sort_key)((t->model.sort + (key == '>' ? 1 : SORT_COUNT - 1)) % SORT_COUNT);
	model_arrange(&t->model);
	view_keep_selection(&t->view);
	return true;
}

static bool move_key(struct top *t, int key)
{
	long page = (long)view_page(&t->view), all = (long)t->model.n_shown;

	switch (key) {
	case KEY_UP:
	case 'k':
		go(t, -1);
		return true;
	case KEY_DOWN:
	case 'j':
		go(t, 1);
		return true;
	case KEY_PPAGE:
		go(t, -page);
		return true;
	case KEY_NPAGE:
	case ' ':
		go(t, page);
		return true;
	case KEY_HOME:
		go(t, -all);
		return true;
	case KEY_END:
	case 'G':
		go(t, all);
		return true;
	default:
		return false;
	}
}

static void act_key(struct top *t, int key)
{
	switch (key) {
	case 'q':
	case 'Q':
		t->quit = true;
		break;
	case '?':
		toggle_pane(t, PANE_HELP);
		break;
	case 'e':
	case '\r':
	case '\n':
	case KEY_ENTER:
		toggle_pane(t, PANE_EXPLAIN);
		break;
	case ESCAPE:
		if (t->view.pane != PANE_NONE)
			toggle_pane(t, t->view.pane);
		break;
	case '\t':
		t->view.pane_first++;
		break;
	case 's':
		if (view_row(&t->view))
			begin_prompt(t, PROMPT_TARGET, "");
		break;
	case '/':
		begin_prompt(t, PROMPT_FILTER, t->model.filter);
		break;
	case 'g':
		t->view.graph_actual = !t->view.graph_actual;
		break;
	case CTRL_L:
		clearok(stdscr, TRUE);
		break;
	default:
		break;
	}
}

static void leave_help(struct top *t, int key)
{
	t->quit = key == 'q';
	toggle_pane(t, PANE_HELP);
}

static void take_keys(struct top *t)
{
	int key;

	while ((key = getch()) != ERR) {
		t->changed = true;
		if (t->view.prompt != PROMPT_NONE)
			type_key(t, key);
		else if (t->view.pane == PANE_HELP)
			leave_help(t, key);
		else if (!sort_key(t, key) && !move_key(t, key))
			act_key(t, key);
	}
}

/* --- the loop -------------------------------------------------------------------------------- */

static void lose(struct top *t, const struct failure *failure)
{
	control_close(t->ctx->control);
	t->ctx->control = NULL;
	t->reconnect_ms = control_now() + RECONNECT_MS;
	t->changed = true;
	snprintf(t->view.lost, sizeof(t->view.lost), "%.*s", VIEW_TEXT - 1, failure->text);
	tell(t, t->view.lost);
}

/* A connection, if it is time for one. */
static void connect_again(struct top *t, uint64_t now)
{
	struct failure failure;

	if (t->ctx->control || now < t->reconnect_ms)
		return;
	t->ctx->control =
		control_begin(t->ctx->o->control, "aerostatd", t->ctx->timeout_ms, NULL, &failure);
	if (!t->ctx->control)
		lose(t, &failure);
}

static int next_timeout(const struct top *t, uint64_t now)
{
	uint64_t due =
		t->ctx->control && control_ready(t->ctx->control) ? t->due_ms : now + RECONNECT_MS;

	if (*t->view.message && t->message_end_ms < due)
		due = t->message_end_ms;
	return due > now ? (int)(due - now) : 0;
}

/* One wait, and what came of it. False: the terminal is gone. */
static bool wait_for_more(struct top *t)
{
	uint64_t now = control_now();
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = -1}};
	int timeout = next_timeout(t, now), n;
	struct failure failure;

	if (t->ctx->control)
		control_prepare(t->ctx->control, &fds[1], &timeout);
	n = terminal_poll(fds, 2, timeout);
	if (n < 0)
		fds[0].revents = fds[1].revents = 0;
	if (t->ctx->control) {
		if (control_handle(t->ctx->control, fds[1].revents, &failure) != STATUS_DONE)
			lose(t, &failure);
		else if (control_ready(t->ctx->control))
			t->view.lost[0] = '\0';
	} else if (n == 0) {
		t->changed = true; /* ages grow */
	}
	return !(fds[0].revents & (POLLERR | POLLNVAL | POLLHUP));
}

static void run(struct top *t)
{
	while (!t->quit && !terminal_ended()) {
		uint64_t now = control_now();

		connect_again(t, now);
		if (t->ctx->control && control_ready(t->ctx->control))
			ask_all(t, now);
		if (*t->view.message && now >= t->message_end_ms) {
			t->view.message[0] = '\0';
			t->changed = true;
		}
		t->changed |= terminal_resized();
		take_keys(t);
		if (t->changed && !t->quit)
			view_draw(&t->view, control_now());
		t->changed = false;
		if (!t->quit && !wait_for_more(t))
			break;
	}
}

/* Without a screen: what there is, once. */
static enum status print_once(struct context *ctx)
{
	struct json_object *members, *vms = NULL, *host = NULL;
	enum status status = ask(ctx, "query-vms", NULL, &vms);

	if (status == STATUS_DONE)
		status = ask(ctx, "query-host", NULL, &host);
	if (status != STATUS_DONE) {
		json_object_put(vms);
		return status;
	}
	members = json_object_new_object();
	qmp_obj_add(&members, "host", host);
	qmp_obj_add(&members, "vms", vms);
	return print_json(ctx, members);
}

enum status verb_top(struct context *ctx)
{
	struct top t = {.ctx = ctx, .interval_ms = INTERVAL_MS, .changed = true};
	int number;

	ctx->control =
		control_open(ctx->o->control, "aerostatd", ctx->timeout_ms, NULL, &ctx->failure);
	if (!ctx->control)
		return ctx->failure.status;
	if (ctx->style.json)
		return print_once(ctx);
	if (!terminal_begin(ctx->style.colour))
		return failure_set(&ctx->failure, STATUS_FAILED,
				   "top needs a terminal that can move the cursor (see list)");
	if (ctx->o->interval_ms.is)
		t.interval_ms = ctx->o->interval_ms.value;
	t.view.model = &t.model;
	t.view.style = &ctx->style;
	t.view.span_ms = t.interval_ms * HISTORY_SAMPLES;
	t.due_ms = control_now();
	run(&t);
	number = terminal_ended();
	terminal_end();
	control_close(ctx->control); /* what is still asked for is answered, as lost */
	ctx->control = NULL;
	json_object_put(t.view.explanation);
	model_free(&t.model);
	/* Ctrl-C is how many leave; who is told to end by others shall look like it. */
	if (number && number != SIGINT)
		terminal_die(number);
	return STATUS_DONE;
}
