/* teal check: everything that would break the migration, each with its fix. */
#ifndef TOOLS_COMMAND_CHECK_H
#define TOOLS_COMMAND_CHECK_H

/* argv[0] is "check". Returns the exit code. */
int command_check(int argc, char **argv);

#endif
