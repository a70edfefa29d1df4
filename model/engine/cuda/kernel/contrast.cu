// The loss (packages loss and engine, contrast.go): parts of shards of the
// queue, for all queries of a batch.
//
// The shards that this device holds lie one after the other, by number, each in
// pitch columns whatever its rows are: keys [held·pitch][dim], zeros behind a
// shard's rows. Columns rise with the numbers by which package nearest breaks
// ties. Of a run of shards cuBLAS makes similarities, sims
// [shards][lines][pitch], lines ≥ queries; contrast_select keeps the hardest,
// contrast_scan turns sims into exponentials and scalars, cuBLAS writes Σ e·n
// into the parts, part [shards][stride][dim+9], stride ≥ queries. When all
// shards are through: contrast_list, contrast_thin, contrast_draw,
// contrast_points, contrast_mix, contrast_gather.
//
// Sums of synthetic points are collected with integer atomics in fixed point,
// so that their order does not show.
//
// The slow twin, to read first, is plainLoss in model/loss/plain_test.go: one
// query at a time in float64, every synthetic point built.

// Scalars of a part, as engine.Part….
enum {
    PART_TOP,
    PART_SUM,
    PART_QUERY,
    PART_REAL,
    PART_POINT,
    PART_SIM,
    PART_ROWS,
    PART_HARD,
    PART_HARD_SIM,
    PART_SCALARS,
};
#define NO_SIMILARITY (-3e38f)
#define NOBODY 0xffffffffu

// ordered maps similarities to numbers that fall as similarity rises: the
// upper half of a nearest.Key.
__device__ inline u32 ordered(float c) {
    const u32 bits = __float_as_uint(c + 0.0f); // −0 counts as 0
    return ~(bits >> 31 ? ~bits : bits | 0x80000000u);
}

__device__ inline float similarity(u32 ordered) {
    const u32 bits = ~ordered;
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

// dropped says whether the class oracle leaves a key out.
__device__ inline bool dropped(const int *labels, const int *classes, int column, int q) {
    return labels && labels[column] >= 0 && labels[column] == classes[q];
}

// below is the number of the sorted values a[0…n) that are less than x.
template <typename T> __device__ inline int below(const T *a, int n, T x) {
    int lo = 0;
    while (n > lo) {
        const int mid = (lo + n) / 2;
        if (a[mid] < x)
            lo = mid + 1;
        else
            n = mid;
    }
    return lo;
}

// place is where the similarity of a column of the run is, for a query.
__device__ inline long long place(int column, int pitch, int lines, int q) {
    return ((long long)(column / pitch) * lines + q) * pitch + column % pitch;
}

// holder is the shard that value x is in, where shard s begins at starts[s].
__device__ inline int holder(const int *starts, int shards, int x) { return below(starts, shards + 1, x + 1) - 1; }

// pick finds the bin of a histogram in which the rank-th value (from 1) lies,
// and lowers rank by the values before; false when there are fewer. note is 16
// values of shared memory. All 256 threads must call it.
__device__ inline bool pick(const u32 *bins, u32 *note, u32 *rank, u32 *bin) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 own = 0;
    for (int i = 0; i < 8; i++) own += bins[threadIdx.x * 8 + i];
    u32 upto = own;
    for (int by = 1; by < 32; by *= 2) {
        const u32 left = __shfl_up_sync(NOBODY, upto, by);
        if (lane >= by) upto += left;
    }
    if (lane == 31) note[warp] = upto;
    if (threadIdx.x == 0) note[8] = NOBODY;
    __syncthreads();
    for (int w = 0; w < warp; w++) upto += note[w];
    u32 before = upto - own;
    if (before < *rank && *rank <= upto) {
        int i = 0;
        while (before + bins[threadIdx.x * 8 + i] < *rank) before += bins[threadIdx.x * 8 + i++];
        note[8] = threadIdx.x * 8 + i;
        note[9] = before;
    }
    __syncthreads();
    *bin = note[8];
    const bool there = *bin != NOBODY;
    if (there) *rank -= note[9];
    __syncthreads();
    return there;
}

// One block a query. The limit is found digit by digit of its 32 bits, by
// counting; equals to it are taken in the order of columns.
KERNEL contrast_select(const float *sims, int shards, int pitch, int lines, int first, const int *rows,
                       const int *labels, const int *classes, int keep, const u64 *kept, const int *kept_counts,
                       u64 *found, int *counts) {
    const int q = blockIdx.x, have = kept ? kept_counts[q] : 0, all = have + shards * pitch;
    const u64 *old = kept + (long long)q * keep;
    u32 *bins = SHARED(u32), *note = bins + 2048;
    // candidate i: those kept, then the run's; NOBODY is none.
    auto candidate = [&](int i) -> u32 {
        if (i < have) return (u32)(old[i] >> 32);
        const int column = i - have;
        if (column % pitch >= rows[column / pitch]) return NOBODY;
        const float c = sims[place(column, pitch, lines, q)];
        return c > NO_SIMILARITY && !dropped(labels, classes, first + column, q) ? ordered(c) : NOBODY;
    };

    u32 limit = 0, known = 0, rank = keep;
    for (int pass = 0; pass < 3; pass++) {
        const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
        for (int i = threadIdx.x; i < 2048; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < all; i += blockDim.x) {
            const u32 v = candidate(i);
            if (v != NOBODY && (v & known) == limit) atomicAdd(&bins[v >> shift & (pass < 2 ? 2047 : 1023)], 1u);
        }
        __syncthreads();
        u32 bin;
        if (!pick(bins, note, &rank, &bin)) { // fewer than keep
            limit = NOBODY;
            break;
        }
        limit |= bin << shift;
        known |= (pass < 2 ? 2047u : 1023u) << shift;
    }

    const u32 ties = rank; // so many of those equal to limit
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 less = 0, equal = 0; // seen in front of this round
    u64 *to = found + (long long)q * keep;
    for (int at = 0; at < all; at += blockDim.x) {
        const int i = at + threadIdx.x;
        const u32 v = i < all ? candidate(i) : NOBODY;
        const bool is_less = v < limit, is_equal = v == limit && v != NOBODY;
        const u32 vote_less = __ballot_sync(NOBODY, is_less), vote_equal = __ballot_sync(NOBODY, is_equal);
        if (lane == 0) {
            note[warp] = __popc(vote_less);
            note[8 + warp] = __popc(vote_equal);
        }
        __syncthreads();
        u32 l = less + __popc(vote_less & ((1u << lane) - 1)), e = equal + __popc(vote_equal & ((1u << lane) - 1));
        for (int w = 0; w < 8; w++) {
            if (w < warp) l += note[w], e += note[8 + w];
            less += note[w], equal += note[8 + w];
        }
        if (is_less || (is_equal && e < ties))
            to[l + (e < ties ? e : ties)] = i < have ? old[i] : (u64)v << 32 | (u32)(first + i - have);
        __syncthreads();
    }
    if (threadIdx.x == 0) counts[q] = less + (equal < ties ? equal : ties);
}

// One value for all threads of a block of eight warps; all must call.
__device__ inline double block_sum(double v) {
    double *sums = SHARED(double);
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int w = 0; w < 8; w++) v += sums[w];
    __syncthreads();
    return v;
}

__device__ inline float block_max(float v) {
    float *most = SHARED(float);
    for (int by = 16; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(NOBODY, v, by));
    if (threadIdx.x % 32 == 0) most[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < 8; w++) v = fmaxf(v, most[w]);
    __syncthreads();
    return v;
}

// One block a shard (x) and query (y).
KERNEL contrast_scan(float *sims, int pitch, int lines, int first, const int *rows, const int *labels,
                     const int *classes, float per_two, int dim, int stride, float *part) {
    const int q = blockIdx.y, n = rows[blockIdx.x], column = first + blockIdx.x * pitch;
    float *own = sims + ((long long)blockIdx.x * lines + q) * pitch;
    float top = NO_SIMILARITY, sim = 0;
    int counted = 0;
    for (int c = threadIdx.x; c < n; c += blockDim.x) {
        if (dropped(labels, classes, column + c, q)) continue;
        const float s = own[c];
        top = fmaxf(top, s);
        sim += s;
        counted++;
    }
    top = block_max(top);
    const double all_sims = block_sum(sim), all_counted = block_sum(counted);
    float z = 0;
    for (int c = threadIdx.x; c < n; c += blockDim.x) {
        float e = 0;
        if (!dropped(labels, classes, column + c, q)) e = exp2f((own[c] - top) * per_two);
        z += e;
        own[c] = e;
    }
    const double all_z = block_sum(z);
    if (threadIdx.x != 0) return;
    float *scalar = part + ((long long)blockIdx.x * stride + q) * (dim + PART_SCALARS) + dim;
    scalar[PART_TOP] = scalar[PART_REAL] = top;
    scalar[PART_SUM] = (float)all_z;
    scalar[PART_QUERY] = scalar[PART_HARD] = scalar[PART_HARD_SIM] = 0;
    scalar[PART_POINT] = NO_SIMILARITY;
    scalar[PART_SIM] = (float)all_sims;
    scalar[PART_ROWS] = (float)all_counted;
}

// found is sorted by column, so a shard's candidates lie together.
KERNEL contrast_list(const u64 *found, const int *counts, int keep, int pitch, int shards, float *values, int *columns,
                     int *shard_counts) {
    const int q = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x, n = counts[q];
    const u64 *list = found + (long long)q * keep;
    auto first_from = [&](int column) { // the first of the list in this column or behind
        int lo = 0, hi = n;
        while (hi > lo) {
            const int mid = (lo + hi) / 2;
            if ((int)(u32)list[mid] < column)
                lo = mid + 1;
            else
                hi = mid;
        }
        return lo;
    };
    if (i < shards) shard_counts[(long long)q * shards + i] = first_from((i + 1) * pitch) - first_from(i * pitch);
    if (i >= n) return;
    values[(long long)q * keep + i] = similarity((u32)(list[i] >> 32));
    columns[(long long)q * keep + i] = (int)(u32)list[i];
}

// One warp a shard held (x) and query (y). Of the hard negatives that were
// found in a shard, those that are among the hardest of all shards move to the
// front, in their order.
KERNEL contrast_thin(int keep, int all_shards, const int *first, const int *local, int shards, const int *numbers,
                     const int *shard_counts, float *values, int *columns) {
    const int s = blockIdx.x * blockDim.y + threadIdx.y, q = blockIdx.y, lane = threadIdx.x;
    if (s >= shards) return; // a warp leaves as a whole
    const long long row = (long long)q * (all_shards + 1) + numbers[s], at = (long long)q * keep + local[row];
    const int n = first[row + 1] - first[row], have = shard_counts[(long long)q * shards + s];
    if (n == have || n == 0) return;
    float *value = values + at;
    int *column = columns + at;
    auto key = [&](int k) { return (u64)ordered(value[k]) << 32 | (u32)column[k]; };
    u32 high = 0, low = 0; // the least similar that stays: the n-th
    for (int k = lane; k < have; k += 32) {
        const u64 own = key(k);
        int rank = 0;
        for (int other = 0; other < have; other++) rank += key(other) < own;
        if (rank == n - 1) high = (u32)(own >> 32), low = (u32)own;
    }
    for (int by = 16; by > 0; by /= 2) { // all others have zero
        high |= __shfl_xor_sync(NOBODY, high, by);
        low |= __shfl_xor_sync(NOBODY, low, by);
    }
    const u64 last = (u64)high << 32 | low;
    int to = 0;
    for (int from = 0; from < have; from += 32) {
        const int k = from + lane;
        const float v = k < have ? value[k] : 0;
        const int c = k < have ? column[k] : 0;
        const bool stays = k < have && key(k) <= last;
        const u32 vote = __ballot_sync(NOBODY, stays);
        if (stays) { // in front of what any lane has still to read
            const int place = to + __popc(vote & ((1u << lane) - 1));
            value[place] = v;
            column[place] = c;
        }
        to += __popc(vote);
    }
}

// mix64 is the output function of splitmix64 (Steele et al. 2014), as in
// package loss.
__device__ inline u64 mix64(u64 x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

__device__ inline u64 draw(u64 drawer, int kind, int t) { return mix64(drawer ^ (u64)t << 8 ^ (u64)kind << 4); }

// below takes a rank of n from a draw and leaves the rest of it.
__device__ inline int below(u64 *draw, int n) {
    const int rank = (int)__umul64hi(*draw, (u64)n);
    *draw *= (u64)n;
    return rank;
}

__device__ inline float unit(u64 u) { return ((float)(u >> 41) + 0.5f) / (1 << 23); }

// Draws of query y: its pairs, then its points with the query. Where pairs are
// of any two, pairable is null, and all points are the first shard's.
KERNEL contrast_draw(int pairs, int points, const u64 *drawers, int shards, const int *first, const int *local,
                     const int *pairable, const int *held, int *shard, int *i, int *j, float *weight) {
    const int q = blockIdx.y, t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= pairs + points) return;
    const long long at = (long long)q * (pairs + points) + t, row = (long long)q * (shards + 1);
    const bool pair = t < pairs;
    const int kind = pair ? 1 : 2, number = pair ? t : t - pairs;
    const int *starts = pair && pairable ? pairable : first;
    const int n = starts[row + shards];
    shard[at] = -1;
    if (n == 0) return;
    u64 rest = draw(drawers[q], kind, number);
    int r = below(&rest, n);
    if (!pairable) { // all shards are here: a rank is a place in the list
        shard[at] = 0;
        i[at] = pair ? r : -1;
        j[at] = pair ? below(&rest, n) : r;
    } else {
        const int v = holder(starts + row, shards, r);
        if (held[v] < 0) return;
        const int base = local[row + v];
        r -= starts[row + v];
        shard[at] = held[v];
        i[at] = pair ? base + r : -1;
        if (pair) { // another one
            const int other = below(&rest, first[row + v + 1] - first[row + v] - 1);
            r = other < r ? other : other + 1;
        }
        j[at] = base + r;
    }
    weight[at] = pair ? unit(rest) : unit(rest) / 2;
}

// engine.Cancels and engine.MinNorm.
#define CANCELS 0.25
#define MIN_NORM 1e-3

// One warp a point: (a·x + (1−a)·y)/ρ from c_x, c_y and x·y, x a key or the
// query itself.
template <typename T>
__device__ void contrast_points_of(int points, const float *queries, const T *keys, int dim, int keep,
                                   const float *values, const int *columns, const int *shard, const int *i,
                                   const int *j, const float *weight, float *sim, float *wi, float *wj) {
    const int t = blockIdx.x * blockDim.y + threadIdx.y, q = blockIdx.y;
    if (t >= points) return; // a warp leaves as a whole
    const long long at = (long long)q * points + t, list = (long long)q * keep;
    if (shard[at] < 0) return;
    const float *query = queries + (long long)q * dim;
    const bool pair = i[at] >= 0;
    const T *x = pair ? keys + (long long)columns[list + i[at]] * dim : keys;
    const T *y = keys + (long long)columns[list + j[at]] * dim;
    const double a = weight[at], b = 1 - a, cy = values[list + j[at]], cx = pair ? values[list + i[at]] : 1;
    double xy = cy;
    if (pair) {
        float dot = 0;
        for (int c = threadIdx.x; c < dim; c += 32) dot = fmaf(widen(x[c]), widen(y[c]), dot);
        xy = warp_sum(dot);
    }
    double rho2 = a * a + b * b + 2 * a * b * xy, s = a * cx + b * cy;
    if (rho2 < CANCELS) { // rounding has eaten its digits
        double squares = 0, along = 0;
        for (int c = threadIdx.x; c < dim; c += 32) {
            const double h = a * (pair ? widen(x[c]) : query[c]) + b * widen(y[c]);
            squares += h * h;
            along += query[c] * h;
        }
        rho2 = warp_sum(squares);
        s = warp_sum(along);
    }
    double rho = sqrt(rho2);
    if (rho < MIN_NORM) rho = MIN_NORM;
    if (threadIdx.x != 0) return;
    sim[at] = (float)(s / rho);
    wi[at] = (float)(a / rho);
    wj[at] = (float)(b / rho);
}

#define P(T)                                                                                                       \
    (int points, const float *queries, const T *keys, int dim, int keep, const float *values, const int *columns,  \
     const int *shard, const int *i, const int *j, const float *weight, float *sim, float *wi, float *wj)
BOTH_TYPES(contrast_points, P,
           (points, queries, keys, dim, keep, values, columns, shard, i, j, weight, sim, wi, wj))
#undef P

// Fixed point with 32 binary digits behind the point. A sum has at least one
// term of 1 (the top's), weights are at most 1000, and points fewer than two
// million, so that 64 bits hold it and the digits suffice.
__device__ inline u64 fixed(float v) { return v > 0 && v < 1e6f ? (u64)((double)v * 4294967296.0 + 0.5) : 0; }
__device__ inline float unfixed(u64 v) { return (float)((double)v / 4294967296.0); }

// of_shard is what one query's points add to one shard's part.
struct of_shard {
    u64 sum, query; // Σ e, Σ e·β/ρ′
    u32 top;        // ~ordered(similarity); 0 without a point
    float now;      // the part's new top
};

// One block a query. Where pairs are of any two (together), all points are the
// first shard's, and weigh keys of all shards: then the parts have one top.
KERNEL contrast_mix(int points, int together, const int *shard, const int *i, const int *j, const float *sim, const float *wi,
                    const float *wj, float per_two, int keep, const float *values, int all_shards, const int *first,
                    const int *local, int shards, const int *numbers, int dim, int stride, float *part,
                    float *lowered, u64 *weights) {
    const int q = blockIdx.x;
    const long long at = (long long)q * points, list = (long long)q * keep, row = (long long)q * (all_shards + 1);
    of_shard *of = SHARED(of_shard);
    for (int s = threadIdx.x; s < shards; s += blockDim.x) of[s].sum = of[s].query = of[s].top = 0;
    for (int k = threadIdx.x; k < keep; k += blockDim.x) weights[list + k] = 0;
    __syncthreads();
    for (int t = threadIdx.x; t < points; t += blockDim.x)
        if (shard[at + t] >= 0) atomicMax(&of[shard[at + t]].top, ~ordered(sim[at + t]));
    __syncthreads();
    float all_top = NO_SIMILARITY;
    if (together && of[0].top) {
        all_top = similarity(~of[0].top);
        for (int s = 0; s < shards; s++)
            all_top = fmaxf(all_top, part[((long long)s * stride + q) * (dim + PART_SCALARS) + dim + PART_TOP]);
    }
    __syncthreads();
    for (int s = threadIdx.x; s < shards; s += blockDim.x) {
        const long long p = (long long)s * stride + q;
        float *scalar = part + p * (dim + PART_SCALARS) + dim;
        const float old = scalar[PART_TOP];
        float now = fmaxf(old, all_top);
        if (of[s].top) {
            scalar[PART_POINT] = similarity(~of[s].top);
            now = fmaxf(now, scalar[PART_POINT]);
        }
        of[s].now = scalar[PART_TOP] = now;
        lowered[p] = exp2f((old - now) * per_two);
    }
    __syncthreads();
    for (int t = threadIdx.x; t < points; t += blockDim.x) {
        const int s = shard[at + t];
        if (s < 0) continue;
        const float e = exp2f(fminf(0, (sim[at + t] - of[s].now) * per_two));
        atomicAdd(&of[s].sum, fixed(e));
        atomicAdd(&weights[list + j[at + t]], fixed(e * wj[at + t]));
        if (i[at + t] >= 0)
            atomicAdd(&weights[list + i[at + t]], fixed(e * wi[at + t]));
        else
            atomicAdd(&of[s].query, fixed(e * wi[at + t]));
    }
    __syncthreads();
    // A warp a shard: its hard negatives.
    for (int s = threadIdx.x / 32; s < shards; s += blockDim.x / 32) {
        const int v = numbers[s], n = first[row + v + 1] - first[row + v];
        double sum = 0;
        for (int k = threadIdx.x % 32; k < n; k += 32) sum += values[list + local[row + v] + k];
        sum = warp_sum(sum);
        if (threadIdx.x % 32 != 0) continue;
        const long long p = (long long)s * stride + q;
        float *scalar = part + p * (dim + PART_SCALARS) + dim;
        scalar[PART_SUM] = scalar[PART_SUM] * lowered[p] + unfixed(of[s].sum);
        scalar[PART_QUERY] = unfixed(of[s].query);
        scalar[PART_HARD] = (float)n;
        scalar[PART_HARD_SIM] = (float)sum;
    }
}

// part ← part·lowered + Σ weight·key over a shard's hard negatives. One block
// some dimensions (x) of a shard (y) and query (z).
template <typename T>
__device__ void contrast_gather_of(const T *keys, int dim, int keep, const int *columns, const u64 *weights,
                                   const float *lowered, int all_shards, const int *first, const int *local,
                                   const int *numbers, int stride, float *part) {
    enum { N = lanes<T>::n };
    const int s = blockIdx.y, q = blockIdx.z, v = numbers[s], c = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    const long long row = (long long)q * (all_shards + 1) + v, p = (long long)s * stride + q;
    const int n = first[row + 1] - first[row];
    const long long list = (long long)q * keep + local[row];
    float sums[1][N] = {};
    if (c < dim)
        for (int k = threadIdx.y; k < n; k += blockDim.y) {
            const float w = unfixed(weights[list + k]);
            float key[N];
            load(keys + (long long)columns[list + k] * dim + c, dim - c, dim % N == 0, key);
            for (int x = 0; x < N; x++) sums[0][x] = fmaf(w, key[x], sums[0][x]);
        }
    const int wide = columns_of_block<1, N>(sums);
    float *to = part + p * (dim + PART_SCALARS);
    for (int k = threadIdx.y * blockDim.x + threadIdx.x; k < wide; k += blockDim.x * blockDim.y) {
        const int x = blockIdx.x * wide + k;
        if (x < dim) to[x] = fmaf(to[x], lowered[p], SHARED(float)[k]);
    }
}

#define P(T)                                                                                                       \
    (const T *keys, int dim, int keep, const int *columns, const u64 *weights, const float *lowered,               \
     int all_shards, const int *first, const int *local, const int *numbers, int stride, float *part)
BOTH_TYPES(contrast_gather, P,
           (keys, dim, keep, columns, weights, lowered, all_shards, first, local, numbers, stride, part))
#undef P

// A warp a key.
template <typename T>
__device__ void contrast_put_of(int n, int dim, const T *from, const int *to, const int *classes, T *keys,
                                int *labels) {
    const int k = blockIdx.x * blockDim.y + threadIdx.y;
    if (k >= n) return;
    T *key = keys + (long long)to[k] * dim;
    for (int c = threadIdx.x; c < dim; c += 32) key[c] = from[(long long)k * dim + c];
    if (labels && threadIdx.x == 0) labels[to[k]] = classes[k];
}

#define P(T) (int n, int dim, const T *from, const int *to, const int *classes, T *keys, int *labels)
BOTH_TYPES(contrast_put, P, (n, dim, from, to, classes, keys, labels))
#undef P
