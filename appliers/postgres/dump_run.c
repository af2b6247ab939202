/* Running pg_dump, which is told where blue is by its environment: other users of the machine
 * can read arguments. */
#include "appliers/postgres/dump.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    STEP_MS = 200,           /* Between looks at `stop`. */
    COMPLAINT_MAX = 1 << 14, /* Of stderr. */
};

/* A list of texts that ends with NULL, as exec wants it. */
struct texts {
    struct arena *arena;
    char **list;
    size_t count;
    size_t size;
};

static void texts_add(struct texts *t, const char *head, const char *tail)
{
    if (t->count + 1 >= t->size) {
        size_t size = t->size == 0 ? 64 : t->size * 2;
        char **grown = arena_array(t->arena, char *, size);
        if (t->count > 0)
            memcpy(grown, t->list, t->count * sizeof *grown);
        t->list = grown;
        t->size = size;
    }
    size_t len = strlen(head) + strlen(tail) + 1;
    char *text = arena_array(t->arena, char, len);
    (void)snprintf(text, len, "%s%s", head, tail);
    t->list[t->count++] = text;
}

/* ---- the environment ---- */

struct setting {
    const char *name;
    const char *value; /* "" takes it out. */
};

static void conninfo_drop(PQconninfoOption **options)
{
    if (*options != NULL)
        PQconninfoFree(*options);
}

static bool is_set(const struct setting *set, size_t count, const char *entry)
{
    size_t len = strcspn(entry, "=");
    for (size_t i = 0; i < count; i++)
        if (strlen(set[i].name) == len && memcmp(set[i].name, entry, len) == 0)
            return true;
    return false;
}

static bool add_conninfo(const PQconninfoOption *options, struct setting *set, size_t *count,
                         struct error *err)
{
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (o->val == NULL || strcmp(o->keyword, "application_name") == 0)
            continue;
        if (o->envvar != NULL)
            set[(*count)++] = (struct setting){o->envvar, o->val};
        else if (strcmp(o->keyword, "sslpassword") == 0)
            return error_set(err, ERROR_CONFIG,
                             "pg_dump can be given sslpassword only where everyone sees it: "
                             "use a client key without one");
    }
    return true;
}

static bool make_environment(const struct dump_request *r, struct texts *env, struct error *err)
{
    enum { OWN = 4 };
    char *why = NULL;
    cleanup_with(conninfo_drop) PQconninfoOption *options = PQconninfoParse(r->conninfo, &why);
    if (options == NULL) {
        PQfreemem(why);
        return error_set(err, ERROR_CONFIG, "blue's connection string cannot be read");
    }
    size_t room = OWN;
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
        room++;
    struct setting *set = arena_array(env->arena, struct setting, room);
    size_t count = 0;
    set[count++] = (struct setting){"PGAPPNAME", r->application_name};
    set[count++] = (struct setting){"LC_ALL", "C"};
    TRY(add_conninfo(options, set, &count, err));
    if (!is_set(set, count, "PGCONNECT_TIMEOUT="))
        set[count++] = (struct setting){"PGCONNECT_TIMEOUT", "30"};
    for (char **e = environ; *e != NULL; e++)
        if (!is_set(set, count, *e))
            texts_add(env, *e, "");
    for (size_t i = 0; i < count; i++) {
        if (set[i].value[0] == '\0')
            continue;
        char name[64];
        (void)snprintf(name, sizeof name, "%s=", set[i].name);
        texts_add(env, name, set[i].value);
    }
    return true;
}

static void make_arguments(const struct dump_request *r, const char *section,
                           struct texts *args)
{
    static const char *const fixed[] = {
        "--schema-only", "--no-publications",     "--no-subscriptions",
        "--no-password", "--exclude-schema=teal", "--lock-wait-timeout=60s",
    };
    texts_add(args, "pg_dump", "");
    for (size_t i = 0; i < array_count(fixed); i++)
        texts_add(args, fixed[i], "");
    texts_add(args, "--section=", section);
    texts_add(args, "--encoding=", r->encoding);
    if (r->snapshot != NULL)
        texts_add(args, "--snapshot=", r->snapshot);
    if (r->no_tablespaces)
        texts_add(args, "--no-tablespaces", "");
    for (size_t i = 0; i < r->exclude_count; i++)
        texts_add(args, "--exclude-table=", r->exclude[i]);
}

/* ---- the process ---- */

struct child {
    pid_t pid;
    int output;
    int complaints;
};

static void close_end(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static int spawn_with(const char *program, char **argv, char **envp, const int ends[2],
                      pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t usual;
    (void)sigemptyset(&none);
    (void)sigemptyset(&usual);
    (void)sigaddset(&usual, SIGPIPE);
    (void)sigaddset(&usual, SIGTERM);
    (void)sigaddset(&usual, SIGINT);
    check(posix_spawn_file_actions_init(&actions) == 0);
    check(posix_spawnattr_init(&attributes) == 0);
    check(posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) ==
          0);
    check(posix_spawn_file_actions_adddup2(&actions, ends[0], STDOUT_FILENO) == 0);
    check(posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO) == 0);
    check(posix_spawnattr_setsigmask(&attributes, &none) == 0);
    check(posix_spawnattr_setsigdefault(&attributes, &usual) == 0);
    check(posix_spawnattr_setflags(&attributes,
                                   POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) == 0);
    int failed = posix_spawn(pid, program, &actions, &attributes, argv, envp);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static bool start(const char *program, char **argv, char **envp, struct child *child,
                  struct error *err)
{
    cleanup_with(close_end) int out_write = -1;
    cleanup_with(close_end) int err_write = -1;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set(err, ERROR_SYSTEM, "cannot make a pipe: %s", strerror(errno));
    child->output = ends[0];
    out_write = ends[1];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set(err, ERROR_SYSTEM, "cannot make a pipe: %s", strerror(errno));
    child->complaints = ends[0];
    err_write = ends[1];
    int failed =
        spawn_with(program, argv, envp, (const int[2]){out_write, err_write}, &child->pid);
    if (failed != 0)
        return error_set(err, failed == EAGAIN ? ERROR_RETRY : ERROR_CONFIG,
                         "cannot run %s: %s", program, strerror(failed));
    return true;
}

/* Takes what is there; ends the descriptor at the end of the file. What is over `max` is read
 * and dropped: the program must not block. */
static void drain(struct pollfd *p, size_t max, struct writer *into)
{
    enum { PIECE = 1 << 16 };
    if (p->fd < 0 || p->revents == 0)
        return;
    uint8_t *room = writer_room(into, PIECE);
    ssize_t got = read(p->fd, room, PIECE);
    if (got > 0 && into->len < max)
        into->len += (size_t)got;
    else if (got == 0 || (got < 0 && errno != EINTR))
        p->fd = -1;
}

static bool stopped(const _Atomic bool *stop) { return stop != NULL && atomic_load(stop); }

/* Both streams to their ends. */
static void read_streams(const struct child *child, const _Atomic bool *stop,
                         struct writer *out, struct writer *complaints)
{
    struct pollfd fds[2] = {{.fd = child->output, .events = POLLIN},
                            {.fd = child->complaints, .events = POLLIN}};
    bool told = false;
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        if (stopped(stop) && !told) {
            (void)kill(child->pid, SIGTERM);
            told = true;
        }
        if (poll(fds, 2, STEP_MS) <= 0)
            continue;
        drain(&fds[0], SIZE_MAX, out);
        drain(&fds[1], COMPLAINT_MAX, complaints);
    }
}

/* The line that says "error:", or else the last one; without the program's name. */
static bool dump_failed(struct writer *complaints, struct error *err)
{
    static const char *const refusals[] = {"permission denied", "server version mismatch",
                                           "unrecognized option", "must be"};
    const char *text = writer_cstr(complaints);
    const char *at = strstr(text, "error: ");
    at = at == NULL ? text : at + strlen("error: ");
    enum error_kind kind = ERROR_RETRY;
    for (size_t i = 0; i < array_count(refusals); i++)
        if (strstr(text, refusals[i]) != NULL)
            kind = ERROR_CONFIG;
    return error_set(err, kind, "pg_dump: %.*s", (int)strcspn(at, "\n"),
                     *at == '\0' ? "failed and said nothing" : at);
}

static void child_close(struct child *child)
{
    close_end(&child->output);
    close_end(&child->complaints);
}

bool dump_run(const struct dump_request *request, const char *section, const _Atomic bool *stop,
              struct writer *out, struct error *err)
{
    cleanup_with(arena_clear) struct arena arena = {0};
    cleanup_with(writer_release) struct writer complaints = {0};
    cleanup_with(child_close) struct child child = {.output = -1, .complaints = -1};
    struct texts args = {.arena = &arena};
    struct texts env = {.arena = &arena};
    TRY(make_environment(request, &env, err));
    make_arguments(request, section, &args);
    TRY(start(request->program, args.list, env.list, &child, err));
    read_streams(&child, stop, out, &complaints);
    int status = 0;
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (stopped(stop))
        return error_set(err, ERROR_RETRY, "stopped");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return dump_failed(&complaints, err);
    return true;
}
