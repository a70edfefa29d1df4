//go:build onednn

#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- Plans ----

int ox_plan_new(ox_plan *p, char *err) {
#define NEW(field, n) (p->field = ox_new((size_t)(n), sizeof *p->field, "a schedule", err))
    return NEW(tensor, p->tensors) && NEW(op, p->ops) && NEW(layer, p->layers) && NEW(norm, p->norms) &&
                   NEW(tail, p->tails) && NEW(phase, p->phases) && NEW(slice, p->slices) &&
                   NEW(lane_slice, (size_t)p->phases * (size_t)(p->lanes + 1))
               ? 0
               : -1;
#undef NEW
}

void ox_plan_free(ox_plan *p) {
    free(p->tensor), free(p->op), free(p->layer), free(p->norm);
    free(p->tail), free(p->phase), free(p->slice), free(p->lane_slice);
}

// ---- Primitives ----

// weight_type is how the library wants a layer's weights.
static mk_type weight_type(const ox_program *p, const ox_layer *l) { return ox_wide(p, l) ? MK_WIDE : (mk_type)l->type; }

static ox_shape shape(const ox_program *p, const ox_phase *ph, const ox_op *op, int n) {
    const ox_layer *l = &p->plan.layer[op->layer];
    ox_direction d = op->kind == OX_CONV ? OX_FORWARD : op->kind == OX_DATA_GRAD ? OX_DATA : OX_WEIGHTS;
    ox_shape s = {d, ox_wide(p, l) ? MK_F32 : (mk_type)l->type, n, l->in, l->ih, l->iw, l->out, l->oh, l->ow, l->kernel, l->stride, l->pad};
    if (l->linear) {
        // The library is fast along a row of pixels, not along images of one.
        s.n = 1, s.iw = s.ow = n;
    } else if (ph->split > 1) {
        s.n = 1, s.ih = l->ih / ph->split, s.oh = l->oh / ph->split;
    }
    return s;
}

// bind finds or makes the primitive of an op for slices of n units. All
// primitives of a weight want it in one format.
static int bind(ox_program *p, const ox_phase *ph, int at, int n, char *err) {
    const ox_plan *plan = &p->plan;
    const ox_op *op = &plan->op[at];
    const ox_layer *l = &plan->layer[op->layer];
    ox_bound *b = &p->bound[at];
    for (int i = 0; i < b->variants; i++)
        if (b->variant[i].n == n) return 0;
    ox_shape s = shape(p, ph, op, n);
    const ox_format *want = NULL;
    if (op->kind == OX_WEIGHT_GRAD) {
        want = p->stored[op->layer].format;
    } else {
        ox_copy *c = ox_state_find(p->state, l->weight, plan->encoder, s.direction, weight_type(p, l));
        want = c ? c->format : NULL;
    }
    ox_prim *prim = want ? ox_prim_open(p->e->lib, &s, want, err) : NULL;
    if (want && op->kind != OX_WEIGHT_GRAD && (!prim || ox_prim_plain(prim))) {
        ox_prim_close(prim); // the format suits other shapes
        prim = NULL, want = NULL;
    }
    if (!prim && !want) prim = ox_prim_open(p->e->lib, &s, NULL, err);
    if (!prim) return -1;
    ox_variant *v = ox_grow(b->variant, (size_t)b->variants + 1, sizeof *v, "a primitive", err);
    if (v) b->variant = v;
    ox_call **call = v ? ox_new((size_t)p->e->threads, sizeof *call, "a primitive's calls", err) : NULL;
    if (!call) {
        ox_prim_close(prim);
        return -1;
    }
    v[b->variants++] = (ox_variant){n, prim, call};
    return 0;
}

// store remembers the format of a weight gradient.
static int store(ox_program *p, int layer, const ox_format *f, char *err) {
    const ox_layer *l = &p->plan.layer[layer];
    ox_stored *s = &p->stored[layer];
    if (s->format) return 0;
    static const char purpose[] = "the format of a weight gradient";
    s->bytes = ox_format_bytes(f);
    if (!(s->format = ox_format_copy(f, err)) || !(s->fo = ox_new((size_t)l->out, sizeof *s->fo, purpose, err)) ||
        !(s->fi = ox_new((size_t)l->in, sizeof *s->fi, purpose, err)) ||
        !(s->ft = ox_new((size_t)(l->kernel * l->kernel), sizeof *s->ft, purpose, err)))
        return -1;
    if (ox_format_tables(f, s->fo, s->fi, s->ft)) return 0;
    snprintf(err, OX_ERR, "oneDNN keeps a weight gradient in a format that this engine does not read");
    return -1;
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

// Sizes of a thread's and a lane's buffers.
typedef struct {
    size_t library, x, dy, wide[2], part, weights, bias;
} sizes;

static int phase_primitives(ox_program *p, const ox_phase *ph, sizes *z, char *err) {
    const ox_plan *plan = &p->plan;
    const int32_t *bounds = plan->lane_slice + ph->slice;
    for (int at = ph->op; at < ph->op + ph->ops; at++) {
        const ox_op *op = &plan->op[at];
        if (op->kind != OX_CONV && op->kind != OX_DATA_GRAD && op->kind != OX_WEIGHT_GRAD) {
            if (op->kind == OX_BIAS_GRAD) z->bias = most(z->bias, (size_t)plan->layer[op->layer].out * sizeof(float));
            continue;
        }
        const ox_layer *l = &plan->layer[op->layer];
        mk_conv c = ox_conv(l, ph->split);
        int own = op->kind == OX_WEIGHT_GRAD && l->own;
        for (int i = bounds[0]; i < bounds[plan->lanes]; i++) {
            int n = plan->slice[i].n;
            if (own) {
                z->x = most(z->x, mk_wgrad_x_bytes(&c, n));
                z->dy = most(z->dy, mk_wgrad_dy_bytes(&c, n));
                z->weights = most(z->weights, mk_wgrad_sum_bytes(&c));
                continue;
            }
            if (bind(p, ph, at, n, err)) return -1;
            if (ox_wide(p, l)) {
                z->wide[0] = most(z->wide[0], (size_t)n * l->in * c.ih * c.iw * sizeof(float));
                z->wide[1] = most(z->wide[1], (size_t)n * l->out * c.oh * c.ow * sizeof(float));
            }
            if (op->kind == OX_WEIGHT_GRAD) {
                if (store(p, op->layer, ox_prim_format(p->bound[at].variant[0].prim), err)) return -1;
                z->part = most(z->part, p->stored[op->layer].bytes);
                z->weights = most(z->weights, p->stored[op->layer].bytes);
            }
        }
        for (int i = 0; i < p->bound[at].variants; i++)
            z->library = most(z->library, ox_prim_scratch(p->bound[at].variant[i].prim));
    }
    return 0;
}

// calls binds every primitive to every thread's memory.
static int calls(ox_program *p, char *err) {
    const ox_plan *plan = &p->plan;
    for (int at = 0; at < plan->ops; at++) {
        const ox_op *op = &plan->op[at];
        for (int i = 0; i < p->bound[at].variants; i++) {
            ox_variant *v = &p->bound[at].variant[i];
            void *weight = NULL;
            if (op->kind != OX_WEIGHT_GRAD) {
                const ox_layer *l = &plan->layer[op->layer];
                ox_copy *c = ox_state_copy(p->state, l->weight, plan->encoder, op->kind == OX_CONV ? OX_FORWARD : OX_DATA,
                                           weight_type(p, l), l->out, l->in, l->kernel * l->kernel, ox_prim_format(v->prim), err);
                if (!c) return -1;
                weight = c->data;
            }
            for (int t = 0; t < p->e->threads; t++)
                if (!(v->call[t] = ox_call_open(p->e->lib, v->prim, weight, p->room[t].library, err))) return -1;
        }
    }
    return 0;
}

// ---- Programs ----

// norms lays out the vectors and partial sums of all BatchNorms.
static int norms(ox_program *p, char *err) {
    const ox_plan *plan = &p->plan;
    size_t channels = 0;
    for (int i = 0; i < plan->norms; i++) channels += (size_t)plan->norm[i].channels;
    size_t lanes = (size_t)plan->lanes;
    static const char purpose[] = "the vectors and sums of BatchNorms";
    if (!(p->bn = ox_new((size_t)plan->norms, sizeof *p->bn, purpose, err)) ||
        !(p->bn_values = ox_block(channels * 7 * sizeof(float), purpose, err)) ||
        !(p->partials = ox_block(channels * 5 * lanes * sizeof(double), purpose, err)) ||
        !(p->stats = ox_new((size_t)plan->norms * lanes, sizeof *p->stats, purpose, err)) ||
        !(p->sums = ox_new((size_t)plan->norms * lanes, sizeof *p->sums, purpose, err)))
        return -1;
    const float *params = ox_state_vector(p->state, plan->encoder);
    float *v = p->bn_values;
    double *d = p->partials;
    for (int i = 0; i < plan->norms; i++) {
        const ox_norm *n = &plan->norm[i];
        int c = n->channels;
        p->bn[i] = (mk_bn){params + n->gamma, params + n->beta, v, v + c, v + 2 * c, v + 3 * c, v + 4 * c, v + 5 * c, v + 6 * c};
        v += 7 * (size_t)c;
        for (size_t l = 0; l < lanes; l++) {
            p->stats[(size_t)i * lanes + l] = d, d += 3 * (size_t)c;
            p->sums[(size_t)i * lanes + l] = d, d += 2 * (size_t)c;
        }
    }
    return 0;
}

static int rooms(ox_program *p, const sizes *z, char *err) {
    const ox_plan *plan = &p->plan;
    static const char purpose[] = "the buffers of a thread", sums[] = "the sums of a weight gradient";
    if (!(p->room = ox_new((size_t)p->e->threads, sizeof *p->room, purpose, err))) return -1;
    for (int t = 0; t < p->e->threads; t++) {
        ox_room *r = &p->room[t];
        if (!(r->scratch = ox_block((size_t)plan->scratch, purpose, err)) || !(r->library = ox_block(z->library, purpose, err)) ||
            !(r->x_packed = ox_block(z->x, purpose, err)) || !(r->dy_packed = ox_block(z->dy, purpose, err)) ||
            !(r->wide[0] = ox_block(z->wide[0], purpose, err)) || !(r->wide[1] = ox_block(z->wide[1], purpose, err)) ||
            !(r->part = ox_block(z->part, purpose, err)))
            return -1;
    }
    size_t turns = 2 * (size_t)plan->lanes;
    if (!(p->weight_sums = ox_new(turns, sizeof *p->weight_sums, sums, err)) ||
        !(p->bias_sums = ox_new(turns, sizeof *p->bias_sums, sums, err)))
        return -1;
    for (size_t l = 0; l < turns; l++)
        if (!(p->weight_sums[l] = ox_block(z->weights, sums, err)) || !(p->bias_sums[l] = ox_block(z->bias, sums, err))) return -1;
    return 0;
}

typedef struct {
    ox_program *p;
    char *err;
    int status;
} opening;

static void open_job(void *arg, int thread) {
    opening *o = arg;
    if (thread != 0) return; // a team's thread, for the primitives are made for its one thread
    ox_program *p = o->p;
    const ox_plan *plan = &p->plan;
    sizes z = {0};
    for (int i = 0; i < plan->phases; i++)
        if ((o->status = phase_primitives(p, &plan->phase[i], &z, o->err))) return;
    o->status = -1;
    if (!(p->arena = ox_pages((size_t)plan->arena, "the tensors of a program", o->err)) ||
        !(p->kept = ox_block((size_t)plan->kept, "what a program keeps", o->err)) ||
        !(p->statistics = ox_block((size_t)plan->buffers * sizeof(float), "the statistics of a program", o->err)) ||
        norms(p, o->err) || rooms(p, &z, o->err))
        return;
    o->status = calls(p, o->err);
}

ox_program *ox_program_open(ox_state *s, const ox_plan *plan, char *err) {
    ox_program *p = ox_new(1, sizeof *p, "a program", err);
    if (!p) {
        ox_plan own = *plan;
        ox_plan_free(&own);
        return NULL;
    }
    p->plan = *plan, p->state = s, p->e = ox_state_engine(s);
    opening o = {p, err, -1};
    if ((p->bound = ox_new((size_t)plan->ops, sizeof *p->bound, "a program's primitives", err)) &&
        (p->stored = ox_new((size_t)plan->layers, sizeof *p->stored, "a program's weight gradients", err)) &&
        (p->lane = ox_new((size_t)plan->lanes, sizeof *p->lane, "a program's lanes", err))) {
        for (int l = 0; l < plan->lanes; l++)
            if (ox_to(plan, l) > ox_from(plan, l)) p->lane[p->live++] = l;
        ox_team_run(p->e->team, open_job, &o);
    }
    if (o.status == 0) return p;
    ox_program_close(p);
    return NULL;
}

void ox_program_close(ox_program *p) {
    ox_plan *plan = &p->plan;
    for (int i = 0; p->bound && i < plan->ops; i++) {
        for (int v = 0; v < p->bound[i].variants; v++) {
            ox_variant *x = &p->bound[i].variant[v];
            for (int t = 0; t < p->e->threads; t++) ox_call_close(x->call[t]);
            free(x->call);
            ox_prim_close(x->prim);
        }
        free(p->bound[i].variant);
    }
    for (int i = 0; p->stored && i < plan->layers; i++) {
        ox_stored *s = &p->stored[i];
        ox_format_close(s->format);
        free(s->fo), free(s->fi), free(s->ft);
    }
    for (int t = 0; p->room && t < p->e->threads; t++) {
        ox_room *r = &p->room[t];
        free(r->scratch), free(r->library), free(r->x_packed), free(r->dy_packed), free(r->wide[0]), free(r->wide[1]), free(r->part);
    }
    for (int l = 0; p->weight_sums && p->bias_sums && l < 2 * plan->lanes; l++) free(p->weight_sums[l]), free(p->bias_sums[l]);
    free(p->weight_sums), free(p->bias_sums), free(p->room), free(p->bound), free(p->stored), free(p->lane);
    free(p->bn), free(p->bn_values), free(p->partials), free(p->stats), free(p->sums);
    free(p->kept), free(p->statistics);
    ox_pages_free(p->arena, (size_t)plan->arena);
    ox_plan_free(plan);
    free(p);
}

const float *ox_program_kept(const ox_program *p, int tensor) {
    return (const float *)(p->kept + p->plan.tensor[tensor].offset);
}

const float *ox_program_statistics(const ox_program *p) { return p->statistics; }
