// Command chaos treats a cluster badly and checks that it keeps its promises. A
// coordinator and three replicas train as processes of their own, on generated
// images or those of --data; at random moments, drawn from a seed, replicas and
// coordinator are killed, stopped, and cut off, and the disk under the
// coordinator's state is filled and frozen. At the end the promises are checked
// from logs and checkpoints alone. README.md beside it tells the rest.
//
//	chaos [run] --mochi bin/mochi --time 1h --seed 7
//	chaos kill --mochi bin/mochi --times 50
//	chaos failover --mochi bin/mochi --times 30 --how kill|stop|cut [--coordinators 5]
//	chaos flood --mochi bin/mochi --connections 200 --time 60s
//
// Exit status: 0 all was kept, 1 something was broken, 2 wrong usage. The last
// line of stdout is one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"mochi/tools/chaos/failover"
)

// options are what the command line says.
type options struct {
	mochi, data, out, faults string
	net, job                 string
	beside                   bool
	images, times            int
	length, every            time.Duration
	seed                     uint64
	keep                     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(start(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func start(ctx context.Context, args []string, out, errs io.Writer) int {
	if len(args) > 0 && args[0] == "failover" {
		return failover.Run(ctx, failover.Job{Images: generate, Settings: jobs["tiny"]}, args[1:], out, errs)
	}
	if len(args) > 0 && args[0] == "flood" {
		report, broken, err := flood(ctx, args[1:], errs)
		if errors.Is(err, errUsage) {
			fmt.Fprintln(errs, "chaos:", err)
			return 2
		}
		return tell("flood", 1, report, and(broken, err), out, errs)
	}
	mode := "run"
	if len(args) > 0 && (args[0] == "run" || args[0] == "kill") {
		mode, args = args[0], args[1:]
	}
	var o options
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&o.mochi, "mochi", "bin/mochi", "the program")
	f.StringVar(&o.data, "data", "", "data set (default: images that are generated)")
	f.IntVar(&o.images, "images", training, "size of its training split")
	f.StringVar(&o.out, "out", "", "folder for all that is left (default: a new one, removed when all was kept)")
	f.StringVar(&o.faults, "faults", "all", "kinds, with commas between them")
	f.DurationVar(&o.length, "time", 2*time.Minute, "how long")
	f.DurationVar(&o.every, "every", 6*time.Second, "mean time between faults")
	f.Uint64Var(&o.seed, "seed", 1, "draws what happens when")
	f.IntVar(&o.times, "times", 50, "how often (kill)")
	f.StringVar(&o.net, "net", "auto", "namespaces: a network of the kernel's, which needs root; relay: TCP relays before the coordinator; auto: what can be had")
	f.StringVar(&o.job, "job", "tiny", "tiny: a small network, for the generated images; cifar: ResNet-20 on 32×32 pixels")
	f.BoolVar(&o.beside, "beside", false, "the quiet run goes beside the other, instead of after it")
	f.BoolVar(&o.keep, "keep", false, "leave the folder")
	if err := f.Parse(args); err != nil {
		return 2
	}
	of, err := choose(o.faults)
	if err == nil && (f.NArg() > 0 || o.length <= 0 || o.every <= 0 || o.times < 1 || o.images < 1) {
		err = errors.New("no arguments beside flags; --time, --every, --times and --images are positive")
	}
	if err == nil && (jobs[o.job] == nil || o.net != "auto" && o.net != "namespaces" && o.net != "relay") {
		err = fmt.Errorf("--job is tiny or cifar, not %q; --net is auto, namespaces or relay, not %q", o.job, o.net)
	}
	if err == nil && mode == "run" {
		if _, missing := os.Stat("tools/checksamples"); missing != nil {
			err = errors.New("run it in the checkout of mochi: it checks samples with tools/checksamples at the end")
		}
	}
	if err != nil {
		fmt.Fprintln(errs, "chaos:", err)
		return 2
	}
	w, err := newWorld(o, errs)
	if err != nil {
		fmt.Fprintln(errs, "chaos:", err)
		return 1
	}
	defer w.close()
	var report any
	var broken []string
	if mode == "kill" {
		report, broken, err = w.kill(ctx)
	} else {
		report, broken, err = w.run(ctx, of)
	}
	status := tell(mode, o.seed, report, and(broken, err), out, errs)
	w.failed = status != 0
	return status
}

var errUsage = errors.New("wrong usage: chaos MODE --help lists the flags")

// and is what is broken, and an error that is none of it.
func and(broken []string, err error) []string {
	if err != nil {
		broken = append(broken, err.Error())
	}
	return broken
}

// tell says what is broken, and the report, and returns the exit status.
func tell(mode string, seed uint64, report any, broken []string, out, errs io.Writer) int {
	for _, b := range broken {
		fmt.Fprintln(errs, "BROKEN:", b)
	}
	line, err := json.Marshal(map[string]any{"mode": mode, "seed": seed, "broken": len(broken), "report": report})
	if err != nil {
		fmt.Fprintln(errs, "chaos:", err)
		return 1
	}
	fmt.Fprintln(out, string(line))
	if len(broken) > 0 {
		return 1
	}
	return 0
}

// jobs are settings by name. A step of a tiny one takes milliseconds. The queue is
// whole on every replica, so that no kill loses a shard.
var jobs = map[string][]string{
	"tiny": {"--arch", "resnet8", "--head", "linear", "--image-size", "16", "--recipe", "cifar",
		"--batch", "48", "--bn-group", "4", "--queue", "192", "--dim", "16", "--mochi", "32,16,8",
		"--mochi-warmup", "0", "--lr", "0.05", "--epochs", "1000000", "--knn-every", "0",
		"--checkpoint-every", "200", "--seed", "7"},
	"cifar": {"--arch", "resnet20", "--head", "linear", "--image-size", "32", "--recipe", "cifar",
		"--batch", "48", "--bn-group", "8", "--queue", "4096", "--dim", "64", "--mochi", "256,128,64",
		"--mochi-warmup", "0", "--lr", "0.05", "--epochs", "1000000", "--knn-every", "0",
		"--checkpoint-every", "200", "--seed", "7"},
}

var names = []string{"a", "b", "c"}

// world is the folder and the cluster of one run.
type world struct {
	options
	cluster *cluster
	disk    *disk // nil where there is none
	lacks   map[means]error
	log     tail // that of the coordinator
	errs    io.Writer
	failed  bool

	mu     sync.Mutex
	record *os.File // events.jsonl
	began  time.Time
}

func newWorld(o options, errs io.Writer) (*world, error) {
	w := &world{options: o, errs: errs, began: time.Now()}
	var err error
	if w.out == "" {
		w.out, err = os.MkdirTemp("", "mochi-chaos-")
	} else {
		w.keep = true
		err = os.MkdirAll(w.out, 0o755)
	}
	if err != nil {
		return nil, err
	}
	if w.out, err = filepath.Abs(w.out); err != nil {
		return nil, err
	}
	if w.data == "" {
		w.data = filepath.Join(w.out, "images")
		if err = generate(w.data); err != nil {
			return nil, err
		}
	}
	if w.record, err = os.Create(filepath.Join(w.out, "events.jsonl")); err != nil {
		return nil, err
	}
	w.lacks = map[means]error{}
	between, err := w.makeNetwork()
	if err != nil {
		return nil, err
	}
	state := filepath.Join(w.out, "state")
	disk, err := mountDisk(w.out, diskSize)
	if err != nil {
		w.lacks[space], w.lacks[freeze] = err, err
	} else {
		w.disk, state = disk, filepath.Join(disk.at, "state")
		if !disk.freezes {
			w.lacks[freeze] = disk.why
		}
	}
	w.cluster, err = newCluster(&cluster{mochi: w.mochi, folder: w.out, state: state, data: w.data,
		settings: jobs[o.job], note: w.note, network: between}, names, o.seed)
	if err != nil && w.disk != nil {
		w.disk.close(errs)
	}
	return w, err
}

// diskSize is that of the file system under --state: what a job of an hour writes
// fits, and to fill it takes a moment.
const diskSize = 512 << 20

// makeNetwork makes that of --net, and notes what the machine has no means for.
func (w *world) makeNetwork() (network, error) {
	if w.net != "relay" {
		n, err := newNamespaces(append([]string{hub}, names...), w.seed)
		if err == nil {
			return n, nil
		}
		if w.net == "namespaces" {
			return nil, err
		}
		w.lacks[links] = err
	} else {
		w.lacks[links] = errors.New("--net relay is between replicas and coordinator alone")
	}
	return newRelays(names, w.seed)
}

// note appends to events.jsonl what happened and when, and says so.
func (w *world) note(what string, more any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text, err := json.Marshal(map[string]any{"time": time.Now().UTC(), "what": what, "more": more})
	if err == nil {
		_, err = w.record.Write(append(text, '\n'))
	}
	if err != nil {
		fmt.Fprintln(w.errs, "chaos: events.jsonl:", err)
	}
	fmt.Fprintf(w.errs, "%8.1fs  %s  %v\n", time.Since(w.began).Seconds(), what, more)
}

func (w *world) close() {
	w.cluster.close()
	if w.disk != nil {
		w.disk.close(w.errs)
	}
	_ = w.record.Close() // written line by line; nothing is buffered
	if w.failed || w.keep {
		fmt.Fprintln(w.errs, "what is left is in", w.out)
		return
	}
	_ = os.RemoveAll(w.out)
}

// startAll starts the cluster and waits for commits of all three replicas.
func (w *world) startAll(ctx context.Context) error {
	for _, p := range w.cluster.everybody() {
		if err := w.cluster.start(p); err != nil {
			return err
		}
	}
	return w.await(ctx, 3*time.Minute, "a commit of three replicas", func(steps []line) bool {
		return len(steps) > 0 && steps[len(steps)-1].World == len(names)
	})
}

// await reads the log until its steps are as wanted.
func (w *world) await(ctx context.Context, most time.Duration, what string, ok func([]line) bool) error {
	w.log.path = filepath.Join(w.cluster.state, "log.jsonl")
	for end := time.Now().Add(most); time.Now().Before(end); {
		if err := w.log.read(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if ok(commits(w.log.lines)) {
			return nil
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("no sign of %s within %v", what, most)
}

// summary is what a run did.
type summary struct {
	Faults  map[string]int    `json:"faults"`
	Skipped map[string]string `json:"skipped,omitempty"` // kinds that this machine has no means for, and why
	Steps   int64             `json:"steps"`
	Minutes float64           `json:"minutes"`
	Second  []growth          `json:"second_half"` // what processes had in it
}

// run does the plan and checks the promises.
func (w *world) run(ctx context.Context, of []kind) (any, []string, error) {
	s := summary{Faults: map[string]int{}, Skipped: map[string]string{}}
	var can []kind
	for _, k := range of {
		if why := w.lacks[k.needs]; why != nil {
			s.Skipped[k.name] = why.Error()
			fmt.Fprintf(w.errs, "no %s, which needs %s: %v\n", k.name, k.needs, why)
			continue
		}
		can = append(can, k)
	}
	if len(can) == 0 {
		return s, nil, errors.New("none of these faults can be done here")
	}
	plan := draw(w.seed, w.length, w.every, can, names)
	if err := w.startAll(ctx); err != nil {
		return s, nil, err
	}
	watching, stop := context.WithCancel(ctx)
	lives := make(chan []*life, 1)
	go func() { lives <- w.cluster.observe(watching) }()
	began := time.Now()
	quiet := w.startQuiet(ctx)
	defer quiet.end()
	w.cluster.carryOut(ctx, plan, w.disk)
	_ = wait(ctx, time.Until(began.Add(w.length)))
	for _, f := range plan {
		s.Faults[f.Kind]++
	}
	reached, err := lastStep(w.cluster.state)
	if err == nil {
		err = w.await(ctx, 3*time.Minute, "commits of three replicas after the last fault", func(steps []line) bool {
			n := len(steps)
			return n > 0 && steps[n-1].World == len(names) && steps[n-1].Step > reached+10
		})
	}
	stop()
	seen := <-lives
	if err != nil {
		return s, w.cluster.broken(), err
	}
	w.cluster.end(3 * time.Minute)
	s.Minutes = time.Since(began).Minutes()
	if s.Steps, err = lastStep(w.cluster.state); err != nil {
		return s, w.cluster.broken(), err
	}
	broken := w.cluster.broken()
	for _, l := range seen {
		g, grows, enough := l.grown(began.Add(w.length/2), w.length/12)
		if broken = append(broken, grows...); enough {
			s.Second = append(s.Second, g)
		}
	}
	if err := quiet.finish(ctx, s.Steps); err != nil {
		return s, broken, err
	}
	return s, append(broken, w.cluster.verify(quiet.run, s.Steps, w.images)...), nil
}

// lastStep is the last committed step that a run's log tells of.
func lastStep(run string) (int64, error) {
	lines, err := readLog(filepath.Join(run, "log.jsonl"))
	if err != nil {
		return 0, err
	}
	steps := commits(lines)
	if len(steps) == 0 {
		return 0, errors.New("no step was committed")
	}
	return steps[len(steps)-1].Step, nil
}
