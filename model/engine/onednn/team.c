//go:build onednn

// Threads of our own instead of OpenMP's: oneDNN's primitives are made for one
// thread each, and between them there is only a barrier. A thread that waits
// spins for a moment and then sleeps, because other processes, or another
// replica in this one, may need the core.

#define _GNU_SOURCE
#include "team.h"
#include "kernels.h"
#include "memory.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

// Some 1 ms: longer than slices differ and than it takes to wake a sleeper,
// shorter than a time slice.
enum { SPINS = 50000 };

struct ox_team {
    int threads, spins, pin;
    pthread_t *handles;
    ox_job job;
    void *arg;
    int closing;
    _Alignas(64) _Atomic uint32_t turn;    // jobs begun
    _Alignas(64) _Atomic uint32_t running; // threads still at the job
    _Alignas(64) _Atomic uint32_t arrived; // at the barrier
    _Alignas(64) _Atomic uint32_t passed;  // barriers passed
    _Alignas(64) _Atomic uint32_t next;    // number of the next thread to start
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static void sleep_while(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
}

// await returns when *word is no longer value.
static void await(_Atomic uint32_t *word, uint32_t value, int spins) {
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) return;
        relax();
    }
    while (atomic_load_explicit(word, memory_order_acquire) == value) sleep_while(word, value);
}

static int cores(cpu_set_t *set) {
    CPU_ZERO(set);
    return sched_getaffinity(0, sizeof *set, set) == 0 ? CPU_COUNT(set) : 1;
}

// pin ties the calling thread to the core number me of those it may use, so
// that two of a team cannot share one. Whether the scheduler does that unpinned
// was not observed, and pinning measured no faster.
static void pin(int me) {
    cpu_set_t all, one;
    cores(&all);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && me-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        }
}

static void *work(void *arg) {
    ox_team *t = arg;
    int me = (int)atomic_fetch_add(&t->next, 1);
    if (t->pin) pin(me);
    // The library decides by this how many threads a primitive is made for. It
    // is a property of the calling thread in OpenMP; other runtimes lack it.
    void (*one)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (one) one(1);
    mk_flush_denormals();
    for (uint32_t turn = 0;; turn++) {
        await(&t->turn, turn, t->spins);
        if (t->closing) return NULL;
        t->job(t->arg, me);
        if (atomic_fetch_sub(&t->running, 1) == 1) wake(&t->running);
    }
}

ox_team *ox_team_open(int threads, char *err) {
    ox_team *t = ox_block(sizeof *t, "a team of threads", err);
    if (!t) return NULL;
    // Only a team that has every core to itself knows which thread belongs
    // where; a smaller one would meet another's on the same core.
    cpu_set_t set;
    int all = cores(&set);
    *t = (ox_team){.spins = threads > all ? 0 : SPINS, .pin = threads == all && threads > 1};
    t->handles = ox_new((size_t)threads, sizeof *t->handles, "the handles of threads", err);
    for (; t->handles && t->threads < threads; t->threads++)
        if (pthread_create(&t->handles[t->threads], NULL, work, t)) {
            snprintf(err, OX_ERR, "the system starts %d threads, not %d", t->threads, threads);
            break;
        }
    if (t->threads == threads) return t;
    ox_team_close(t);
    return NULL;
}

void ox_team_close(ox_team *t) {
    t->closing = 1;
    atomic_fetch_add(&t->turn, 1);
    wake(&t->turn);
    for (int i = 0; i < t->threads; i++) pthread_join(t->handles[i], NULL);
    free(t->handles);
    free(t);
}

int ox_team_size(const ox_team *t) { return t->threads; }

void ox_team_run(ox_team *t, ox_job job, void *arg) {
    t->job = job;
    t->arg = arg;
    atomic_store(&t->running, (uint32_t)t->threads);
    atomic_fetch_add(&t->turn, 1);
    wake(&t->turn);
    for (uint32_t left; (left = atomic_load(&t->running)) != 0;) sleep_while(&t->running, left);
}

void ox_team_barrier(ox_team *t, void (*then)(void *arg), void *arg) {
    uint32_t passed = atomic_load(&t->passed);
    if (atomic_fetch_add(&t->arrived, 1) + 1 == (uint32_t)t->threads) {
        if (then) then(arg);
        atomic_store(&t->arrived, 0);
        atomic_fetch_add(&t->passed, 1);
        if (t->threads > 1) wake(&t->passed);
    } else {
        await(&t->passed, passed, t->spins);
    }
}
