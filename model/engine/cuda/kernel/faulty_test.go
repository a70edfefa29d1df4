package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Kernels that do what no kernel must, and what the machine says of each.
const faultySource = `
KERNEL writes_behind(int n, float *y) { y[threadIdx.x + n - 31] = 0; }
KERNEL writes_far_behind(int n, float *y) { y[threadIdx.x + n] = 0; }
KERNEL writes_before(int n, float *y) { y[(int)threadIdx.x - 1] = 0; }
KERNEL reads_behind(int n, float *y) { y[0] = y[n + 2000]; }
KERNEL reads_just_behind(int n, float *y) { if (threadIdx.x == 0) y[0] = y[n]; }
KERNEL shared_behind(int n, float *y) { SHARED(float)[n + threadIdx.x] = 1; }
KERNEL shared_unset(int n, float *y) { if (threadIdx.x == 0) y[0] = SHARED(float)[0]; }
KERNEL misaligned(int n, float *y) { if (threadIdx.x == 0) *(uint4 *)(y + 1) = *(uint4 *)y; }
KERNEL overflows(int n, float *y) { y[0] = (float)(n * n * n * n); }
KERNEL leaves_early(int n, float *y) { if (threadIdx.x == 3) return; __syncthreads(); }
KERNEL half_a_warp(int n, float *y) { if (threadIdx.x < 16) y[0] = __shfl_xor_sync(0xffffffffu, y[1], 1); }
KERNEL votes_partly(int n, float *y) { __ballot_sync(0xffffu, 1); }
KERNEL no_barrier(int n, float *y) { SHARED(float)[threadIdx.x] = threadIdx.x; y[threadIdx.x] = SHARED(float)[31 - threadIdx.x]; }
KERNEL adds_floats(int n, float *y) { atomicAdd(y, threadIdx.x == 0 ? 1e8f : threadIdx.x == 1 ? -1e8f : 1.0f); }
KERNEL is_right(int n, float *y) {
    SHARED(float)[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = SHARED(float)[31 - threadIdx.x] + __shfl_sync(0xffffffffu, (float)threadIdx.x, 5);
}
`

// The machine finds what it promises to find.
func TestMachineFindsFaults(t *testing.T) {
	want := map[string]string{
		"writes_behind":     "something was written 160 bytes from its start",
		"writes_far_behind": "touches buffer 0 of 160 bytes at byte 160",
		"writes_before":     "something was written -4 bytes from its start",
		"reads_behind":      "touches buffer 0 of 160 bytes at byte 8160",
		"shared_behind":     "touches shared memory",
		"misaligned":        "undefined behaviour",
		"overflows":         "undefined behaviour",
		"leaves_early":      "wait for others that have left",
		"half_a_warp":       "wait for others that have left",
		"votes_partly":      "less than a whole warp",
		"no_barrier":        "depends on the order",
		"adds_floats":       "depends on the order",
		"is_right":          "",
		"shared_unset":      "",
		"reads_just_behind": "",
	}
	var table []Kernel
	for name := range want {
		table = append(table, Kernel{Name: name, Params: []Param{{"n", Int, ""}, {"y", OutF, ""}}})
	}
	common, err := files.ReadFile("common.cu")
	if err != nil {
		t.Fatal(err)
	}
	program, err := build(string(common)+faultySource, table)
	if errors.Is(err, errNoCompiler) && os.Getenv("MOCHI_TEST_GPU") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(filepath.Dir(program))
	for name, message := range want {
		m := newMachineOf(t, program, table)
		y := make([]float32, 40)
		n := len(y)
		switch name {
		case "writes_behind":
			y = y[:37] // ends 12 bytes before the guard: thread 31 writes one value there
			n, message = 37, "something was written 148 bytes from its start"
		case "reads_just_behind":
			y, n = y[:37], 37
		case "overflows":
			n = 1 << 20
		}
		err := m.try(name, Launch{Grid: [3]int{1, 1, 1}, Block: [3]int{32, 1, 1}, Shared: 160}, n, y)
		switch {
		case message == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case message != "" && (err == nil || !strings.Contains(err.Error(), message)):
			t.Errorf("%s: %v, want %q", name, err, message)
		}
		switch name {
		case "is_right":
			if y[0] != 36 || y[31] != 5 {
				t.Errorf("%s computes %v", name, y)
			}
		case "shared_unset", "reads_just_behind": // what nobody wrote is NaN
			if y[0] == y[0] {
				t.Errorf("%s read %v", name, y[0])
			}
		}
	}
}
