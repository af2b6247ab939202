#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "tools/command.h"
#include "tools/exit_code.h"

static const char help[] = "Examples:\n"
                           "  teal init --name shop --blue postgresql://teal@old/shop --green "
                           "postgresql://teal@new/shop\n"
                           "  teal init --name shop --blue ... --green ... -o teal.ini\n"
                           "\n"
                           "Usage: teal init --name N --blue URI --green URI [-o FILE]\n"
                           "\n"
                           "Writes a commented configuration to stdout or FILE. Passwords in "
                           "the URIs are left out of\n"
                           "it: put them into ~/.pgpass, password-file or password-command.\n";

struct arguments {
    const char *name;
    const char *blue;
    const char *green;
    const char *output;
};

/* Never replaces a file: it may be the only copy of somebody's settings. */
static bool write_file(const char *path, const struct writer *text, struct error *err)
{
    cleanup_with(file_close) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return error_set(err, ERROR_CONFIG, "%s is there already", path);
    if (fd < 0)
        return error_set(err, ERROR_CONFIG, "create %s: %s", path, strerror(errno));
    return file_write_all(fd, text->data, text->len, err);
}

static int write_example(const struct arguments *a)
{
    struct error err = {0};
    struct writer text = {0};
    bool ok = options_write_example(a->name, a->blue, a->green, &text, &err);
    if (ok && a->output != NULL)
        ok = write_file(a->output, &text, &err);
    else if (ok)
        ok = fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0;
    writer_release(&text);
    return ok ? EXIT_OK : command_fail("init", &err);
}

int command_init(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"name", required_argument, NULL, 'n'},  {"blue", required_argument, NULL, 'b'},
        {"green", required_argument, NULL, 'g'}, {"output", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    struct arguments a = {0};
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "o:h", long_options, NULL)) != -1;) {
        switch (c) {
        case 'n': a.name = optarg; break;
        case 'b': a.blue = optarg; break;
        case 'g': a.green = optarg; break;
        case 'o': a.output = optarg; break;
        case 'h': fputs(help, stdout); return EXIT_OK;
        default: return command_usage("init", NULL, NULL);
        }
    }
    if (optind < argc)
        return command_usage("init", "unexpected argument", argv[optind]);
    if (a.name == NULL || a.blue == NULL || a.green == NULL)
        return command_usage("init", "missing",
                             a.name == NULL   ? "--name"
                             : a.blue == NULL ? "--blue"
                                              : "--green");
    return write_example(&a);
}
