#include "appliers/postgres/jobs.h"

#include <pthread.h>
#include <stdlib.h>

struct team {
    const struct jobs *jobs;
    pthread_mutex_t lock; /* Of the jobs' states and `failure`. */
    pthread_cond_t ended; /* Some job has. */
    struct error failure;
};

struct worker {
    struct team *team;
    PGconn *pg;
    pthread_t thread;
};

static bool in_the_way(const struct job *running, const struct job *job)
{
    return running->state == JOB_RUNS && (running->alone || job->alone) && job->table.len > 0 &&
           bytes_equal(running->table, job->table);
}

static bool may_begin(const struct jobs *jobs, const struct job *job)
{
    for (size_t i = 0; i < jobs->count; i++)
        if (in_the_way(&jobs->list[i], job))
            return false;
    return true;
}

/* NULL: none is left, or waiting for one that runs; *wait tells. */
static struct job *next_job(const struct team *t, bool *wait)
{
    *wait = false;
    for (size_t i = 0; i < t->jobs->count && t->failure.kind == ERROR_NONE; i++) {
        struct job *job = &t->jobs->list[i];
        if (job->state != JOB_WAITS)
            continue;
        if (may_begin(t->jobs, job))
            return job;
        *wait = true;
    }
    return NULL;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct team *t = w->team;
    bool wait = false;
    check(pthread_mutex_lock(&t->lock) == 0);
    for (;;) {
        struct job *job = next_job(t, &wait);
        if (job == NULL && !wait)
            break;
        if (job == NULL) {
            check(pthread_cond_wait(&t->ended, &t->lock) == 0);
            continue;
        }
        job->state = JOB_RUNS;
        check(pthread_mutex_unlock(&t->lock) == 0);
        struct error err = {0};
        bool ok = t->jobs->run(t->jobs->context, job, w->pg, &err);
        check(pthread_mutex_lock(&t->lock) == 0);
        job->state = JOB_DONE;
        if (!ok && t->failure.kind == ERROR_NONE)
            t->failure = err;
        check(pthread_cond_broadcast(&t->ended) == 0);
    }
    check(pthread_mutex_unlock(&t->lock) == 0);
    return NULL;
}

bool jobs_run(const struct jobs *jobs, PGconn *const *pgs, size_t count, struct error *err)
{
    struct team team = {.jobs = jobs};
    check(count > 0);
    struct worker *workers = calloc(count, sizeof *workers);
    check(workers != NULL);
    check(pthread_mutex_init(&team.lock, NULL) == 0);
    check(pthread_cond_init(&team.ended, NULL) == 0);
    for (size_t i = 0; i < count; i++) {
        workers[i] = (struct worker){.team = &team, .pg = pgs[i]};
        check(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (size_t i = 0; i < count; i++)
        check(pthread_join(workers[i].thread, NULL) == 0);
    check(pthread_cond_destroy(&team.ended) == 0);
    check(pthread_mutex_destroy(&team.lock) == 0);
    free(workers);
    if (team.failure.kind == ERROR_NONE)
        return true;
    *err = team.failure;
    return false;
}
