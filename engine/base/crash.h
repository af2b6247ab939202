/* Named places at which the crash tests kill the process.
 *
 * crash_point("lane.after_commit_before_report") does nothing in a release build. In a build
 * with crash points the environment variable TEAL_CRASH_POINT=name[:visit] makes the process
 * send itself SIGKILL at the visit of that number (1 by default). Names are unique; tests/crash
 * reads them from the source. */
#ifndef BASE_CRASH_H
#define BASE_CRASH_H

#include "engine/base/compiler.h"

#ifdef TEAL_CRASH_POINTS
void crash_point(const char *name);
#else
#define crash_point(name) ((void)0)
#endif

#endif
