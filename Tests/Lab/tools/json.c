/*
 * Just enough JSON: find the value at a path. What QEMU sends is well-formed, so this
 * skips over values instead of checking them, but never reads past the end of the text.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

/* From an opening quote to behind the closing one. */
static const char *skip_string(const char *at)
{
    for (at++; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1]) {
            at++;
        }
    }
    return *at ? at + 1 : at;
}

/* From the start of a value to behind it. Nesting is counted; strings are jumped over. */
static const char *skip_value(const char *at)
{
    int depth = 0;

    do {
        if (*at == '"') {
            at = skip_string(at);
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (*at == '}' || *at == ']') {
            depth--;
            at++;
        } else if (depth) {
            at++;
        } else {
            at += strcspn(at, ",]} \t\r\n");
        }
    } while (*at && depth);
    return at;
}

/* In the object or array at `at`, the value of the member called `name`. */
static const char *member(const char *at, const char *name, size_t length)
{
    int is_object = *at == '{';
    unsigned long index = 0;

    if (!is_object && *at != '[') {
        return NULL;
    }
    for (at = skip_space(at + 1); *at && *at != '}' && *at != ']'; index++) {
        int found;

        if (is_object) {
            const char *end = skip_string(at);

            found = (size_t)(end - at) == length + 2 && !memcmp(at + 1, name, length);
            at = skip_space(skip_space(end) + 1); /* over the colon */
        } else {
            found = index == strtoul(name, NULL, 10);
        }
        if (found) {
            return at;
        }
        at = skip_space(skip_value(at));
        if (*at == ',') {
            at = skip_space(at + 1);
        }
    }
    return NULL;
}

const char *json_find(const char *text, const char *path, const char **end)
{
    const char *at = skip_space(text);

    while (at && *path) {
        size_t length = strcspn(path, ".");

        at = member(at, path, length);
        path += length + (path[length] == '.');
    }
    if (!at || !*at) {
        return NULL;
    }
    *end = skip_value(at);
    return at;
}

int command_json(int argc, char **argv)
{
    const char *value, *end;
    char *text = NULL;
    size_t capacity = 0;

    if (argc < 2) {
        die("json wants a path, or several");
    }
    if (getdelim(&text, &capacity, '\0', stdin) < 0) {
        die("json: nothing on standard input");
    }
    for (int i = 1; i < argc; i++) {
        value = json_find(text, argv[i], &end);
        if (!value) {
            die("json: nothing at '%s'", argv[i]);
        }
        if (*value == '"') { /* a plain string is printed without its quotes */
            value++;
            end--;
        }
        printf("%s%.*s", i > 1 ? " " : "", (int)(end - value), value);
    }
    putchar('\n');
    return 0;
}
