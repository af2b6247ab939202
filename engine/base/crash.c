#include "engine/base/crash.h"

#ifdef TEAL_CRASH_POINTS

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

void crash_point(const char *name)
{
    static _Atomic long visits;
    const char *chosen = getenv("TEAL_CRASH_POINT");
    if (chosen == NULL)
        return;
    size_t len = strlen(name);
    if (strncmp(chosen, name, len) != 0 || (chosen[len] != '\0' && chosen[len] != ':'))
        return;
    long wanted = chosen[len] == ':' ? strtol(chosen + len + 1, NULL, 10) : 1;
    if (atomic_fetch_add(&visits, 1) + 1 == wanted)
        (void)raise(SIGKILL);
}

#else

typedef int crash_points_are_off; /* C wants a declaration in every file. */

#endif
