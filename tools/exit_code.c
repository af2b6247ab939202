#include "tools/exit_code.h"

static const int codes[] = {
    [ERROR_NONE] = EXIT_OK,
    [ERROR_RETRY] = EXIT_CANNOT_CONNECT,
    [ERROR_CONNECT] = EXIT_CANNOT_CONNECT,
    [ERROR_CONFLICT] = EXIT_HALTED,
    [ERROR_SCHEMA] = EXIT_HALTED,
    [ERROR_DATA] = EXIT_HALTED,
    [ERROR_CONFIG] = EXIT_USAGE,
    [ERROR_DISK] = EXIT_HALTED,
    [ERROR_LOST] = EXIT_LOST,
    [ERROR_FENCED] = EXIT_ABORTED,
    [ERROR_REWOUND] = EXIT_NOT_SO,
    [ERROR_SYSTEM] = EXIT_NOT_SO,
};

int exit_code(enum error_kind kind)
{
    check((size_t)kind < array_count(codes));
    return codes[kind];
}
