/* A running migration: copy, then follow, until told to stop.
 *
 * Threads: the receiver fills the spool; the engine's own thread starts, copies and applies;
 * the watcher asks both sides how far they are and mirrors sequences. Everybody else asks for
 * snapshots. Starting is recovering: whatever an earlier engine left, on both sides and on
 * disk, is found, checked against each other and continued. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/driver.h"
#include "engine/status.h"

struct engine;

struct engine_options {
    const struct options *options; /* Borrowed, as the driver. */
    const struct driver *driver;
    int64_t connect_timeout_us; /* For reaching both sides at the start; < 0: no limit. */
    bool exit_on_halt;
};

/* Takes the state folder and begins; how that goes is told by engine_wait(). ERROR_FENCED:
 * another engine holds the folder. */
must_check bool engine_start(const struct engine_options *options, struct engine **out,
                             struct error *err);

/* Whether both sides were reached and the migration was taken over. */
bool engine_has_begun(struct engine *e);

/* Waits until the engine has ended, by engine_ask_stop() or by itself. True: it was told to and
 * all went well; else why. ERROR_REWOUND: another engine goes on where the target is. */
must_check bool engine_wait(struct engine *e, struct error *err);
bool engine_has_ended(struct engine *e);
void engine_free(struct engine *e); /* After engine_wait(), or at once: then it is stopped. */

/* -- any thread -- */

void engine_ask_stop(struct engine *e); /* Also fails what others wait for. */
void engine_snapshot(struct engine *e, struct status *out);

/* Commits a barrier on the source and waits until it is applied and durable. */
must_check bool engine_barrier(struct engine *e, int64_t timeout_us, struct position *pos,
                               struct error *err);

/* Stops applying between two target transactions; receiving goes on. Returns when nothing is in
 * flight. */
must_check bool engine_hold(struct engine *e, struct error *err);
must_check bool engine_resume(struct engine *e, struct error *err);

#endif
