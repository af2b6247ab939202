/* What the tests of the options share: a small file, and parsing that fails the test. */
#ifndef TESTS_OPTIONS_FIXTURE_H
#define TESTS_OPTIONS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/options.h"

static const char minimal[] = "[migration]\nname = shop\n"
                              "[blue]\nuri = postgresql://teal@blue/shop\n"
                              "[green]\nuri = postgresql://teal@green/shop\n"; /* 6 lines */

static inline struct options *parse_text(const char *text)
{
    struct options *o = NULL;
    struct error err = {0};
    struct bytes b = {(const uint8_t *)text, strlen(text)};
    if (!options_parse("/etc/teal/teal.ini", b, &o, &err))
        fail_msg("%s (%s)", err.text, err.hint);
    return o;
}

/* The minimal file and more. */
static inline struct options *parse_more(const char *more)
{
    char text[8192];
    assert_true(snprintf(text, sizeof text, "%s%s", minimal, more) < (int)sizeof text);
    return parse_text(text);
}

static inline struct error refuse_text(const char *text)
{
    struct options *o = NULL;
    struct error err = {0};
    struct bytes b = {(const uint8_t *)text, strlen(text)};
    if (options_parse("teal.ini", b, &o, &err))
        fail_msg("taken: %s", text);
    assert_null(o);
    assert_int_equal(err.kind, ERROR_CONFIG);
    return err;
}

static inline void expect_error(const char *text, const char *expected)
{
    struct error err = refuse_text(text);
    if (strcmp(err.text, expected) != 0)
        fail_msg("got: %s\nnot: %s", err.text, expected);
}

static inline void expect_more_error(const char *more, const char *expected)
{
    char text[8192];
    assert_true(snprintf(text, sizeof text, "%s%s", minimal, more) < (int)sizeof text);
    expect_error(text, expected);
}

#endif
