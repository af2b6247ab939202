/* Every section and key of teal.ini, in the order of the commented file. The table is the only
 * place that knows them: the parser, the hints and `teal init` all read it. */
#ifndef ENGINE_OPTIONS_KEYS_H
#define ENGINE_OPTIONS_KEYS_H

#include "engine/base/arena.h"
#include "engine/options.h"

enum key_type {
    KEY_NAME,     /* const char * */
    KEY_TEXT,     /* const char * */
    KEY_SECRET,   /* const char *, never repeated in an error. */
    KEY_PATH,     /* const char *, made relative to the file's folder. */
    KEY_WORD,     /* const char *, one of `words`. */
    KEY_CHOICE,   /* An enum: the index into `words`. */
    KEY_FLAG,     /* bool: yes or no. */
    KEY_COUNT,    /* uint64_t */
    KEY_SIZE,     /* uint64_t, bytes */
    KEY_DURATION, /* int64_t, microseconds */
    KEY_GLOBS,    /* size_t at `count`, const char *const * at `offset` */
    KEY_TABLES,   /* The same. */
    KEY_COLUMNS,  /* In struct table_options: to, */
    KEY_TABLE,    /* and columns. */
    KEY_ARGV,     /* In struct hook_options. */
    KEY_LISTEN,   /* In struct options. */
};

struct key {
    const char *name;
    enum key_type type;
    bool required;
    size_t offset; /* In the section's home. */
    size_t count;
    const char *words; /* "halt|overwrite|skip" */
    uint64_t min;      /* Of COUNT, SIZE, DURATION. */
    uint64_t max;
    const char *fallback; /* The value if it is not given, as text; NULL: none. */
    const char *sample;   /* Without a fallback: what the commented file shows. */
    const char *help;
};

/* What a section fills. */
enum section_home { HOME_OPTIONS, HOME_TABLE, HOME_HOOK, HOME_POOLER, HOME_COUNT };

struct section {
    const char *name;
    enum section_home home; /* Not HOME_OPTIONS: repeatable, each with another argument. */
    const char *argument;   /* What follows the name: a sample. */
    const char *help;
    const struct key *keys;
    size_t key_count;
};

enum { SECTION_COUNT = 14, KEYS_MAX = 8 };

extern const struct section option_sections[SECTION_COUNT];

/* Parses `text` into `home`. Paths are relative to the folder of `file`. The error names
 * neither file nor key. */
must_check bool key_set(struct arena *a, const struct key *key, void *home, const char *text,
                        const char *file, struct error *err);

#endif
