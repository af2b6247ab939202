/* teal run: the engine in the foreground, its door, and the signals that end it. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/control.h"
#include "engine/engine.h"
#include "tools/command.h"
#include "tools/exit_code.h"

static const char help[] =
    "Examples:\n"
    "  teal run                     run the migration of ./teal.ini\n"
    "  teal run -c shop.ini --wait  wait for both sides as long as it takes\n"
    "\n"
    "Usage: teal run [-c FILE] [--wait] [--exit-on-halt] [--verbose]\n"
    "\n"
    "Copies blue to green, then follows. Run again after any end, it goes on where it "
    "stopped.\n"
    "SIGTERM and SIGINT stop it cleanly. Events go to stderr, one line each.\n"
    "\n"
    "  -c, --config FILE   configuration (./teal.ini)\n"
    "      --wait          do not give up when a side cannot be reached at the start\n"
    "      --exit-on-halt  end with 8 instead of staying up halted\n"
    "  -v, --verbose       more events\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit codes: 0 stopped as asked · 2 configuration · 4 cannot connect · 5 another engine "
    "has\n"
    "the migration · 8 halted · 9 position lost\n";

enum {
    CONNECT_TIMEOUT_US = 10000000,
    TICK_MS = 200,
    STOP_STARTING_US = 2000000,
    LINE_EVERY_US = 10000000,
};

struct arguments {
    const char *path;
    bool wait;
    bool exit_on_halt;
};

/* ---- progress ---- */

struct progress {
    bool terminal;
    int64_t line_at;
    int lines; /* Drawn last. */
};

static void draw(struct progress *p, const struct status *s)
{
    struct writer text = {0};
    status_text(s, true, command_width(), &text);
    if (p->lines > 0)
        printf("\033[%dA\033[J", p->lines);
    p->lines = 0;
    for (size_t i = 0; i < text.len; i++)
        p->lines += text.data[i] == '\n';
    (void)fwrite(text.data, 1, text.len, stdout);
    (void)fflush(stdout);
    writer_release(&text);
}

static void say(const struct status *s)
{
    log_event(
        "copy.progress", LOG_INFO,
        "tables=%lld/%lld rows=%lld/%lld rows_per_second=%lld bytes=%lld eta_seconds=%lld",
        (long long)s->copy.tables_done, (long long)s->copy.tables, (long long)s->copy.rows_done,
        (long long)s->copy.rows, (long long)s->copy.rows_per_second,
        (long long)s->copy.bytes_done, (long long)s->copy.eta_seconds);
}

static void show_progress(struct progress *p, struct engine *e)
{
    bool due = clock_mono_us() - p->line_at > LINE_EVERY_US;
    if (!p->terminal && !due)
        return;
    struct status s;
    status_init(&s);
    engine_snapshot(e, &s);
    bool planned = s.copy.tables >= 0;
    if (s.phase == PHASE_COPYING && planned && p->terminal)
        draw(p, &s);
    else if (s.phase == PHASE_COPYING && planned)
        say(&s);
    else
        p->lines = 0;
    if (due)
        p->line_at = clock_mono_us();
    status_free(&s);
}

/* ---- running ---- */

static void host_snapshot(void *e, struct status *out) { engine_snapshot(e, out); }
static bool host_barrier(void *e, int64_t timeout_us, struct position *pos, struct error *err)
{
    return engine_barrier(e, timeout_us, pos, err);
}
static bool host_hold(void *e, struct error *err) { return engine_hold(e, err); }
static bool host_resume(void *e, struct error *err) { return engine_resume(e, err); }
static void host_stop(void *e) { engine_ask_stop(e); }

/* Starting may be cut off anywhere, the next start goes on from there: what hangs in it is not
 * waited for. */
static void end_if_starting(struct engine *e, int64_t asked_at)
{
    if (asked_at != 0 && clock_mono_us() - asked_at > STOP_STARTING_US && !engine_has_begun(e))
        _exit(EXIT_OK);
}

static void wait_for_end(struct engine *e, const sigset_t *signals)
{
    struct progress progress = {.terminal = isatty(STDOUT_FILENO) != 0};
    const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
    int64_t asked_at = 0;
    while (!engine_has_ended(e)) {
        int signal = sigtimedwait(signals, NULL, &tick);
        if (signal > 0) {
            log_event("engine.stopping", LOG_INFO, "signal=%s", strsignal(signal));
            engine_ask_stop(e);
            asked_at = asked_at == 0 ? clock_mono_us() : asked_at;
        }
        end_if_starting(e, asked_at);
        show_progress(&progress, e);
    }
}

/* Once it has run, an error that ended it was a halt, unless it is one of the two that have a
 * code of their own. */
static int ended_code(enum error_kind kind)
{
    return kind == ERROR_LOST || kind == ERROR_FENCED ? exit_code(kind) : EXIT_HALTED;
}

/* *again: start another engine. */
static int run_engine(struct engine *e, const struct options *o, const sigset_t *signals,
                      bool *again)
{
    struct error err = {0};
    *again = false;
    struct control *control = NULL;
    const struct control_host host = {
        .snapshot = host_snapshot,
        .barrier = host_barrier,
        .hold = host_hold,
        .resume = host_resume,
        .stop = host_stop,
        .engine = e,
    };
    int code = EXIT_OK;
    if (!control_start(o, &host, &control, &err)) {
        engine_ask_stop(e);
        return command_fail("run", &err);
    }
    wait_for_end(e, signals);
    bool as_asked = engine_wait(e, &err);
    *again = !as_asked && err.kind == ERROR_REWOUND;
    if (*again) {
        log_error("engine.starting_again", LOG_WARN, &err);
    } else if (!as_asked) {
        (void)command_fail("run", &err);
        code = engine_has_begun(e) ? ended_code(err.kind) : exit_code(err.kind);
    }
    engine_ask_stop(e);
    control_stop(control);
    return code;
}

/* Starting is recovering: a target that forgot what it had committed gets a new engine, which
 * reads that again from the spool. */
static int run_engines(struct engine_options *options)
{
    struct error err = {0};
    struct engine *e;
    sigset_t signals;
    bool again = true;
    int code = EXIT_OK;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    while (again) {
        if (!engine_start(options, &e, &err))
            return command_fail("run", &err);
        code = run_engine(e, options->options, &signals, &again);
        engine_free(e);
        options->connect_timeout_us = -1;
    }
    log_event("engine.stopped", LOG_INFO, "code=%d", code);
    return code;
}

static int run(const struct arguments *a)
{
    struct options *o = NULL;
    const struct driver *driver;
    struct error err = {0};
    if (!command_load(a->path, &o, &driver, &err))
        return command_fail("run", &err);
    struct engine_options options = {
        .options = o,
        .driver = driver,
        .connect_timeout_us = a->wait ? -1 : CONNECT_TIMEOUT_US,
        .exit_on_halt = a->exit_on_halt,
    };
    int code = run_engines(&options);
    options_free(o);
    return code;
}

int command_run(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'}, {"wait", no_argument, NULL, 'w'},
        {"exit-on-halt", no_argument, NULL, 'x'}, {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    struct arguments a = {.path = "./teal.ini"};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "c:vh", long_options, NULL)) != -1;) {
        switch (c) {
        case 'c': a.path = optarg; break;
        case 'w': a.wait = true; break;
        case 'x': a.exit_on_halt = true; break;
        case 'v': log_set_level(LOG_DEBUG); break;
        case 'h': fputs(help, stdout); return EXIT_OK;
        default: return command_usage("run", NULL, NULL);
        }
    }
    if (optind < argc)
        return command_usage("run", "unexpected argument", argv[optind]);
    (void)signal(SIGPIPE, SIG_IGN);
    return run(&a);
}
