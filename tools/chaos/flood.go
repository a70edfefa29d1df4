package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// flooded is what strangers cost a job: the time of its steps in ms, medians of each turn,
// while they come to a port of nobody's and while they come to the coordinator's.
type flooded struct {
	Connections int       `json:"connections"`
	Seconds     float64   `json:"seconds"` // of each turn
	QuietMs     float64   `json:"quiet_ms"`
	ElsewhereMs []float64 `json:"elsewhere_ms"`
	HereMs      []float64 `json:"here_ms"`
	Ratio       float64   `json:"ratio"`             // of the medians of all steps, here to elsewhere
	Worst       float64   `json:"worst"`             // ms of the longest step meanwhile
	Dialled     int64     `json:"dialled"`           // connections that were made to the coordinator
	CPU         float64   `json:"coordinator_cpu_s"` // that it used meanwhile
}

// mostRatio is by how much a flood of strangers at the coordinator's port may slow a job.
const mostRatio = 1.10

// flooding is a job on loopback, and what was seen of it so far.
type flooding struct {
	*world
	length   time.Duration // of each turn
	report   flooded
	lastTurn []float64 // ms of the steps that were committed in it
}

// flood trains on loopback with one replica, and lets strangers without a token come in
// turns: to a port that has nothing to do with it, and to the coordinator's. Each of them
// connects, says what it likes, and comes again when it was sent away.
func flood(ctx context.Context, args []string, errs io.Writer) (any, []string, error) {
	w := &flooding{world: &world{errs: errs, began: time.Now()}}
	f := flag.NewFlagSet("chaos flood", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&w.mochi, "mochi", "bin/mochi", "the program")
	f.IntVar(&w.report.Connections, "connections", 200, "strangers at a time")
	f.DurationVar(&w.length, "time", time.Minute, "of each turn")
	f.IntVar(&w.times, "turns", 1, "pairs of turns")
	if err := f.Parse(args); err != nil || f.NArg() > 0 || w.length <= 0 || w.times < 1 || w.report.Connections < 1 {
		return nil, nil, errors.Join(errUsage, err)
	}
	w.report.Seconds = w.length.Seconds()
	var err error
	if w.out, err = os.MkdirTemp("", "mochi-flood-"); err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(w.out)
	if err := w.begin(); err != nil {
		return nil, nil, err
	}
	defer w.record.Close()
	defer w.cluster.close()
	if err = w.turns(ctx); err == nil {
		w.cluster.end(time.Minute)
	}
	broken := w.cluster.broken()
	if w.report.Ratio > mostRatio {
		broken = append(broken, fmt.Sprintf("steps take %.2f times as long while strangers come to the coordinator as while they come to another port, more than %.2f", w.report.Ratio, mostRatio))
	}
	return w.report, broken, err
}

// begin makes the images and the cluster, and starts nothing.
func (w *flooding) begin() (err error) {
	w.data = filepath.Join(w.out, "images")
	if err := generate(w.data); err != nil {
		return err
	}
	here, err := freeAddress()
	if err != nil {
		return err
	}
	w.cluster, err = newCluster(&cluster{mochi: w.mochi, folder: w.out, state: filepath.Join(w.out, "state"), data: w.data,
		settings: jobs["tiny"], note: w.note, network: loopback(here)}, []string{"a"}, 1)
	if err == nil {
		w.record, err = os.Create(filepath.Join(w.out, "events.jsonl"))
	}
	return err
}

// turns does them: a quiet one, and pairs of the two ports.
func (w *flooding) turns(ctx context.Context) error {
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer sink.Close()
	go swallow(sink)
	for _, p := range w.cluster.everybody() {
		if err := w.cluster.start(p); err != nil {
			return err
		}
	}
	if err := w.await(ctx, time.Minute, "twenty steps", func(steps []line) bool { return len(steps) > 20 }); err != nil {
		return err
	}
	if err := w.turn(ctx, func(ctx context.Context) { <-ctx.Done() }); err != nil {
		return err
	}
	r := &w.report
	r.QuietMs = middle(w.lastTurn)
	var elsewhere, here []float64
	for range w.times {
		if _, _, err := w.strangersAt(ctx, sink.Addr().String()); err != nil {
			return err
		}
		r.ElsewhereMs, elsewhere = append(r.ElsewhereMs, middle(w.lastTurn)), append(elsewhere, w.lastTurn...)
		dialled, used, err := w.strangersAt(ctx, w.cluster.network.listen())
		if err != nil {
			return err
		}
		r.HereMs, here = append(r.HereMs, middle(w.lastTurn)), append(here, w.lastTurn...)
		r.Dialled, r.CPU = r.Dialled+dialled, r.CPU+used.Seconds()
	}
	r.Ratio = middle(here) / middle(elsewhere)
	return nil
}

// strangersAt is a turn in which strangers come to an address. It returns how many came,
// and what the coordinator used of its processor meanwhile.
func (w *flooding) strangersAt(ctx context.Context, address string) (dialled int64, used time.Duration, err error) {
	var n atomic.Int64
	before := cpu(w.cluster.coordinator.pid())
	err = w.turn(ctx, func(ctx context.Context) { strangers(ctx, address, w.report.Connections, &n) })
	used = cpu(w.cluster.coordinator.pid()) - before
	if err == nil {
		w.note("flooded", map[string]any{"target": address, "median_ms": middle(w.lastTurn), "steps": len(w.lastTurn), "connections": n.Load(), "coordinator_cpu_s": used.Seconds()})
	}
	return n.Load(), used, err
}

// turn has something done for as long as a turn takes, and looks at the steps that were
// committed meanwhile, but for its first two seconds.
func (w *flooding) turn(ctx context.Context, during func(context.Context)) error {
	ctx, cancel := context.WithTimeout(ctx, w.length)
	defer cancel()
	from := time.Now()
	during(ctx)
	to := time.Now()
	if err := w.log.read(); err != nil {
		return err
	}
	w.lastTurn = nil
	for _, l := range commits(w.log.lines) {
		if l.Time.After(from.Add(2*time.Second)) && l.Time.Before(to) {
			w.lastTurn = append(w.lastTurn, l.StepMs)
		}
	}
	if len(w.lastTurn) == 0 {
		return errors.New("no step was committed during a turn")
	}
	w.report.Worst = max(w.report.Worst, slices.Max(w.lastTurn))
	return nil
}

// loopback is the network of one machine: an address of the coordinator's.
type loopback string

func (l loopback) listen() string                            { return string(l) }
func (l loopback) join(string) string                        { return string(l) }
func (l loopback) command(_ string, argv ...string) []string { return argv }
func (l loopback) between() bool                             { return false }
func (l loopback) set(string, string, weather) error {
	return errors.New("nothing can be done to loopback")
}
func (l loopback) close() error { return nil }

// swallow takes every connection, hears what it says first, and sends it away: the least that a
// server can do that wants nothing of them.
func swallow(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = c.Read(make([]byte, 4096))
		}()
	}
}

// strangers come until ctx ends, so many at a time. A quarter each: says what is no
// protocol; says what a NATS client does, in the clear; makes a TLS handshake without a
// certificate and then speaks; is silent.
func strangers(ctx context.Context, target string, many int, dialled *atomic.Int64) {
	var wait sync.WaitGroup
	for i := range many {
		wait.Go(func() {
			for ctx.Err() == nil {
				c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", target)
				if err != nil {
					continue
				}
				dialled.Add(1)
				stop := context.AfterFunc(ctx, func() { c.Close() })
				speak(c, i%4)
				stop()
				c.Close()
			}
		})
	}
	wait.Wait()
}

// speak says what one of the kinds says, until the connection ends, or for a second.
func speak(c net.Conn, kind int) {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	junk := make([]byte, 64<<10)
	_, _ = rand.Read(junk)
	switch kind {
	case 0:
	case 1:
		if _, err := io.WriteString(c, "CONNECT {\"verbose\":false,\"name\":\"x\"}\r\nPING\r\nPUB job.mochi.coordinator.x 65536\r\n"); err != nil {
			return
		}
	case 2:
		t := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // #nosec G402 -- a stranger does not care who it is
		if t.Handshake() != nil {
			return
		}
		c = t
	default:
		_, _ = c.Read(junk) // until it is sent away
		return
	}
	for {
		if _, err := c.Write(junk); err != nil {
			return
		}
	}
}
