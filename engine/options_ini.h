/* The lines of an INI file: section heads and pairs, each with its line number. */
#ifndef ENGINE_OPTIONS_INI_H
#define ENGINE_OPTIONS_INI_H

#include "engine/base/bytes.h"
#include "engine/base/error.h"

/* Takes what is read, in order. The texts are borrowed until the function returns. */
struct ini_sink {
    unsigned line; /* Where we are. A function that fails may set the line it blames. */

    /* What stands between the brackets, trimmed. */
    bool (*section)(struct ini_sink *sink, const char *head, struct error *err);

    /* Trimmed and without a comment; the value may be "". */
    bool (*pair)(struct ini_sink *sink, const char *key, const char *value, struct error *err);
};

/* Stops at the first failure. Its text does not name the line: that is in sink->line. */
must_check bool ini_read(struct bytes text, struct ini_sink *sink, struct error *err);

#endif
