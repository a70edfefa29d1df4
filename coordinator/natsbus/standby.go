package natsbus

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/protocol"
)

// StandbyLine is how a coordinator that stands by answers who connects, instead of
// NATS's INFO: what follows on the line is a protocol.GroupState.
const StandbyLine = "-ERR 'this coordinator stands by' "

// ServeGroup lets the coordinators that stand by talk to this one, which leads: hear
// answers each of them. It is called on a goroutine of NATS.
func (c *Coordinator) ServeGroup(hear func(protocol.StandingBy) protocol.GroupAnswer) error {
	_, err := c.nc.Subscribe(protocol.GroupSubject(c.opts.Job), func(raw *nats.Msg) {
		var s protocol.StandingBy
		err := json.Unmarshal(raw.Data, &s)
		if err == nil {
			var data []byte
			if data, err = json.Marshal(hear(s)); err == nil {
				err = respond(raw, nil, data)
			}
		}
		if err != nil {
			c.opts.Log.Warn("a coordinator that stands by was not answered", "err", err)
		}
	})
	if err != nil {
		return fmt.Errorf("serve the group: %w", err)
	}
	return flush(context.Background(), c.nc.Conn)
}

// StandBy tells the coordinator that leads of this one, and returns its answer.
func (r *Replica) StandBy(ctx context.Context, s protocol.StandingBy) (a protocol.GroupAnswer, err error) {
	data, err := json.Marshal(s)
	if err != nil {
		return a, err
	}
	reply, err := r.nc.RequestWithContext(ctx, protocol.GroupSubject(r.opts.Job), data)
	if err == nil {
		err = json.Unmarshal(reply.Data, &a)
	}
	if err != nil {
		return a, fmt.Errorf("talk to the coordinator that leads: %w", err)
	}
	return a, nil
}

// Fetch reads a stored checkpoint piece by piece into w. It checks each piece; whether
// they are those of one file, the caller must know (its size and digest).
func (r *Replica) Fetch(ctx context.Context, name string, w io.Writer) error {
	progress, pace := stall{limit: stallTimeout}, newPace()
	for size, have := int64(-1), int64(0); size != have; {
		reply, err := r.request(ctx, &progress, pace, nats.Header{
			headerOp:     {"get"},
			headerName:   {name},
			headerOffset: {strconv.FormatInt(have, 10)},
			headerLimit:  {strconv.FormatInt(pace.piece, 10)},
		}, nil)
		if err != nil {
			return fmt.Errorf("fetch checkpoint %s (%d bytes done): %w", name, have, err)
		}
		if reply == nil {
			continue
		}
		now, err := number(reply.Header, headerSize)
		if err != nil || size >= 0 && now != size || have+int64(len(reply.Data)) > now {
			return fmt.Errorf("fetch checkpoint %s: it changed on the way (%d bytes, then %q)", name, size, reply.Header.Get(headerSize))
		}
		size = now
		if reply.Header.Get(headerSum) != sum(reply.Data) || len(reply.Data) == 0 {
			if progress.exceeded() {
				return fmt.Errorf("fetch checkpoint %s: %w at offset %d", name, errDamagedPieces, have)
			}
			continue
		}
		if _, err := w.Write(reply.Data); err != nil {
			return fmt.Errorf("fetch checkpoint %s: %w", name, err)
		}
		have += int64(len(reply.Data))
		progress.reset()
	}
	return nil
}

// AskGroup asks those who listen at some addresses how their group of coordinators
// stands, and returns the first answer of one that stands by. ctx bounds the wait.
func AskGroup(ctx context.Context, addresses []string, access Access) (protocol.GroupState, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		state protocol.GroupState
		err   error
	}
	answers := make(chan answer, len(addresses))
	for _, address := range addresses {
		go func() {
			state, err := askGroup(ctx, address, access)
			answers <- answer{state, err}
		}()
	}
	var faults []error
	for range addresses {
		a := <-answers
		if a.err == nil {
			return a.state, nil
		}
		faults = append(faults, a.err)
	}
	return protocol.GroupState{}, errors.Join(faults...)
}

func askGroup(ctx context.Context, address string, access Access) (state protocol.GroupState, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return state, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if access != nil {
		config, err := access.Client(address)
		if err != nil {
			return state, err
		}
		if config != nil {
			conn = tls.Client(conn, config)
		}
	}
	text, err := bufio.NewReader(io.LimitReader(conn, maxGreeting)).ReadString('\n')
	if err != nil {
		return state, fmt.Errorf("ask %s: %w", address, err)
	}
	text, ok := strings.CutPrefix(text, StandbyLine)
	if !ok {
		return state, fmt.Errorf("%s is no coordinator that stands by", address)
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		return state, fmt.Errorf("what %s says of its group: %w", address, err)
	}
	return state, nil
}

var errDamagedPieces = errors.New("pieces arrive damaged")
