//go:build ignore

// An emulated libcuda.so.1: device memory is host memory between guards, and
// streams run their work as late as is allowed, when somebody waits for it, so
// that a missing wait shows in the results. Kernels come from libkernels.so
// beside it.
#define _GNU_SOURCE
#include "emu.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_CAPTURE_UNSUPPORTED = 900, STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_UNMATCHED = 903, STREAM_CAPTURE_ISOLATION = 905, CAPTURED_EVENT = 907, STREAM_CAPTURE_WRONG_THREAD };
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500 };

// ---- Log and lock ----

static pthread_mutex_t mutex;
static FILE *log_file;
static __thread void *current; // context

__attribute__((constructor)) static void start(void) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mutex, &a);
}

void emu_lock(void) { pthread_mutex_lock(&mutex); }
void emu_unlock(void) { pthread_mutex_unlock(&mutex); }

// The log is opened when it is first named, so that a test may begin one later.
static void line(const char *before, const char *format, va_list args) {
    emu_lock();
    if (!log_file && getenv("MOCHI_EMULATOR_LOG")) log_file = fopen(getenv("MOCHI_EMULATOR_LOG"), "a");
    if (log_file) {
        fputs(before, log_file);
        vfprintf(log_file, format, args);
        fputc('\n', log_file);
        fflush(log_file);
    }
    emu_unlock();
}

void emu_log(const char *format, ...) {
    va_list args;
    va_start(args, format);
    line("", format, args);
    va_end(args);
}

int emu_fault(int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    line("FAULT ", format, args);
    va_end(args);
    return status;
}

// ---- Device and context ----

static int devices(void) {
    const char *n = getenv("MOCHI_EMULATOR_DEVICES");
    return n ? atoi(n) : 2;
}
static int context_of[64];

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *v) { *v = 12040; return OK; }
int cuDeviceGetCount(int *n) { *n = devices(); return OK; }
int cuDeviceGet(int *d, int i) {
    if (i < 0 || i >= devices()) return INVALID_DEVICE;
    *d = i;
    return OK;
}
int cuDeviceGetName(char *name, int n, int d) { (void)d; snprintf(name, (size_t)n, "Emulated GPU"); return OK; }
static size_t capacity(void) {
    const char *m = getenv("MOCHI_EMULATOR_MEMORY");
    return m ? strtoull(m, NULL, 10) : (size_t)4 << 30;
}
int cuDeviceTotalMem_v2(size_t *n, int d) { (void)d; *n = capacity(); return OK; }
int cuDeviceGetAttribute(int *v, int attribute, int d) {
    (void)d;
    const char *c = getenv("MOCHI_EMULATOR_CAPABILITY");
    int capability = c ? atoi(c) : 80;
    *v = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { emu_log("context of device %d", d); emu_lock(); context_of[d]++; emu_unlock(); *c = &context_of[d]; return OK; }
int cuDevicePrimaryCtxRelease_v2(int d) {
    emu_lock();
    int left = --context_of[d];
    emu_unlock();
    return left < 0 ? emu_fault(INVALID_CONTEXT, "context of device %d released too often", d) : OK;
}
int cuCtxSetCurrent(void *c) { current = c; return OK; }
int cuCtxGetCurrent(void **c) { *c = current; return OK; }
int cuGetErrorName(int e, const char **s) { *s = e == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR"; return OK; }
int cuGetErrorString(int e, const char **s) { (void)e; *s = "emulated"; return OK; }

#define HERE(what) \
    if (!current) return emu_fault(INVALID_CONTEXT, what ": no context is current on this thread");

// What a thread must not do between the beginning and the end of its capture:
// the capture is void then.
static int unsafe(const char *what);
#define SAFE(what) \
    do { int unsafe_ = unsafe(what); if (unsafe_) return unsafe_; } while (0)

// ---- Memory ----

enum { GUARD = 512 };
typedef struct block { struct block *next; char *at; size_t bytes; int pinned; } block;
static block *blocks;
static size_t used;

static int take(void **p, size_t bytes, int pinned) {
    emu_lock();
    if (!pinned && used + bytes > capacity()) { emu_unlock(); return OUT_OF_MEMORY; }
    block *b = calloc(1, sizeof *b);
    char *raw = aligned_alloc(512, (bytes + 2 * GUARD + 511) / 512 * 512);
    if (!b || !raw) abort();
    memset(raw, 0xd5, GUARD);
    memset(raw + GUARD, 0xff, bytes); // NaN, until somebody writes
    memset(raw + GUARD + bytes, 0xd5, GUARD);
    *b = (block){blocks, raw + GUARD, bytes, pinned};
    blocks = b;
    if (!pinned) used += bytes;
    *p = b->at;
    emu_unlock();
    return OK;
}

static block *find(const void *p) {
    for (block *b = blocks; b; b = b->next)
        if ((const char *)p >= b->at && (const char *)p < b->at + b->bytes) return b;
    return NULL;
}

static void run_all(void);

static int give(void *p, int pinned) {
    emu_lock();
    run_all();
    for (block **at = &blocks; *at; at = &(*at)->next) {
        block *b = *at;
        if (b->at != p || b->pinned != pinned) continue;
        for (int i = 0; i < GUARD; i++)
            if ((unsigned char)b->at[-1 - i] != 0xd5 || (unsigned char)b->at[b->bytes + (size_t)i] != 0xd5) {
                emu_fault(0, "a block of %zu bytes was written outside, %d bytes away", b->bytes, i);
                break;
            }
        *at = b->next;
        if (!pinned) used -= b->bytes;
        free(b->at - GUARD);
        free(b);
        emu_unlock();
        return OK;
    }
    emu_unlock();
    return emu_fault(INVALID_VALUE, "free of %p, which is no block", p);
}

int emu_device(const void *p, size_t bytes, size_t align) {
    emu_lock();
    block *b = find(p);
    int ok = b && !b->pinned && (const char *)p + bytes <= b->at + b->bytes && (uintptr_t)p % align == 0;
    emu_unlock();
    return ok;
}

int cuMemAlloc_v2(void **p, size_t bytes) { HERE("cuMemAlloc"); SAFE("cuMemAlloc"); return bytes ? take(p, bytes, 0) : INVALID_VALUE; }
int cuMemFree_v2(void *p) { HERE("cuMemFree"); SAFE("cuMemFree"); return give(p, 0); }
int cuMemHostAlloc(void **p, size_t bytes, unsigned flags) { (void)flags; HERE("cuMemHostAlloc"); SAFE("cuMemHostAlloc"); return take(p, bytes, 1); }
int cuMemFreeHost(void *p) { SAFE("cuMemFreeHost"); return give(p, 1); }
int cuMemGetInfo_v2(size_t *free_, size_t *total) { *total = capacity(); *free_ = *total - used; return OK; }

// ---- Streams ----

typedef struct item { struct item *next; void (*run)(void *); size_t bytes; max_align_t argument[]; } item;
typedef struct graph { item *head, **tail; size_t n; int void_, pending; } graph; // also what it is instantiated as
typedef struct stream { struct stream *next; item *head, **tail; unsigned long long queued, done; int running; graph *capture; pthread_t by; } stream;
typedef struct { stream *s; unsigned long long upto; int timed; unsigned long long at; graph *captured; } event;
static unsigned long long clock_; // ticks with every piece of work that any stream has done: a microsecond
static stream default_stream = {.tail = &default_stream.head}, *streams = &default_stream; // whose handle is NULL

static int known(void *s) {
    for (stream *t = streams; t; t = t->next)
        if (t == s) return 1;
    return 0;
}

static void run_until(stream *s, unsigned long long upto) {
    while (s->done < upto && s->head) {
        item *i = s->head;
        s->head = i->next;
        if (!s->head) s->tail = &s->head;
        i->run(i->argument);
        clock_++;
        free(i);
        s->done++;
    }
}

static void run_all(void) {
    for (stream *s = streams; s; s = s->next) run_until(s, s->queued);
}

int emu_capturing(void *s) {
    emu_lock();
    int yes = known(s) && ((stream *)s)->capture;
    emu_unlock();
    return yes;
}

// spoil voids the stream's capture: what follows in it, and its end, fail.
static int spoil(stream *s, int status, const char *what) {
    s->capture->void_ = 1;
    return emu_fault(status, "%s in a capture", what);
}

static int unsafe(const char *what) {
    int status = OK;
    emu_lock();
    for (stream *s = streams; s && !status; s = s->next)
        if (s->capture && pthread_equal(s->by, pthread_self())) status = spoil(s, STREAM_CAPTURE_UNSUPPORTED, what);
    emu_unlock();
    return status;
}

int emu_enqueue(void *handle, void (*run)(void *), const void *argument, size_t bytes) {
    emu_lock();
    if (!known(handle)) { emu_unlock(); return emu_fault(INVALID_HANDLE, "work for a stream that does not exist"); }
    stream *s = handle;
    item *i = malloc(sizeof *i + bytes);
    i->next = NULL;
    i->run = run;
    i->bytes = bytes;
    memcpy(i->argument, argument, bytes);
    if (s->capture) {
        int status = s->capture->void_ ? STREAM_CAPTURE_INVALIDATED : OK;
        if (status) free(i);
        else *s->capture->tail = i, s->capture->tail = &i->next, s->capture->n++;
        emu_unlock();
        return status;
    }
    *s->tail = i;
    s->tail = &i->next;
    s->queued++;
    emu_unlock();
    return OK;
}

int cuStreamCreate(void **out, unsigned flags) {
    HERE("cuStreamCreate");
    if (flags != 1) return emu_fault(INVALID_VALUE, "a stream that waits for the default stream");
    stream *s = calloc(1, sizeof *s);
    s->tail = &s->head;
    emu_lock();
    s->next = streams;
    streams = s;
    emu_unlock();
    *out = s;
    return OK;
}
int cuStreamSynchronize(void *s) {
    emu_lock();
    if (!s) s = &default_stream;
    int ok = known(s);
    if (ok && ((stream *)s)->capture) {
        int status = spoil(s, STREAM_CAPTURE_UNSUPPORTED, "cuStreamSynchronize");
        emu_unlock();
        return status;
    }
    if (ok) run_until(s, ((stream *)s)->queued);
    emu_unlock();
    if (ok) emu_log("synchronize stream");
    return ok ? OK : emu_fault(INVALID_HANDLE, "cuStreamSynchronize of no stream");
}
int cuStreamDestroy_v2(void *handle) {
    emu_lock();
    for (stream **at = &streams; *at; at = &(*at)->next)
        if (*at == handle) {
            stream *s = *at;
            run_until(s, s->queued);
            *at = s->next;
            free(s);
            emu_unlock();
            return OK;
        }
    emu_unlock();
    return emu_fault(INVALID_HANDLE, "cuStreamDestroy of no stream");
}

// ---- Events ----

int cuEventCreate(void **out, unsigned flags) {
    HERE("cuEventCreate");
    event *e = calloc(1, sizeof *e);
    e->timed = !(flags & 2);
    *out = e;
    return OK;
}
static void stamp(void *argument) { (*(event **)argument)->at = clock_ + 1; }
int cuEventDestroy_v2(void *e) {
    emu_lock();
    if (((event *)e)->timed) run_all(); // its stamp may be to come
    emu_unlock();
    free(e);
    return OK;
}
int cuEventRecord(void *handle, void *s) {
    if (!known(s)) return emu_fault(INVALID_HANDLE, "cuEventRecord in no stream");
    event *e = handle;
    e->captured = ((stream *)s)->capture; // a point of the graph, which nobody outside can wait for
    if (e->captured) return OK;
    e->at = 0;
    if (e->timed) emu_enqueue(s, stamp, &e, sizeof e);
    e->s = s;
    e->upto = ((stream *)s)->queued;
    return OK;
}
int cuEventElapsedTime(float *ms, void *from, void *to) {
    event *a = from, *b = to;
    if (a->captured || b->captured) return emu_fault(CAPTURED_EVENT, "time of an event that was recorded in a capture");
    if (!a->timed || !b->timed) return emu_fault(INVALID_HANDLE, "time of an event without a clock");
    if (!a->at || !b->at) return emu_fault(600, "time of an event that has not happened");
    *ms = 1e-3f * ((float)b->at - (float)a->at);
    return OK;
}
static void wait_for(void *argument) {
    event *e = argument;
    if (e->s && known(e->s)) run_until(e->s, e->upto);
}
int cuEventSynchronize(void *e) {
    SAFE("cuEventSynchronize");
    if (((event *)e)->captured) return emu_fault(CAPTURED_EVENT, "wait for an event that was recorded in a capture");
    emu_lock();
    wait_for(e);
    emu_unlock();
    emu_log("synchronize event");
    return OK;
}
// Of a real driver's ways to join streams in a capture there is none here.
int cuStreamWaitEvent(void *handle, void *e, unsigned flags) {
    (void)flags;
    stream *s = handle;
    graph *of = ((event *)e)->captured;
    if (known(s) && s->capture && of == s->capture) return OK; // its own order
    if (known(s) && s->capture) return spoil(s, STREAM_CAPTURE_ISOLATION, "a wait for an event from outside");
    if (of) return emu_fault(STREAM_CAPTURE_ISOLATION, "a stream that waits for an event of a capture: not emulated");
    return emu_enqueue(s, wait_for, e, sizeof(event));
}

// ---- Graphs ----

// With this in the environment every capture fails at its end, as if a library
// had done in it what cannot be recorded.
static int no_captures(void) { return getenv("MOCHI_EMULATOR_NO_CAPTURE") != NULL; }

int cuStreamBeginCapture_v2(void *handle, int mode) {
    HERE("cuStreamBeginCapture");
    stream *s = handle;
    if (!known(s) || mode != 1) return emu_fault(INVALID_VALUE, "cuStreamBeginCapture, mode %d: it must be thread-local", mode);
    if (s->capture) return emu_fault(STREAM_CAPTURE_UNSUPPORTED, "cuStreamBeginCapture of a stream that captures");
    graph *g = calloc(1, sizeof *g);
    g->tail = &g->head;
    emu_lock();
    s->by = pthread_self();
    s->capture = g;
    emu_unlock();
    return OK;
}

static void free_graph(graph *g) {
    for (item *i = g->head, *next; i; i = next) next = i->next, free(i);
    free(g);
}

int cuStreamEndCapture(void *handle, void **out) {
    HERE("cuStreamEndCapture");
    stream *s = handle;
    *out = NULL;
    if (!known(s) || !s->capture) return emu_fault(STREAM_CAPTURE_UNMATCHED, "cuStreamEndCapture of a stream that does not capture");
    if (!pthread_equal(s->by, pthread_self())) return emu_fault(STREAM_CAPTURE_WRONG_THREAD, "cuStreamEndCapture from another thread");
    emu_lock();
    graph *g = s->capture;
    s->capture = NULL;
    emu_unlock();
    if (g->void_ || no_captures()) {
        emu_log("capture failed");
        free_graph(g);
        return STREAM_CAPTURE_INVALIDATED;
    }
    emu_log("capture %zu", g->n);
    *out = g;
    return OK;
}

int cuGraphGetNodes(void *g, void **nodes, size_t *n) {
    if (nodes) return emu_fault(INVALID_VALUE, "cuGraphGetNodes: only the number is emulated");
    *n = ((graph *)g)->n;
    return OK;
}

static graph *copy_of(const graph *g) {
    graph *c = calloc(1, sizeof *c);
    c->tail = &c->head;
    for (const item *i = g->head; i; i = i->next) {
        item *j = malloc(sizeof *j + i->bytes);
        memcpy(j, i, sizeof *j + i->bytes);
        j->next = NULL;
        *c->tail = j, c->tail = &j->next, c->n++;
    }
    return c;
}

static int graphs; // executable ones that are not destroyed
int cuGraphInstantiateWithFlags(void **exec, void *g, unsigned long long flags) {
    HERE("cuGraphInstantiateWithFlags");
    SAFE("cuGraphInstantiateWithFlags");
    if (flags) return emu_fault(INVALID_VALUE, "cuGraphInstantiateWithFlags: flags %llu", flags);
    *exec = copy_of(g);
    graphs++;
    return OK;
}
int cuGraphDestroy(void *g) { free_graph(g); return OK; }

// A launch runs copies of the arguments, which work may change.
static void do_graph(void *argument) {
    graph *g = *(graph **)argument;
    for (item *i = g->head; i; i = i->next) {
        item *once = malloc(sizeof *once + i->bytes);
        memcpy(once, i, sizeof *once + i->bytes);
        once->run(once->argument);
        free(once);
        if (i->next) clock_++;
    }
    g->pending--;
}
int cuGraphLaunch(void *exec, void *s) {
    HERE("cuGraphLaunch");
    if (emu_capturing(s)) return emu_fault(STREAM_CAPTURE_UNSUPPORTED, "cuGraphLaunch in a capture: not emulated");
    emu_log("graph of %zu", ((graph *)exec)->n);
    ((graph *)exec)->pending++;
    return emu_enqueue(s, do_graph, &exec, sizeof exec);
}
int cuGraphExecDestroy(void *exec) {
    graph *g = exec;
    emu_lock();
    if (g->pending) run_all();
    graphs--;
    emu_log("graph destroyed, %d left", graphs);
    free_graph(g);
    emu_unlock();
    return OK;
}

// ---- Copies ----

typedef struct { char *to; const char *from; size_t bytes; } copy;
static void do_copy(void *argument) { copy *c = argument; memcpy(c->to, c->from, c->bytes); }
static void do_copy_staged(void *argument) { copy *c = argument; memcpy(c->to, c->from, c->bytes); free((void *)c->from); }

static int pinned(const void *p, size_t bytes) {
    block *b = find(p);
    return b && b->pinned && (const char *)p + bytes <= b->at + b->bytes;
}

int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *s) {
    HERE("cuMemcpyHtoDAsync");
    if (!emu_device(to, bytes, 1)) return emu_fault(INVALID_VALUE, "upload of %zu bytes outside device memory", bytes);
    copy c = {to, from, bytes};
    emu_log("upload %zu %s", bytes, pinned(from, bytes) ? "pinned" : "staged");
    if (emu_capturing(s) && !pinned(from, bytes)) return spoil(s, STREAM_CAPTURE_UNSUPPORTED, "an upload from memory that is not pinned");
    if (pinned(from, bytes)) return emu_enqueue(s, do_copy, &c, sizeof c);
    char *staged = malloc(bytes);
    memcpy(staged, from, bytes);
    c.from = staged;
    return emu_enqueue(s, do_copy_staged, &c, sizeof c);
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *s) {
    HERE("cuMemcpyDtoHAsync");
    if (!emu_device(from, bytes, 1)) return emu_fault(INVALID_VALUE, "download of %zu bytes outside device memory", bytes);
    copy c = {to, from, bytes};
    emu_log("download %zu %s", bytes, pinned(to, bytes) ? "pinned" : "waits");
    int status = emu_enqueue(s, do_copy, &c, sizeof c);
    if (!status && !pinned(to, bytes)) status = cuStreamSynchronize(s);
    return status;
}

int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, void *s) {
    HERE("cuMemcpyDtoDAsync");
    if (!emu_device(to, bytes, 1) || !emu_device(from, bytes, 1)) return emu_fault(INVALID_VALUE, "copy of %zu bytes outside device memory", bytes);
    copy c = {to, from, bytes};
    emu_log("copy %zu on the device", bytes);
    return emu_enqueue(s, do_copy, &c, sizeof c);
}

typedef struct { unsigned *to; unsigned v; size_t n; } fill;
static void do_fill(void *argument) { fill *f = argument; for (size_t i = 0; i < f->n; i++) f->to[i] = f->v; }
int cuMemsetD32Async(void *p, unsigned v, size_t n, void *s) {
    HERE("cuMemsetD32Async");
    if (!emu_device(p, 4 * n, 4)) return emu_fault(INVALID_VALUE, "cuMemsetD32 of %zu values outside device memory", n);
    fill f = {p, v, n};
    return emu_enqueue(s, do_fill, &f, sizeof f);
}

typedef struct { void *to; int v; size_t n; } fill_bytes;
static void do_fill_bytes(void *argument) { fill_bytes *f = argument; memset(f->to, f->v, f->n); }
int cuMemsetD8_v2(void *p, unsigned char v, size_t n) {
    HERE("cuMemsetD8");
    SAFE("cuMemsetD8");
    if (!emu_device(p, n, 1)) return emu_fault(INVALID_VALUE, "cuMemsetD8 of %zu bytes outside device memory", n);
    fill_bytes f = {p, v, n};
    return emu_enqueue(&default_stream, do_fill_bytes, &f, sizeof f);
}

// ---- Kernels ----

static const emu_kernel *kernels;

typedef struct { char *ptx; } module; // NULL: the emulated NVRTC's

// A module is what the emulated NVRTC made, or PTX that this device could take.
// Either way libkernels.so computes; of PTX the entry points and their
// parameters are compared with it.
int cuModuleLoadData(void **out, const void *image) {
    HERE("cuModuleLoadData");
    SAFE("cuModuleLoadData");
    const char *target = strstr(image, "\n.target sm_");
    int ptx = strncmp(image, "emulated ", 9) != 0;
    if (ptx && (!target || atoi(target + 12) > 80)) return emu_fault(INVALID_IMAGE, "a module that is neither the emulated NVRTC's nor PTX for this device");
    emu_log(ptx ? "module of PTX for sm_%d" : "module of NVRTC", ptx ? atoi(target + 12) : 0);
    Dl_info self;
    char path[4096];
    if (!kernels && dladdr((void *)cuModuleLoadData, &self)) {
        snprintf(path, sizeof path, "%s", self.dli_fname);
        *(strrchr(path, '/') + 1) = 0;
        strncat(path, "libkernels.so", sizeof path - strlen(path) - 1);
        void *l = dlopen(path, RTLD_NOW);
        kernels = l ? dlsym(l, "emu_kernels") : NULL;
        if (!kernels) return emu_fault(INVALID_IMAGE, "%s: %s", path, dlerror());
    }
    module *m = calloc(1, sizeof *m);
    if (ptx) m->ptx = strdup(image);
    *out = m;
    return OK;
}
int cuModuleUnload(void *handle) {
    module *m = handle;
    if (!m) return INVALID_HANDLE;
    free(m->ptx);
    free(m);
    return OK;
}

// parameters of an entry point of PTX, -1 where it has none of that name.
static int ptx_parameters(const char *ptx, const char *name) {
    char head[200];
    snprintf(head, sizeof head, ".entry %s(", name);
    const char *at = strstr(ptx, head), *end = at ? strchr(at + strlen(head), ')') : NULL;
    if (!end) return -1;
    int n = 0;
    while ((at = strstr(at + 1, ".param ")) && at < end) n++;
    return n;
}

int cuModuleGetFunction(void **f, void *handle, const char *name) {
    module *m = handle;
    for (const emu_kernel *k = kernels; k->name; k++) {
        if (strcmp(k->name, name)) continue;
        int n = m->ptx ? ptx_parameters(m->ptx, name) : k->parameters;
        if (n != k->parameters) return emu_fault(NOT_FOUND, "the PTX has %s with %d parameters, not %d", name, n, k->parameters);
        *f = (void *)k;
        return OK;
    }
    return NOT_FOUND;
}

typedef struct { const emu_kernel *k; unsigned grid[3], block[3], shared; unsigned long long arguments[32]; } launch;
static void do_launch(void *argument) { launch *l = argument; l->k->run(l->arguments, l->grid, l->block, l->shared); }

int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *s, void **parameters, void **extra) {
    HERE("cuLaunchKernel");
    launch l = {f, {gx, gy, gz}, {bx, by, bz}, shared, {0}};
    if (extra || bx * by * bz > 1024 || !gx || !gy || !gz || gy > 65535 || gz > 65535 || shared > 48 << 10)
        return emu_fault(INVALID_VALUE, "launch of %s: grid %u×%u×%u, block %u×%u×%u, %u bytes", l.k->name, gx, gy, gz, bx, by, bz, shared);
    for (int i = 0; i < l.k->parameters; i++) memcpy(&l.arguments[i], parameters[i], 8);
    emu_log("launch %s", l.k->name);
    return emu_enqueue(s, do_launch, &l, sizeof l);
}
