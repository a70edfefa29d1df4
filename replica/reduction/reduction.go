// Package reduction sums what the BatchNorm groups of a step computed over all
// groups of all members: the gradients and the BatchNorm statistics of both
// encoders, laid out as one vector, and the gradients of what is trained beside the
// encoders (Config.Besides)
//
//	[parameters | query statistics | key statistics | besides]
//
// # Use
//
// One step of one member, whose programs compute units of n groups:
//
//	terms := r.Begin(units)          // where the engine writes, a Terms a unit
//	r.Start(ctx, ring, step, alone)  // from here on others may wait for us
//	… the last backward calls r.Final for each parameter whose gradient is final
//	r.Complete()                     // all terms are final
//	err := r.Wait()                  // the sums are there
//
// Final may be called before Start. The sums travel in buckets of about 25 MB,
// in the same order on every member, each as soon as it is final: while the last
// backward still runs, the buckets before are on their way.
//
// # Sums that do not depend on their order
//
// Floating-point addition rounds, so (a+b)+c and a+(b+c) differ, and with them
// one replica and four. So with Exact set each group's vector is rounded before
// it is added: all members agree on the largest magnitude of each tensor over
// all groups (AllReduceMax, which no order can change), and allreduce.Grid gives
// a grid for it on which every partial sum is exact. The result then has the
// same bits for any number of members, any deal of groups and any order of
// summation. The price is one vector a group instead of one a member, and one
// small all-reduce of maxima a bucket. See allreduce/exact.go for the bound of
// the error.
//
// # Sums that are wrong
//
// What a member adds up wrongly all members get, so their sums agree and show
// nothing. So with Check set a part of the additions of each step, another one each
// time, is done a second time in another way, here and around the ring; Checked
// says what was found. See allreduce.Check.
//
// Where the global batch is one group, its vector is the sum: the engine writes
// it in place, nothing is rounded, and members without it add −0, which changes
// no value.
package reduction

import (
	"context"
	"errors"
	"fmt"
	"math"

	"mochi/allreduce"
	"mochi/model/network"
)

// Ring is the collectives that a reduction needs (those of an allreduce.Group).
type Ring interface {
	AllReduceSumChecked(ctx context.Context, tag allreduce.Tag, data []float32, check *allreduce.Check) error
	AllReduceMax(ctx context.Context, tag allreduce.Tag, data []float32) error
}

// Config says what is summed, and how.
type Config struct {
	Exact   bool // round so that the sums do not depend on their order
	Groups  int  // G, of the global batch
	AtOnce  int  // n, groups that one unit computes
	Threads int  // what a member that is alone sums on; default 1
	Check   bool // look at a part of the additions a second time (Checked)
	Besides int  // parameters that are trained beside the encoders, whose gradients travel on their own; 0: none
}

// Terms are what one unit of n groups adds to the sums, as the engine writes
// them: each group's in a row.
type Terms struct {
	Grads []float32 // [n, NumParams]
	Query []float32 // [n, NumBuffers] statistics of the query encoder
	Key   []float32 // [n, NumBuffers] statistics of the key encoder

	Besides []float32 // [n, Config.Besides]
}

// Reduction is the sums of one step after the other. One goroutine uses it; the
// methods Final and Complete may be called from another.
type Reduction struct {
	cfg    Config
	net    *network.Network
	layout layout

	terms []Terms // all that were ever needed
	local []Terms // of the step in hand
	sum   []float32
	max   []float32 // scratch, one a tensor

	check *allreduce.Check // of the step in hand, nil: none

	left  []int      // parameters of each bucket that are not final yet
	final chan int   // buckets that are; closed by Wait
	done  chan error // of the sums in progress, nil before Start
}

// New makes the reduction for the encoders of net.
func New(net *network.Network, cfg Config) *Reduction {
	cfg.Threads = max(1, cfg.Threads)
	r := &Reduction{cfg: cfg, net: net, layout: newLayout(net, cfg.Besides)}
	r.left = make([]int, len(r.layout.buckets))
	r.sum = allreduce.NewVector(net.NumParams() + 2*net.NumBuffers() + cfg.Besides)
	r.max = make([]float32, len(r.layout.tensors))
	if cfg.Groups == 1 {
		r.terms = []Terms{{r.Gradients(), r.QueryStatistics(), r.KeyStatistics(), r.Besides()}}
	}
	return r
}

// Vector is all sums, valid after Wait until the next Begin, as the parts of it
// are: [NumParams + 2·NumBuffers + Config.Besides].
func (r *Reduction) Vector() []float32 { return r.sum }

// Gradients is the sum of the gradients over all groups, [NumParams].
func (r *Reduction) Gradients() []float32 { return r.sum[:r.net.NumParams()] }

// QueryStatistics is the mean of the query encoder's statistics over all groups,
// [NumBuffers].
func (r *Reduction) QueryStatistics() []float32 {
	p, b := r.net.NumParams(), r.net.NumBuffers()
	return r.sum[p : p+b]
}

// KeyStatistics is the same of the key encoder.
func (r *Reduction) KeyStatistics() []float32 {
	p, b := r.net.NumParams(), r.net.NumBuffers()
	return r.sum[p+b : p+2*b]
}

// Besides is the sum over all groups of the gradients of what is trained beside the
// encoders, [Config.Besides].
func (r *Reduction) Besides() []float32 { return r.sum[r.net.NumParams()+2*r.net.NumBuffers():] }

// InPlace says whether the sums take the place of the only group's terms, which
// are then lost with Start.
func (r *Reduction) InPlace() bool { return r.cfg.Groups == 1 }

// Scratch is room for one unit's terms beside the sums. It may be used after a
// Wait until the next Begin, and overwrites the terms of the first unit.
func (r *Reduction) Scratch() Terms {
	if r.InPlace() {
		return r.room()
	}
	if len(r.terms) == 0 {
		r.terms = append(r.terms, r.room())
	}
	return r.terms[0]
}

// room makes the terms of a unit.
func (r *Reduction) room() Terms {
	p, b := r.cfg.AtOnce*r.net.NumParams(), r.cfg.AtOnce*r.net.NumBuffers()
	return Terms{allreduce.NewVector(p), make([]float32, b), make([]float32, b), make([]float32, r.cfg.AtOnce*r.cfg.Besides)}
}

// Begin starts a step with so many units on this member and returns where they
// leave their terms; their contents are those of earlier steps.
func (r *Reduction) Begin(units int) []Terms {
	for len(r.terms) < units {
		r.terms = append(r.terms, r.room())
	}
	r.local = r.terms[:units]
	r.final, r.done, r.check = make(chan int, len(r.layout.buckets)), nil, nil
	for i, b := range r.layout.buckets {
		r.left[i] = b.params
	}
	return r.local
}

// Start begins to sum over the members of ring, in the background: from now on
// all members make the same collectives in the same order.
//
// A member that is alone in its ring has no way of the buckets to hide behind
// backward: it waits for the last of them and then takes all threads. Beside
// backward, what the sums take from one of an engine's threads all of them wait
// for.
func (r *Reduction) Start(ctx context.Context, ring Ring, step int64, alone bool) {
	r.done = make(chan error, 1)
	r.startCheck(step)
	go func() { r.done <- r.run(ctx, ring, step, alone) }()
}

// Final says that the gradient of a parameter is final, of all units of this
// member: engine.Program.Backward's callback for the last of them.
func (r *Reduction) Final(param int) {
	i := r.layout.ofParam[param]
	if r.left[i]--; r.left[i] == 0 {
		r.final <- i
	}
}

// Complete says that all terms are final: it announces the statistics and what is
// besides, and for a member without units, which has nothing to wait for, all buckets.
func (r *Reduction) Complete() {
	first := r.layout.late
	if len(r.local) == 0 {
		first = 0
	}
	for i := first; i < len(r.layout.buckets); i++ {
		r.final <- i
	}
}

// Wait ends a step: when it returns nothing runs any more, and without an error
// the sums are there. It is an error if not all terms were final. After a step
// that ended before Start there is nothing to wait for.
func (r *Reduction) Wait() error {
	close(r.final)
	if r.done == nil {
		return nil
	}
	return <-r.done
}

// DivergedError says that a tensor is no longer finite: training diverged.
type DivergedError struct {
	Step   int64
	Tensor string
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("step %d: %s is not finite: training diverged; lower --lr, raise --temperature, or check the data", e.Step, e.Tensor)
}

// run reduces bucket after bucket, in index order on every member, each as
// soon as it is final.
func (r *Reduction) run(ctx context.Context, ring Ring, step int64, alone bool) error {
	buckets := len(r.layout.buckets)
	threads, from := 1, 1
	if alone {
		threads, from = r.cfg.Threads, buckets
	}
	ready := make([]bool, buckets)
	for next, known := 0, 0; next < buckets; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case i, open := <-r.final:
			if !open {
				return errors.New("backward ended before all gradients were final")
			}
			ready[i] = true
			known++
		}
		for known >= from && next < buckets && ready[next] {
			if err := r.reduce(ctx, ring, step, next, threads); err != nil {
				return err
			}
			next++
		}
	}
	// The statistics were summed; their mean is what is applied.
	scale := 1 / float32(r.cfg.Groups)
	p := r.net.NumParams()
	stats := r.sum[p : p+2*r.net.NumBuffers()]
	for i := range stats {
		stats[i] *= scale
	}
	return nil
}

// reduce sums one bucket, here on so many threads and then over the ring.
func (r *Reduction) reduce(ctx context.Context, ring Ring, step int64, index, threads int) error {
	b := r.layout.buckets[index]
	if b.lo == b.hi {
		return nil
	}
	err := forEach(b, threads, func(i int) error {
		r.max[i] = r.largest(r.layout.tensors[i])
		return nil
	})
	if err != nil {
		return err
	}
	tag := allreduce.Tag{Step: uint64(step), Bucket: uint32(2 * index)}
	if err := ring.AllReduceMax(ctx, tag, r.max[b.lo:b.hi]); err != nil {
		return fmt.Errorf("all-reduce the maxima of bucket %d: %w", index, err)
	}
	err = forEach(b, threads, func(i int) error {
		t := r.layout.tensors[i]
		if math.IsInf(float64(r.max[i]), 1) || r.add(r.sum[t.lo:t.hi], t, r.max[i]) != nil {
			return &DivergedError{Step: step, Tensor: t.name}
		}
		return nil
	})
	if err != nil {
		return err
	}
	tag.Bucket++
	lo, hi := r.layout.tensors[b.lo].lo, r.layout.tensors[b.hi-1].hi
	if err := ring.AllReduceSumChecked(ctx, tag, r.sum[lo:hi], r.checkOf(b)); err != nil {
		return fmt.Errorf("all-reduce bucket %d: %w", index, err)
	}
	return nil
}
