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
	"strconv"
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

// flood trains on loopback with one replica, and lets strangers without a token come in
// turns: to a port that has nothing to do with it, and to the coordinator's. Each of them
// connects, says what it likes, and comes again when it was sent away.
func flood(ctx context.Context, args []string, errs io.Writer) (any, []string, error) {
	r := flooded{}
	f := flag.NewFlagSet("chaos flood", flag.ContinueOnError)
	f.SetOutput(errs)
	mochi := f.String("mochi", "bin/mochi", "the program")
	f.IntVar(&r.Connections, "connections", 200, "strangers at a time")
	length := f.Duration("time", time.Minute, "of each turn")
	turns := f.Int("turns", 1, "pairs of turns")
	if err := f.Parse(args); err != nil || f.NArg() > 0 || *length <= 0 || *turns < 1 || r.Connections < 1 {
		return nil, nil, errors.Join(errUsage, err)
	}
	r.Seconds = length.Seconds()
	dir, err := os.MkdirTemp("", "mochi-flood-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	w := &world{options: options{out: dir, data: filepath.Join(dir, "images")}, errs: errs, began: time.Now()}
	if err := generate(w.data); err != nil {
		return nil, nil, err
	}
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer sink.Close()
	go swallow(sink)
	note := func(what string, more any) {
		fmt.Fprintf(errs, "%8.1fs  %s  %v\n", time.Since(w.began).Seconds(), what, more)
	}
	here, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	w.cluster, err = newCluster(&cluster{mochi: *mochi, folder: dir, state: filepath.Join(dir, "state"), data: w.data,
		settings: jobs["tiny"], note: note, network: loopback(here)}, []string{"a"}, 1)
	if err != nil {
		return nil, nil, err
	}
	defer w.cluster.close()
	for _, p := range w.cluster.everybody() {
		if err := w.cluster.start(p); err != nil {
			return nil, nil, err
		}
	}
	if err := w.await(ctx, time.Minute, "twenty steps", func(steps []line) bool { return len(steps) > 20 }); err != nil {
		return nil, w.cluster.broken(), err
	}
	// turn is the times of the steps that were committed meanwhile.
	turn := func(during func(context.Context)) ([]float64, error) {
		ctx, cancel := context.WithTimeout(ctx, *length)
		defer cancel()
		from := time.Now()
		during(ctx)
		to := time.Now()
		if err := w.log.read(); err != nil {
			return nil, err
		}
		var took []float64
		for _, l := range commits(w.log.lines) {
			if l.Time.After(from.Add(2*time.Second)) && l.Time.Before(to) {
				took = append(took, l.StepMs)
			}
		}
		if len(took) == 0 {
			return nil, errors.New("no step was committed during a turn")
		}
		r.Worst = max(r.Worst, slices.Max(took))
		return took, nil
	}
	quiet, err := turn(func(ctx context.Context) { <-ctx.Done() })
	if err != nil {
		return nil, w.cluster.broken(), err
	}
	r.QuietMs = middle(quiet)
	var elsewhere, at []float64
	for range *turns {
		for _, t := range []struct {
			target string
			ms     *[]float64
			all    *[]float64
			n      *atomic.Int64
		}{{sink.Addr().String(), &r.ElsewhereMs, &elsewhere, new(atomic.Int64)}, {string(here), &r.HereMs, &at, new(atomic.Int64)}} {
			before := cpu(w.cluster.coordinator.pid())
			took, err := turn(func(ctx context.Context) { strangers(ctx, t.target, r.Connections, t.n) })
			used := cpu(w.cluster.coordinator.pid()) - before
			if err != nil {
				return r, w.cluster.broken(), err
			}
			*t.ms, *t.all = append(*t.ms, middle(took)), append(*t.all, took...)
			note("flooded", map[string]any{"target": t.target, "median_ms": middle(took), "steps": len(took), "connections": t.n.Load(), "coordinator_cpu_s": used.Seconds()})
			if t.all == &at {
				r.Dialled += t.n.Load()
				r.CPU += used.Seconds()
			}
		}
	}
	r.Ratio = middle(at) / middle(elsewhere)
	w.cluster.end(time.Minute)
	broken := w.cluster.broken()
	if r.Ratio > mostRatio {
		broken = append(broken, fmt.Sprintf("steps take %.2f times as long while strangers come to the coordinator as while they come to another port, more than %.2f", r.Ratio, mostRatio))
	}
	return r, broken, nil
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

// freePort is an address that nobody listens on.
func freePort() (loopback, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return loopback("127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), nil
}

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
