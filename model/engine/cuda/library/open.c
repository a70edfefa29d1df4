//go:build gpu

#include "open.h"

#include <dlfcn.h>
#include <stdio.h>

void *ml_open(const char *name, char *error, int size) {
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        snprintf(error, (size_t)size, "%s", why ? why : "");
    }
    return library;
}

const char *ml_fill(void *library, const char *const *names, void **functions, int n) {
    for (int i = 0; i < n; i++) {
        functions[i] = dlsym(library, names[i]);
        if (!functions[i]) return names[i];
    }
    return NULL;
}

void ml_close(void *library) { dlclose(library); }
