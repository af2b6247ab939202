/* The engine's door: HTTP over a unix socket, and read-only over TCP.
 *
 * One thread runs an event loop and answers from snapshots; it never waits for the engine.
 * What may take long (a barrier) runs on a thread of its own, and its answer comes back to the
 * loop through a board that outlives both. Only the socket, which only its owner can open,
 * takes commands. The routes are those of "Control API" in the contract; all else is 404. */
#ifndef ENGINE_CONTROL_H
#define ENGINE_CONTROL_H

#include "engine/options.h"
#include "engine/status.h"

struct control_host {
    /* Fills `out`, which status_init() has prepared. On the event thread: must not wait. */
    void (*snapshot)(void *engine, struct status *out);

    /* Commits a barrier on the source; true once it is applied and durable, with its position.
     * These three are called on threads of their own. */
    bool (*barrier)(void *engine, int64_t timeout_us, struct position *pos, struct error *err);
    bool (*hold)(void *engine, struct error *err);
    bool (*resume)(void *engine, struct error *err);

    /* Asks the engine to end. On the event thread: only leaves word. */
    void (*stop)(void *engine);
    void *engine;
};

struct control;

/* `o` and what `host` points at must outlive it. ERROR_CONFIG for a socket or an address that
 * cannot be had. Takes the log's tap. One at a time in a process. */
must_check bool control_start(const struct options *o, const struct control_host *host,
                              struct control **out, struct error *err);

/* Ends within a second whatever the clients do. A command that still runs by then is left
 * alone, and so is the engine it runs in: the host should make them fail first. NULL is fine.
 * Not to be called from the host's functions. */
void control_stop(struct control *c);

#endif
