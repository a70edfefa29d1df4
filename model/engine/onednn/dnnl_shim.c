//go:build onednn

#include "dnnl_shim.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR < 2
#error "oneDNN 2 or 3 is needed"
#endif

struct ox_lib { dnnl_engine_t engine; };
struct ox_stream { dnnl_stream_t stream; };

// Version 2 describes memory by a struct, version 3 by a handle.
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t md_in;
#define MD(f) ((f)->md)
#else
typedef const dnnl_memory_desc_t *md_in;
#define MD(f) (&(f)->md)
#endif

struct ox_format { dnnl_memory_desc_t md; };

struct ox_prim {
    ox_direction direction;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t prim;
    ox_format format;
    md_in x, y, scratch; // of pd
};

struct ox_call {
    dnnl_primitive_t prim;
    dnnl_memory_t x, y, weight, scratch;
    dnnl_exec_arg_t args[4];
};

ox_lib *ox_lib_open(char *err) {
    ox_lib *l = ox_new(1, sizeof *l, "the library", err);
    if (!l) return NULL;
    dnnl_status_t s = dnnl_engine_create(&l->engine, dnnl_cpu, 0);
    if (s == dnnl_success) return l;
    snprintf(err, OX_ERR, "oneDNN offers no CPU engine (status %d)", (int)s);
    free(l);
    return NULL;
}

void ox_lib_close(ox_lib *l) {
    dnnl_engine_destroy(l->engine);
    free(l);
}

void ox_lib_version(int *major, int *minor, int *patch) {
    const dnnl_version_t *v = dnnl_version();
    *major = v->major, *minor = v->minor, *patch = v->patch;
}

ox_stream *ox_stream_open(ox_lib *l, char *err) {
    ox_stream *s = ox_new(1, sizeof *s, "a stream", err);
    if (!s) return NULL;
    dnnl_status_t st = dnnl_stream_create(&s->stream, l->engine, dnnl_stream_default_flags);
    if (st == dnnl_success) return s;
    snprintf(err, OX_ERR, "oneDNN opens no stream (status %d)", (int)st);
    free(s);
    return NULL;
}

void ox_stream_close(ox_stream *s) {
    dnnl_stream_destroy(s->stream);
    free(s);
}

static dnnl_data_type_t type(mk_type t) { return t == MK_BF16 ? dnnl_bf16 : dnnl_f32; }

static dnnl_status_t describe(ox_format *f, const dnnl_dims_t dims, dnnl_data_type_t t, dnnl_format_tag_t tag) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(&f->md, 4, dims, t, tag);
#else
    return dnnl_memory_desc_init_by_tag(&f->md, 4, dims, t, tag);
#endif
}

static void forget(ox_format *f) {
#if DNNL_VERSION_MAJOR >= 3
    if (f->md) dnnl_memory_desc_destroy(f->md);
#else
    (void)f;
#endif
}

static dnnl_status_t copy(ox_format *f, md_in md) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_clone(&f->md, md);
#else
    f->md = *md;
    return dnnl_success;
#endif
}

// spills says whether the library's 1×1 kernel would write behind its
// scratchpad: a strided gradient of weights with fewer input channels than the
// kernel's block (oneDNN issue 6035, seen in 2.6, open in 3.12).
static int spills(ox_direction d, const ox_shape *s) {
    return d == OX_WEIGHTS && s->kernel == 1 && s->stride > 1 && s->in < 16;
}

// safe is whether pd is of another kernel than that.
static int safe(const_dnnl_primitive_desc_t pd) {
    const char *name = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return strncmp(name, "jit_1x1", 7) != 0;
}

// make creates the primitive descriptor of direction d.
static dnnl_status_t make(ox_lib *l, dnnl_primitive_desc_t *pd, ox_direction d, const ox_shape *s, const ox_format *x,
                          const ox_format *w, const ox_format *y, dnnl_primitive_desc_t hint,
                          dnnl_primitive_attr_t attr) {
    dnnl_dims_t stride = {s->stride, s->stride}, pad = {s->pad, s->pad};
    // Padding at the far side is what is left over: it may be less, or negative.
    dnnl_dims_t far = {(s->oh - 1) * s->stride + s->kernel - s->ih - s->pad, (s->ow - 1) * s->stride + s->kernel - s->iw - s->pad};
#if DNNL_VERSION_MAJOR >= 3
    dnnl_dims_t dense = {0, 0};
    dnnl_status_t st;
    switch (d) {
    case OX_FORWARD:
        return dnnl_convolution_forward_primitive_desc_create(pd, l->engine, dnnl_forward_training, dnnl_convolution_direct,
                                                              x->md, w->md, NULL, y->md, stride, dense, pad, far, attr);
    case OX_DATA:
        return dnnl_convolution_backward_data_primitive_desc_create(pd, l->engine, dnnl_convolution_direct, x->md, w->md,
                                                                    y->md, stride, dense, pad, far, hint, attr);
    default:
        st = dnnl_convolution_backward_weights_primitive_desc_create(pd, l->engine, dnnl_convolution_direct, x->md, w->md,
                                                                     NULL, y->md, stride, dense, pad, far, hint, attr);
        while (!st && spills(d, s) && !safe(*pd)) st = dnnl_primitive_desc_next_impl(*pd);
        return st;
    }
#else
    dnnl_convolution_desc_t desc;
    dnnl_status_t st;
    switch (d) {
    case OX_FORWARD:
        st = dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, dnnl_convolution_direct, &x->md, &w->md, NULL,
                                                &y->md, stride, pad, far);
        break;
    case OX_DATA:
        st = dnnl_convolution_backward_data_desc_init(&desc, dnnl_convolution_direct, &x->md, &w->md, &y->md, stride, pad, far);
        break;
    default:
        st = dnnl_convolution_backward_weights_desc_init(&desc, dnnl_convolution_direct, &x->md, &w->md, NULL, &y->md, stride,
                                                         pad, far);
    }
    if (st) return st;
    if (!spills(d, s)) return dnnl_primitive_desc_create(pd, &desc, attr, l->engine, hint);
    dnnl_primitive_desc_iterator_t all;
    for (st = dnnl_primitive_desc_iterator_create(&all, &desc, attr, l->engine, hint); !st;
         st = dnnl_primitive_desc_iterator_next(all)) {
        *pd = dnnl_primitive_desc_iterator_fetch(all);
        if (!*pd || safe(*pd)) break;
        dnnl_primitive_desc_destroy(*pd);
        *pd = NULL;
    }
    dnnl_primitive_desc_iterator_destroy(all);
    return st;
#endif
}

ox_prim *ox_prim_open(ox_lib *l, const ox_shape *s, const ox_format *format, char *err) {
    dnnl_dims_t xd = {s->n, s->in, s->ih, s->iw}, yd = {s->n, s->out, s->oh, s->ow};
    dnnl_dims_t wd = {s->out, s->in, s->kernel, s->kernel};
    dnnl_data_type_t t = type(s->type), wt = s->direction == OX_WEIGHTS ? dnnl_f32 : t;
    ox_format x = {0}, y = {0}, w = {0}, any = {0};
    ox_prim *p = ox_new(1, sizeof *p, "a primitive", err);
    if (!p) return NULL;
    p->direction = s->direction;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t st = describe(&x, xd, t, dnnl_nhwc);
    if (!st) st = describe(&y, yd, t, dnnl_nhwc);
    if (!st) st = format ? copy(&w, MD(format)) : describe(&w, wd, wt, dnnl_format_tag_any);
    if (!st) st = describe(&any, wd, t, dnnl_format_tag_any);
    if (!st) st = dnnl_primitive_attr_create(&attr);
    if (!st) st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!st && s->direction != OX_FORWARD) st = make(l, &hint, OX_FORWARD, s, &x, &any, &y, NULL, attr);
    if (!st) st = make(l, &p->pd, s->direction, s, &x, &w, &y, hint, attr);
    if (!st) st = dnnl_primitive_create(&p->prim, p->pd);
    if (!st) {
        static const dnnl_query_t weights[] = {dnnl_query_weights_md, dnnl_query_weights_md, dnnl_query_diff_weights_md};
        static const dnnl_query_t in[] = {dnnl_query_src_md, dnnl_query_diff_dst_md, dnnl_query_src_md};
        static const dnnl_query_t out[] = {dnnl_query_dst_md, dnnl_query_diff_src_md, dnnl_query_diff_dst_md};
        st = copy(&p->format, dnnl_primitive_desc_query_md(p->pd, weights[s->direction], 0));
        p->x = dnnl_primitive_desc_query_md(p->pd, in[s->direction], 0);
        p->y = dnnl_primitive_desc_query_md(p->pd, out[s->direction], 0);
        p->scratch = dnnl_primitive_desc_query_md(p->pd, dnnl_query_scratchpad_md, 0);
    }
    if (hint) dnnl_primitive_desc_destroy(hint);
    if (attr) dnnl_primitive_attr_destroy(attr);
    forget(&x), forget(&y), forget(&w), forget(&any);
    if (!st) return p;
    snprintf(err, OX_ERR, "oneDNN has no convolution %d images %d×%d×%d → %d×%d×%d, kernel %d, stride %d, pad %d, direction %d (status %d)",
        s->n, s->in, s->ih, s->iw, s->out, s->oh, s->ow, s->kernel, s->stride, s->pad, (int)s->direction, (int)st);
    ox_prim_close(p);
    return NULL;
}

void ox_prim_close(ox_prim *p) {
    if (!p) return;
    if (p->prim) dnnl_primitive_destroy(p->prim);
    if (p->pd) dnnl_primitive_desc_destroy(p->pd);
    forget(&p->format);
    free(p);
}

const ox_format *ox_prim_format(const ox_prim *p) { return &p->format; }
size_t ox_prim_scratch(const ox_prim *p) { return dnnl_memory_desc_get_size(p->scratch); }

const char *ox_prim_name(const ox_prim *p) {
    const char *name = "";
    dnnl_primitive_desc_query(p->pd, dnnl_query_impl_info_str, 0, &name);
    return name;
}

int ox_prim_plain(const ox_prim *p) { return strncmp(ox_prim_name(p), "ref", 3) == 0; }

ox_format *ox_format_copy(const ox_format *f, char *err) {
    ox_format *c = ox_new(1, sizeof *c, "a format", err);
    if (!c || copy(c, MD(f)) == dnnl_success) return c;
    free(c);
    return ox_no_memory(sizeof *c, "the library's format", err);
}

void ox_format_close(ox_format *f) {
    if (!f) return;
    forget(f);
    free(f);
}

size_t ox_format_bytes(const ox_format *f) { return dnnl_memory_desc_get_size(MD(f)); }
int ox_format_equal(const ox_format *a, const ox_format *b) { return dnnl_memory_desc_equal(MD(a), MD(b)); }

int ox_format_tables(const ox_format *f, int32_t *fo, int32_t *fi, int32_t *ft) {
    int inner = 0;
    const dnnl_dim_t *strides = NULL, *blocks = NULL, *indices = NULL, *dims = NULL;
#if DNNL_VERSION_MAJOR >= 3
    dnnl_format_kind_t kind = dnnl_format_kind_undef;
    dnnl_dims_t *d = NULL, *st = NULL, *bl = NULL, *ix = NULL;
    dnnl_memory_desc_query(f->md, dnnl_query_format_kind, &kind);
    dnnl_memory_desc_query(f->md, dnnl_query_dims, &d);
    if (kind != dnnl_blocked) return 0;
    dnnl_memory_desc_query(f->md, dnnl_query_strides, &st);
    dnnl_memory_desc_query(f->md, dnnl_query_inner_nblks_s32, &inner);
    dnnl_memory_desc_query(f->md, dnnl_query_inner_blks, &bl);
    dnnl_memory_desc_query(f->md, dnnl_query_inner_idxs, &ix);
    strides = *st, blocks = *bl, indices = *ix, dims = *d;
#else
    if (f->md.format_kind != dnnl_blocked) return 0;
    const dnnl_blocking_desc_t *b = &f->md.format_desc.blocking;
    inner = b->inner_nblks;
    strides = b->strides, blocks = b->inner_blks, indices = b->inner_idxs, dims = f->md.dims;
#endif
    mk_layout_axis(0, (int)dims[0], strides[0], inner, blocks, indices, fo);
    mk_layout_axis(1, (int)dims[1], strides[1], inner, blocks, indices, fi);
    for (int h = 0; h < dims[2]; h++)
        for (int w = 0; w < dims[3]; w++) ft[h * dims[3] + w] = (int32_t)(h * strides[2] + w * strides[3]);
    for (int i = 0; i < inner; i++)
        if (indices[i] > 1) return 0;
    return 1;
}

static dnnl_memory_t memory(ox_lib *l, md_in md, void *at) {
    dnnl_memory_t m = NULL;
    dnnl_memory_create(&m, md, l->engine, at);
    return m;
}

ox_call *ox_call_open(ox_lib *l, const ox_prim *p, void *weight, void *scratch, char *err) {
    static const int x[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_SRC};
    static const int y[] = {DNNL_ARG_DST, DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST};
    static const int w[] = {DNNL_ARG_WEIGHTS, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_WEIGHTS};
    ox_call *c = ox_new(1, sizeof *c, "a call of a primitive", err);
    if (!c) return NULL;
    c->prim = p->prim;
    c->x = memory(l, p->x, NULL);
    c->y = memory(l, p->y, NULL);
    c->weight = memory(l, MD(&p->format), weight);
    c->scratch = memory(l, p->scratch, scratch);
    if (!c->x || !c->y || !c->weight || !c->scratch) {
        ox_call_close(c);
        return ox_no_memory(sizeof *c, "the library's view of memory", err);
    }
    c->args[0] = (dnnl_exec_arg_t){x[p->direction], c->x};
    c->args[1] = (dnnl_exec_arg_t){y[p->direction], c->y};
    c->args[2] = (dnnl_exec_arg_t){w[p->direction], c->weight};
    c->args[3] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, c->scratch};
    return c;
}

void ox_call_close(ox_call *c) {
    if (!c) return;
    dnnl_memory_t all[] = {c->x, c->y, c->weight, c->scratch};
    for (int i = 0; i < 4; i++)
        if (all[i]) dnnl_memory_destroy(all[i]);
    free(c);
}

int ox_call_run(ox_call *c, ox_stream *s, void *x, void *y, void *weight) {
    dnnl_memory_set_data_handle(c->x, x);
    dnnl_memory_set_data_handle(c->y, y);
    if (weight) dnnl_memory_set_data_handle(c->weight, weight);
    return (int)dnnl_primitive_execute(c->prim, s->stream, 4, c->args);
}
