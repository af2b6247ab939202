/* Statements side by side on several connections.
 *
 * Jobs are begun in their order, but one that must be alone on its table is passed over while
 * the table is in use, so that no connection waits for a lock and no two deadlock. After a
 * failure none is begun any more; what runs is run to its end, as it will not have to be done
 * again. */
#ifndef APPLIERS_POSTGRES_JOBS_H
#define APPLIERS_POSTGRES_JOBS_H

#include "engine/postgres/pg.h"

struct job {
    struct bytes table; /* Empty: none. */
    bool alone;
    enum { JOB_WAITS, JOB_RUNS, JOB_DONE } state;
    const void *what;
};

struct jobs {
    struct job *list;
    size_t count;
    /* Called on one thread a connection. */
    bool (*run)(void *context, const struct job *job, PGconn *pg, struct error *err);
    void *context;
};

/* Returns when all jobs are done, or with the first failure. */
must_check bool jobs_run(const struct jobs *jobs, PGconn *const *pgs, size_t count,
                         struct error *err);

#endif
