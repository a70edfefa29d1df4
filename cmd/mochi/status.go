package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
)

// defaultJob names a job on a server that carries one; --job tells several
// apart.
const defaultJob = "mochi"

func statusCommand() *cli.Command {
	c := cli.NewCommand("status", cli.Text{
		Short:   "show what a job is doing",
		About:   "show what a job is doing",
		Example: "mochi status --join 127.0.0.1:4222",
	})
	join := addJoin(c, localCoordinator)
	job := c.String("job", defaultJob, "`NAME` of the job")
	timeout := c.Duration("timeout", 5*time.Second, "how long to wait for an answer")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		where := join.addresses(&f)
		access := join.access.source(&f, false)
		if err := f.Err(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		defer cancel()
		s, err := requestStatus(ctx, *job, where, access)
		if err != nil {
			return notLetIn(err)
		}
		if *asJSON {
			return cli.PrintJSON(out, s)
		}
		if s.Steps > 0 {
			fmt.Fprintf(out, "job %s: %s, step %d of %d, epoch %d, round %d, %s in it\n", s.Job, s.Phase, s.Step, s.Steps, s.Epoch+1, s.Round, cli.Count(s.World, "replica"))
		} else {
			fmt.Fprintf(out, "job %s: %s, step %d, %s in it\n", s.Job, s.Phase, s.Step, cli.Count(s.World, "replica"))
		}
		if s.Insecure {
			fmt.Fprintln(out, "NOT SECURED (--insecure): whoever reaches the coordinator can join this job, read its state and end it")
		}
		if s.Reason != "" {
			since := ""
			if s.Since != "" {
				since = " (since " + s.Since + ")"
			}
			fmt.Fprintf(out, "reason: %s%s\n", s.Reason, since)
		}
		if s.StartedAt != "" && s.Step > 0 {
			fmt.Fprintf(out, "loss %.4f, %.1f images/s, running since %s\n", s.Loss, s.ImagesPS, s.StartedAt)
		}
		if q := s.Queue; len(q.Shards) > 0 || q.Repairs > 0 {
			fmt.Fprintf(out, "queue: copies %s, pairs of %s, %d shards spread, %d copies sent to members that came or took over, %d repaired\n", q.Copies, q.Pairs, len(q.Shards), q.Moved, q.Repairs)
		}
		if a := s.Audits; a.Every > 0 {
			fmt.Fprintf(out, "audits: each replica once in %d steps, %d groups computed twice, %d differed\n", a.Every, a.Done, a.Failed)
			for _, name := range a.LeftOut {
				fmt.Fprintf(out, "  %s computed wrongly and is left out\n", name)
			}
		}
		if len(s.Replicas) > 0 {
			fmt.Fprintf(out, "\n%-24s %-10s %-8s %5s %7s %10s\n", "REPLICA", "ENGINE", "STATE", "RANK", "GROUPS", "STEP MS")
		}
		for _, r := range s.Replicas {
			rank := "-"
			if r.Rank >= 0 {
				rank = fmt.Sprint(r.Rank)
			}
			fmt.Fprintf(out, "%-24s %-10s %-8s %5s %7d %10.1f\n", r.Name, r.Engine, r.State, rank, r.Groups, r.StepMS)
		}
		for _, r := range s.Replicas {
			if r.Why != "" {
				fmt.Fprintf(out, "%s is %s until %s: %s\n", r.Name, r.State, r.Until, r.Why)
			}
		}
		for i, r := range s.Replicas {
			if i == 0 {
				fmt.Fprintf(out, "\n%-24s %s\n", "REPLICA", "DEVICE; VERSIONS")
			}
			fmt.Fprintf(out, "%-24s %s\n", r.Name, engines.WithVersions(r.Device, r.Versions))
		}
		if s.Group != nil {
			printGroup(out, s.Group)
		}
		return nil
	}
	return c
}
