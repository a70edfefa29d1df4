// Shared between the C files of the executor.
#ifndef MOCHI_INTERNAL_H
#define MOCHI_INTERNAL_H

#include "dnnl_shim.h"
#include "exec.h"
#include "memory.h"
#include "team.h"

// What one thread owns.
typedef struct {
    ox_stream *stream;
    int64_t kernel_ns;
    char padding[64];
} ox_thread;

struct ox_engine {
    ox_lib *lib;
    ox_team *team;
    int threads;
    ox_thread *thread;
    int wide; // see ox_engine_open
};

int64_t ox_now(void);               // ns
void ox_share(int n, int part, int parts, int *from, int *to); // an equal share of [0, n)

// A working copy of a weight in a format of oneDNN's.
typedef struct {
    int64_t param; // offset of the weight
    int key;       // encoder
    ox_direction direction;
    ox_format *format;
    mk_layout layout;
    void *data;
} ox_copy;

// ox_state_copy returns the state's copy of a weight in format, or makes it;
// NULL on failure, with err.
ox_copy *ox_state_copy(ox_state *s, int64_t param, int key, ox_direction d, mk_type type, int out, int in, int taps,
                       const ox_format *format, char *err);
// ox_state_find returns any copy of that weight, encoder and direction.
ox_copy *ox_state_find(ox_state *s, int64_t param, int key, ox_direction d, mk_type type);
ox_engine *ox_state_engine(ox_state *s);

#endif
