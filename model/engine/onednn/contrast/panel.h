// The kernels of the loss: engine.Panel for AVX-512 (panel_amd64.c).
// Everything works on the calling thread; a panel serves one at a time.
#ifndef MOCHI_PANEL_H
#define MOCHI_PANEL_H

#include <stddef.h>
#include <stdint.h>

enum { CT_LANES = 32, CT_ROWS = 128 }; // engine.PanelQueries, engine.PanelRows

// The scalars of a part, as engine.Part….
enum { CT_TOP, CT_SUM, CT_QUERY, CT_REAL, CT_POINT, CT_SIM, CT_COUNT, CT_HARD, CT_HARD_SIM, CT_SCALARS };

#define CT_NONE (-3e38f) // engine.NoSimilarity

typedef struct ct_panel ct_panel;

// ct_open allocates a panel that mixes up to `rows` hard negatives into up to
// `points` synthetic points at a time; 0 and 0 for one that never does. NULL
// when memory is short: *wanted is then how many bytes did not come.
ct_panel *ct_open(int dim, int hard, int rows, int points, size_t *wanted);
void ct_close(ct_panel *p);

// See engine.Panel. labels may be NULL.
void ct_load(ct_panel *p, const float *q, int b, const int32_t *labels, float inv_t, int keep);
void ct_raise(ct_panel *p, int keep);
void ct_begin(ct_panel *p);
void ct_scan(ct_panel *p, const float *keys, int n, const int32_t *labels, uint32_t first);
void ct_end(const ct_panel *p, int i, float *dst);
// ct_hardest writes the hard negatives of query i as nearest.Key, by rising
// number, and returns how many, at most room.
int ct_hardest(ct_panel *p, int i, uint64_t *dst, int room);
void ct_widen(float *dst, const uint16_t *src, size_t n);

// ct_pick copies n rows of a shard, the hard negatives from number `at` on of
// the next ct_mix, to where it finds them. One of f32 and bf16 is NULL.
void ct_pick(ct_panel *p, int at, const float *f32, const uint16_t *bf16, size_t stride, const int32_t *rows, int n);
// See engine.Mixture: all n rows have been picked, unless there are no points.
void ct_mix(ct_panel *p, const float *query, const float *sims, int n, const int32_t *first, const int32_t *second,
            const float *alpha, int s, const int32_t *partner, const float *beta, int s2, float inv_t, float *part);

struct ct_panel {
    int dim, hard, b, wide, keep, by_class; // keep: hard negatives wanted now
    float per_two;        // 1/(τ ln 2): exponentials are powers of two
    float *q, *sum;       // [dim][CT_LANES] queries transposed; Σ e·n
    float *e;             // [CT_ROWS][CT_LANES] similarities, then exponentials
    float top[CT_LANES];  // largest similarity of the part
    float line[CT_LANES]; // the threshold of candidates
    double z[CT_LANES], sims[CT_LANES];
    int32_t counted[CT_LANES], labels[CT_LANES];

    int room;             // candidates a lane
    uint64_t *candidates; // [CT_LANES][room]
    uint64_t *spare;      // [2][room]
    uint32_t *picked;     // [CT_ROWS·CT_LANES] places in e above the threshold
    int found[CT_LANES];

    // Scratch of ct_mix.
    float *rows, *weights; // [rows][dim, in whole vectors, zeros behind], [rows]
    float *wi, *wj, *dots; // [points]
    double *point;         // [points]
};

#endif
