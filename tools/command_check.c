#include "tools/command_check.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "tools/drivers.h"
#include "tools/exit_code.h"

static const char help[] =
    "Examples:\n"
    "  teal check                         check the migration of ./teal.ini\n"
    "  teal check -c shop.ini --json      the same as JSON, for programs\n"
    "  teal check --json | jq -r '.findings[] | select(.severity == \"error\").fix'\n"
    "\n"
    "Usage: teal check [-c FILE] [--json]\n"
    "\n"
    "Looks at blue, green and this machine for everything that would break the migration and\n"
    "gives each finding its fix. Shows sizes and an estimate of the copy. Changes nothing.\n"
    "\n"
    "  -c, --config FILE   configuration (./teal.ini)\n"
    "      --json          one JSON object on stdout\n"
    "  -h, --help          this text\n"
    "\n"
    "Exit codes: 0 nothing that would break it (warnings may be) · 2 usage or configuration ·\n"
    "3 something would break it · 4 cannot connect\n";

/* ---- this machine ---- */

/* What one connection copied in a measurement: 2 million rows of pgbench_accounts, 128 bytes
 * each, at 460 000 rows/s, their key made on the way. Connections are taken to add up, which
 * they do as long as both servers have cores and disks for them: so it is a lower bound, and
 * called an estimate. */
enum { COPY_BYTES_PER_SECOND = 60 * 1000 * 1000 };

enum { SPOOL_LEAST_FREE = 256 * 1024 * 1024 };

/* `path` itself or the nearest folder above it that exists: where teal will make it. */
static void existing_folder(const char *path, char *out, size_t size)
{
    (void)snprintf(out, size, "%s", path);
    while (access(out, F_OK) != 0) {
        char *slash = strrchr(out, '/');
        if (slash == NULL)
            (void)snprintf(out, size, ".");
        else if (slash == out)
            out[1] = '\0';
        else
            *slash = '\0';
    }
}

static void check_folder(struct findings *f, const char *code, const char *path)
{
    char folder[PATH_MAX];
    existing_folder(path, folder, sizeof folder);
    struct stat info;
    if (stat(folder, &info) == 0 && S_ISDIR(info.st_mode) && access(folder, W_OK | X_OK) == 0)
        return;
    finding_add(f, SEVERITY_ERROR, code, path, "%s is not a folder that teal may write to.",
                folder);
    finding_fix(f, "chown %u %s", (unsigned)geteuid(), folder);
}

static void check_spool(const struct options *o, struct findings *f, struct sizes *s)
{
    check_folder(f, "state.not_writable", o->state);
    if (o->ack == ACK_TARGET) {
        finding_add(f, SEVERITY_WARNING, "spool.off", o->spool_path,
                    "[spool] ack = target: blue keeps its log until green has applied it, so "
                    "that a slow green fills blue's disk.");
        return;
    }
    check_folder(f, "spool.not_writable", o->spool_path);
    char folder[PATH_MAX];
    existing_folder(o->spool_path, folder, sizeof folder);
    uint64_t free_bytes;
    struct error err = {0};
    if (!file_free_bytes(folder, &free_bytes, &err)) {
        finding_add(f, SEVERITY_ERROR, "spool.unknown_space", o->spool_path, "%s", err.text);
        return;
    }
    s->spool_free_bytes = (int64_t)free_bytes;
    if (free_bytes >= o->disk_max)
        return;
    finding_add(
        f, free_bytes < SPOOL_LEAST_FREE ? SEVERITY_ERROR : SEVERITY_WARNING, "spool.space",
        o->spool_path, "[spool] disk-max is %llu MiB, but only %llu MiB are free.",
        (unsigned long long)(o->disk_max >> 20), (unsigned long long)(free_bytes >> 20));
    finding_fix(f, "[spool] path: a file system with more room, or a smaller disk-max");
}

static void estimate(const struct options *o, struct sizes *s)
{
    if (s->bytes != UNKNOWN_SIZE) {
        double bytes = (double)s->bytes + (double)s->index_bytes;
        double jobs = o->copy_jobs < 1 ? 1 : (double)o->copy_jobs;
        s->copy_seconds_estimate = (int64_t)(bytes / COPY_BYTES_PER_SECOND / jobs) + 1;
    }
    if (s->spool_free_bytes != UNKNOWN_SIZE && s->wal_bytes_per_second > 0) {
        int64_t room = s->spool_free_bytes;
        if (o->disk_max < (uint64_t)room)
            room = (int64_t)o->disk_max;
        s->spool_seconds_until_full = room / s->wal_bytes_per_second;
    }
}

/* ---- the two sides ---- */

static bool inspect(const struct options *o, struct findings *f, struct sizes *s,
                    struct error *err)
{
    const struct driver *driver;
    TRY(driver_find(o, &driver, err));
    check_spool(o, f, s);
    TRY(driver->inspect_source(o, f, s, err));
    TRY(driver->inspect_target(o, f, err));
    estimate(o, s);
    return true;
}

static int fail(const struct error *err)
{
    fprintf(stderr, "teal check: %s\n", err->text);
    if (err->hint[0] != '\0')
        fprintf(stderr, "hint: %s\n", err->hint);
    return exit_code(err->kind);
}

static int report(const struct findings *f, const struct sizes *s, bool json)
{
    const char *no_colour = getenv("NO_COLOR");
    bool colour = isatty(STDOUT_FILENO) && (no_colour == NULL || no_colour[0] == '\0');
    if (!json)
        findings_print(f, s, colour, stdout);
    else if (!findings_print_json(f, s, stdout))
        return EXIT_NOT_SO;
    return findings_ok(f) ? EXIT_OK : EXIT_CHECK_FAILED;
}

static int check_file(const char *path, bool json)
{
    struct options *o = NULL;
    struct error err = {0};
    if (!options_load(path, &o, &err))
        return fail(&err);
    struct findings findings = {0};
    struct sizes sizes = SIZES_UNKNOWN;
    int code =
        inspect(o, &findings, &sizes, &err) ? report(&findings, &sizes, json) : fail(&err);
    findings_free(&findings);
    options_free(o);
    return code;
}

int command_check(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *path = "./teal.ini";
    bool json = false;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "c:h", long_options, NULL)) != -1;) {
        switch (c) {
        case 'c': path = optarg; break;
        case 'j': json = true; break;
        case 'h': fputs(help, stdout); return EXIT_OK;
        default: fputs("teal check --help shows how\n", stderr); return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "teal check: unexpected argument %s\n", argv[optind]);
        return EXIT_USAGE;
    }
    return check_file(path, json);
}
