// Runs launches that come on standard input, one after the other, and answers
// on standard output; see host_test.go for the format. A launch that does what
// it must not (touches memory outside its buffers, waits for threads that do
// not come, is undefined in C++) ends the process with a message.
//
// This file follows host.h, the kernels, and dispatch(), in one translation
// unit.
#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <random>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>
#include <algorithm>

host_dim threadIdx, blockIdx, blockDim, gridDim;
unsigned char *host_shared;

static std::string kernel_name;

[[noreturn]] static void fail(const char *what) {
    fprintf(stderr, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u): %s\n", kernel_name.c_str(), blockIdx.x, blockIdx.y,
            blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what);
    fflush(stderr);
    _exit(3);
}

// ---- Memory with a guard behind it ----

enum : size_t { PAGE = 4096, GUARD = 1 << 20, SLACK = 16 };
static const unsigned char FILL = 0xff; // NaN in float, bf16 and double

// A guarded buffer starts at a multiple of 16 bytes and ends less than 16
// bytes before a megabyte that must not be touched. What is left between, and the
// page before it, hold FILL: values read there spoil results, values written
// there are found.
struct guarded {
    unsigned char *map = nullptr, *at = nullptr;
    size_t mapped = 0, bytes = 0;

    explicit guarded(size_t n) : bytes(n) {
        size_t inner = (n + SLACK + PAGE - 1) / PAGE * PAGE + PAGE;
        mapped = inner + GUARD;
        map = (unsigned char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) fail("no memory for a buffer");
        memset(map, FILL, inner);
        mprotect(map + inner, GUARD, PROT_NONE);
        at = map + inner - (n + SLACK - 1) / SLACK * SLACK;
    }
    guarded(guarded &&o) : map(o.map), at(o.at), mapped(o.mapped), bytes(o.bytes) { o.map = nullptr; }
    ~guarded() {
        if (map) munmap(map, mapped);
    }
    void check(const char *what) const {
        for (unsigned char *p = map; p < map + mapped - GUARD; p++) {
            if (p == at) p += bytes;
            if (p < map + mapped - GUARD && *p != FILL) {
                char text[200];
                snprintf(text, sizeof text, "%s of %zu bytes: something was written %ld bytes from its start", what, bytes,
                         (long)(p - at));
                fail(text);
            }
        }
    }
};

static std::vector<guarded> buffers;
static guarded *shared_memory;

static void on_fault(int sig, siginfo_t *info, void *) {
    char text[300];
    const unsigned char *p = (const unsigned char *)info->si_addr;
    if (sig == SIGILL || sig == SIGTRAP) fail("undefined behaviour (a misaligned access, an overflow, a bad shift or index)");
    for (size_t i = 0; i <= buffers.size(); i++) {
        const guarded *b = i < buffers.size() ? &buffers[i] : shared_memory;
        if (!b || p < b->map || p >= b->map + b->mapped) continue;
        snprintf(text, sizeof text, "touches %s %zu of %zu bytes at byte %ld", i < buffers.size() ? "buffer" : "shared memory",
                 i, b->bytes, (long)(p - b->at));
        fail(text);
    }
    snprintf(text, sizeof text, "touches %p, which is no buffer's", (const void *)p);
    fail(text);
}

// ---- Threads ----

enum state { READY, AT_BARRIER, AT_WARP, DONE };

struct fiber {
    jmp_buf where; // to go on from
    char *stack;
    state now;
    host_dim id;
    uint64_t slot[2]; // what it gives to its warp; two, so that a fast lane cannot overwrite what a slow one reads
    unsigned turn;
};

enum { STACK = 1 << 16 };
static std::vector<fiber> fibers;
static jmp_buf scheduler;
static unsigned self;
static void (*body)();

// Fibers are made by makecontext and switched by _longjmp, which needs no
// system call. They stay from block to block.
static void give_way(state s) {
    fiber &f = fibers[self];
    f.now = s;
    if (!_setjmp(f.where)) _longjmp(scheduler, 1);
}

static void go_on(unsigned i) {
    self = i;
    threadIdx = fibers[i].id;
    if (!_setjmp(scheduler)) _longjmp(fibers[i].where, 1);
}

static ucontext_t maker, made;

static void live() {
    if (!_setjmp(fibers[self].where)) swapcontext(&made, &maker);
    for (;;) {
        body();
        give_way(DONE);
    }
}

static void make_fibers(size_t n) {
    for (auto &f : fibers) munmap(f.stack, STACK);
    fibers.clear();
    fibers.resize(n);
    for (self = 0; self < n; self++) {
        fiber &f = fibers[self];
        f.stack = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (f.stack == MAP_FAILED) fail("no memory for threads");
        getcontext(&made);
        made.uc_stack.ss_sp = f.stack;
        made.uc_stack.ss_size = STACK;
        made.uc_link = nullptr;
        makecontext(&made, live, 0);
        swapcontext(&maker, &made);
    }
}

void host_barrier() { give_way(AT_BARRIER); }

static unsigned meet(uint64_t mine, unsigned mask) {
    if (mask != 0xffffffffu) fail("a shuffle or vote of less than a whole warp");
    fiber &f = fibers[self];
    const unsigned turn = f.turn++ % 2;
    f.slot[turn] = mine;
    give_way(AT_WARP);
    return turn;
}

uint64_t host_exchange(uint64_t mine, unsigned mask, unsigned partner) {
    const unsigned turn = meet(mine, mask);
    return fibers[self / 32 * 32 + partner % 32].slot[turn];
}

unsigned host_ballot(bool mine, unsigned mask) {
    const unsigned turn = meet(mine, mask);
    unsigned votes = 0;
    for (unsigned l = 0; l < 32; l++) votes |= (unsigned)fibers[self / 32 * 32 + l].slot[turn] << l;
    return votes;
}

static bool all_are(state s, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (fibers[i].now != s) return false;
    return true;
}

static void release(size_t from, size_t to) {
    for (size_t i = from; i < to; i++) fibers[i].now = READY;
}

static std::mt19937 rng;

// arrange puts 0 … n−1 in the wanted order: rising, falling, or shuffled anew.
static void arrange(std::vector<unsigned> &v, unsigned order) {
    for (size_t i = 0; i < v.size(); i++) v[i] = order == 1 ? v.size() - 1 - i : i;
    if (order > 1) std::shuffle(v.begin(), v.end(), rng);
}

static void run_block(unsigned order) {
    const size_t n = fibers.size();
    memset(host_shared, FILL, shared_memory->bytes);
    for (size_t i = 0; i < n; i++) {
        fiber &f = fibers[i];
        f.now = READY;
        f.turn = 0;
        f.id = {(unsigned)i % blockDim.x, (unsigned)i / blockDim.x % blockDim.y, (unsigned)i / (blockDim.x * blockDim.y)};
    }
    std::vector<unsigned> turn(n);
    for (;;) {
        arrange(turn, order);
        bool ran = false;
        for (unsigned i : turn) {
            if (fibers[i].now != READY) continue;
            ran = true;
            go_on(i);
        }
        if (all_are(DONE, 0, n)) break;
        bool released = false;
        for (size_t w = 0; w + 32 <= n; w += 32)
            if (all_are(AT_WARP, w, w + 32)) release(w, w + 32), released = true;
        if (all_are(AT_BARRIER, 0, n)) release(0, n), released = true;
        if (!released && !ran) fail("threads wait for others that have left or wait elsewhere");
    }
    shared_memory->check("shared memory");
}

static void launch(host_dim grid, host_dim block, unsigned shared, unsigned order) {
    gridDim = grid, blockDim = block;
    const size_t n = (size_t)block.x * block.y * block.z;
    if (n == 0 || n > 1024) fail("a block has 1 to 1024 threads");
    if (grid.y > 65535 || grid.z > 65535 || grid.x == 0 || grid.y == 0 || grid.z == 0) fail("the grid is too large, or empty");
    if (shared > 48 << 10) fail("more than 48 KiB of shared memory");
    if (fibers.size() != n) make_fibers(n);
    guarded memory(shared);
    shared_memory = &memory;
    host_shared = memory.at;
    rng.seed(order);
    std::vector<unsigned> blocks((size_t)grid.x * grid.y * grid.z);
    arrange(blocks, order);
    for (unsigned b : blocks) {
        blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
        run_block(order);
    }
    shared_memory = nullptr;
}

// ---- Requests ----

static void read_all(void *to, size_t n) {
    if (n && fread(to, 1, n, stdin) != n) _exit(feof(stdin) ? 0 : 4);
}

template <typename T> static T get() {
    T v;
    read_all(&v, sizeof v);
    return v;
}

static void call(); // the kernel of this launch, with its arguments
static void **arguments;
static void (*kernel)(void **);
static void call() { kernel(arguments); }

int main() {
    static char other_stack[1 << 16];
    stack_t alt = {other_stack, 0, sizeof other_stack};
    sigaltstack(&alt, nullptr);
    struct sigaction act = {};
    act.sa_sigaction = on_fault;
    act.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int sig : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP}) sigaction(sig, &act, nullptr);
    body = call;
    for (;;) {
        std::string name(get<uint32_t>(), ' ');
        read_all(&name[0], name.size());
        kernel_name = name;
        uint32_t v[8];
        read_all(v, sizeof v);
        buffers.clear();
        buffers.reserve(64);
        for (uint32_t n = get<uint32_t>(); n > 0; n--) {
            buffers.emplace_back((size_t)get<uint64_t>());
            read_all(buffers.back().at, buffers.back().bytes);
        }
        std::vector<uint64_t> values(get<uint32_t>());
        std::vector<void *> pointers;
        for (auto &value : values) {
            const uint32_t kind = get<uint32_t>(); // 0 a value, 1 a buffer, by number
            value = get<uint64_t>();
            if (kind == 1) value = (uint64_t)buffers.at(value).at;
            pointers.push_back(&value);
        }
        arguments = pointers.data();
        kernel = dispatch(name);
        if (!kernel) fail("there is no such kernel");
        launch({v[0], v[1], v[2]}, {v[3], v[4], v[5]}, v[6], v[7]);
        for (auto &b : buffers) b.check("a buffer");
        for (auto &b : buffers) fwrite(b.at, 1, b.bytes, stdout);
        fflush(stdout);
    }
}
