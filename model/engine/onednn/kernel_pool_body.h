// Max-pooling of the channels c0..c1 at one level: plain C or AVX-512.

#if MK_LEVEL != 1

INLINE vec FN(pixel)(int type, const void *x, const mk_bn *bn, size_t at, size_t c) {
    vec v = type == MK_BF16 ? V_LOADH((const uint16_t *)x + at + c) : V_LOAD((const float *)x + at + c);
    if (!bn) return v;
    v = V_RELU(V_FMA(v, V_LOAD(bn->scale + c), V_LOAD(bn->shift + c)));
    return type == MK_BF16 ? V_ROUNDH(v) : v;
}

// window is one output pixel: the maximum over the taps [y0,y1)×[x0,x1) of the
// window whose corner, maybe in the padding, is (top, left).
INLINE void FN(window)(int type, const mk_pool *p, size_t c0, size_t c1, const void *x, const mk_bn *bn, size_t image,
                       int top, int left, size_t to, void *y, uint8_t *arg) {
    int y0 = top < 0 ? 0 : top, y1 = top + p->kernel < p->ih ? top + p->kernel : p->ih;
    int x0 = left < 0 ? 0 : left, x1 = left + p->kernel < p->iw ? left + p->kernel : p->iw;
    for (size_t c = c0; c < c1; c += W) {
        vec best = V_SET(-__builtin_inff());
#if MK_LEVEL == 0
        int tap_of_best = (y0 - top) * p->kernel + x0 - left;
#else
        __m512i tap_of_best = _mm512_set1_epi32((y0 - top) * p->kernel + x0 - left);
#endif
        for (int r = y0; r < y1; r++)
            for (int s = x0; s < x1; s++) {
                vec v = FN(pixel)(type, x, bn, image + ((size_t)r * p->iw + s) * p->channels, c);
                int tap = (r - top) * p->kernel + s - left;
#if MK_LEVEL == 0
                if (v > best || (v != v && best == best)) {
                    best = v;
                    tap_of_best = tap;
                }
#else
                // not (v ≤ best) is greater or NaN; a NaN once found stays.
                __mmask16 m = _mm512_cmp_ps_mask(v, best, _CMP_NLE_UQ);
                m = _mm512_mask_cmp_ps_mask(m, best, best, _CMP_ORD_Q);
                best = _mm512_mask_mov_ps(best, m, v);
                tap_of_best = _mm512_mask_mov_epi32(tap_of_best, m, _mm512_set1_epi32(tap));
#endif
            }
        if (type == MK_BF16)
            V_STOREH((uint16_t *)y + to + c, best);
        else
            V_STORE((float *)y + to + c, best);
        if (!arg) continue;
#if MK_LEVEL == 0
        arg[to + c] = (uint8_t)tap_of_best;
#else
        _mm_storeu_si128((void *)(arg + to + c), _mm512_cvtepi32_epi8(tap_of_best));
#endif
    }
}

INLINE void FN(forward_of)(int type, const mk_pool *p, int images, size_t c0, size_t c1, const void *x, const mk_bn *bn,
                           void *y, uint8_t *arg) {
    for (int n = 0; n < images; n++)
        for (int r = 0; r < p->oh; r++)
            for (int s = 0; s < p->ow; s++)
                FN(window)(type, p, c0, c1, x, bn, (size_t)n * p->ih * p->iw * p->channels, r * p->stride - p->pad,
                           s * p->stride - p->pad, (((size_t)n * p->oh + r) * p->ow + s) * p->channels, y, arg);
}

static void FN(maxpool)(mk_type type, const mk_pool *p, int images, size_t c0, size_t c1, const void *x,
                        const mk_bn *bn, void *y, uint8_t *arg) {
    if (type == MK_BF16)
        FN(forward_of)(MK_BF16, p, images, c0, c1, x, bn, y, arg);
    else
        FN(forward_of)(MK_F32, p, images, c0, c1, x, bn, y, arg);
}

// Every input pixel gathers from the windows that cover it, so that its sum is
// rounded once.
INLINE void FN(gather)(int type, const mk_pool *p, size_t c0, size_t c1, size_t image, int r, int s, const void *dy,
                       const uint8_t *arg, void *dx, size_t to) {
    int r1 = (r + p->pad) / p->stride, s1 = (s + p->pad) / p->stride;
    int r0 = r + p->pad - p->kernel + 1, s0 = s + p->pad - p->kernel + 1;
    r0 = r0 <= 0 ? 0 : (r0 + p->stride - 1) / p->stride;
    s0 = s0 <= 0 ? 0 : (s0 + p->stride - 1) / p->stride;
    if (r1 >= p->oh) r1 = p->oh - 1;
    if (s1 >= p->ow) s1 = p->ow - 1;
    for (size_t c = c0; c < c1; c += W) {
        vec sum = V_SET(0);
        for (int a = r0; a <= r1; a++)
            for (int b = s0; b <= s1; b++) {
                int tap = (r - a * p->stride + p->pad) * p->kernel + s - b * p->stride + p->pad;
                size_t at = image + ((size_t)a * p->ow + b) * p->channels + c;
                vec g = type == MK_BF16 ? V_LOADH((const uint16_t *)dy + at) : V_LOAD((const float *)dy + at);
#if MK_LEVEL == 0
                if (arg[at] == tap) sum += g;
#else
                __mmask16 m = _mm_cmpeq_epi8_mask(_mm_loadu_si128((const void *)(arg + at)), _mm_set1_epi8((char)tap));
                sum = _mm512_mask_add_ps(sum, m, sum, g);
#endif
            }
        if (type == MK_BF16)
            V_STOREH((uint16_t *)dx + to + c, sum);
        else
            V_STORE((float *)dx + to + c, sum);
    }
}

INLINE void FN(backward_of)(int type, const mk_pool *p, int images, size_t c0, size_t c1, const void *dy,
                            const uint8_t *arg, void *dx) {
    for (int n = 0; n < images; n++)
        for (int r = 0; r < p->ih; r++)
            for (int s = 0; s < p->iw; s++)
                FN(gather)(type, p, c0, c1, (size_t)n * p->oh * p->ow * p->channels, r, s, dy, arg, dx,
                           (((size_t)n * p->ih + r) * p->iw + s) * p->channels);
}

static void FN(maxpool_grad)(mk_type type, const mk_pool *p, int images, size_t c0, size_t c1, const void *dy,
                             const uint8_t *arg, void *dx) {
    if (type == MK_BF16)
        FN(backward_of)(MK_BF16, p, images, c0, c1, dy, arg, dx);
    else
        FN(backward_of)(MK_F32, p, images, c0, c1, dy, arg, dx);
}

#endif
