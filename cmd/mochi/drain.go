package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// askEvery is how often mochi drain asks whether they have gone.
const askEvery = 500 * time.Millisecond

func drainCommand() *cli.Command {
	c := cli.NewCommand("drain NAME", cli.Text{
		Short:   "let a replica leave a job in order",
		About:   "let the replicas of a name, or the one with an id, leave a job in order, and wait until they have gone",
		Example: "mochi drain node-7 --join nats://127.0.0.1:4222 --grace 90s",
	})
	join := addJoin(c, localCoordinator)
	job := c.String("job", defaultJob, "`NAME` of the job")
	grace := c.Duration("grace", 0, "how long it may take; a step that takes longer is given up, and run again by the others; 0 = as long as it takes")
	timeout := c.Duration("timeout", 10*time.Minute, "how long to wait until they have gone")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		where := join.addresses(&f)
		access := join.access.source(&f, true)
		if *grace < 0 {
			f.Add("grace", "is %v, which is negative", *grace)
		}
		if *timeout <= 0 {
			f.Add("timeout", "is %v; it must be positive", *timeout)
		}
		if err := f.Err(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		defer cancel()
		bus, err := natsbus.ConnectReplica(ctx, natsbus.Options{Job: *job, ID: access.Key.ID("drain"), Addresses: where, Access: access})
		if err != nil {
			return notLetIn(err)
		}
		defer bus.Close()
		d := draining{bus: bus, ask: protocol.Drain{Replica: args[0], GraceMS: grace.Milliseconds()}, errs: errs}
		start := time.Now()
		gone, err := d.wait(ctx)
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, struct {
				Drained []string `json:"drained"`
				Seconds float64  `json:"seconds"`
			}{gone, time.Since(start).Seconds()})
		}
		fmt.Fprintf(out, "%s left the job\n", strings.Join(gone, ", "))
		return nil
	}
	return c
}

// draining asks a coordinator to let replicas go until they have gone.
type draining struct {
	bus  *natsbus.Replica
	ask  protocol.Drain
	errs io.Writer
}

// wait returns the ids of those that have gone.
func (d draining) wait(ctx context.Context) (gone []string, err error) {
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for told := false; ; {
		if err := d.bus.Send(ctx, protocol.Message{Version: protocol.Version, Drain: &d.ask}); err != nil {
			return nil, fmt.Errorf("ask the coordinator: %w", err)
		}
		answer, over, err := d.answer(ctx, again.C)
		switch {
		case err != nil && gone == nil:
			return nil, fmt.Errorf("the coordinator of this job does not answer: %w", err)
		case err != nil:
			return nil, fmt.Errorf("%s did not leave in time: %w; the coordinator has been told, so it may still", strings.Join(gone, ", "), err)
		case over != "":
			return gone, nil // everybody goes: the job is over
		case answer == nil:
			continue
		}
		for _, id := range slices.Concat(answer.Leaving, answer.Left) {
			if !slices.Contains(gone, id) {
				gone = append(gone, id)
			}
		}
		switch {
		case len(gone) == 0:
			others := "there is none"
			if len(answer.Others) > 0 {
				others = "there are " + strings.Join(answer.Others, ", ")
			}
			return nil, fmt.Errorf("no replica is called %q: %s", d.ask.Replica, others)
		case len(answer.Leaving) == 0:
			return gone, nil
		case !told:
			told = true
			fmt.Fprintf(d.errs, "waiting for %s\n", strings.Join(answer.Leaving, ", "))
		}
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
}

// answer is what the coordinator says: nothing until it is time to ask again, or
// that the job is over.
func (d draining) answer(ctx context.Context, again <-chan time.Time) (answer *protocol.Drained, over string, err error) {
	for {
		select {
		case <-ctx.Done():
			return nil, "", ctx.Err()
		case <-again:
			return nil, "", nil
		case m, open := <-d.bus.Messages():
			switch {
			case !open:
				return nil, "", errors.New("the connection was closed")
			case m.Drained != nil:
				return m.Drained, "", nil
			case m.Stop != nil:
				return nil, m.Stop.Reason, nil
			}
		}
	}
}
