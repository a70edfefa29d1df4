package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"mochi/allreduce/codec"
	"mochi/allreduce/natsring"
)

// rankEnvironment makes this test binary one rank of TestProcesses.
const rankEnvironment = "MOCHI_BENCH_RANK"

func TestMain(m *testing.M) {
	if arguments := os.Getenv(rankEnvironment); arguments != "" {
		if err := runAsRank(arguments); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runAsRank(arguments string) error {
	url, rest, _ := strings.Cut(arguments, " ")
	rankText, options, _ := strings.Cut(rest, " ")
	rank, err := strconv.Atoi(rankText)
	if err != nil {
		return err
	}
	var o Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	return RunRank(context.Background(), url, rank, o)
}

func checkResult(t *testing.T, r Result, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if r.P50MS <= 0 || r.P99MS < r.P50MS || r.AlgBW <= 0 || r.CPUSecondsPerGB < 0 {
		t.Errorf("implausible: %+v", r)
	}
	bus := r.AlgBW * 2 * float64(r.World-1) / float64(r.World)
	if d := r.BusBW - bus; d > 1e-9 || d < -1e-9 || r.World > 1 && r.RawTCPBusBW <= 0 {
		t.Errorf("implausible: %+v", r)
	}
}

func TestRun(t *testing.T) {
	for _, o := range []Options{
		{World: 1, Bytes: 4000, Wire: codec.FP32, Transport: Inproc, Lane: natsring.Auto, Iterations: 2},
		{World: 2, Bytes: 400_000, Wire: codec.FP32, Transport: Inproc, Lane: natsring.Auto, Iterations: 3},
		{World: 2, Bytes: 400_000, Wire: codec.FP32, Transport: Inproc, Lane: natsring.NATS, Iterations: 3},
		{World: 3, Bytes: 400_004, Wire: codec.BF16, Transport: NATS, Lane: natsring.NATS, Iterations: 3},
	} {
		r, err := Run(t.Context(), o)
		checkResult(t, r, err)
	}
}

func command(t *testing.T, o Options) Command {
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, url string, rank int) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", rankEnvironment, url, rank, options))
		cmd.Stderr = os.Stderr
		return cmd
	}
}

func TestProcesses(t *testing.T) {
	o := Options{World: 3, Bytes: 400_000, Wire: codec.FP32, Transport: NATS, Lane: natsring.Direct, Iterations: 2}
	r, err := RunProcesses(t.Context(), o, command(t, o))
	checkResult(t, r, err)
	if !r.Processes {
		t.Error("the result does not say that there were processes")
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"p50_ms", "p99_ms", "algbw_gbs", "busbw_gbs", "cpu_s_per_gb", "raw_tcp_busbw_gbs"} {
		if !bytes.Contains(data, []byte(`"`+field+`"`)) {
			t.Errorf("%s is missing in %s", field, data)
		}
	}
}

// TestFailingProcessEndsTheOthers: a rank that cannot start is reported, and
// nobody waits for it.
func TestFailingProcessEndsTheOthers(t *testing.T) {
	o := Options{World: 3, Bytes: 4000, Wire: codec.FP32, Transport: NATS, Lane: natsring.NATS, Iterations: 1}
	good := command(t, o)
	_, err := RunProcesses(t.Context(), o, func(ctx context.Context, url string, rank int) *exec.Cmd {
		if rank == 1 {
			return exec.CommandContext(ctx, os.Args[0], "-test.run=NoSuchTest", "-no-such-flag")
		}
		cmd := good(ctx, url, rank)
		cmd.Stderr = nil // it is killed
		return cmd
	})
	if err == nil || !strings.Contains(err.Error(), "rank 1") {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	if err := DefaultOptions().Validate(); err != nil {
		t.Error(err)
	}
	err := Options{Bytes: 3, Wire: "fp8", Transport: "pigeon"}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"world", "bytes", "wire", "transport", "iterations"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not mentioned in: %v", field, err)
		}
	}
	o := Options{World: 2, Bytes: 4, Wire: codec.FP32, Transport: Inproc, Lane: natsring.Auto, Iterations: 1}
	if _, err := RunProcesses(t.Context(), o, nil); err == nil {
		t.Error("in-process connections between processes were accepted")
	}
}

func TestParseLimits(t *testing.T) {
	for text, want := range map[string]Limits{
		"1gbit": {Rate: "1gbit"}, "200mbit,5ms": {"200mbit", 5 * time.Millisecond}, "10gbit,200us": {"10gbit", 200 * time.Microsecond},
	} {
		if got, err := ParseLimits(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "gbit", "0gbit", "-1gbit", "1.5gbit", "1gbit,", "1gbit,5", "1gbit,-5ms", "99999999gbit", "1kbit"} {
		if got, err := ParseLimits(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// TestNetwork: ranks have namespaces of their own, with a cable to the others, and nothing
// is left of them.
func TestNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const world = 2
	n, err := NewNetwork(world, Limits{Rate: "100mbit"})
	if err != nil {
		t.Skip(err) // such as in a container that may not
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	for rank := range world {
		peer := n.Host(1 - rank)
		if out, err := exec.Command("ip", n.In(rank, "ip", "route", "get", peer)[1:]...).CombinedOutput(); err != nil || !strings.Contains(string(out), "cable") {
			t.Errorf("rank %d reaches %s so: %s (%v)", rank, peer, out, err)
		}
	}
}

func TestQuantile(t *testing.T) {
	d := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 5, 0.9: 9, 0.99: 10, 1: 10} {
		if got := quantile(d, q); got != want {
			t.Errorf("quantile %g is %d, want %d", q, got, want)
		}
	}
}

func ExampleRun() {
	o := DefaultOptions()
	o.Bytes, o.Iterations = 1_000_000, 3
	r, err := Run(context.Background(), o)
	fmt.Println(r.World, r.BusBW > 0, err)
	// Output: 2 true <nil>
}
