/* What the process ends with; scripts rely on it. */
#ifndef TOOLS_EXIT_CODE_H
#define TOOLS_EXIT_CODE_H

#include "engine/base/error.h"

enum {
    EXIT_OK = 0,
    EXIT_NOT_SO = 1,
    EXIT_USAGE = 2,
    EXIT_CHECK_FAILED = 3,
    EXIT_CANNOT_CONNECT = 4,
    EXIT_ABORTED = 5,
    EXIT_HALTED = 8,
    EXIT_LOST = 9,
};

int exit_code(enum error_kind kind);

#endif
