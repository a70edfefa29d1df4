package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// groupWithin is how long coordinators that stand by have to say how the group stands.
const groupWithin = 2 * time.Second

// requestStatus asks whoever leads. Where nobody at the addresses does, those that
// stand by say who they are, and that one is asked; when nobody leads, what they say is
// the status. One that leads and does not answer is an error: what others know of its job
// is not how it stands.
func requestStatus(ctx context.Context, job string, where *natsbus.Addresses, access natsbus.Access) (protocol.Status, error) {
	s, err := natsbus.RequestStatus(ctx, natsbus.Options{Job: job, Addresses: where, Access: access})
	if err == nil {
		return s, nil
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), groupWithin)
	defer cancel()
	group, asked := natsbus.AskGroup(within, where.All(), access)
	if asked != nil {
		return s, err
	}
	if group.Leader != "" {
		var all []string
		for _, m := range group.Members {
			all = append(all, m.Address)
		}
		s, err := natsbus.RequestStatus(within, natsbus.Options{Job: job, URL: strings.Join(all, ","), Access: access})
		if err != nil {
			return s, fmt.Errorf("coordinator %s leads, and does not answer: %w", group.Leader, err)
		}
		return s, nil
	}
	s = protocol.Status{Job: job, Phase: "waiting", Reason: "no coordinator leads", Since: group.Since, Group: &group}
	for _, m := range group.Members {
		s.Step = max(s.Step, m.Step)
	}
	return s, nil
}

// printGroup shows a group of coordinators.
func printGroup(out io.Writer, g *protocol.GroupState) {
	if g.Trouble != "" {
		fmt.Fprintf(out, "coordinators: %s\n", g.Trouble)
	}
	fmt.Fprintf(out, "\n%-12s %-24s %-8s %8s %8s %10s\n", "COORDINATOR", "ADDRESS", "STATE", "STEP", "BEHIND", "CHECKPOINT")
	for _, m := range g.Members {
		checkpoint := "-"
		if m.Checkpoint >= 0 {
			checkpoint = fmt.Sprint(m.Checkpoint)
		}
		fmt.Fprintf(out, "%-12s %-24s %-8s %8d %8d %10s\n", m.Name, m.Address, m.State, m.Step, m.Behind, checkpoint)
	}
	for _, m := range g.Members {
		if m.Trouble != "" {
			fmt.Fprintf(out, "%s: %s\n", m.Name, m.Trouble)
		}
	}
}
