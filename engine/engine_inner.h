/* The engine from inside: what its threads share, and who may touch what. */
#ifndef ENGINE_ENGINE_INNER_H
#define ENGINE_ENGINE_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/backoff.h"
#include "engine/base/map.h"
#include "engine/engine.h"
#include "engine/lane.h"
#include "engine/receiver.h"
#include "engine/txn_buffer.h"

enum { BARRIERS_MAX = 64, PROBES_MAX = 64 };

/* A barrier that was seen to be committed on the target. */
struct barrier_seen {
    uint64_t id;
    struct position pos;
};

struct table_count {
    struct table_count *next;
    const char *name;
    uint64_t changes;
    uint64_t conflicts;
};

/* What the source said of itself, and whether the target has reached it. */
struct probe {
    struct position pos;
    int64_t server_us;
    int64_t mono_us;
};

/* Under the lock. */
struct shared {
    enum phase phase;   /* Without PHASE_HALTED, which `halt` says. */
    struct error halt;  /* Why nothing is applied; resolves itself. */
    struct error reach; /* Why the target cannot be reached. */
    struct error ended; /* Why the engine gave up. */
    bool has_ended;
    bool has_begun; /* All parts are there. */
    bool is_copied;
    bool is_caught_up; /* Was, once. */

    struct position applied;
    struct position durable;
    uint64_t applied_seq;
    int64_t oldest_us; /* Commit time of the oldest transaction held; 0: none. */

    uint64_t transactions;
    uint64_t changes;
    uint64_t conflicts;
    struct map counts; /* struct table_count by hash of the name. */
    struct arena arena;

    struct barrier_seen barriers[BARRIERS_MAX]; /* A ring. */
    uint64_t barrier_count;

    bool hold;
    bool is_held;

    /* The watcher's. */
    struct probe probes[PROBES_MAX]; /* Not yet reached, oldest first. */
    size_t probe_count;
    struct probe reached; /* The last that was. */
    struct probe latest;
    uint64_t bytes_behind;
    struct mirror_reasons reasons;
    bool mirrored; /* Sequences, at least once. */
    bool look;     /* It should probe at once. */
};

/* A place that was applied. Nothing that comes behind it is told before `segment`. */
struct applied_mark {
    uint64_t seq;
    struct position pos;
    uint64_t segment;
};

struct engine {
    struct engine_options options;
    const struct options *o;
    const struct driver *driver;
    int lock_fd; /* The state folder's. */
    struct stream_identity identity;
    char snapshot[4096];   /* Of a stream that was created in this run. */
    struct origin *origin; /* The start's; then the watcher's. */
    struct origin *asker;  /* Of barriers, under asker_lock. */
    pthread_mutex_t asker_lock;
    struct source *source;
    struct spool *spool;
    struct receiver *receiver;
    struct copier *copier;
    struct mirror *mirror; /* The watcher's. */

    /* The engine thread's. */
    struct applier *applier;
    struct decoder *decoder;
    struct txn_buffer *buffer;
    struct lane *lane;
    struct backoff backoff;
    uint64_t segment;
    int64_t retry_at;
    int64_t durable_asked_at;
    int64_t moved_at; /* The checkpoint, for what was passed. */
    bool reader_failed;
    enum copy_stage stage;
    struct position window_end; /* "" : no judge is set. */
    uint64_t durable_seq;
    uint64_t durable_segment;
    struct applied_mark marks[64]; /* Not yet durable; oldest first. */
    size_t mark_count;

    pthread_t thread;
    pthread_t watcher;
    bool has_thread;
    bool has_watcher;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* Of `shared`; CLOCK_MONOTONIC. */
    pthread_cond_t look;    /* The watcher waits here between two probes; CLOCK_MONOTONIC. */
    struct shared shared;
};

/* What the engine thread does first: reaches both sides, finds what is there, takes it over,
 * starts the other threads. */
must_check bool engine_begin(struct engine *e, struct error *err);

/* err NULL: the target (at the start: both sides) can be reached. */
void engine_set_reach(struct engine *e, const struct error *err);

/* Thread mains. */
void *apply_main(void *engine);
void *watch_main(void *engine);

/* apply.c: what the lane calls back. */
void apply_on_applied(void *engine, const struct txn *txn);
void apply_on_conflict(void *engine, const struct relation *rel,
                       const struct row_result *result);
void apply_on_counted(void *engine, const struct relation *rel, uint64_t changes);

void engine_end(struct engine *e, const struct error *why); /* NULL: as asked. */
void engine_set_phase(struct engine *e, enum phase phase);
/* err NULL or ERROR_NONE: no longer halted. Logs what changes. */
void engine_set_halt(struct engine *e, const struct error *err);

/* watch.c, under the lock: forgets the probes that the target has reached. */
void watch_settle(struct engine *e);
/* Makes the watcher probe at once. */
void watch_look(struct engine *e);

#endif
