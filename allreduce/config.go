package allreduce

import (
	"errors"
	"fmt"
	"time"

	"mochi/allreduce/codec"
)

// Config tunes a Group. All ranks of a round must have the same.
type Config struct {
	// Segment is the payload of one frame in bytes, a multiple of 4. Default
	// 65,000: with header and protocol line a frame stays within the 64 KiB
	// that a NATS server reads at once; larger ones measured slower.
	Segment int
	// Lent is the size, bytes, of a segment that is read where it lies (see Lender), a
	// multiple of 4. Default 256 KiB: it stays in a core's cache between the two that
	// use it.
	Lent int
	// Window is how many segments may be in flight on a link, so a rank holds
	// up to Window·Segment bytes that it has not consumed, and as much that it has and
	// that goes on. Default 16.
	Window int
	// Wire is the format of AllReduceSum on the network: fp32 or bf16. Other
	// collectives are always exact. Default fp32.
	Wire codec.Wire
	// Timeout is how long a collective waits for a neighbour from which
	// nothing is heard. Neighbours send a heartbeat every Timeout/4, also while
	// they compute, so it bounds silence, not slowness. Default 5 s.
	Timeout time.Duration
	// ConnectTimeout is how long Connect waits until both links have carried a
	// probe. Default 15 s.
	ConnectTimeout time.Duration
}

// DefaultConfig is the configuration measured best over NATS.
func DefaultConfig() Config {
	return Config{
		Segment:        65_000,
		Lent:           256 << 10,
		Window:         16,
		Wire:           codec.FP32,
		Timeout:        5 * time.Second,
		ConnectTimeout: 15 * time.Second,
	}
}

// maxSegment is the largest payload that NATS's default limit lets through.
const maxSegment = 1 << 20

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("allreduce: "+format, args...)) }
	if c.Segment < 4 || c.Segment > maxSegment || c.Segment%4 != 0 {
		fault("Segment is %d bytes, want a multiple of 4 up to %d", c.Segment, maxSegment)
	}
	if c.Lent < 4 || c.Lent%4 != 0 {
		fault("Lent is %d bytes, want a multiple of 4", c.Lent)
	}
	if c.Window < 1 {
		fault("Window is %d segments, want at least 1", c.Window)
	}
	if err := c.Wire.Validate(); err != nil {
		fault("Wire: %w", err)
	}
	if c.Timeout <= 0 {
		fault("Timeout is %v, want a positive duration", c.Timeout)
	}
	if c.ConnectTimeout <= 0 {
		fault("ConnectTimeout is %v, want a positive duration", c.ConnectTimeout)
	}
	return errors.Join(faults...)
}
