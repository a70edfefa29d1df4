//go:build gpu

#include "dnn.h"
#include "open.h"

#include <stdlib.h>
#include <string.h>

// Numbers of cudnn_ops.h and cudnn_cnn.h.
enum { TYPE_FLOAT = 0, TYPE_BF16 = 9, LAYOUT_NHWC = 1, CROSS_CORRELATION = 1 };
enum { MATH_DEFAULT = 0, MATH_TENSOR_OP = 1, MATH_FMA = 3 };

// cudnnConvolution{Fwd,BwdData,BwdFilter}AlgoPerf_t, which are alike.
typedef struct {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
} perf;

typedef void *D; // a handle or descriptor
typedef int offers_fn(D, D, D, D, D, int, int *, perf *);
typedef int workspace_fn(D, D, D, D, D, int, size_t *);
typedef int find_fn(D, D, const void *, D, const void *, D, D, void *, int, int *, perf *, void *, size_t);
typedef int run_fn(D, const void *, D, const void *, D, const void *, D, int, void *, size_t, const void *, D, void *);

// Every function that is looked up: field, name, type.
#define FUNCTIONS(X)                                                                        \
    X(version, cudnnGetVersion, size_t (*)(void))                                           \
    X(text, cudnnGetErrorString, const char *(*)(int))                                      \
    X(create, cudnnCreate, int (*)(D *))                                                    \
    X(destroy, cudnnDestroy, int (*)(D))                                                    \
    X(stream, cudnnSetStream, int (*)(D, void *))                                           \
    X(tensor_new, cudnnCreateTensorDescriptor, int (*)(D *))                                \
    X(tensor_free, cudnnDestroyTensorDescriptor, int (*)(D))                                \
    X(tensor_set, cudnnSetTensor4dDescriptor, int (*)(D, int, int, int, int, int, int))     \
    X(filter_new, cudnnCreateFilterDescriptor, int (*)(D *))                                \
    X(filter_free, cudnnDestroyFilterDescriptor, int (*)(D))                                \
    X(filter_set, cudnnSetFilter4dDescriptor, int (*)(D, int, int, int, int, int, int))     \
    X(conv_new, cudnnCreateConvolutionDescriptor, int (*)(D *))                             \
    X(conv_free, cudnnDestroyConvolutionDescriptor, int (*)(D))                             \
    X(conv_set, cudnnSetConvolution2dDescriptor, int (*)(D, int, int, int, int, int, int, int, int)) \
    X(math_set, cudnnSetConvolutionMathType, int (*)(D, int))                               \
    X(offers0, cudnnGetConvolutionForwardAlgorithm_v7, offers_fn *)                         \
    X(offers1, cudnnGetConvolutionBackwardDataAlgorithm_v7, offers_fn *)                    \
    X(offers2, cudnnGetConvolutionBackwardFilterAlgorithm_v7, offers_fn *)                  \
    X(find0, cudnnFindConvolutionForwardAlgorithmEx, find_fn *)                             \
    X(find1, cudnnFindConvolutionBackwardDataAlgorithmEx, find_fn *)                        \
    X(find2, cudnnFindConvolutionBackwardFilterAlgorithmEx, find_fn *)                      \
    X(workspace0, cudnnGetConvolutionForwardWorkspaceSize, workspace_fn *)                  \
    X(workspace1, cudnnGetConvolutionBackwardDataWorkspaceSize, workspace_fn *)             \
    X(workspace2, cudnnGetConvolutionBackwardFilterWorkspaceSize, workspace_fn *)           \
    X(run0, cudnnConvolutionForward, run_fn *)                                              \
    X(run1, cudnnConvolutionBackwardData, run_fn *)                                         \
    X(run2, cudnnConvolutionBackwardFilter, run_fn *)

enum {
#define INDEX(field, name, type) F_##field,
    FUNCTIONS(INDEX)
#undef INDEX
    COUNT
};

static const char *const names[] = {
#define NAME(field, name, type) #name,
    FUNCTIONS(NAME)
#undef NAME
};

struct md_library {
    void *f[COUNT];
};

// Typed access: int status = version(l)().
#define ACCESS(field, name, type) \
    typedef __typeof__((type)0) field##_type; \
    static field##_type field(const md_library *l) { return (field##_type)l->f[F_##field]; }
FUNCTIONS(ACCESS)

md_library *md_library_open(void *handle, const char **missing) {
    md_library *l = calloc(1, sizeof *l);
    *missing = l ? ml_fill(handle, names, l->f, COUNT) : "memory";
    if (*missing) {
        free(l);
        return NULL;
    }
    return l;
}

void md_library_close(md_library *l) { free(l); }
size_t md_version(md_library *l) { return version(l)(); }
const char *md_text(md_library *l, int status) { return text(l)(status); }
int md_create(md_library *l, void **dnn) { return create(l)(dnn); }
int md_destroy(md_library *l, void *dnn) { return destroy(l)(dnn); }
int md_stream(md_library *l, void *dnn, void *s) { return stream(l)(dnn, s); }

struct md_conv {
    md_library *l;
    D x, w, y;
    D conv[MD_DIRECTIONS]; // one each: the kind of arithmetic is the algorithm's
    int algorithm[MD_DIRECTIONS];
};

int md_conv_open(md_library *l, const md_geometry *g, md_conv **conv) {
    md_conv *c = *conv = calloc(1, sizeof *c);
    if (!c) return 2; // ALLOC_FAILED
    c->l = l;
    int type = g->bf16 ? TYPE_BF16 : TYPE_FLOAT;
    int status = 0;
#define TRY(call) \
    if ((status = (call))) return status;
    TRY(tensor_new(l)(&c->x))
    TRY(tensor_new(l)(&c->y))
    TRY(filter_new(l)(&c->w))
    TRY(tensor_set(l)(c->x, LAYOUT_NHWC, type, g->n, g->c, g->h, g->w))
    TRY(tensor_set(l)(c->y, LAYOUT_NHWC, type, g->n, g->k, g->oh, g->ow))
    TRY(filter_set(l)(c->w, type, LAYOUT_NHWC, g->k, g->c, g->kernel, g->kernel))
    for (int d = 0; d < MD_DIRECTIONS; d++) {
        TRY(conv_new(l)(&c->conv[d]))
        TRY(conv_set(l)(c->conv[d], g->pad, g->pad, g->stride, g->stride, 1, 1, CROSS_CORRELATION, TYPE_FLOAT))
        TRY(math_set(l)(c->conv[d], g->bf16 ? MATH_TENSOR_OP : g->tf32 ? MATH_DEFAULT : MATH_FMA))
    }
#undef TRY
    return 0;
}

void md_conv_close(md_conv *c) {
    if (!c) return;
    for (int d = 0; d < MD_DIRECTIONS; d++)
        if (c->conv[d]) conv_free(c->l)(c->conv[d]);
    if (c->w) filter_free(c->l)(c->w);
    if (c->y) tensor_free(c->l)(c->y);
    if (c->x) tensor_free(c->l)(c->x);
    free(c);
}

// operands are a direction's descriptors in cuDNN's order of arguments.
static void operands(md_conv *c, int direction, D d[4]) {
    D conv = c->conv[direction];
    switch (direction) {
    case MD_FORWARD: d[0] = c->x, d[1] = c->w, d[2] = conv, d[3] = c->y; break;
    case MD_DATA: d[0] = c->w, d[1] = c->y, d[2] = conv, d[3] = c->x; break;
    default: d[0] = c->x, d[1] = c->y, d[2] = conv, d[3] = c->w; break;
    }
}

static void copy_offers(const perf *p, int n, md_offer *offers) {
    for (int i = 0; i < n; i++)
        offers[i] = (md_offer){p[i].algorithm, p[i].math, p[i].status, p[i].determinism, p[i].memory, p[i].time};
}

int md_offers(md_conv *c, void *dnn, int direction, md_offer *offers, int room, int *count) {
    offers_fn *ask = direction == MD_FORWARD ? offers0(c->l) : direction == MD_DATA ? offers1(c->l) : offers2(c->l);
    perf p[16];
    D d[4];
    memset(p, 0, sizeof p);
    operands(c, direction, d);
    *count = 0;
    if (room > 16) room = 16;
    int status = ask(dnn, d[0], d[1], d[2], d[3], room, count, p);
    if (status) return status;
    copy_offers(p, *count, offers);
    return 0;
}

int md_measure(md_conv *c, void *dnn, int direction, const void *a, const void *b, void *to, void *workspace, size_t bytes,
               md_offer *offers, int room, int *count) {
    find_fn *find = direction == MD_FORWARD ? find0(c->l) : direction == MD_DATA ? find1(c->l) : find2(c->l);
    perf p[16];
    D d[4];
    memset(p, 0, sizeof p);
    operands(c, direction, d);
    if (direction == MD_DATA) { // the filter comes first here
        const void *t = a;
        a = b, b = t;
    }
    *count = 0;
    if (room > 16) room = 16;
    int status = find(dnn, d[0], a, d[1], b, d[2], d[3], to, room, count, p, workspace, bytes);
    if (status) return status;
    copy_offers(p, *count, offers);
    return 0;
}

int md_choose(md_conv *c, void *dnn, int direction, int algorithm, int math, size_t *workspace) {
    workspace_fn *ask = direction == MD_FORWARD ? workspace0(c->l) : direction == MD_DATA ? workspace1(c->l) : workspace2(c->l);
    int status = math_set(c->l)(c->conv[direction], math);
    if (status) return status;
    D d[4];
    operands(c, direction, d);
    c->algorithm[direction] = algorithm;
    return ask(dnn, d[0], d[1], d[2], d[3], algorithm, workspace);
}

int md_run(md_conv *c, void *dnn, int direction, const void *a, const void *b, void *to, void *workspace, size_t bytes) {
    static const float one = 1, zero = 0;
    run_fn *run = direction == MD_FORWARD ? run0(c->l) : direction == MD_DATA ? run1(c->l) : run2(c->l);
    D d[4];
    operands(c, direction, d);
    if (direction == MD_DATA) { // the filter comes first here
        const void *t = a;
        a = b, b = t;
    }
    return run(dnn, &one, d[0], a, d[1], b, d[2], c->algorithm[direction], workspace, bytes, &zero, d[3], to);
}
