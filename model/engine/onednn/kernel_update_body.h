// The optimiser's arithmetic and the working copies of weights at one level.

static void FN(update)(size_t n, const mk_sgd *s, const float *grad, float *velocity, float *query, float *key) {
    vec lr = V_SET(s->lr), momentum = V_SET(s->momentum), decay = V_SET(s->weight_decay);
    vec keep = V_SET(s->ema), blend = V_SET(1 - s->ema), rate = V_SET(s->rate);
    for (size_t i = 0; i < n; i += W) {
        vec q = V_LOAD(query + i);
        vec g = V_MUL(rate, V_ADD(V_LOAD(grad + i), V_MUL(decay, q)));
        vec v = V_ADD(V_MUL(momentum, V_LOAD(velocity + i)), g);
        q = V_SUB(q, V_MUL(lr, v));
        V_STORE(velocity + i, v);
        V_STORE(query + i, q);
        V_STORE(key + i, V_ADD(V_MUL(keep, V_LOAD(key + i)), V_MUL(blend, q)));
    }
}

static void FN(running)(size_t n, float keep, float blend, const float *statistic, float *running) {
    vec k = V_SET(keep), b = V_SET(blend);
    for (size_t i = 0; i < n; i += W)
        V_STORE(running + i, V_ADD(V_MUL(k, V_LOAD(running + i)), V_MUL(b, V_LOAD(statistic + i))));
}

#if MK_LEVEL == 0

static void FN(layout_copy)(const mk_layout *l, int o0, int o1, const float *w, void *dst) {
    for (int o = o0; o < o1; o++)
        for (int i = 0; i < l->in; i++)
            for (int t = 0; t < l->taps; t++) {
                size_t to = (size_t)l->fo[o] + l->fi[i] + l->ft[t];
                float v = w[((size_t)o * l->in + i) * l->taps + t];
                if (l->type == MK_BF16)
                    ((uint16_t *)dst)[to] = mk_to_bf16(v);
                else
                    ((float *)dst)[to] = l->type == MK_WIDE ? mk_from_bf16(mk_to_bf16(v)) : v;
            }
}

#elif MK_LEVEL >= 2

// put writes a (and, when pair, b interleaved) at dst + to.
INLINE void FN(put)(mk_type type, int pair, __m512 a, __m512 b, void *dst, size_t to) {
    if (type != MK_BF16) {
        _mm512_storeu_ps((float *)dst + to, type == MK_WIDE ? V_ROUNDH(a) : a);
        return;
    }
    uint16_t *d = (uint16_t *)dst + to;
    if (!pair) {
        V_STOREH(d, a);
        return;
    }
    __m512i low = _mm512_cvtepu16_epi32(FN(mk_to_bf16)(a)), high = _mm512_cvtepu16_epi32(FN(mk_to_bf16)(b));
    _mm512_storeu_si512(d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

// sixteen copies 16 output channels. Weights go through columns, where lanes
// are output channels: columns[i·taps + t].
INLINE void FN(sixteen)(const mk_layout *l, mk_lanes_of lanes, int o, const float *w, void *dst) {
    __m512 columns[COLUMNS], r[16];
    size_t row = (size_t)l->in * l->taps;
    int pair = lanes.step == 2, step = 1 + pair;
    w += o * row;
    if (lanes.axis == LANES_IN && l->taps == 1) {
        for (int j = 0; j < 16; j += step)
            for (int i = 0; i < l->in; i += 16)
                FN(put)(l->type, pair, _mm512_loadu_ps(w + j * row + i), _mm512_loadu_ps(w + (j + pair) * row + i), dst,
                        (size_t)l->fo[o + j] + l->fi[i] + l->ft[0]);
        return;
    }
    int chunk = COLUMNS / l->taps / 16 * 16;
    for (int i0 = 0; i0 < l->in; i0 += chunk) {
        int n = l->in - i0 < chunk ? l->in - i0 : chunk;
        for (int f = 0; f < n * l->taps; f += 16) {
#pragma GCC unroll 16
            for (int j = 0; j < 16; j++) r[j] = _mm512_loadu_ps(w + j * row + (size_t)i0 * l->taps + f);
            FN(transpose)(r);
#pragma GCC unroll 16
            for (int j = 0; j < 16; j++) columns[f + j] = r[j];
        }
        if (lanes.axis == LANES_OUT) {
            for (int i = 0; i < n; i += step)
                for (int t = 0; t < l->taps; t++)
                    FN(put)(l->type, pair, columns[i * l->taps + t], columns[(i + pair) * l->taps + t], dst,
                            (size_t)l->fo[o] + l->fi[i0 + i] + l->ft[t]);
            continue;
        }
        for (int i = 0; i < n; i += 16)
            for (int t = 0; t < l->taps; t++) {
#pragma GCC unroll 16
                for (int j = 0; j < 16; j++) r[j] = columns[(i + j) * l->taps + t];
                FN(transpose)(r);
#pragma GCC unroll 16
                for (int j = 0; j < 16; j++)
                    if (!pair || j % 2 == 0)
                        FN(put)(l->type, pair, r[j], r[j | pair], dst, (size_t)l->fo[o + j] + l->fi[i0 + i] + l->ft[t]);
            }
    }
}

static void FN(layout_copy)(const mk_layout *l, int o0, int o1, const float *w, void *dst) {
    mk_lanes_of lanes = lanes_of(l, o0);
    int o = o0;
    if (lanes.axis != LANES_NONE)
        for (; o + 16 <= o1; o += 16) FN(sixteen)(l, lanes, o, w, dst);
    layout_copy_plain(l, o, o1, w, dst);
}

#else

static void FN(layout_copy)(const mk_layout *l, int o0, int o1, const float *w, void *dst) {
    layout_copy_plain(l, o0, o1, w, dst);
}

#endif
