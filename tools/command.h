/* What all commands share: their list, their configuration, and how they fail. */
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include "engine/driver.h"
#include "engine/options.h"

/* argv[0] is the command's name. Each returns the exit code. */
int command_init(int argc, char **argv);
int command_run(int argc, char **argv);
int command_status(int argc, char **argv);
int command_wait(int argc, char **argv);
int command_finish(int argc, char **argv);

/* Prints the error and its hint to stderr and returns its exit code. */
int command_fail(const char *command, const struct error *err);

/* Prints how to get help and returns the exit code of wrong usage. */
int command_usage(const char *command, const char *problem, const char *what);

/* Columns of the terminal on stdout; 80 if it is none. */
unsigned command_width(void);

/* The configuration and the driver that fits it. Free the options. */
must_check bool command_load(const char *path, struct options **o, const struct driver **driver,
                             struct error *err);

#endif
