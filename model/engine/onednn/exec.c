//go:build onednn

// Running a program: every thread walks through the phases, in each through
// the slices of its lanes, in each slice through the operations.

#include "program.h"

#include <stdio.h>
#include <string.h>

// What a run is about, and what one thread is at.
typedef struct {
    ox_program *p;
    char *arena;
    int from, to; // phases
    const float *images, *gradient;
    float *grads;
} run;

typedef struct {
    const run *r;
    int thread, lane, turn; // turn: of the sums
    const ox_phase *phase;
    ox_slice slice;
    int begin; // the lane's first slice
} place;

static const ox_tensor *tensor(const place *at, int t) { return &at->r->p->plan.tensor[t]; }

// address is where the slice of tensor t lies.
static void *address(const place *at, int t) {
    if (t < 0) return NULL;
    const ox_tensor *x = tensor(at, t);
    static const int size[] = {4, 2, 1};
    if (x->space == OX_SCRATCH) return at->r->p->room[at->thread].scratch + x->offset;
    size_t unit = (size_t)x->h * (size_t)x->w * (size_t)x->c * (size_t)size[x->type] / (size_t)at->phase->split;
    return (x->space == OX_KEPT ? at->r->p->kept : at->r->arena) + x->offset + (size_t)at->slice.first * unit;
}

// rows is the number of pixels of a tensor's slice.
static size_t rows(const place *at, int t) {
    const ox_tensor *x = tensor(at, t);
    return (size_t)at->slice.n * (size_t)x->h * (size_t)x->w / (size_t)at->phase->split;
}

static mk_type type(const place *at, int t) { return (mk_type)tensor(at, t)->type; }
static size_t channels(const place *at, int t) { return (size_t)tensor(at, t)->c; }
static size_t values(const place *at, int t) { return rows(at, t) * channels(at, t); }

static mk_pool pool(const ox_layer *l) {
    return (mk_pool){.channels = l->in, .ih = l->ih, .iw = l->iw, .oh = l->oh, .ow = l->ow,
                     .kernel = l->kernel, .stride = l->stride, .pad = l->pad};
}

static ox_call *find_call(const place *at, int op) {
    const ox_bound *b = &at->r->p->bound[op];
    for (int i = 0; i < b->variants; i++)
        if (b->variant[i].n == at->slice.n) return b->variant[i].call[at->thread];
    return NULL;
}

// call runs the library on an op's input and output.
static int call(const place *at, int index, void *x, void *y, void *weight) {
    const ox_program *p = at->r->p;
    const ox_op *op = &p->plan.op[index];
    const ox_layer *l = &p->plan.layer[op->layer];
    ox_stream *stream = p->e->thread[at->thread].stream;
    ox_call *c = find_call(at, index);
    if (!c) return -1;
    if (!ox_wide(p, l)) return ox_call_run(c, stream, x, y, weight);
    // wide[0] is on the side of the layer's input, wide[1] of its output.
    void *const *wide = p->room[at->thread].wide;
    int back = op->kind == OX_DATA_GRAD;
    void *from = wide[back], *to = wide[!back];
    mk_cast(values(at, op->in[0]), MK_BF16, x, MK_F32, from);
    if (op->kind == OX_WEIGHT_GRAD) {
        mk_cast(values(at, op->in[1]), MK_BF16, y, MK_F32, to);
        return ox_call_run(c, stream, from, to, weight);
    }
    int status = ox_call_run(c, stream, from, to, weight);
    mk_cast(values(at, op->out[0]), MK_F32, to, MK_BF16, y);
    return status;
}

static void count(const place *at, int64_t start) {
    __atomic_fetch_add(&at->r->p->e->thread[at->thread].kernel_ns, ox_now() - start, __ATOMIC_RELAXED);
}

static int weight_grad(const place *at, int index, const ox_op *op) {
    const ox_program *p = at->r->p;
    const ox_layer *l = &p->plan.layer[op->layer];
    const ox_room *r = &p->room[at->thread];
    float *sums = p->weight_sums[at->turn * p->plan.lanes + at->lane];
    void *x = address(at, op->in[0]), *dy = address(at, op->in[1]);
    if (l->own) {
        mk_conv c = ox_conv(l, at->phase->split);
        const mk_bn *bn = op->norm[0] >= 0 ? &p->bn[op->norm[0]] : NULL;
        mk_wgrad_pack_x(&c, at->slice.n, x, bn, op->relu, r->x_packed);
        mk_wgrad_pack_dy(&c, at->slice.n, dy, r->dy_packed);
        mk_wgrad_add(&c, at->slice.n, r->x_packed, r->dy_packed, at->begin, sums);
        return 0;
    }
    if (at->begin) return call(at, index, x, dy, sums);
    int status = call(at, index, x, dy, r->part);
    mk_add(MK_F32, p->stored[op->layer].bytes / sizeof(float), sums, r->part, sums);
    return status;
}

static void sums(const place *at, const ox_op *op) {
    const ox_program *p = at->r->p;
    mk_bn_branch branch[2];
    int n = 0;
    for (; n < 2 && op->norm[n] >= 0; n++)
        branch[n] = (mk_bn_branch){.bn = &p->bn[op->norm[n]], .x = address(at, op->in[3 + n]),
                                   .part = p->sums[op->norm[n] * p->plan.lanes + at->lane]};
    mk_bn_grad_sums(type(at, op->in[0]), rows(at, op->in[0]), channels(at, op->in[0]), address(at, op->in[0]),
                    address(at, op->in[1]), (mk_mask)op->mask, address(at, op->in[2]), address(at, op->out[0]), n, branch,
                    at->begin);
}

static void grad_apply(const place *at, const ox_op *op) {
    const ox_program *p = at->r->p;
    mk_bn_branch branch[2];
    int n = 0;
    for (; n < 2 && op->norm[n] >= 0; n++)
        branch[n] = (mk_bn_branch){.bn = &p->bn[op->norm[n]], .x = address(at, op->in[3 + n]), .dx = address(at, op->out[n])};
    mk_bn_grad_apply(type(at, op->in[0]), rows(at, op->in[0]), channels(at, op->in[0]), address(at, op->in[0]),
                     (mk_mask)op->mask, address(at, op->in[2]), n, branch);
}

// step does one operation on one slice.
static int step(const place *at, int index) {
    const ox_program *p = at->r->p;
    const ox_op *op = &p->plan.op[index];
    const ox_layer *l = op->layer >= 0 ? &p->plan.layer[op->layer] : NULL;
    const mk_bn *bn = op->norm[0] >= 0 ? &p->bn[op->norm[0]] : NULL;
    const mk_bn *second = op->norm[1] >= 0 ? &p->bn[op->norm[1]] : NULL;
    int in = op->in[0], out = op->out[0], n = at->slice.n;
    void *x = address(at, in), *y = address(at, out);
    const float *params = ox_state_vector(p->state, p->plan.encoder);
    int status = 0;
    switch (op->kind) {
    case OX_IMAGES:
        mk_images(type(at, out), n, p->plan.channels, p->plan.channels, (size_t)p->plan.pixels,
                  at->r->images + (size_t)at->slice.first * (size_t)p->plan.channels * (size_t)p->plan.pixels, y);
        break;
    case OX_CONV:
    case OX_DATA_GRAD: {
        int64_t start = ox_now();
        status = call(at, index, x, y, NULL);
        count(at, start);
        break;
    }
    case OX_WEIGHT_GRAD: {
        int64_t start = ox_now();
        status = weight_grad(at, index, op);
        count(at, start);
        break;
    }
    case OX_STATS:
        mk_bn_stats(type(at, in), rows(at, in), channels(at, in), x, at->begin, p->stats[op->norm[0] * p->plan.lanes + at->lane]);
        break;
    case OX_APPLY:
        mk_bn_apply(type(at, in), rows(at, in), channels(at, in), x, bn, address(at, op->in[1]), second, op->relu, y);
        break;
    case OX_SUMS:
        sums(at, op);
        break;
    case OX_GRAD_APPLY:
        grad_apply(at, op);
        break;
    case OX_MAXPOOL: {
        mk_pool g = pool(l);
        mk_maxpool(type(at, in), &g, n, x, bn, y, address(at, op->out[1]));
        break;
    }
    case OX_MAXPOOL_GRAD: {
        mk_pool g = pool(l);
        mk_maxpool_grad(type(at, in), &g, n, x, address(at, op->in[1]), y);
        break;
    }
    case OX_AVGPOOL:
        mk_avgpool(type(at, in), n, rows(at, in) / (size_t)n, channels(at, in), x, type(at, out), y);
        break;
    case OX_AVGPOOL_GRAD:
        mk_avgpool_grad(type(at, out), n, rows(at, out) / (size_t)n, channels(at, out), type(at, in), x, y);
        break;
    case OX_ADD:
        mk_add(type(at, out), values(at, out), x, address(at, op->in[1]), y);
        break;
    case OX_RELU:
        mk_relu(type(at, out), values(at, out), x, y);
        break;
    case OX_RELU_GRAD:
        mk_relu_grad(type(at, out), values(at, out), address(at, op->in[1]), x, y);
        break;
    case OX_BIAS:
        mk_bias(type(at, out), rows(at, out), channels(at, out), x, params + l->bias, 0, y);
        break;
    case OX_BIAS_GRAD:
        mk_bias_grad(type(at, in), rows(at, in), channels(at, in), x, at->begin, p->bias_sums[at->turn * p->plan.lanes + at->lane]);
        break;
    case OX_NORMALIZE:
        mk_l2norm(rows(at, in), channels(at, in), x, y, address(at, op->out[1]));
        break;
    case OX_NORMALIZE_GRAD:
        mk_l2norm_grad(rows(at, in), channels(at, in), address(at, op->in[1]), address(at, op->in[2]), x, y);
        break;
    case OX_GRADIENT:
        memcpy(y, at->r->gradient + (size_t)at->slice.first * channels(at, out), values(at, out) * sizeof(float));
        break;
    }
    return status;
}

// is_kernel says what count counts.
static int is_kernel(int kind) { return kind == OX_CONV || kind == OX_DATA_GRAD || kind == OX_WEIGHT_GRAD; }

// store sums a weight gradient over lanes, output channels [o0, o1).
static void store(const ox_program *p, int turn, int layer, int o0, int o1, float *dw) {
    const ox_layer *l = &p->plan.layer[layer];
    float **all = p->weight_sums + turn * p->plan.lanes;
    if (l->own) {
        mk_conv c = ox_conv(l, 1);
        const float *sums[p->live];
        for (int i = 0; i < p->live; i++) sums[i] = all[p->lane[i]];
        mk_wgrad_store(&c, o0, o1, p->live, sums, dw);
        return;
    }
    const ox_stored *s = &p->stored[layer];
    int taps = l->kernel * l->kernel;
    for (int o = o0; o < o1; o++)
        for (int i = 0; i < l->in; i++)
            for (int t = 0; t < taps; t++) {
                size_t at = (size_t)(s->fo[o] + s->fi[i] + s->ft[t]);
                float sum = 0;
                for (int k = 0; k < p->live; k++) sum += all[p->lane[k]][at];
                dw[((size_t)o * (size_t)l->in + (size_t)i) * (size_t)taps + (size_t)t] = sum;
            }
}

// fold completes a norm, or its gradients.
static void fold(const run *r, const ox_tail *t) {
    ox_program *p = r->p;
    const ox_plan *plan = &p->plan;
    const ox_norm *n = &plan->norm[t->index];
    const double *parts[p->live];
    size_t count[p->live], c = (size_t)n->channels;
    double **from = (t->kind == OX_FOLD ? p->stats : p->sums) + (size_t)t->index * (size_t)plan->lanes;
    for (int i = 0; i < p->live; i++) {
        parts[i] = from[p->lane[i]];
        count[i] = (size_t)(ox_to(plan, p->lane[i]) - ox_from(plan, p->lane[i])) * (size_t)n->pixels;
    }
    if (t->kind == OX_FOLD)
        mk_bn_fold(&p->bn[t->index], c, 0, c, p->live, parts, count, plan->epsilon, p->statistics + n->mean,
                   p->statistics + n->var);
    else
        mk_bn_grad_fold(&p->bn[t->index], c, 0, c, p->live, parts, (size_t)plan->batch * (size_t)n->pixels,
                        r->grads + n->gamma, r->grads + n->beta);
}

// What the last thread to end a phase does before any goes on: the folds,
// some microseconds.
typedef struct {
    const run *r;
    const ox_phase *phase;
} ending;

static void folds(void *arg) {
    const ending *e = arg;
    const ox_tail *tails = e->r->p->plan.tail + e->phase->tail;
    for (int t = 0; t < e->phase->tails; t++)
        if (tails[t].kind == OX_FOLD || tails[t].kind == OX_GRAD_FOLD) fold(e->r, &tails[t]);
}

// stores writes a thread's share of the gradients that a phase has completed.
static void stores(const run *r, const ox_phase *ph, int turn, int thread) {
    const ox_program *p = r->p;
    for (int i = 0; i < ph->tails; i++) {
        const ox_tail *t = &p->plan.tail[ph->tail + i];
        if (t->kind != OX_STORE_WEIGHTS && t->kind != OX_STORE_BIAS) continue;
        const ox_layer *l = &p->plan.layer[t->index];
        int c0, c1;
        ox_share(l->out, thread, p->e->threads, &c0, &c1);
        if (t->kind == OX_STORE_WEIGHTS) {
            if (c1 > c0) store(p, turn, t->index, c0, c1, r->grads + l->weight);
            continue;
        }
        for (int c = c0; c < c1; c++) {
            float sum = 0;
            for (int k = 0; k < p->live; k++) sum += p->bias_sums[turn * p->plan.lanes + p->lane[k]][c];
            r->grads[l->bias + c] = sum;
        }
    }
}

static void run_job(void *arg, int thread) {
    const run *r = arg;
    ox_program *p = r->p;
    const ox_plan *plan = &p->plan;
    if (plan->mode == OX_EVAL && r->from == 0) {
        const float *buffers = ox_state_vector(p->state, 3 + plan->encoder);
        for (int i = 0; thread == 0 && i < plan->norms; i++) {
            const ox_norm *n = &plan->norm[i];
            mk_bn_fold_eval(&p->bn[i], (size_t)n->channels, buffers + n->mean, buffers + n->var, plan->epsilon);
        }
        ox_team_barrier(p->e->team, NULL, NULL);
    }
    for (int i = r->from; i < r->to; i++) {
        const ox_phase *ph = &plan->phase[i];
        for (int lane = thread; lane < plan->lanes; lane += p->e->threads) {
            const int32_t *bounds = plan->lane_slice + ph->slice;
            for (int s = bounds[lane]; s < bounds[lane + 1]; s++) {
                place at = {r, thread, lane, i % 2, ph, plan->slice[s], s == bounds[lane]};
                for (int op = ph->op; op < ph->op + ph->ops; op++) {
                    if (p->kernels_only && !is_kernel(plan->op[op].kind)) continue;
                    int status = step(&at, op);
                    if (status && !__atomic_exchange_n(&p->status, status, __ATOMIC_RELAXED)) p->status_op = op;
                }
            }
        }
        ending e = {r, ph};
        ox_team_barrier(p->e->team, folds, &e);
        stores(r, ph, i % 2, thread);
    }
}

int ox_program_run(ox_program *p, ox_program *arena, int from, int to, const float *images, const float *gradient,
                   float *grads, char *err) {
    run r = {p, arena ? arena->arena : p->arena, from, to, images, gradient, grads};
    p->status = 0;
    ox_team_run(p->e->team, run_job, &r);
    if (p->status == 0) return 0;
    snprintf(err, OX_ERR, "oneDNN fails with status %d in a layer of %d channels", p->status,
             p->plan.layer[p->plan.op[p->status_op].layer].out);
    return -1;
}

void ox_program_kernels_only(ox_program *p, int on) { p->kernels_only = on; }
