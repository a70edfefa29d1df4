package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sync/errgroup"

	"mochi/allreduce"
	"mochi/allreduce/natsring"
)

// Command makes the command that runs one rank: it calls RunRank with the
// same url, rank and Options, and exits non-zero with a message on standard
// error when that fails.
type Command func(ctx context.Context, url string, rank int) *exec.Cmd

// RunProcesses times each rank in a process of its own, which command starts.
// The ranks meet at a server that runs here.
func RunProcesses(ctx context.Context, o Options, command Command) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	if o.Transport != NATS {
		return Result{}, fmt.Errorf("transport %s is in one process by definition; with several use %s", o.Transport, NATS)
	}
	all, err := inProcesses(ctx, o, command)
	if err != nil {
		return Result{}, fmt.Errorf("bench allreduce: %w", err)
	}
	return summarise(o, true, all), nil
}

func inProcesses(ctx context.Context, o Options, command Command) ([]samples, error) {
	s, err := natsring.StartServer(o.listen())
	if err != nil {
		return nil, err
	}
	defer s.Shutdown()
	meeting, err := natsring.NewRendezvous(s, o.World)
	if err != nil {
		return nil, err
	}
	ranks, ctx := errgroup.WithContext(ctx) // the first rank that fails ends the others
	for rank := range o.World {
		cmd := command(ctx, s.URL(), rank)
		ranks.Go(func() error {
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("process of rank %d: %w", rank, err)
			}
			return nil
		})
	}
	var parts [][]byte
	ranks.Go(func() (err error) {
		parts, err = meeting.Wait(ctx, "results")
		return err
	})
	if err := errors.Join(ranks.Wait(), meeting.Close()); err != nil {
		return nil, err
	}
	all := make([]samples, o.World)
	for rank, p := range parts {
		if err := json.Unmarshal(p, &all[rank]); err != nil {
			return nil, fmt.Errorf("result of rank %d: %w", rank, err)
		}
		if len(all[rank].Ring) != o.Iterations {
			return nil, fmt.Errorf("rank %d ran %d iterations, want %d: it was given other options", rank, len(all[rank].Ring), o.Iterations)
		}
	}
	return all, nil
}

// introduction is what ranks tell each other before they form rings.
type introduction struct {
	Peer natsring.Peer `json:"peer"`
	Raw  string        `json:"raw"`
	Key  []byte        `json:"key"` // of the ring, if it is rank 0's
}

// RunRank is one rank in a process of its own; url is the parent's server.
func RunRank(ctx context.Context, url string, rank int, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	// Each process gets its share of the cores: with more threads than cores
	// the ranks only take turns (measured: +13 % at P=2 on 2 cores).
	runtime.GOMAXPROCS(max(1, runtime.NumCPU()/o.World))
	if err := runRank(ctx, url, rank, o); err != nil {
		return fmt.Errorf("bench allreduce, rank %d: %w", rank, err)
	}
	return nil
}

func runRank(ctx context.Context, url string, rank int, o Options) error {
	member, err := natsring.JoinRendezvous(url, rank, o.World)
	if err != nil {
		return err
	}
	defer member.Close()
	opts := natsring.Options{Job: job, ID: fmt.Sprintf("rank-%d", rank), Listen: o.listen()}
	if o.Security == TLS && o.Known != nil {
		if opts.ID, opts.Neighbours, err = o.Known(opts.ID); err != nil {
			return err
		}
	}
	node, err := natsring.NewNode(opts)
	if err != nil {
		return err
	}
	defer node.Close()
	raw, err := newRawRing(o.World, o.listen())
	if err != nil {
		return err
	}
	defer raw.close()
	key := make([]byte, allreduce.KeyLen)
	rand.Read(key) // never fails
	peers, successor, key, err := introduce(ctx, member, rank, introduction{
		Peer: natsring.Peer{ID: opts.ID, URL: node.URL()},
		Raw:  raw.address(), Key: key,
	})
	if err != nil {
		return err
	}
	if err := raw.connect(ctx, successor); err != nil {
		return err
	}
	var t allreduce.Transport
	if o.Security == Plain {
		t, err = node.PlainRing(ctx, 1, rank, peers, o.Lane, key)
	} else {
		t, err = node.Ring(ctx, 1, rank, peers, o.Lane)
	}
	if err != nil {
		return err
	}
	s, err := onTransport(ctx, t, raw, o)
	if err != nil {
		return err
	}
	result, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = member.Meet(ctx, "results", result)
	return err
}

// introduce exchanges addresses: all ranks' peers, the successor's plain TCP address, and
// the key of rank 0.
func introduce(ctx context.Context, member *natsring.Member, rank int, self introduction) (peers []natsring.Peer, successor string, key []byte, err error) {
	data, err := json.Marshal(self)
	if err != nil {
		return nil, "", nil, err
	}
	parts, err := member.Meet(ctx, "introduction", data)
	if err != nil {
		return nil, "", nil, err
	}
	peers = make([]natsring.Peer, len(parts))
	for r, p := range parts {
		var other introduction
		if err := json.Unmarshal(p, &other); err != nil {
			return nil, "", nil, fmt.Errorf("introduction of rank %d: %w", r, err)
		}
		peers[r] = other.Peer
		if r == 0 {
			key = other.Key
		}
		if r == (rank+1)%len(parts) {
			successor = other.Raw
		}
	}
	return peers, successor, key, nil
}
