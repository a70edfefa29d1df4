// The optimiser on flat vectors, and working copies of weights.

// Every operation is rounded on its own (the intrinsics are never fused), in
// the order that engine.Update gives, so that all engines agree to the bit.
__device__ inline void update_four(int left, bool whole, float rate, float lr, float momentum, float decay, float ema,
                                   const float *grad, float *velocity, float *query, float *key) {
    const float blend = __fsub_rn(1, ema);
    float g[4], v[4], q[4], k[4];
    load(grad, left, whole, g);
    load(velocity, left, whole, v);
    load(query, left, whole, q);
    load(key, left, whole, k);
    for (int i = 0; i < 4; i++) {
        g[i] = __fmul_rn(rate, __fadd_rn(g[i], __fmul_rn(decay, q[i])));
        v[i] = __fadd_rn(__fmul_rn(momentum, v[i]), g[i]);
        q[i] = __fsub_rn(q[i], __fmul_rn(lr, v[i]));
        k[i] = __fadd_rn(__fmul_rn(ema, k[i]), __fmul_rn(blend, q[i]));
    }
    store(velocity, left, whole, v);
    store(query, left, whole, q);
    store(key, left, whole, k);
}

KERNEL update(long long n, float lr, float momentum, float decay, float ema, const float *grad, float *velocity,
              float *query, float *key) {
    VECTORS(4, n) update_four((int)left, WHOLE(4), 1, lr, momentum, decay, ema, grad + at, velocity + at, query + at, key + at);
}

KERNEL running(long long n, float keep, float blend, const float *statistic, float *running) {
    FLAT(i, n) running[i] = __fadd_rn(__fmul_rn(keep, running[i]), __fmul_rn(blend, statistic[i]));
}

// ---- LARS: sums in the order of optim.Lanes ----

// piece is kernel.Piece, tensor kernel.Tensor.
struct piece {
    long long from;
    int values, tensor;
};
struct tensor {
    int first, pieces; // of the pieces; none: a vector
};

// fold_lanes adds up the block's 256 lanes, lane l + n/2 to lane l, and leaves
// the sums in shared memory, the second behind the first 256.
__device__ inline double *fold_lanes(double w, double u) {
    double *lanes = SHARED(double);
    const int l = threadIdx.x;
    lanes[l] = w, lanes[256 + l] = u;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (l >= half) continue;
        lanes[l] = __dadd_rn(lanes[l], lanes[l + half]);
        lanes[256 + l] = __dadd_rn(lanes[256 + l], lanes[256 + l + half]);
    }
    return lanes;
}

// A thread's own values are every 256th of the piece; squares are exact.
KERNEL lars_norms(const piece *pieces, const tensor *tensors, float decay, const float *query, const float *grad, double *sums) {
    const piece p = pieces[blockIdx.x];
    if (!tensors[p.tensor].pieces) return;
    double w = 0, u = 0;
    for (int i = threadIdx.x; i < p.values; i += 256) {
        const float x = query[p.from + i], y = __fadd_rn(grad[p.from + i], __fmul_rn(decay, x));
        w = __dadd_rn(w, __dmul_rn(x, x));
        u = __dadd_rn(u, __dmul_rn(y, y));
    }
    const double *sum = fold_lanes(w, u);
    if (threadIdx.x) return;
    sums[2 * blockIdx.x] = sum[0];
    sums[2 * blockIdx.x + 1] = sum[256];
}

KERNEL lars_rates(const tensor *tensors, const double *sums, float trust, float *rates) {
    const tensor t = tensors[blockIdx.x];
    double w = 0, u = 0;
    for (int i = threadIdx.x; i < t.pieces; i += 256) {
        w = __dadd_rn(w, sums[2 * (t.first + i)]);
        u = __dadd_rn(u, sums[2 * (t.first + i) + 1]);
    }
    const double *sum = fold_lanes(w, u);
    if (threadIdx.x) return;
    w = sum[0], u = sum[256];
    rates[blockIdx.x] = w > 0 && u > 0 ? (float)((double)trust * sqrt(w) / sqrt(u)) : 1; // none of it is ever fused
}

KERNEL lars_update(const piece *pieces, const tensor *tensors, const float *rates, float lr, float momentum, float decay, float ema,
                   const float *grad, float *velocity, float *query, float *key) {
    const piece p = pieces[blockIdx.x];
    const float rate = rates[p.tensor];
    if (!tensors[p.tensor].pieces) decay = 0;
    for (int i = 4 * threadIdx.x; i < p.values; i += 4 * 256) {
        const long long at = p.from + i;
        update_four(p.values - i, p.from % 4 == 0 && i + 4 <= p.values, rate, lr, momentum, decay, ema, grad + at, velocity + at,
                    query + at, key + at);
    }
}

// ---- Working copies ----

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
