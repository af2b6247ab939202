#include "engine/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_MAX_BYTES = 4096 };

/* The log is the one thing the process has one of: stderr. */
static struct {
    pthread_mutex_t lock;
    _Atomic int level;
    void (*tap)(void *context, const char *line);
    void *context;
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_set_level(enum log_level level) { atomic_store(&out.level, (int)level); }

void log_set_tap(void (*tap)(void *context, const char *line), void *context)
{
    pthread_mutex_lock(&out.lock);
    out.tap = tap;
    out.context = context;
    pthread_mutex_unlock(&out.lock);
}

static size_t stamp(char *line, size_t size, const char *event, enum log_level level)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(line + len, size - len, ".%03ldZ %-5s %s", now.tv_nsec / 1000000,
                        level_names[level], event);
    return len + (size_t)(more > 0 ? more : 0);
}

/* One write for the whole line, so that lines of several threads and processes do not mix. */
static void emit(char *line)
{
    size_t len = strlen(line);
    pthread_mutex_lock(&out.lock);
    if (out.tap != NULL)
        out.tap(out.context, line);
    line[len] = '\n';
    (void)fwrite(line, 1, len + 1, stderr);
    (void)fflush(stderr);
    pthread_mutex_unlock(&out.lock);
}

void log_event(const char *event, enum log_level level, const char *fmt, ...)
{
    if ((int)level < atomic_load(&out.level))
        return;
    char line[LINE_MAX_BYTES];
    size_t len = stamp(line, sizeof line - 1, event, level);
    if (fmt[0] != '\0' && len + 2 < sizeof line) {
        line[len++] = ' ';
        va_list args;
        va_start(args, fmt);
        (void)vsnprintf(line + len, sizeof line - 1 - len, fmt, args);
        va_end(args);
    }
    emit(line);
}

const char *log_quote(char *quoted, size_t size, const char *text)
{
    bool plain = text[0] != '\0' && strpbrk(text, " \"\\\n\t=") == NULL;
    if (plain) {
        (void)snprintf(quoted, size, "%s", text);
        return quoted;
    }
    size_t len = 0;
    quoted[len++] = '"';
    for (; *text != '\0' && len + 4 < size; text++) {
        if (*text == '"' || *text == '\\' || *text == '\n')
            quoted[len++] = '\\';
        quoted[len++] = *text == '\n' ? 'n' : *text;
    }
    quoted[len++] = '"';
    quoted[len] = '\0';
    return quoted;
}

void log_error(const char *event, enum log_level level, const struct error *err)
{
    char text[ERROR_TEXT_MAX * 2];
    char hint[ERROR_TEXT_MAX * 2] = "";
    (void)log_quote(text, sizeof text, err->text);
    if (err->hint[0] != '\0')
        (void)log_quote(hint, sizeof hint, err->hint);
    log_event(event, level, "kind=%s%s%s text=%s%s%s", error_kind_name(err->kind),
              err->sqlstate[0] != '\0' ? " sqlstate=" : "", err->sqlstate, text,
              hint[0] != '\0' ? " hint=" : "", hint);
}
