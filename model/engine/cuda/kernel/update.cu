// The optimiser on flat vectors, and working copies of weights.

// Every operation is rounded on its own (the intrinsics are never fused), in
// the order that engine.Update gives, so that all engines agree to the bit.
KERNEL update(long long n, float lr, float momentum, float decay, float ema, const float *grad, float *velocity,
              float *query, float *key) {
    const float blend = __fsub_rn(1, ema);
    VECTORS(4, n) {
        float g[4], v[4], q[4], k[4];
        load(grad + at, (int)left, WHOLE(4), g);
        load(velocity + at, (int)left, WHOLE(4), v);
        load(query + at, (int)left, WHOLE(4), q);
        load(key + at, (int)left, WHOLE(4), k);
        for (int i = 0; i < 4; i++) {
            g[i] = __fadd_rn(g[i], __fmul_rn(decay, q[i]));
            v[i] = __fadd_rn(__fmul_rn(momentum, v[i]), g[i]);
            q[i] = __fsub_rn(q[i], __fmul_rn(lr, v[i]));
            k[i] = __fadd_rn(__fmul_rn(ema, k[i]), __fmul_rn(blend, q[i]));
        }
        store(velocity + at, (int)left, WHOLE(4), v);
        store(query + at, (int)left, WHOLE(4), q);
        store(key + at, (int)left, WHOLE(4), k);
    }
}

KERNEL running(long long n, float keep, float blend, const float *statistic, float *running) {
    FLAT(i, n) running[i] = __fadd_rn(__fmul_rn(keep, running[i]), __fmul_rn(blend, statistic[i]));
}

// weight is kernel.Weight.
struct weight {
    long long from, to;
    int out, in, taps, padded;
};

template <typename T> __device__ void weights_of(const weight *table, const float *masters, T *copies) {
    const weight w = table[blockIdx.y];
    FLAT(i, (long long)w.out * w.taps * w.padded) {
        const int c = (int)(i % w.padded);
        const long long rest = i / w.padded, tap = rest % w.taps, o = rest / w.taps;
        narrow(copies + w.to + i, c < w.in ? masters[w.from + (o * w.in + c) * w.taps + tap] : 0);
    }
}

#define P(T) (const weight *table, const float *masters, T *copies)
BOTH_TYPES(weights, P, (table, masters, copies))
#undef P

template <typename T>
__device__ void weights_grad_of(int out, int in, int taps, int padded, const T *dw, float *grad) {
    FLAT(i, (long long)out * in * taps) {
        const int tap = (int)(i % taps);
        const long long rest = i / taps, c = rest % in, o = rest / in;
        grad[i] = widen(dw[(o * taps + tap) * padded + c]);
    }
}

#define P(T) (int out, int in, int taps, int padded, const T *dw, float *grad)
BOTH_TYPES(weights_grad, P, (out, in, taps, padded, dw, grad))
#undef P
