#include "appliers/postgres/dump_program.h"

#include <glob.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Debian and Ubuntu, Red Hat and its kin, FreeBSD and what one builds, Homebrew. */
static const char *const patterns[] = {
    "/usr/lib/postgresql/*/bin/pg_dump",
    "/usr/pgsql-*/bin/pg_dump",
    "/usr/local/pgsql*/bin/pg_dump",
    "/opt/homebrew/opt/postgresql@*/bin/pg_dump",
};

/* ---- asking a program ---- */

static bool spawn_version(const char *path, int output, pid_t *pid)
{
    char *argv[] = {(char *)(uintptr_t)path, (char *)(uintptr_t) "--version", NULL};
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return false;
    bool ok = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO) == 0 &&
              posix_spawn(pid, path, &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    return ok;
}

static void read_all(int fd, char *text, size_t size)
{
    size_t len = 0;
    ssize_t got = 1;
    while (got > 0 && len + 1 < size) {
        got = read(fd, text + len, size - len - 1);
        len += got > 0 ? (size_t)got : 0;
    }
    text[len] = '\0';
}

/* "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": 15. 0 if it says anything else. */
static int major_of(const char *path)
{
    int ends[2];
    if (access(path, X_OK) != 0 || pipe(ends) != 0)
        return 0;
    pid_t pid;
    char text[256] = "";
    bool started = spawn_version(path, ends[1], &pid);
    (void)close(ends[1]);
    if (started) {
        read_all(ends[0], text, sizeof text);
        (void)close(ends[0]);
        int status;
        while (waitpid(pid, &status, 0) < 0)
            continue;
    } else {
        (void)close(ends[0]);
    }
    const char *number = strstr(text, "(PostgreSQL) ");
    return number == NULL ? 0 : (int)strtol(number + strlen("(PostgreSQL) "), NULL, 10);
}

/* ---- choosing ---- */

static bool better(int major, int than, int wanted)
{
    if (than == 0 || major == 0)
        return major != 0;
    if (than >= wanted)
        return major >= wanted && major < than;
    return major > than;
}

static void consider(const char *path, int wanted, struct dump_program *out)
{
    int major = major_of(path);
    if (strlen(path) >= sizeof out->path || !better(major, out->major, wanted))
        return;
    out->major = major;
    (void)snprintf(out->path, sizeof out->path, "%s", path);
}

static void consider_folder(const char *folder, size_t len, int wanted,
                            struct dump_program *out)
{
    char path[DUMP_PATH_MAX];
    if (snprintf(path, sizeof path, "%.*s/pg_dump", (int)len, folder) < (int)sizeof path)
        consider(path, wanted, out);
}

static void consider_pattern(const char *pattern, int wanted, struct dump_program *out)
{
    glob_t found;
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++)
            consider(found.gl_pathv[i], wanted, out);
    globfree(&found);
}

void dump_program_find(const char *configured, int wanted, struct dump_program *out)
{
    *out = (struct dump_program){0};
    if (configured != NULL) {
        struct stat info;
        if (stat(configured, &info) == 0 && S_ISDIR(info.st_mode))
            consider_folder(configured, strlen(configured), wanted, out);
        else
            consider(configured, wanted, out);
        return;
    }
    for (size_t i = 0; i < array_count(patterns); i++)
        consider_pattern(patterns[i], wanted, out);
    const char *at = getenv("PATH");
    while (at != NULL && *at != '\0') {
        size_t len = strcspn(at, ":");
        if (len > 0)
            consider_folder(at, len, wanted, out);
        at += len + (at[len] == ':');
    }
}
