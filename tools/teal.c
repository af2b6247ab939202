/* teal: moves a live database to its successor, and back again if need be. */
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "tools/command.h"
#include "tools/command_check.h"
#include "tools/exit_code.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"init", command_init, "write a commented configuration"},
    {"check", command_check, "everything that would break the migration, each with its fix"},
    {"run", command_run, "copy, then follow, in the foreground; resumes where it stopped"},
    {"status", command_status, "how far it is"},
    {"wait", command_wait, "return when a state holds: ready, caught-up, reversed, finished"},
    {"finish", command_finish, "remove everything teal made on both sides except the rows"},
};

static void print_help(FILE *out)
{
    fputs("Examples:\n"
          "  teal init --name shop --blue postgresql://teal@old/shop --green "
          "postgresql://teal@new/shop -o teal.ini\n"
          "  teal check && teal run\n"
          "  teal status --watch\n"
          "  teal wait ready --timeout 1h\n\n"
          "Usage: teal COMMAND [-c FILE] ...\n\n",
          out);
    for (size_t i = 0; i < array_count(commands); i++)
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].help);
    fputs("\nteal COMMAND --help says more. The configuration is ./teal.ini unless -c names "
          "another.\n",
          out);
}

/* What a group of transactions leaves is taken by the next one. The default would give it to
 * the system in between, group by group, and have it back page by page. */
static void keep_memory(void)
{
    (void)mallopt(M_TRIM_THRESHOLD, 16 << 20);
    (void)mallopt(M_MMAP_THRESHOLD, 4 << 20);
}

int main(int argc, char **argv)
{
    keep_memory();
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(name, "--version") == 0) {
        puts("teal " TEAL_VERSION);
        return EXIT_OK;
    }
    for (size_t i = 0; i < array_count(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "teal: unknown command %s\n", name);
    print_help(stderr);
    return EXIT_USAGE;
}
