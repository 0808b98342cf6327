/* SPDX-License-Identifier: MIT */
/*
 * The whole screen for a while, and as it was before, however it ends: by return, by a signal that
 * asks for the end, or by one that follows from a fault of our own.
 */
#ifndef AEROSTAT_TOP_TERMINAL_H
#define AEROSTAT_TOP_TERMINAL_H

#include <poll.h>
#include <stdbool.h>

/* False: this terminal cannot do it. colour: may colours be used? */
bool terminal_begin(bool colour);

void terminal_end(void);

/* poll(2), which is the only place where signals come through. */
int terminal_poll(struct pollfd *fds, nfds_t n, int timeout_ms);

/* The signal that asks for the end, 0 if none has come. */
int terminal_ended(void);

/*
 * Has the size changed since the last call? Then curses knows the new one. Also where the program
 * was stopped (Ctrl-Z) and goes on: both want a new drawing.
 */
bool terminal_resized(void);

/* Ends the process by the signal that asked for it. */
void terminal_die(int number);

#endif
