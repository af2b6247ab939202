/* teal finish: stops the engine and removes what teal made on both sides and on this machine.
 *
 * Both databases take writes afterwards; the rows and their schema stay. What a run of this
 * command that was interrupted left is removed by the next one. */
#include <getopt.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/client.h"
#include "tools/command.h"
#include "tools/exit_code.h"

static const char help[] =
    "Examples:\n"
    "  teal finish --confirm shop\n"
    "\n"
    "Usage: teal finish [-c FILE] --confirm NAME\n"
    "\n"
    "Ends the migration: the engine stops, and slot, publication, triggers, the schema teal on "
    "both\n"
    "sides and the spool are removed. The rows stay on both sides. NAME is [migration] name.\n"
    "\n"
    "  -c, --config FILE   configuration (./teal.ini)\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit codes: 0 done · 2 usage, configuration or another name · 4 cannot connect\n";

enum { ANSWER_TIMEOUT_US = 5000000, STOP_TIMEOUT_US = 60000000 };

/* Asks the engine to end, if there is one, and waits until it has. */
static bool stop_engine(const struct options *o, struct error *err)
{
    int64_t deadline = clock_mono_us() + STOP_TIMEOUT_US;
    bool asked = false;
    while (clock_mono_us() < deadline) {
        struct writer body = {0};
        int code;
        bool there = client_call(o->socket, asked ? "GET" : "POST", asked ? "/livez" : "/stop",
                                 ANSWER_TIMEOUT_US, &code, &body, err);
        writer_release(&body);
        if (!there && err->kind == ERROR_CONNECT) {
            error_clear(err);
            return true;
        }
        if (!there && err->kind == ERROR_CONFIG)
            return false;
        asked = asked || there;
        error_clear(err);
        (void)poll(NULL, 0, 100);
    }
    return error_set(err, ERROR_RETRY, "the engine did not stop");
}

static bool clean_source(const struct options *o, const struct driver *driver,
                         struct error *err)
{
    struct origin *origin = driver->origin(o);
    bool ok = origin->ops->open(origin, err) && origin->ops->remove(origin, err);
    origin->ops->free(origin);
    return ok || error_wrap(err, "blue");
}

/* Sequences are equal once more before the last connection between the two sides goes. */
static bool last_mirror(const struct options *o, const struct driver *driver, struct error *err)
{
    struct mirror *mirror = driver->mirror(o);
    struct mirror_reasons reasons = {0};
    bool ok = mirror->ops->sync(mirror, &reasons, err);
    arena_clear(&reasons.arena);
    mirror->ops->free(mirror);
    return ok;
}

static void remove_matching(const char *folder, const char *pattern)
{
    char path[PATH_MAX];
    glob_t found;
    if (snprintf(path, sizeof path, "%s/%s", folder, pattern) >= (int)sizeof path)
        return;
    if (glob(path, GLOB_NOSORT, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++)
            (void)unlink(found.gl_pathv[i]);
    globfree(&found);
}

static void clean_machine(const struct options *o)
{
    char spill[PATH_MAX];
    remove_matching(o->spool_path, "*.spool*");
    (void)rmdir(o->spool_path);
    if (snprintf(spill, sizeof spill, "%s/spill", o->state) < (int)sizeof spill)
        (void)rmdir(spill);
    remove_matching(o->state, "lock");
    remove_matching(o->state, "teal.sock*");
    (void)rmdir(o->state);
}

static bool finish(const struct options *o, const struct driver *driver, struct error *err)
{
    struct checkpoint c;
    bool found;
    TRY(stop_engine(o, err));
    TRY(driver->checkpoint(o, NULL, &c, &found, err));
    if (found && !last_mirror(o, driver, err)) {
        fprintf(stderr, "teal finish: sequences were not mirrored once more: %s\n", err->text);
        error_clear(err);
    }
    TRY(clean_source(o, driver, err));
    if (!driver->clean_target(o, err))
        return error_wrap(err, "green");
    clean_machine(o);
    return true;
}

static int run(const char *path, const char *name)
{
    struct options *o = NULL;
    const struct driver *driver;
    struct error err = {0};
    if (!command_load(path, &o, &driver, &err))
        return command_fail("finish", &err);
    int code = EXIT_OK;
    if (strcmp(name, o->name) != 0) {
        fprintf(stderr, "teal finish: the migration of %s is named %s, not %s\n", path, o->name,
                name);
        code = EXIT_USAGE;
    } else if (!finish(o, driver, &err)) {
        code = command_fail("finish", &err);
    } else {
        fprintf(stderr, "teal finish: migration %s is finished; the rows stay on both sides\n",
                o->name);
    }
    options_free(o);
    return code;
}

int command_finish(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"confirm", required_argument, NULL, 'y'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *path = "./teal.ini";
    const char *name = NULL;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "c:h", long_options, NULL)) != -1;) {
        switch (c) {
        case 'c': path = optarg; break;
        case 'y': name = optarg; break;
        case 'h': fputs(help, stdout); return EXIT_OK;
        default: return command_usage("finish", NULL, NULL);
        }
    }
    if (optind < argc)
        return command_usage("finish", "unexpected argument", argv[optind]);
    if (name == NULL)
        return command_usage("finish", "missing", "--confirm NAME");
    return run(path, name);
}
