package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"mochi/allreduce"
	"mochi/allreduce/codec"
)

// warmup iterations are not timed.
const warmup = 2

// measure is one rank's part. Each iteration fills the vector, all-reduces it
// and checks every element, and then moves the same bytes over plain TCP.
func measure(ctx context.Context, g *allreduce.Group, raw *rawRing, o Options) (samples, error) {
	var s samples
	data := allreduce.NewVector(o.Bytes / 4) // as a reduction has it
	for i := range warmup + o.Iterations {
		tag := allreduce.Tag{Step: uint64(i)}
		fill(data, g.Rank())
		if err := g.Barrier(ctx, tag); err != nil {
			return s, err
		}
		allocs, cpu, start := allocations(), cpuSeconds(), time.Now()
		if err := g.AllReduceSum(ctx, tag, data); err != nil {
			return s, err
		}
		took := time.Since(start)
		if err := g.Barrier(ctx, tag); err != nil { // the process's other ranks are done, too
			return s, err
		}
		cpu, allocs = cpuSeconds()-cpu, allocations()-allocs
		if err := check(data, g.World(), o.Wire); err != nil {
			return s, err
		}
		if err := g.Barrier(ctx, tag); err != nil {
			return s, err
		}
		rawTook, err := raw.move(ctx, o)
		if err != nil {
			return s, err
		}
		if i >= warmup {
			s.Ring, s.Raw = append(s.Ring, took), append(s.Raw, rawTook)
			s.CPUSeconds += cpu
			s.Allocs += allocs
		}
	}
	return s, nil
}

// fill gives rank r (r mod 8 + 1)·(i mod 4 + 1): the sums are exact in fp32,
// and in bf16 for worlds up to 8.
func fill(data []float32, rank int) {
	for i := range data {
		data[i] = float32((rank%8 + 1) * (i%4 + 1))
	}
}

func check(data []float32, world int, wire codec.Wire) error {
	sum := 0
	for r := range world {
		sum += r%8 + 1
	}
	tolerance := float32(0)
	if wire == codec.BF16 && world > 8 {
		tolerance = float32(world) / 256 // each partial sum is rounded, by 2⁻⁹ at most
	}
	for i, v := range data {
		want := float32(sum * (i%4 + 1))
		if d := v - want; d > tolerance*want || d < -tolerance*want {
			return fmt.Errorf("element %d of the sum is %g, want %g", i, v, want)
		}
	}
	return nil
}

// cpuSeconds is the processor time this process has used, user and system.
func cpuSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // only wrong arguments fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func allocations() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// groupConfig is what is timed: the default, in the format asked for.
func groupConfig(o Options) allreduce.Config {
	cfg := allreduce.DefaultConfig()
	cfg.Wire = o.Wire
	return cfg
}

// onTransport runs one rank on a ring of its own.
func onTransport(ctx context.Context, t allreduce.Transport, raw *rawRing, o Options) (samples, error) {
	g, err := allreduce.NewGroup(t, groupConfig(o))
	if err != nil {
		return samples{}, err
	}
	s, err := measure(ctx, g, raw, o)
	if err != nil {
		return s, errors.Join(err, g.Close())
	}
	return s, g.Leave(ctx)
}
