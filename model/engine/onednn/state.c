//go:build onednn

// Parameters live in plain vectors, as the network describes them, in fp32.
// Convolutions read working copies in the library's formats and the program's
// precision, which every update renews in the same pass.

#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ox_state {
    ox_engine *e;
    size_t params, buffers;
    float *vector[OX_VECTORS];
    ox_copy **copies; // by parameter
    int n;
};

static size_t length(const ox_state *s, int v) { return v < OX_QUERY_BUFFERS ? s->params : s->buffers; }

ox_state *ox_state_open(ox_engine *e, size_t params, size_t buffers, char *err) {
    ox_state *s = ox_new(1, sizeof *s, "a state", err);
    if (!s) return NULL;
    s->e = e, s->params = params, s->buffers = buffers;
    for (int v = 0; v < OX_VECTORS; v++)
        if (!(s->vector[v] = ox_pages(length(s, v) * sizeof(float), "the vectors of a network", err))) {
            ox_state_close(s);
            return NULL;
        }
    return s;
}

static void copy_free(ox_copy *c) {
    ox_format_close(c->format);
    free((void *)c->layout.fo);
    free((void *)c->layout.fi);
    free((void *)c->layout.ft);
    free(c->data);
    free(c);
}

void ox_state_close(ox_state *s) {
    for (int v = 0; v < OX_VECTORS; v++) ox_pages_free(s->vector[v], length(s, v) * sizeof(float));
    for (int i = 0; i < s->n; i++) copy_free(s->copies[i]);
    free(s->copies);
    free(s);
}

float *ox_state_vector(ox_state *s, int v) { return s->vector[v]; }
ox_engine *ox_state_engine(ox_state *s) { return s->e; }

// ---- Working copies ----

ox_copy *ox_state_find(ox_state *s, int64_t param, int key, ox_direction d, mk_type type) {
    for (int i = 0; i < s->n; i++) {
        ox_copy *c = s->copies[i];
        if (c->param == param && c->key == key && c->direction == d && c->layout.type == type) return c;
    }
    return NULL;
}

ox_copy *ox_state_copy(ox_state *s, int64_t param, int key, ox_direction d, mk_type type, int out, int in, int taps,
                       const ox_format *format, char *err) {
    for (int i = 0; i < s->n; i++) {
        ox_copy *c = s->copies[i];
        if (c->param == param && c->key == key && c->layout.type == type && ox_format_equal(c->format, format)) return c;
    }
    static const char purpose[] = "a working copy of a weight";
    ox_copy **copies = ox_grow(s->copies, (size_t)s->n + 1, sizeof *copies, purpose, err);
    if (!copies) return NULL;
    s->copies = copies;
    ox_copy *c = ox_new(1, sizeof *c, purpose, err);
    if (!c) return NULL;
    int32_t *fo = ox_new((size_t)out, sizeof *fo, purpose, err), *fi = ox_new((size_t)in, sizeof *fi, purpose, err),
            *ft = ox_new((size_t)taps, sizeof *ft, purpose, err);
    *c = (ox_copy){.param = param, .key = key, .direction = d, .format = ox_format_copy(format, err),
                   .layout = {type, out, in, taps, fo, fi, ft}};
    if (!fo || !fi || !ft || !c->format) goto failed;
    if (!ox_format_tables(format, fo, fi, ft)) {
        snprintf(err, OX_ERR, "oneDNN wants a weight in a format that this engine does not write");
        goto failed;
    }
    if (!(c->data = ox_block(ox_format_bytes(format), purpose, err))) goto failed; // zeroed: blocks may be padded
    mk_layout_copy(&c->layout, 0, out, s->vector[key] + param, c->data);
    int at = s->n++;
    for (; at > 0 && s->copies[at - 1]->param > param; at--) s->copies[at] = s->copies[at - 1];
    return s->copies[at] = c;
failed:
    copy_free(c);
    return NULL;
}

static void refresh_job(void *arg, int thread) {
    ox_state *s = arg;
    for (int i = 0; i < s->n; i++) {
        ox_copy *c = s->copies[i];
        int from, to;
        ox_share(c->layout.out, thread, s->e->threads, &from, &to);
        mk_layout_copy(&c->layout, from, to, s->vector[c->key] + c->param, c->data);
    }
}

void ox_state_refresh(ox_state *s) {
    if (s->n) ox_team_run(s->e->team, refresh_job, s);
}

// ---- Update ----

typedef struct {
    ox_state *s;
    const mk_sgd *sgd;
    const ox_rate *rates;
    int n;
    const float *grads;
} update;

// tensor_at is the scalars of the tensor with parameter at, and its end.
static size_t tensor_at(const update *u, size_t at, mk_sgd *sgd) {
    int low = 0, high = u->n - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (u->rates[middle].end > at)
            high = middle;
        else
            low = middle + 1;
    }
    *sgd = *u->sgd;
    sgd->weight_decay = u->rates[low].decay, sgd->rate = u->rates[low].rate;
    return u->rates[low].end;
}

// plain updates a thread's share of parameters [from, to), which no
// convolution copies.
static void plain(const update *u, size_t from, size_t to, int thread) {
    ox_state *s = u->s;
    size_t n = to - from, begin = from + n * (size_t)thread / (size_t)s->e->threads,
           end = from + n * (size_t)(thread + 1) / (size_t)s->e->threads;
    while (begin < end) {
        mk_sgd sgd;
        size_t stop = tensor_at(u, begin, &sgd);
        if (stop > end) stop = end;
        mk_update(stop - begin, &sgd, u->grads + begin, s->vector[OX_MOMENTUM] + begin, s->vector[OX_QUERY] + begin,
                  s->vector[OX_KEY] + begin);
        begin = stop;
    }
}

static void update_job(void *arg, int thread) {
    update *u = arg;
    ox_state *s = u->s;
    size_t at = 0;
    for (int i = 0; i < s->n;) {
        enum { MOST = 8 }; // query and key, forward and backward, and a few for odd shapes
        mk_copy copies[MOST];
        const ox_copy *first = s->copies[i];
        int n = 0;
        for (; i < s->n && n < MOST && s->copies[i]->param == first->param; i++)
            copies[n++] = (mk_copy){&s->copies[i]->layout, s->copies[i]->key, s->copies[i]->data};
        const mk_layout *l = &first->layout;
        size_t from = (size_t)first->param, size = (size_t)l->out * (size_t)l->in * (size_t)l->taps;
        plain(u, at, from, thread);
        int o0, o1;
        ox_share(l->out, thread, s->e->threads, &o0, &o1);
        mk_sgd sgd;
        tensor_at(u, from, &sgd);
        if (o1 > o0)
            mk_update_copies(o0, o1, &sgd, u->grads + from, s->vector[OX_MOMENTUM] + from, s->vector[OX_QUERY] + from,
                             s->vector[OX_KEY] + from, n, copies);
        for (; i < s->n && s->copies[i]->param == first->param; i++)
            mk_layout_copy(&s->copies[i]->layout, o0, o1, s->vector[s->copies[i]->key] + from, s->copies[i]->data);
        at = from + size;
    }
    plain(u, at, s->params, thread);
}

void ox_state_update(ox_state *s, const mk_sgd *sgd, const ox_rate *rates, int n, const float *grads, float keep, float blend,
                     const float *query_statistics, const float *key_statistics) {
    update u = {s, sgd, rates, n, grads};
    ox_team_run(s->e->team, update_job, &u);
    mk_running(s->buffers, keep, blend, query_statistics, s->vector[OX_QUERY_BUFFERS]);
    mk_running(s->buffers, keep, blend, key_statistics, s->vector[OX_KEY_BUFFERS]);
}
