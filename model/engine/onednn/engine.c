//go:build onednn

#include "internal.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int64_t ox_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void ox_share(int n, int part, int parts, int *from, int *to) {
    *from = (int)((int64_t)n * part / parts);
    *to = (int)((int64_t)n * (part + 1) / parts);
}

void ox_library_version(int *major, int *minor, int *patch) { ox_lib_version(major, minor, patch); }

int ox_library_isa(void) { return (int)dnnl_get_effective_cpu_isa(); }

ox_engine *ox_engine_open(int threads, int wide, char *err) {
    ox_engine *e = ox_new(1, sizeof *e, "an engine", err);
    if (!e) return NULL;
    e->threads = threads;
    e->wide = wide;
    if (!(e->thread = ox_new((size_t)threads, sizeof *e->thread, "what each thread owns", err)) ||
        !(e->lib = ox_lib_open(err)) || !(e->team = ox_team_open(threads, err)))
        goto failed;
    for (int i = 0; i < threads; i++)
        if (!(e->thread[i].stream = ox_stream_open(e->lib, err))) goto failed;
    return e;
failed:
    ox_engine_close(e);
    return NULL;
}

void ox_engine_close(ox_engine *e) {
    if (e->team) ox_team_close(e->team);
    for (int i = 0; e->thread && i < e->threads; i++)
        if (e->thread[i].stream) ox_stream_close(e->thread[i].stream);
    if (e->lib) ox_lib_close(e->lib);
    free(e->thread);
    free(e);
}

int64_t ox_engine_kernel_ns(const ox_engine *e) {
    int64_t sum = 0;
    for (int i = 0; i < e->threads; i++) sum += __atomic_load_n(&e->thread[i].kernel_ns, __ATOMIC_RELAXED);
    return sum / e->threads;
}

// ---- Products ----

// Columns of a product that one thread does at a time: fixed, so that the
// result does not depend on the number of threads.
enum { PRODUCT_COLUMNS = 256 };

typedef struct {
    ox_engine *e;
    int nt, m, n, k;
    const float *a, *b;
    float *c;
    int status;
} product;

static void product_job(void *arg, int thread) {
    product *p = arg;
    int64_t start = ox_now();
    for (int at = thread * PRODUCT_COLUMNS; at < p->n; at += p->e->threads * PRODUCT_COLUMNS) {
        int n = p->n - at < PRODUCT_COLUMNS ? p->n - at : PRODUCT_COLUMNS;
        const float *b = p->nt ? p->b + (size_t)at * p->k : p->b + at;
        dnnl_status_t st = dnnl_sgemm('N', p->nt ? 'T' : 'N', p->m, n, p->k, 1, p->a, p->k, b, p->nt ? p->k : p->n, 0,
                                      p->c + at, p->n);
        if (st != dnnl_success) p->status = (int)st;
    }
    __atomic_fetch_add(&p->e->thread[thread].kernel_ns, ox_now() - start, __ATOMIC_RELAXED);
}

int ox_product(ox_engine *e, int nt, int m, int n, int k, const float *a, const float *b, float *c) {
    product p = {e, nt, m, n, k, a, b, c, 0};
    ox_team_run(e->team, product_job, &p);
    return p.status;
}
