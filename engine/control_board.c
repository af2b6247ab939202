#include "engine/control_board.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/file.h"

/* Lines beyond this between two turns of the loop are not shown; the log itself has them. */
enum { LINES_MAX_BYTES = 256 * 1024 };

struct board {
    struct control_host host;
    int wake;
    _Atomic bool listening;

    pthread_mutex_t lock; /* Of all below. */
    pthread_cond_t idle;
    unsigned holders;
    unsigned running;
    bool stopping;
    struct job *done;
    struct writer lines;
};

bool board_new(const struct control_host *host, struct board **out, struct error *err)
{
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0)
        return error_set(err, ERROR_SYSTEM, "eventfd: %s", strerror(errno));
    struct board *b = calloc(1, sizeof *b);
    check(b != NULL);
    b->host = *host;
    b->wake = wake;
    b->holders = 1;
    pthread_condattr_t attributes;
    check(pthread_condattr_init(&attributes) == 0);
    check(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&b->idle, &attributes) == 0);
    (void)pthread_condattr_destroy(&attributes);
    check(pthread_mutex_init(&b->lock, NULL) == 0);
    *out = b;
    return true;
}

void board_leave(struct board *b)
{
    pthread_mutex_lock(&b->lock);
    bool last = --b->holders == 0;
    pthread_mutex_unlock(&b->lock);
    if (!last)
        return;
    while (b->done != NULL) {
        struct job *job = b->done;
        b->done = job->next;
        free(job);
    }
    writer_release(&b->lines);
    file_close(&b->wake);
    (void)pthread_cond_destroy(&b->idle);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
}

int board_descriptor(const struct board *b) { return b->wake; }

static void wake_loop(struct board *b)
{
    uint64_t one = 1;
    /* Fails only if the loop has 2^64 wakings yet to see. */
    ssize_t written = write(b->wake, &one, sizeof one);
    (void)written;
}

void board_acknowledge(struct board *b)
{
    uint64_t count;
    ssize_t got = read(b->wake, &count, sizeof count);
    (void)got; /* Nothing there: as good. */
}

/* ---- commands ---- */

static bool obey(const struct control_host *host, struct job *job)
{
    switch (job->command) {
    case COMMAND_BARRIER:
        return host->barrier(host->engine, job->timeout_us, &job->position, &job->error);
    case COMMAND_HOLD: return host->hold(host->engine, &job->error);
    case COMMAND_RESUME: return host->resume(host->engine, &job->error);
    }
    check(false);
}

static void *run_job(void *arg)
{
    struct job *job = arg;
    struct board *b = job->board;
    job->ok = obey(&b->host, job);
    pthread_mutex_lock(&b->lock);
    job->next = b->done;
    b->done = job;
    b->running--;
    pthread_cond_broadcast(&b->idle);
    pthread_mutex_unlock(&b->lock);
    wake_loop(b);
    board_leave(b);
    return NULL;
}

static void count_job(struct board *b, bool begins)
{
    pthread_mutex_lock(&b->lock);
    b->holders += begins ? 1U : -1U;
    b->running += begins ? 1U : -1U;
    pthread_mutex_unlock(&b->lock);
}

bool board_run(struct board *b, enum command command, unsigned slot, int64_t timeout_us,
               struct error *err)
{
    struct job *job = calloc(1, sizeof *job);
    check(job != NULL);
    job->board = b;
    job->command = command;
    job->slot = slot;
    job->timeout_us = timeout_us;
    pthread_attr_t attributes;
    check(pthread_attr_init(&attributes) == 0);
    check(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0);
    count_job(b, true);
    pthread_t thread;
    int failed = pthread_create(&thread, &attributes, run_job, job);
    (void)pthread_attr_destroy(&attributes);
    if (failed == 0)
        return true;
    count_job(b, false);
    free(job);
    return error_set(err, ERROR_SYSTEM, "start a thread: %s", strerror(failed));
}

struct job *board_take_done(struct board *b)
{
    pthread_mutex_lock(&b->lock);
    struct job *job = b->done;
    if (job != NULL)
        b->done = job->next;
    pthread_mutex_unlock(&b->lock);
    return job;
}

bool board_wait_idle(struct board *b, int64_t wait_us)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t nanoseconds = until.tv_nsec + wait_us * 1000;
    until.tv_sec += (time_t)(nanoseconds / 1000000000);
    until.tv_nsec = (long)(nanoseconds % 1000000000);
    int waited = 0;
    pthread_mutex_lock(&b->lock);
    while (b->running > 0 && waited == 0)
        waited = pthread_cond_timedwait(&b->idle, &b->lock, &until);
    bool idle = b->running == 0;
    pthread_mutex_unlock(&b->lock);
    return idle;
}

/* ---- the log, and the end ---- */

void board_listen(struct board *b, bool wanted) { atomic_store(&b->listening, wanted); }

void board_line(void *board, const char *line)
{
    struct board *b = board;
    if (!atomic_load(&b->listening))
        return;
    pthread_mutex_lock(&b->lock);
    if (b->lines.len + strlen(line) < LINES_MAX_BYTES) {
        writer_text(&b->lines, line);
        writer_u8(&b->lines, '\n');
    }
    pthread_mutex_unlock(&b->lock);
    wake_loop(b);
}

void board_take_lines(struct board *b, struct writer *out)
{
    pthread_mutex_lock(&b->lock);
    writer_bytes(out, writer_view(&b->lines));
    writer_clear(&b->lines);
    pthread_mutex_unlock(&b->lock);
}

void board_stop(struct board *b)
{
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_mutex_unlock(&b->lock);
    wake_loop(b);
}

bool board_stopping(struct board *b)
{
    pthread_mutex_lock(&b->lock);
    bool stopping = b->stopping;
    pthread_mutex_unlock(&b->lock);
    return stopping;
}
