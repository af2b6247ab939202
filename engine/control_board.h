/* Where other threads leave things for the event loop: answers of commands, lines of the log,
 * the word to stop.
 *
 * A command may outlive the loop that asked for it, so the board is shared: the loop and every
 * command hold it, and the last one to leave frees it. The loop is woken by a descriptor, not
 * through the event library, whose locks must not be taken under the log's. */
#ifndef ENGINE_CONTROL_BOARD_H
#define ENGINE_CONTROL_BOARD_H

#include "engine/control.h"

enum command { COMMAND_BARRIER, COMMAND_HOLD, COMMAND_RESUME };

/* One command, run by a thread of its own. */
struct job {
    struct job *next;
    struct board *board;
    enum command command;
    unsigned slot; /* The loop's: who asked. */
    int64_t timeout_us;
    bool ok;
    struct position position;
    struct error error;
};

struct board;

must_check bool board_new(const struct control_host *host, struct board **out,
                          struct error *err);

/* Readable when there is something to take. */
int board_descriptor(const struct board *b);

/* Starts the command; its job comes back through board_take_done(). */
must_check bool board_run(struct board *b, enum command command, unsigned slot,
                          int64_t timeout_us, struct error *err);

/* Makes the descriptor unreadable until something new comes: call before taking. */
void board_acknowledge(struct board *b);

/* A finished job, which the caller frees, or NULL. */
struct job *board_take_done(struct board *b);

/* Appends the lines that came, each with a newline. */
void board_take_lines(struct board *b, struct writer *out);

/* Whether anybody wants the lines. */
void board_listen(struct board *b, bool wanted);

/* Takes a line of the log in; a log tap with the board as context. */
void board_line(void *board, const char *line);

/* Tells the loop to stop, and whether it was told. */
void board_stop(struct board *b);
bool board_stopping(struct board *b);

/* Waits until no command runs. False: one still does after `wait_us`. */
must_check bool board_wait_idle(struct board *b, int64_t wait_us);

void board_leave(struct board *b);

#endif
