package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/protocol/config"
)

// call runs mochi in this process.
func call(args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = execute(args, &o, &e)
	return status, o.String(), e.String()
}

// refused is a call that must end with status and say all of want, and leave
// stdout alone.
func refused(t *testing.T, status int, args []string, want ...string) {
	t.Helper()
	got, out, errs := call(args...)
	if got != status || out != "" {
		t.Errorf("mochi %q: status %d, want %d; stdout %q\n%s", args, got, status, out, errs)
	}
	for _, w := range want {
		if !strings.Contains(errs, w) {
			t.Errorf("mochi %q does not say %q:\n%s", args, w, errs)
		}
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, c := range program().Commands() {
		words := strings.Fields(c.Name())
		for _, flag := range []string{"--help", "-h"} {
			status, out, errs := call(append(words, flag)...)
			if status != 0 || errs != "" || !strings.Contains(out, "Example:\n  mochi "+c.Name()) {
				t.Errorf("mochi %s %s: status %d\n%s%s", c.Name(), flag, status, out, errs)
			}
		}
		refused(t, 2, append(words, "--bogus"), "unknown flag --bogus", "mochi "+c.Name()+" --help")
		refused(t, 2, append(words, "one", "two", "three"), "stray argument")
	}
	status, out, _ := call("--help")
	for _, c := range program().Commands() {
		if status != 0 || !strings.Contains(out, "  "+c.Name()+" ") {
			t.Errorf("mochi --help: status %d, %s is missing", status, c.Name())
		}
	}
	for _, group := range []string{"eval", "bench"} {
		if status, out, _ := call(group, "--help"); status != 0 || !strings.Contains(out, "mochi "+group+" ") {
			t.Errorf("mochi %s --help: status %d, %q", group, status, out)
		}
		refused(t, 2, []string{group, "nothing"}, "mochi "+group+" ")
	}
}

func TestWrongUsage(t *testing.T) {
	refused(t, 2, nil, "which command?")
	refused(t, 2, []string{"foo"}, `unknown command "foo"`)
	refused(t, 2, []string{"inspect"}, "FILE is missing")
	refused(t, 2, []string{"diff", "a"}, "B is missing")
	refused(t, 2, []string{"train", "--bn_group", "4"}, "unknown flag --bn_group; did you mean --bn-group?")
	refused(t, 2, []string{"train", "--replicas", "x"}, `--replicas: invalid value "x": not a whole number`)
	refused(t, 2, []string{"status", "--timeout", "x"}, "not a duration, such as 30s")
	refused(t, 2, []string{"status", "--json=maybe"}, "not true or false")
	refused(t, 2, []string{"train", "--steps"}, "--steps needs a value")
	refused(t, 2, []string{"bench", "loss", "--mochi", "1,2"}, "N,s,s2")
	refused(t, 1, []string{"status", "--join", "nats://127.0.0.1:1", "--timeout", "2s"}, "connect to NATS at 127.0.0.1:1: dial tcp", "is the coordinator running")
	refused(t, 2, []string{"replica", "--join", "http://localhost", "--threads", "-1"}, "3 faults", "join:", "nats://HOST:PORT", "threads:", "data: missing")
}

// All that is wrong is said at once, and nothing is started or written.
func TestEveryFaultAtOnce(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	refused(t, 2, []string{"train", "--data", "/nowhere", "--out", run, "--batch", "100", "--mochi", "99999,1,1", "--temperature", "-1",
		"--arch", "foo", "--replicas", "0", "--threads", "-1", "--workers", "-1", "--resume", "sometimes", "--engine", "foo", "--steps", "x"},
		"11 faults", `steps: "x" is not a whole number`, `arch: "foo"`, "temperature: -1", "batch: 100 is not a multiple of bn-group 32",
		"mochi: N = 99999", "replicas: 0 is too small; at least 1", "threads: -1 is too small; at least 0", "workers: -1 is too small", `engine: "foo"`, `resume: "sometimes"`, "data: /nowhere: no such folder")
	refused(t, 2, []string{"train", "--out", run, "--mochi", "0,5,5", "--image-size", "16", "--queue-copies", "1", "--engine", "gorgonia", "--precision", "bf16", "--replicas", "9"},
		"mochi: 0,5,5", "image-size: 16 is too small for resnet50", "queue-copies", "precision:", "replicas: is 9, but a batch of 128 has only 4 groups", "data: missing")
	refused(t, 2, []string{"train", "--data", "/nowhere", "--out", run, "--engine", "gorgonia", "--precision", "tf32"},
		`precision: engine gorgonia: precision "tf32": not supported by this engine: it computes in fp32 only; use --precision fp32 or another engine`)
	refused(t, 2, []string{"coordinator", "--state", run, "--listen", "here", "--max-replicas", "x", "--min-replicas", "5", "--engine", "cuda"},
		`listen: "here"`, "max-replicas:", "min-replicas: 5", "engine: cuda is not part of this build")
	refused(t, 2, []string{"coordinator", "--listen", "127.0.0.1:99999"}, "state: missing", `port "99999"`)
	refused(t, 2, []string{"replica", "--join", "nats://[::1]:4222", "--listen", "here", "--gossip", "::1:7", "--advertise", "a:x"},
		`listen: "here"`, `gossip: "::1:7"`, "in brackets", `advertise: port "x" of "a:x"`)
	refused(t, 2, []string{"bench", "loss", "--batch", "0", "--iterations", "0", "--mochi", "0,1,1"}, "3 faults")
	refused(t, 2, []string{"bench", "input", "--size", "0", "--seconds", "0", "--workers", "-1"}, "4 faults")
	refused(t, 2, []string{"bench", "step", "--steps", "0", "--warmup", "-1", "--batch", "33", "--bn-group", "32"}, "3 faults")
	refused(t, 2, []string{"bench", "allreduce", "--world", "0", "--bytes", "-1", "--wire", "x", "--iterations", "0"}, "world", "bytes", "wire", "iterations")
	refused(t, 2, []string{"bench", "allreduce", "--processes"}, "--transport nats")
	refused(t, 2, []string{"eval", "knn", "--checkpoint", "random:foo", "--k", "0", "--feature", "x", "--kernel-temperature", "0"},
		"5 faults", `unknown network "foo"`, "data: missing")
	if _, err := os.Stat(run); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

// A configuration file is checked like flags; flags win over it.
func TestConfigFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("batch: 100\nqeue: 5\nthreads: many\n")
	refused(t, 2, []string{"train", "--config", file, "--steps", "x"},
		"6 faults", "qeue: line 2: no such key; did you mean queue?", `threads: "many" is not a whole number`, "steps:", "batch: 100", "out:", "data:")
	write("preset: demo\nbatch: 96\nengine: gorgonia\n")
	refused(t, 2, []string{"train", "--config", file, "--bn-group", "64"}, "batch: 96 is not a multiple of bn-group 64")
	refused(t, 2, []string{"coordinator", "--config", file + ".gone"}, "config:", "no such file")
	write("replicas: 3\n")
	refused(t, 2, []string{"coordinator", "--config", file}, "replicas: not a setting of mochi coordinator")
}

// fields decodes the last line of a command's stdout and checks its keys.
func fields(t *testing.T, keys []string, args ...string) map[string]any {
	t.Helper()
	status, out, errs := call(args...)
	if status != 0 {
		t.Fatalf("mochi %q: status %d\n%s", args, status, errs)
	}
	if strings.Count(out, "\n") != 1 {
		t.Errorf("mochi %q prints more than one object:\n%s", args, out)
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(out), &object); err != nil {
		t.Fatalf("mochi %q: %v in %s", args, err, out)
	}
	for _, key := range keys {
		if _, found := object[key]; !found {
			t.Errorf("mochi %q lacks %s: %s", args, key, out)
		}
	}
	return object
}

func TestBenchObjects(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 40, 8)
	step := fields(t, []string{"step_ms_p50", "step_ms_p99", "images_per_s", "kernel_ms", "phases", "peak_rss_mb", "allocs_per_step", "groups_at_once"},
		"bench", "step", "--arch", "resnet8", "--image-size", "12", "--batch", "8", "--bn-group", "4", "--groups-at-once", "2", "--precision", "fp32", "--engine", "auto",
		"--threads", "1", "--queue", "64", "--mochi", "8,8,4", "--steps", "2", "--json")
	p50, p99, kernel := step["step_ms_p50"].(float64), step["step_ms_p99"].(float64), step["kernel_ms"].(float64)
	if p50 <= 0 || p99 < p50 || kernel <= 0 || kernel > p99 || step["peak_rss_mb"].(float64) <= 0 {
		t.Errorf("step %v", step)
	}
	if n := step["groups_at_once"].(float64); n != 1 {
		t.Errorf("a CPU engine computes %v groups at once", n)
	}
	if got, want := step["images_per_s"].(float64), 8/p50*1e3; got != want {
		t.Errorf("%v images/s, want %v", got, want)
	}
	sum := 0.0
	for _, ms := range step["phases"].(map[string]any) {
		sum += ms.(float64)
	}
	if sum <= 0 || sum > 2*p99 {
		t.Errorf("phases add up to %v ms of steps of %v", sum, p99)
	}
	loss := fields(t, []string{"loss_ms_p50", "moco_ms_p50", "extra_mb"},
		"bench", "loss", "--batch", "4", "--queue", "128", "--dim", "8", "--mochi", "16,16,4", "--iterations", "2", "--json")
	if loss["loss_ms_p50"].(float64) <= 0 || loss["moco_ms_p50"].(float64) <= 0 {
		t.Errorf("loss %v", loss)
	}
	input := fields(t, []string{"images_per_s", "decode_only_images_per_s", "corrupt"},
		"bench", "input", "--data", data, "--recipe", "cifar", "--size", "12", "--workers", "1", "--seconds", "0.05", "--json")
	if input["images_per_s"].(float64) <= 0 || input["corrupt"].(float64) != 0 {
		t.Errorf("input %v", input)
	}
	ring := fields(t, []string{"p50_ms", "p99_ms", "algbw_gbs", "busbw_gbs", "cpu_s_per_gb", "raw_tcp_busbw_gbs"},
		"bench", "allreduce", "--world", "2", "--bytes", "4000", "--wire", "bf16", "--transport", "inproc", "--iterations", "2", "--json")
	if ring["p50_ms"].(float64) <= 0 {
		t.Errorf("all-reduce %v", ring)
	}
}

// A benchmark's settings that are not given follow those that are.
func TestBenchStepDefaults(t *testing.T) {
	for _, test := range []struct {
		args []string
		want func(c config.Job) bool
	}{
		{[]string{"--arch", "resnet20"}, func(c config.Job) bool { return c.ImageSize == 32 && c.Head == "linear" }},
		{[]string{"--arch", "resnet20", "--image-size", "28"}, func(c config.Job) bool { return c.ImageSize == 28 }},
		{[]string{"--arch", "resnet50"}, func(c config.Job) bool { return c.ImageSize == 224 && c.BNGroup == 32 }},
		{[]string{"--batch", "16", "--queue", "8192"}, func(c config.Job) bool { return c.BNGroup == 16 && c.MoCHi.N == 1024 }},
		{[]string{"--batch", "8", "--queue", "10"}, func(c config.Job) bool { return c.QueueShards == 10 && c.MoCHi.N == 10 }},
		{[]string{"--batch", "32768"}, func(c config.Job) bool { return c.Queue == 32768 }},
	} {
		c := cli.NewCommand("bench step", cli.Text{})
		training := cli.AddTraining(c, func(string) bool { return true })
		if err := c.Parse(test.args); err != nil {
			t.Fatal(err)
		}
		var f cli.Faults
		cfg := training.Job(c, &f, func(c *config.Job) { fitStep(training, c) })
		if err := f.Err(); err != nil || !test.want(cfg) {
			t.Errorf("%v: %v, %+v", test.args, err, cfg)
		}
	}
}
