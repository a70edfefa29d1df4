// What the engine needs of cuDNN, as C sees it. All functions return cuDNN's
// status, 0 for success.
#ifndef MOCHI_DNN_H
#define MOCHI_DNN_H

#include <stddef.h>

typedef struct md_library md_library;
typedef struct md_conv md_conv;

// A convolution [n][h][w][c] * [k][r][r][c] → [n][oh][ow][k], dense, without
// dilation or groups.
typedef struct {
    int n, h, w, c, k, oh, ow, kernel, stride, pad;
    int bf16; // of all three tensors; sums are fp32 either way
    int tf32; // fp32 only: products may lose mantissa bits
} md_geometry;

// Directions.
enum { MD_FORWARD, MD_DATA, MD_FILTER, MD_DIRECTIONS };

// An algorithm that cuDNN offers for a direction.
typedef struct {
    int algorithm, math, status, deterministic;
    size_t workspace;
    float ms; // expected or measured; below 0 unknown
} md_offer;

// md_library_open looks up all functions; missing names the first that is not
// there.
md_library *md_library_open(void *handle, const char **missing);
void md_library_close(md_library *);
size_t md_version(md_library *);
const char *md_text(md_library *, int status);

int md_create(md_library *, void **dnn);
int md_destroy(md_library *, void *dnn);
int md_stream(md_library *, void *dnn, void *stream);

// md_conv_open makes the descriptors. *conv is valid until md_conv_close,
// also after an error.
int md_conv_open(md_library *, const md_geometry *, md_conv **conv);
void md_conv_close(md_conv *);

// md_offers asks for up to room algorithms of a direction, the best first by
// cuDNN's own rules, which depend on device and version alone.
int md_offers(md_conv *, void *dnn, int direction, md_offer *offers, int room, int *count);

// md_measure runs a direction's algorithms that need no more than bytes of
// workspace and returns up to room of them, the fastest first. Operands are
// those of md_run; what is at to afterwards is of no use.
int md_measure(md_conv *, void *dnn, int direction, const void *a, const void *b, void *to, void *workspace, size_t bytes,
               md_offer *offers, int room, int *count);

// md_choose takes an algorithm and returns the workspace that it needs.
int md_choose(md_conv *, void *dnn, int direction, int algorithm, int math, size_t *workspace);

// md_run runs a direction: FORWARD a=x, b=w, to=y; DATA a=dy, b=w, to=dx;
// FILTER a=x, b=dy, to=dw. to is overwritten.
int md_run(md_conv *, void *dnn, int direction, const void *a, const void *b, void *to, void *workspace, size_t bytes);

#endif
