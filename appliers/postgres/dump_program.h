/* Where pg_dump is: it must be as new as the server it reads. */
#ifndef APPLIERS_POSTGRES_DUMP_PROGRAM_H
#define APPLIERS_POSTGRES_DUMP_PROGRAM_H

#include "engine/base/compiler.h"

enum { DUMP_PATH_MAX = 4096 };

struct dump_program {
    char path[DUMP_PATH_MAX]; /* "" if none was found. */
    int major;                /* 15; 0 if none. */
};

/* Looks at `configured` (a program, or a folder of programs) alone if it is not NULL; else in
 * the folders where packages put versions side by side and in PATH. Takes the oldest that is
 * at least `wanted`, or else the newest. */
void dump_program_find(const char *configured, int wanted, struct dump_program *out);

#endif
