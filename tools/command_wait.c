#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/clock.h"
#include "tools/client.h"
#include "tools/command.h"
#include "tools/exit_code.h"
#include "tools/offline.h"

static const char help[] =
    "Examples:\n"
    "  teal wait ready --timeout 2h   until a cutover could begin\n"
    "  teal wait caught-up            until all that is committed on the source now is on the "
    "target\n"
    "\n"
    "Usage: teal wait [-c FILE] STATE [--timeout D]\n"
    "\n"
    "STATE is one of\n"
    "  ready      the copy is done and nothing stands in the way of a cutover\n"
    "  caught-up  everything committed before the call is on the target, proven by a barrier\n"
    "  reversed   green takes the writes, blue follows\n"
    "  finished   nothing of the migration is left on either side\n"
    "\n"
    "  -c, --config FILE   configuration (./teal.ini)\n"
    "      --timeout D     give up after D: 30s, 5m, 2h (never)\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit codes: 0 it holds · 1 not within the timeout · 2 usage or configuration · 8 halted\n";

enum { ASK_EVERY_MS = 200, ANSWER_TIMEOUT_US = 5000000, BARRIER_SLACK_US = 2000000 };

struct wait {
    const struct options *options;
    const struct driver *driver;
    int64_t deadline; /* Monotonic; INT64_MAX: none. */
};

enum answer { NOT_YET, HOLDS, IS_HALTED };

struct wanted {
    const char *name;
    enum answer (*ask)(struct wait *w);
};

/* The engine's status, or NULL if there is none to ask. */
static json_t *status_of(struct wait *w)
{
    struct writer body = {0};
    struct error unheard = {0};
    int code;
    json_t *root = NULL;
    if (client_call(w->options->socket, "GET", "/status", ANSWER_TIMEOUT_US, &code, &body,
                    &unheard))
        root = json_loadb((const char *)body.data, body.len, 0, NULL);
    writer_release(&body);
    return root;
}

static bool phase_is(const json_t *status, const char *phase)
{
    const char *text = json_string_value(json_object_get(status, "phase"));
    return text != NULL && strcmp(text, phase) == 0;
}

static enum answer ask_ready(struct wait *w)
{
    json_t *status = status_of(w);
    const json_t *ready = json_object_get(status, "ready");
    bool holds = json_is_true(json_object_get(ready, "cutover")) ||
                 json_is_true(json_object_get(ready, "rollback"));
    enum answer answer = holds ? HOLDS : phase_is(status, "halted") ? IS_HALTED : NOT_YET;
    json_decref(status);
    return answer;
}

static enum answer ask_reversed(struct wait *w)
{
    json_t *status = status_of(w);
    enum answer answer = phase_is(status, "reversed") ? HOLDS
                         : phase_is(status, "halted") ? IS_HALTED
                                                      : NOT_YET;
    json_decref(status);
    return answer;
}

static enum answer ask_caught_up(struct wait *w)
{
    int64_t left = w->deadline == INT64_MAX ? 10000000 : w->deadline - clock_mono_us();
    left = left > 10000000 ? 10000000 : left < 1000 ? 1000 : left;
    char path[64];
    (void)snprintf(path, sizeof path, "/barrier?timeout=%" PRId64 "ms", left / 1000);
    struct writer body = {0};
    struct error unheard = {0};
    int code = 0;
    bool answered = client_call(w->options->socket, "POST", path, left + BARRIER_SLACK_US,
                                &code, &body, &unheard);
    writer_release(&body);
    if (answered && code == 200)
        return HOLDS;
    json_t *status = status_of(w);
    enum answer answer = phase_is(status, "halted") ? IS_HALTED : NOT_YET;
    json_decref(status);
    return answer;
}

static enum answer ask_finished(struct wait *w)
{
    json_t *status = status_of(w);
    bool running = status != NULL;
    json_decref(status);
    bool gone = false;
    struct error unheard = {0};
    if (!running && offline_is_gone(w->options, w->driver, &gone, &unheard) && gone)
        return HOLDS;
    return NOT_YET;
}

static const struct wanted states[] = {
    {"ready", ask_ready},
    {"caught-up", ask_caught_up},
    {"reversed", ask_reversed},
    {"finished", ask_finished},
};

static int wait_for(struct wait *w, const struct wanted *state)
{
    while (true) {
        switch (state->ask(w)) {
        case HOLDS: return EXIT_OK;
        case IS_HALTED:
            fputs("teal wait: replication is halted; teal status says why\n", stderr);
            return EXIT_HALTED;
        case NOT_YET: break;
        }
        if (clock_mono_us() >= w->deadline) {
            fprintf(stderr, "teal wait: not %s within the timeout\n", state->name);
            return EXIT_NOT_SO;
        }
        (void)poll(NULL, 0, ASK_EVERY_MS);
    }
}

static int run(const char *path, const struct wanted *state, const char *timeout)
{
    struct options *o = NULL;
    struct wait w = {.deadline = INT64_MAX};
    struct error err = {0};
    int64_t us = 0;
    if (timeout != NULL && !options_duration(timeout, &us, &err))
        return command_fail("wait", &err);
    if (timeout != NULL)
        w.deadline = clock_mono_us() + us;
    if (!command_load(path, &o, &w.driver, &err))
        return command_fail("wait", &err);
    w.options = o;
    int code = wait_for(&w, state);
    options_free(o);
    return code;
}

int command_wait(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"timeout", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *path = "./teal.ini";
    const char *timeout = NULL;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "c:h", long_options, NULL)) != -1;) {
        switch (c) {
        case 'c': path = optarg; break;
        case 't': timeout = optarg; break;
        case 'h': fputs(help, stdout); return EXIT_OK;
        default: return command_usage("wait", NULL, NULL);
        }
    }
    if (argc - optind != 1)
        return command_usage("wait",
                             "takes one state:", "ready, caught-up, reversed or finished");
    for (size_t i = 0; i < array_count(states); i++)
        if (strcmp(states[i].name, argv[optind]) == 0)
            return run(path, &states[i], timeout);
    return command_usage("wait", "unknown state", argv[optind]);
}
