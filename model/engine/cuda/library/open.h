#ifndef MOCHI_OPEN_H
#define MOCHI_OPEN_H

// ml_open opens one library, NULL and the loader's words in error if it
// cannot. Names with a slash are paths.
void *ml_open(const char *name, char *error, int size);

// ml_fill looks up n functions; it returns the name of the first that is
// missing, NULL when all are there.
const char *ml_fill(void *library, const char *const *names, void **functions, int n);

void ml_close(void *library);

#endif
