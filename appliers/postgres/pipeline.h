/* Statements sent ahead of their results, with bounded bytes in flight.
 *
 * libpq's pipeline mode sends on; this keeps, for each statement, what its result must say,
 * takes results in as they come (never letting both sides block on full sockets), and remembers
 * the first thing that went wrong. After that everything fails with the same error until
 * pipeline_abandon(). (PostgreSQL manual, 34.5 Pipeline Mode.) */
#ifndef APPLIERS_POSTGRES_PIPELINE_H
#define APPLIERS_POSTGRES_PIPELINE_H

#include "engine/postgres/pg.h"

/* A result whose row count must be `rows`; ROWS_ANY takes all. */
enum { ROWS_ANY = -1 };

struct expectation {
    int64_t rows;
    uint64_t commit;  /* Not 0: this is the commit of that seq. */
    const char *what; /* Of what table, for the error; outlives the result. */
    bool is_sync;
    bool is_move;   /* Of the checkpoint, which refuses by dividing by zero. */
    uint32_t bytes; /* Sent with it. */
};

struct pipeline {
    PGconn *pg;
    struct expectation *expected; /* A ring. */
    size_t size;
    size_t head;
    size_t count;
    uint64_t bytes;       /* Sent, result not yet seen. */
    uint64_t unflushed;   /* Sent since the server was last told to answer. */
    uint64_t committed;   /* The last commit seen to have happened. */
    struct error failure; /* kind ERROR_NONE: all is well. */
};

/* Enters pipeline mode on an idle connection. `committed` so far. */
must_check bool pipeline_start(struct pipeline *p, PGconn *pg, uint64_t committed,
                               struct error *err);

must_check bool pipeline_prepare(struct pipeline *p, const char *name, const char *sql,
                                 int count, const uint32_t *types, struct error *err);

/* As PQsendQueryPrepared() takes them. Lengths and formats may be NULL: all are text. */
struct parameters {
    int count;
    const char *const *values;
    const int *lengths;
    const int *formats;
};

/* The parameters are copied before this returns. */
must_check bool pipeline_send(struct pipeline *p, const char *name,
                              const struct parameters *parameters,
                              const struct expectation *expected, struct error *err);
must_check bool pipeline_sync(struct pipeline *p, struct error *err);

/* Takes in what has come, waiting at most `wait_ms` for one more result (0: not at all), or,
 * with wait_ms < 0, until nothing is in flight. */
must_check bool pipeline_collect(struct pipeline *p, int wait_ms, struct error *err);

/* Everything in flight is answered and pipeline mode left: the connection is idle, perhaps
 * inside a transaction. */
must_check bool pipeline_finish(struct pipeline *p, struct error *err);

/* After a failure: reads off what is in flight, without looking at it. False: the connection is
 * of no use any more. */
bool pipeline_abandon(struct pipeline *p);

void pipeline_release(struct pipeline *p);

#endif
