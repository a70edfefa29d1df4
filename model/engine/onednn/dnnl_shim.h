// What the engine needs of oneDNN, the same for its versions 2 and 3:
// convolutions on one thread, feature maps nhwc, weights in a format of the
// library's choice.
#ifndef MOCHI_DNNL_SHIM_H
#define MOCHI_DNNL_SHIM_H

#include "kernels.h"
#include "memory.h"

#include <stddef.h>
#include <stdint.h>

typedef struct ox_lib ox_lib;       // the library, opened
typedef struct ox_stream ox_stream; // where one thread's primitives run
typedef struct ox_format ox_format; // of a weight
typedef struct ox_prim ox_prim;     // a convolution made for one shape
typedef struct ox_call ox_call;     // a primitive bound to a thread's memory

// What opens or copies returns NULL on failure and says why in err.
ox_lib *ox_lib_open(char *err);
void ox_lib_close(ox_lib *l);
void ox_lib_version(int *major, int *minor, int *patch);

ox_stream *ox_stream_open(ox_lib *l, char *err);
void ox_stream_close(ox_stream *s);

typedef enum { OX_FORWARD, OX_DATA, OX_WEIGHTS } ox_direction;

// ox_shape is a convolution of n images. Activations are of type; weights too,
// except that their gradient is fp32.
typedef struct {
    ox_direction direction;
    mk_type type;
    int n, in, ih, iw, out, oh, ow, kernel, stride, pad;
} ox_shape;

// ox_prim_open makes a primitive for one thread, with its weight in the given
// format, or (NULL) the one the library likes best.
ox_prim *ox_prim_open(ox_lib *l, const ox_shape *s, const ox_format *f, char *err);
void ox_prim_close(ox_prim *p);
const ox_format *ox_prim_format(const ox_prim *p); // lives as long as p
size_t ox_prim_scratch(const ox_prim *p);
const char *ox_prim_name(const ox_prim *p); // of the implementation
int ox_prim_plain(const ox_prim *p);        // the library's slow reference code

// A format of weights [out][in][kernel][kernel].
ox_format *ox_format_copy(const ox_format *f, char *err);
void ox_format_close(ox_format *f);
size_t ox_format_bytes(const ox_format *f);
int ox_format_equal(const ox_format *a, const ox_format *b);
// ox_format_tables fills fo [out], fi [in] and ft [kernel²], see mk_layout.
// It returns 0 where the format is not of that kind.
int ox_format_tables(const ox_format *f, int32_t *fo, int32_t *fi, int32_t *ft);

// ox_call_open binds a primitive to scratch memory; weight may be NULL and
// given in each run. Runs of different calls may overlap in time.
ox_call *ox_call_open(ox_lib *l, const ox_prim *p, void *weight, void *scratch, char *err);
void ox_call_close(ox_call *c);
// ox_call_run computes y from x (forward), dx from dy (data: x is dy, y is
// dx), or the weight's gradient from x and dy (weights: y is dy). It returns 0
// or the library's error.
int ox_call_run(ox_call *c, ox_stream *s, void *x, void *y, void *weight);

#endif
