/* The page at "/": what /status says, for people. It loads nothing from elsewhere. */
#ifndef ENGINE_CONTROL_PAGE_H
#define ENGINE_CONTROL_PAGE_H

#include "engine/base/writer.h"

/* For the header Content-Security-Policy. */
extern const char control_page_policy[];

void control_page_write(struct writer *out);

#endif
