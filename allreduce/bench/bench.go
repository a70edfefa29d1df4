// Package bench times the ring all-reduce as it will run: over NATS, in one
// process or in one process a rank, every sum checked, beside a plain TCP ring
// that moves the same bytes in the same run.
//
// Bandwidths are those of nccl-tests: algbw is the vector's bytes (as float32,
// whatever the wire format) by the time of the slowest rank, busbw is
// algbw·2(P−1)/P, what a link carries and so comparable over world sizes.
package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"mochi/allreduce/codec"
	"mochi/allreduce/natsring"
)

// Options says what to time.
type Options struct {
	World      int           `json:"world"`      // P, ranks
	Bytes      int           `json:"bytes"`      // of the vector, as float32; a multiple of 4
	Wire       codec.Wire    `json:"wire"`       // format on the network
	Transport  string        `json:"transport"`  // Inproc or NATS
	Lane       natsring.Lane `json:"lane"`       // between neighbours
	Iterations int           `json:"iterations"` // timed, after two that are not

	// Net is what the links are limited to, for the record: see Limits.
	Net string `json:"net,omitempty"`
	// Host is the address that this process listens on. Default: this machine's loopback.
	Host string `json:"-"`

	// Security is none, plain or tls, between ranks in processes of their own. Default none.
	Security string `json:"security,omitempty"`

	// Known, when it is set, makes of a rank's name an id that a key of its own proves:
	// ranks in processes of their own then talk in TLS, or as Security says. nil: in the clear.
	Known func(name string) (id string, n natsring.Neighbours, err error) `json:"-"`
}

// The transports.
const (
	Inproc = "inproc" // in-process connections to one embedded server
	NATS   = "nats"   // every rank has a server, successors subscribe over TCP
)

// How ranks are safe from others.
const (
	None  = "none"  // not at all: checksums
	Plain = "plain" // in the clear, each frame authenticated
	TLS   = "tls"   // Options.Known says who they are
)

// DefaultOptions is the gradient of a ResNet-50 with its head, in fp32.
func DefaultOptions() Options {
	return Options{World: 2, Bytes: 112_000_000, Wire: codec.FP32, Transport: Inproc, Lane: natsring.Auto, Iterations: 20}
}

// Validate reports all faults at once.
func (o Options) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.World < 1 || o.World > 64 {
		fault("world is %d ranks, want 1 to 64", o.World)
	}
	if o.Bytes < 4 || o.Bytes%4 != 0 {
		fault("bytes is %d, want a positive multiple of 4", o.Bytes)
	}
	if err := o.Wire.Validate(); err != nil {
		fault("wire: %w", err)
	}
	if o.Transport != Inproc && o.Transport != NATS {
		fault("transport %q is unknown (%s or %s)", o.Transport, Inproc, NATS)
	}
	if err := o.Lane.Validate(); err != nil {
		faults = append(faults, err)
	}
	if !slices.Contains([]string{"", None, Plain, TLS}, o.Security) {
		fault("security %q is unknown (%s, %s or %s)", o.Security, None, Plain, TLS)
	}
	if o.Iterations < 1 {
		fault("iterations is %d, want at least 1", o.Iterations)
	}
	return errors.Join(faults...)
}

// listen is an address with a free port.
func (o Options) listen() string {
	if o.Host == "" {
		return "127.0.0.1:0"
	}
	return net.JoinHostPort(o.Host, "0")
}

// Result is what was measured.
type Result struct {
	Options
	Processes       bool    `json:"processes"`            // one a rank
	P50MS           float64 `json:"p50_ms"`               // time of the slowest rank, ms
	P99MS           float64 `json:"p99_ms"`               //
	AlgBW           float64 `json:"algbw_gbs"`            // GB/s, at the median
	BusBW           float64 `json:"busbw_gbs"`            //
	CPUSecondsPerGB float64 `json:"cpu_s_per_gb"`         // user and system, all ranks, by GB of vector
	RawTCPBusBW     float64 `json:"raw_tcp_busbw_gbs"`    // of the plain TCP ring, at the median
	AllocsPerCall   float64 `json:"allocs_per_allreduce"` // heap objects of one rank's process, all layers
}

// samples is what one rank measured.
type samples struct {
	Ring       []time.Duration `json:"ring"` // by iteration
	Raw        []time.Duration `json:"raw"`
	CPUSeconds float64         `json:"cpu_s"`  // of the process, during Ring
	Allocs     uint64          `json:"allocs"` // of the process, during Ring
}

// summarise combines the ranks' samples; process-wide figures are summed over
// processes.
func summarise(o Options, processes bool, all []samples) Result {
	r := Result{Options: o, Processes: processes}
	worst := func(of func(samples) []time.Duration) []time.Duration {
		d := make([]time.Duration, o.Iterations)
		for _, s := range all {
			for i, v := range of(s) {
				d[i] = max(d[i], v)
			}
		}
		slices.Sort(d)
		return d
	}
	bus := 2 * float64(o.World-1) / float64(o.World)
	gigabytes := float64(o.Bytes) / 1e9
	ring := worst(func(s samples) []time.Duration { return s.Ring })
	r.P50MS, r.P99MS = ms(quantile(ring, 0.5)), ms(quantile(ring, 0.99))
	r.AlgBW = gigabytes / quantile(ring, 0.5).Seconds()
	r.BusBW = r.AlgBW * bus
	if o.World > 1 {
		raw := worst(func(s samples) []time.Duration { return s.Raw })
		r.RawTCPBusBW = gigabytes / quantile(raw, 0.5).Seconds() * bus
	}
	if !processes {
		all = all[:1] // all ranks saw the same process
	}
	for _, s := range all {
		r.CPUSecondsPerGB += s.CPUSeconds / (gigabytes * float64(o.Iterations))
		r.AllocsPerCall += float64(s.Allocs) / float64(o.Iterations*o.World)
	}
	return r
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// quantile of sorted values, nearest rank; at least a nanosecond, to divide by.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(q*float64(len(sorted))+0.999999) - 1
	return max(sorted[min(max(i, 0), len(sorted)-1)], 1)
}

// Run times all ranks in this process.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	all, err := inOneProcess(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("bench allreduce: %w", err)
	}
	return summarise(o, false, all), nil
}
