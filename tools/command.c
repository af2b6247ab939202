#include "tools/command.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tools/drivers.h"
#include "tools/exit_code.h"

int command_fail(const char *command, const struct error *err)
{
    fprintf(stderr, "teal %s: %s\n", command, err->text);
    if (err->hint[0] != '\0')
        fprintf(stderr, "hint: %s\n", err->hint);
    return exit_code(err->kind);
}

int command_usage(const char *command, const char *problem, const char *what)
{
    if (problem != NULL)
        fprintf(stderr, "teal %s: %s %s\n", command, problem, what);
    fprintf(stderr, "teal %s --help shows how\n", command);
    return EXIT_USAGE;
}

unsigned command_width(void)
{
    enum { WIDTH_DEFAULT = 80 };
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return WIDTH_DEFAULT;
    return size.ws_col;
}

bool command_load(const char *path, struct options **o, const struct driver **driver,
                  struct error *err)
{
    TRY(options_load(path, o, err));
    if (driver_find(*o, driver, err))
        return true;
    options_free(*o);
    *o = NULL;
    return false;
}
