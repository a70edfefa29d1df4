package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/identity"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/model/limits"
)

func benchClusterCommand() *cli.Command {
	c := cli.NewCommand("bench cluster", cli.Text{
		Short:   "measure the coordinator of many replicas",
		About:   "measure the coordinator of many replicas, which vote, apply and show life as real ones do, and compute nothing",
		Example: "mochi bench cluster --replicas 64 --rate 2 --seconds 30 --json",
	})
	var o clusterBench
	c.IntVar(&o.replicas, "replicas", 64, "members of the round")
	c.IntVar(&o.groups, "groups", 4, "BatchNorm groups of each")
	c.IntVar(&o.shards, "queue-shards", 16, "shards of the queue, each with a digest in every report")
	c.Float64Var(&o.rate, "rate", 2, "steps a second")
	seconds := c.Float64("seconds", 30, "duration of the measurement, once all are in one round")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		f.AtLeast(1, "replicas", o.replicas)
		f.AtLeast(1, "groups", o.groups)
		f.AtLeast(1, "queue-shards", o.shards)
		limits.Range("above 0").Number("rate", o.rate, f.Add)
		limits.Range("above 0").Number("seconds", *seconds, f.Add)
		if err := f.Err(); err != nil {
			return err
		}
		o.lasts, o.errs = time.Duration(*seconds*float64(time.Second)), errs
		r, err := o.run(context.Background())
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, "%d replicas, %.2f steps/s: the coordinator takes %.1f %% of a core and %.0f MiB (at most %.0f); from the last vote to the last commit %.1f ms (p50), %.1f ms (p99); status in %.1f ms; %d replicas lost\n",
			r.Replicas, r.StepsPS, 100*r.Cores, r.RSSMB, r.PeakMB, r.CommitP50, r.CommitP99, r.StatusMS, r.Lost)
		return nil
	}
	return c
}

// clusterResult is what mochi bench cluster prints.
type clusterResult struct {
	Replicas  int     `json:"replicas"`
	Groups    int     `json:"groups"` // of all
	Steps     int     `json:"steps"`
	StepsPS   float64 `json:"steps_per_s"`
	Cores     float64 `json:"cores"` // processor time of the coordinator, of one core
	CPUMS     float64 `json:"cpu_ms_per_step"`
	RSSMB     float64 `json:"rss_mb"`
	PeakMB    float64 `json:"peak_rss_mb"`
	JoinS     float64 `json:"join_s"` // from the first Hello until all are in a round
	CommitP50 float64 `json:"commit_ms_p50"`
	CommitP99 float64 `json:"commit_ms_p99"` // from the last vote until the last member has the commit
	StatusMS  float64 `json:"status_ms"`
	Lost      int     `json:"lost"` // replicas that were given up, by how many the round has changed
}

// clusterBench is one measurement.
type clusterBench struct {
	replicas, groups, shards int
	rate                     float64
	lasts                    time.Duration
	errs                     io.Writer
}

// run starts this program again as the coordinator, whose processor time is then
// its own, and the replicas in this process.
func (o clusterBench) run(ctx context.Context) (r clusterResult, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "mochi-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	address, err := freeAddress()
	if err != nil {
		return r, err
	}
	self, err := os.Executable()
	if err != nil {
		return r, fmt.Errorf("find this program to start it as the coordinator: %w", err)
	}
	const g = 4 // samples of a group
	batch := o.replicas * o.groups * g
	said, err := os.Create(filepath.Join(dir, "coordinator.log"))
	if err != nil {
		return r, err
	}
	defer said.Close()
	coordinator := exec.CommandContext(ctx, self, "coordinator", "--listen", address, "--state", filepath.Join(dir, "run"),
		"--arch", "resnet8", "--head", "linear", "--image-size", "12", "--recipe", "none", "--mochi", "0,0,0", "--dim", "16",
		"--batch", strconv.Itoa(batch), "--bn-group", strconv.Itoa(g), "--queue", strconv.Itoa(batch), "--queue-shards", strconv.Itoa(o.shards),
		"--pairs", "shard", "--min-replicas", strconv.Itoa(o.replicas), "--epochs", "1000000", "--knn-every", "0", "--audit", "0",
		"--checkpoint-every", "0", "--engine", "gorgonia")
	coordinator.Stdout, coordinator.Stderr = said, said
	if err := coordinator.Start(); err != nil {
		return r, fmt.Errorf("start the coordinator: %w", err)
	}
	defer func() {
		cancel() // kills it
		_ = coordinator.Wait()
		if err != nil {
			text, _ := os.ReadFile(said.Name())
			err = fmt.Errorf("%w; the coordinator said: %s", err, text[max(0, len(text)-2000):])
		}
	}()
	pid := coordinator.Process.Pid
	m := newMarks(o)
	began := time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	fakes, err := o.start(ctx, address, m, &running)
	defer func() {
		for _, f := range fakes {
			f.bus.Close()
		}
	}()
	if err != nil {
		return r, err
	}
	if err := m.wait(ctx, 3, 2*time.Minute); err != nil { // the first steps are the start's
		return r, err
	}
	r.JoinS = m.joined.Sub(began).Seconds()
	before, err := m.measure(pid)
	if err != nil {
		return r, err
	}
	timer := time.NewTimer(o.lasts)
	defer timer.Stop()
	select {
	case <-timer.C:
	case err := <-m.failed:
		return r, err
	}
	after, err := m.measure(pid)
	if err != nil {
		return r, err
	}
	asked := time.Now()
	s, err := natsbus.RequestStatus(ctx, natsbus.Options{Job: defaultJob, URL: address, Access: &identity.Source{Key: identity.NewKey()}})
	if err != nil {
		return r, err
	}
	r.StatusMS = time.Since(asked).Seconds() * 1e3
	took := after.at.Sub(before.at).Seconds()
	r.Replicas, r.Groups, r.Steps = o.replicas, o.replicas*o.groups, int(after.step-before.step)
	r.StepsPS = float64(r.Steps) / took
	r.Cores = (after.cpu - before.cpu).Seconds() / took
	r.CPUMS = (after.cpu - before.cpu).Seconds() * 1e3 / float64(max(1, r.Steps))
	r.RSSMB, r.PeakMB = after.rss, after.peak
	r.CommitP50, r.CommitP99 = m.latencies(before.step, after.step)
	r.Lost = o.replicas - s.World + int(s.Round-m.round)
	return r, nil
}

// start connects the replicas; those that were are returned in any case.
func (o clusterBench) start(ctx context.Context, address string, m *marks, running *sync.WaitGroup) (fakes []*standIn, err error) {
	for i := range o.replicas {
		access := &identity.Source{Key: identity.NewKey()}
		id := access.Key.ID(fmt.Sprintf("r%d", i))
		bus, err := natsbus.ConnectReplica(ctx, natsbus.Options{Job: defaultJob, ID: id, URL: address, Access: access, Wait: 20 * time.Second})
		if err != nil {
			return fakes, err
		}
		f := newStandIn(id, bus, m)
		fakes = append(fakes, f)
		running.Go(func() { f.run(ctx) })
	}
	return fakes, nil
}

// freeAddress is one of this machine at which nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// marks is what the replicas note together.
type marks struct {
	period time.Duration
	world  int
	failed chan error // capacity 1

	mu      sync.Mutex
	changed chan struct{} // capacity 1
	begin   time.Time     // of the first step
	first   int64         // its number
	round   int64
	joined  time.Time
	done    int64               // the last step that all have applied
	votes   map[int64]time.Time // the last one of a step
	commits map[int64]*commitMark
}

type commitMark struct {
	last time.Time
	n    int
}

func newMarks(o clusterBench) *marks {
	return &marks{
		period: time.Duration(float64(time.Second) / o.rate), world: o.replicas, failed: make(chan error, 1), changed: make(chan struct{}, 1),
		votes: map[int64]time.Time{}, commits: map[int64]*commitMark{},
	}
}

// fail ends the measurement.
func (m *marks) fail(err error) {
	select {
	case m.failed <- err:
	default:
	}
}

// entered notes a round of all, and when its first step began.
func (m *marks) entered(r *protocol.Round) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.round == 0 {
		m.round, m.joined, m.begin, m.first = r.Round, time.Now(), time.Now(), r.Step
	}
}

// due is when a step is voted for.
func (m *marks) due(step int64) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.begin.Add(time.Duration(step-m.first+1) * m.period)
}

func (m *marks) voted(step int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.votes[step] = time.Now()
}

func (m *marks) committed(step int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.commits[step]
	if c == nil {
		c = &commitMark{}
		m.commits[step] = c
	}
	c.n, c.last = c.n+1, time.Now()
	if c.n == m.world {
		m.done = step
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// wait waits until so many steps are done by all.
func (m *marks) wait(ctx context.Context, steps int64, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		m.mu.Lock()
		done := m.done
		m.mu.Unlock()
		if done >= steps {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-m.failed:
			return err
		case <-m.changed:
		case <-timer.C:
			return fmt.Errorf("%d replicas have made %d steps together within %v", m.world, done, limit)
		}
	}
}

// latencies are those of the steps between two, in ms.
func (m *marks) latencies(after, upTo int64) (p50, p99 float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []float64
	for step := after + 1; step <= upTo; step++ {
		if c := m.commits[step]; c != nil && c.n == m.world {
			all = append(all, c.last.Sub(m.votes[step]).Seconds()*1e3)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}

// spent is what a process has used.
type spent struct {
	at        time.Time
	step      int64
	cpu       time.Duration
	rss, peak float64 // MiB
}

// measure reads what Linux tells of a process.
func (m *marks) measure(pid int) (r spent, err error) {
	r.at = time.Now()
	m.mu.Lock()
	r.step = m.done
	m.mu.Unlock()
	if r.cpu, err = processorTime(pid); err == nil {
		r.rss, r.peak, err = memoryOf(pid)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: this measurement needs Linux's /proc, and a coordinator that runs", syscall.ENOTSUP)
	}
	return r, err
}
