/* The file that `teal init` writes: every key of the table with its help; active are only those
 * that must be there. What is commented with ";" directly before a section or key is valid as
 * it stands: taking away the ";" is all it needs. */
#include "engine/options_endpoint.h"
#include "engine/options_keys.h"
#include "engine/options_value.h"

static void put_comment(struct writer *out, const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        writer_printf(out, "# %.*s\n", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

static void put_words(struct writer *out, const char *words)
{
    writer_text(out, "# One of:");
    while (*words != '\0') {
        size_t len = strcspn(words, "|");
        writer_printf(out, " %.*s", (int)len, words);
        words += len + (words[len] == '|');
    }
    writer_text(out, "\n");
}

/* `value`: what makes the key active; NULL: it stays a comment. */
static void put_key(struct writer *out, const struct key *key, const char *value)
{
    put_comment(out, key->help);
    if (key->words != NULL)
        put_words(out, key->words);
    if (value != NULL)
        writer_printf(out, "%s = %s\n", key->name, value);
    else
        writer_printf(out, ";%s = %s\n", key->name,
                      key->fallback != NULL ? key->fallback : key->sample);
}

static void put_section(struct writer *out, const struct section *s, const char *value)
{
    writer_text(out, "\n");
    if (s->help != NULL)
        put_comment(out, s->help);
    if (s->home == HOME_OPTIONS)
        writer_printf(out, "[%s]\n", s->name);
    else
        writer_printf(out, ";[%s %s]\n", s->name, s->argument);
    for (size_t i = 0; i < s->key_count; i++) {
        const struct key *key = &s->keys[i];
        put_key(out, key, s->home == HOME_OPTIONS && key->required ? value : NULL);
    }
}

/* Refuses what the file could not give back. */
static bool side_make(struct arena *a, const char *uri, const char *side, struct endpoint *e,
                      struct error *err)
{
    *e = (struct endpoint){0};
    if (!endpoint_make(a, uri, NULL, e, err))
        return error_wrap(err, "--%s", side);
    if (strstr(e->shown, " ;") != NULL || strstr(e->shown, "\t;") != NULL ||
        e->shown[0] == '\0')
        return error_set(err, ERROR_CONFIG, "--%s cannot be written to the file", side);
    return true;
}

static bool write_example(struct arena *a, const char *const values[3], struct writer *out,
                          struct error *err)
{
    struct endpoint blue;
    struct endpoint green;
    if (!value_name(values[0], err))
        return error_wrap(err, "--name");
    TRY(side_make(a, values[1], "blue", &blue, err));
    TRY(side_make(a, values[2], "green", &green, err));
    if (strcmp(blue.scheme, green.scheme) != 0)
        return error_set(err, ERROR_CONFIG, "blue is %s and green is %s; they must be the same",
                         blue.scheme, green.scheme);
    if (strcmp(blue.shown, green.shown) == 0)
        return error_set(err, ERROR_CONFIG, "blue and green are the same database");
    put_comment(out,
                "Configuration of one migration with teal. Take away the \";\" to set what\n"
                "is not the default. Durations: 250ms 3s 5m 1h. Sizes: 64KiB 256MiB 1GiB.\n"
                "A password given to teal init is not kept here: use ~/.pgpass,\n"
                "password-file or password-command.");
    const char *const active[] = {values[0], blue.shown, green.shown};
    for (size_t i = 0; i < SECTION_COUNT; i++)
        put_section(out, &option_sections[i], i < array_count(active) ? active[i] : NULL);
    return true;
}

bool options_write_example(const char *name, const char *blue, const char *green,
                           struct writer *out, struct error *err)
{
    cleanup_with(arena_clear) struct arena scratch = {0};
    const char *const values[] = {name, blue, green};
    return write_example(&scratch, values, out, err);
}
