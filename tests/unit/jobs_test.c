/* Jobs side by side: each once, none beside what it must not be beside, none after a failure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "appliers/postgres/jobs.h"

enum { TABLES = 3, JOBS = 60, WORKERS = 4 };

struct watcher {
    _Atomic int runs;
    _Atomic int beside[TABLES]; /* That run on a table. */
    _Atomic int alone[TABLES];
    _Atomic int collisions;
    int fail_from; /* This run and those after it fail; 0: none. */
    _Atomic int shared_max;
};

static void pause_briefly(void)
{
    struct timespec t = {.tv_nsec = 1000000};
    (void)nanosleep(&t, NULL);
}

static bool watch(void *context, const struct job *job, PGconn *pg, struct error *err)
{
    (void)pg;
    struct watcher *w = context;
    int table = job->table.data[0] - 'a';
    int run = atomic_fetch_add(&w->runs, 1) + 1;
    int others = atomic_fetch_add(&w->beside[table], 1);
    if (job->alone)
        (void)atomic_fetch_add(&w->alone[table], 1);
    if (others > 0 && atomic_load(&w->alone[table]) > 0)
        (void)atomic_fetch_add(&w->collisions, 1);
    if (others + 1 > atomic_load(&w->shared_max))
        atomic_store(&w->shared_max, others + 1);
    pause_briefly();
    if (job->alone)
        (void)atomic_fetch_sub(&w->alone[table], 1);
    (void)atomic_fetch_sub(&w->beside[table], 1);
    return w->fail_from == 0 || run < w->fail_from ||
           error_set(err, ERROR_SCHEMA, "run %d", run);
}

static void fill(struct job *list, int alone_every)
{
    static const uint8_t names[] = "abc";
    for (size_t i = 0; i < JOBS; i++)
        list[i] = (struct job){.table = {&names[i % TABLES], 1},
                               .alone = alone_every > 0 && i % (size_t)alone_every == 0};
}

static void every_job_runs_once_and_the_lone_ones_alone(void **state)
{
    (void)state;
    struct watcher w = {0};
    struct job list[JOBS];
    struct error err = {0};
    PGconn *const pgs[WORKERS] = {NULL};
    struct jobs jobs = {.list = list, .count = JOBS, .run = watch, .context = &w};
    fill(list, 4);
    assert_true(jobs_run(&jobs, pgs, WORKERS, &err));
    assert_int_equal(w.runs, JOBS);
    assert_int_equal(w.collisions, 0);
}

static void jobs_of_one_table_run_beside_each_other(void **state)
{
    (void)state;
    struct watcher w = {0};
    struct job list[JOBS];
    struct error err = {0};
    PGconn *const pgs[WORKERS] = {NULL};
    struct jobs jobs = {.list = list, .count = JOBS, .run = watch, .context = &w};
    fill(list, 0);
    assert_true(jobs_run(&jobs, pgs, WORKERS, &err));
    assert_int_equal(w.runs, JOBS);
    assert_true(w.shared_max > 1);
}

/* Each worker can have begun at most one run that fails. */
static void after_a_failure_nothing_is_begun(void **state)
{
    (void)state;
    struct watcher w = {.fail_from = 5};
    struct job list[JOBS];
    struct error err = {0};
    PGconn *const pgs[WORKERS] = {NULL};
    struct jobs jobs = {.list = list, .count = JOBS, .run = watch, .context = &w};
    fill(list, 0);
    assert_false(jobs_run(&jobs, pgs, WORKERS, &err));
    assert_int_equal(err.kind, ERROR_SCHEMA);
    assert_in_range(w.runs, 5, 4 + WORKERS);
}

static void no_jobs_are_done_at_once(void **state)
{
    (void)state;
    struct error err = {0};
    PGconn *const pgs[WORKERS] = {NULL};
    struct jobs jobs = {.run = watch};
    assert_true(jobs_run(&jobs, pgs, WORKERS, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_runs_once_and_the_lone_ones_alone),
        cmocka_unit_test(jobs_of_one_table_run_beside_each_other),
        cmocka_unit_test(after_a_failure_nothing_is_begun),
        cmocka_unit_test(no_jobs_are_done_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
