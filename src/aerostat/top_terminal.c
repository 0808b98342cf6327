// SPDX-License-Identifier: MIT
#include "top_terminal.h"

#include "table.h" /* before <term.h>, whose macros have common names */

#include <curses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <term.h>
#include <termios.h>
#include <unistd.h>

static const int asks[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

#define N(array) (sizeof(array) / sizeof((array)[0]))

static volatile sig_atomic_t ended, resized, suspended;
static struct sigaction before_fault[N(faults)];
static sigset_t in_poll; /* what is blocked there */

/* For the handler of faults, which may call hardly anything. */
static struct termios before;
static char restore[128];
static size_t restore_len;
static volatile sig_atomic_t active;

static void on_ask(int number)
{
	ended = number;
}

static void on_resize(int number)
{
	(void)number;
	resized = 1;
}

static void on_suspend(int number)
{
	(void)number;
	suspended = 1;
}

static void on_fault(int number)
{
	if (active) {
		active = 0;
		(void)!write(STDOUT_FILENO, restore, restore_len);
		tcsetattr(STDOUT_FILENO, TCSANOW, &before);
	}
	/* What faulted does so again on return, and then is whoever's it was before. */
	for (size_t i = 0; i < N(faults); i++) {
		if (faults[i] == number)
			sigaction(number, &before_fault[i], NULL);
	}
}

/*
 * Ctrl-Z. Before newterm(), which leaves the signal alone then. Else it installs a handler that
 * draws at any moment, and ignores the signal while it draws: what comes then is lost, also if it
 * is blocked.
 */
static void catch_suspend(void)
{
	struct sigaction action = {.sa_handler = on_suspend};
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTSTP);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigaction(SIGTSTP, &action, NULL);
}

static void add_restore(const char *capability)
{
	const char *text = tigetstr(capability);

	if (!text || (intptr_t)text == -1 || restore_len + strlen(text) >= sizeof(restore))
		return;
	memcpy(restore + restore_len, text, strlen(text));
	restore_len += strlen(text);
}

static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_ask};
	sigset_t blocked;

	sigemptyset(&blocked);
	for (size_t i = 0; i < N(asks); i++) {
		sigaction(asks[i], &action, NULL);
		sigaddset(&blocked, asks[i]);
	}
	action.sa_handler = on_resize;
	sigaction(SIGWINCH, &action, NULL);
	sigaddset(&blocked, SIGWINCH);
	sigprocmask(SIG_BLOCK, &blocked, &in_poll);
	for (size_t i = 0; i < N(asks); i++)
		sigdelset(&in_poll, asks[i]);
	sigdelset(&in_poll, SIGWINCH);
	sigdelset(&in_poll, SIGTSTP);
	action.sa_handler = on_fault;
	for (size_t i = 0; i < N(faults); i++)
		sigaction(faults[i], &action, &before_fault[i]);
}

static void begin_colours(bool colour)
{
	static const short inks[] = {
		[PAINT_GOOD] = COLOR_GREEN, [PAINT_WARN] = COLOR_YELLOW, [PAINT_BAD] = COLOR_RED};

	if (!colour || !has_colors() || start_color() == ERR)
		return;
	use_default_colors();
	for (size_t i = PAINT_GOOD; i < N(inks); i++)
		init_pair((short)i, inks[i], -1);
}

bool terminal_begin(bool colour)
{
	int known;

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) ||
	    tcgetattr(STDOUT_FILENO, &before) < 0)
		return false;
	/* newterm() would fail, too, and leave what it has begun. */
	if (setupterm(NULL, STDOUT_FILENO, &known) == ERR)
		return false;
	del_curterm(cur_term);
	catch_signals();
	catch_suspend();
	if (!newterm(NULL, stdout, stdin))
		return false;
	active = 1;
	atexit(terminal_end);
	add_restore("sgr0");
	add_restore("cnorm");
	add_restore("rmkx");
	add_restore("rmcup");
	begin_colours(colour);
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	set_escdelay(25);
	curs_set(0);
	return true;
}

void terminal_end(void)
{
	if (!active)
		return;
	active = 0;
	endwin();
}

int terminal_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	struct timespec timeout = {.tv_sec = timeout_ms / 1000,
				   .tv_nsec = timeout_ms % 1000 * 1000000L};

	return ppoll(fds, n, timeout_ms < 0 ? NULL : &timeout, &in_poll);
}

int terminal_ended(void)
{
	return ended;
}

/* Gives the terminal back for as long as we are stopped. */
static void suspend(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t set;

	suspended = 0;
	active = 0;
	endwin();
	sigaction(SIGTSTP, &action, NULL);
	raise(SIGTSTP);
	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &set, NULL); /* here it stops */
	catch_suspend();
	active = 1;
	resized = 1; /* or perhaps not; but all has to be drawn again */
}

bool terminal_resized(void)
{
	struct winsize size;

	if (suspended)
		suspend();
	if (!resized)
		return false;
	resized = 0;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col)
		resizeterm(size.ws_row, size.ws_col);
	clearok(stdscr, TRUE);
	return true;
}

void terminal_die(int number)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t set;

	sigaction(number, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, number);
	raise(number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}
