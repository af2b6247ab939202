#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/client.h"
#include "tools/command.h"
#include "tools/exit_code.h"
#include "tools/offline.h"

static const char help[] =
    "Examples:\n"
    "  teal status                    how far it is\n"
    "  teal status --watch            the same, every second\n"
    "  teal status --json | jq .lag   for programs\n"
    "\n"
    "Usage: teal status [-c FILE] [--json] [--watch]\n"
    "\n"
    "Asks the running engine. Without one it reads what both databases know.\n"
    "\n"
    "  -c, --config FILE   configuration (./teal.ini)\n"
    "      --json          one JSON object on one line\n"
    "      --watch         again every second, until interrupted\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit codes: 0 ok · 2 configuration · 4 no engine and a database cannot be reached · 8 "
    "halted\n";

enum { ANSWER_TIMEOUT_US = 5000000, TRIES = 5, TRY_AGAIN_MS = 200 };

struct arguments {
    const char *path;
    bool json;
    bool watch;
};

static bool is_halted(const struct writer *json)
{
    json_t *root = json_loadb((const char *)json->data, json->len, 0, NULL);
    const char *phase = json_string_value(json_object_get(root, "phase"));
    bool halted = phase != NULL && strcmp(phase, "halted") == 0;
    json_decref(root);
    return halted;
}

/* The running engine's answer, as JSON and, if wanted, as text. */
static bool ask_engine(const struct options *o, bool text, struct writer *json,
                       struct writer *shown, struct error *err)
{
    int code;
    char path[64];
    TRY(client_call(o->socket, "GET", "/status", ANSWER_TIMEOUT_US, &code, json, err));
    if (!text)
        return true;
    (void)snprintf(path, sizeof path, "/status.txt?width=%u%s", command_width(),
                   isatty(STDOUT_FILENO) ? "&bars=1" : "");
    return client_call(o->socket, "GET", path, ANSWER_TIMEOUT_US, &code, shown, err);
}

/* An engine that goes away in the middle of an answer is ending, or starting again. */
static bool ask_patiently(const struct options *o, bool text, struct writer *json,
                          struct writer *shown, struct error *err)
{
    for (int tries = 0; tries < TRIES; tries++) {
        error_clear(err);
        writer_clear(json);
        writer_clear(shown);
        if (ask_engine(o, text, json, shown, err))
            return true;
        if (err->kind != ERROR_RETRY)
            return false;
        (void)poll(NULL, 0, TRY_AGAIN_MS);
    }
    return false;
}

static int show_offline(const struct options *o, const struct driver *driver, bool as_json,
                        struct writer *shown)
{
    struct status s;
    status_init(&s);
    offline_status(o, driver, &s);
    if (as_json)
        status_json(&s, shown);
    else
        status_text(&s, false, command_width(), shown);
    int code = s.error.kind == ERROR_NONE ? EXIT_OK : EXIT_CANNOT_CONNECT;
    status_free(&s);
    return code;
}

static int show_once(const struct arguments *a, const struct options *o,
                     const struct driver *driver)
{
    struct writer json = {0};
    struct writer shown = {0};
    struct error err = {0};
    int code = EXIT_OK;
    if (ask_patiently(o, !a->json, &json, &shown, &err)) {
        if (is_halted(&json))
            code = EXIT_HALTED;
        if (a->json)
            writer_bytes(&shown, writer_view(&json));
    } else if (err.kind == ERROR_CONNECT) {
        code = show_offline(o, driver, a->json, &shown);
    } else {
        code = command_fail("status", &err);
    }
    while (shown.len > 0 && shown.data[shown.len - 1] == '\n')
        shown.len--;
    if (shown.len > 0)
        printf("%.*s\n", BYTES_ARG(writer_view(&shown)));
    (void)fflush(stdout);
    writer_release(&json);
    writer_release(&shown);
    return code;
}

static int show(const struct arguments *a)
{
    struct options *o = NULL;
    const struct driver *driver;
    struct error err = {0};
    if (!command_load(a->path, &o, &driver, &err))
        return command_fail("status", &err);
    int code = show_once(a, o, driver);
    while (a->watch) {
        (void)sleep(1);
        if (!a->json && isatty(STDOUT_FILENO))
            fputs("\033[H\033[J", stdout);
        code = show_once(a, o, driver);
    }
    options_free(o);
    return code;
}

int command_status(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"json", no_argument, NULL, 'j'},
        {"watch", no_argument, NULL, 'w'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct arguments a = {.path = "./teal.ini"};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "c:h", long_options, NULL)) != -1;) {
        switch (c) {
        case 'c': a.path = optarg; break;
        case 'j': a.json = true; break;
        case 'w': a.watch = true; break;
        case 'h': fputs(help, stdout); return EXIT_OK;
        default: return command_usage("status", NULL, NULL);
        }
    }
    if (optind < argc)
        return command_usage("status", "unexpected argument", argv[optind]);
    return show(&a);
}
