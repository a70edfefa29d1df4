// A persistent team of threads that runs jobs together.
#ifndef MOCHI_TEAM_H
#define MOCHI_TEAM_H

#include <stdint.h>

typedef struct ox_team ox_team;

// A job is run by all threads of a team at once.
typedef void (*ox_job)(void *arg, int thread);

// ox_team_open starts threads; NULL when the system has none left.
ox_team *ox_team_open(int threads, char *err);
void ox_team_close(ox_team *t);
int ox_team_size(const ox_team *t);

// ox_team_run runs job on every thread and waits, asleep, until all are done.
// One at a time.
void ox_team_run(ox_team *t, ox_job job, void *arg);

// ox_team_barrier holds the threads of a job until all have come and the last
// of them has run then (unless NULL).
void ox_team_barrier(ox_team *t, void (*then)(void *arg), void *arg);

#endif
