package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"mochi/allreduce/bench"
	"mochi/allreduce/codec"
	"mochi/allreduce/natsring"
	"mochi/cmd/mochi/cli"
)

func benchAllreduceCommand() *cli.Command {
	d := bench.DefaultOptions()
	c := cli.NewCommand("bench allreduce", cli.Text{
		Short:   "time the ring all-reduce",
		About:   "time the ring all-reduce beside a plain TCP ring that moves the same bytes",
		Example: "mochi bench allreduce --world 2 --bytes 112000000 --wire bf16 --transport nats --processes --iterations 10 --json",
	})
	world := c.Int("world", d.World, "ranks")
	bytes := c.Int("bytes", d.Bytes, "size of the vector, as float32")
	wire := c.String("wire", string(d.Wire), "`W`: "+cli.Words("wire"))
	transport := c.String("transport", d.Transport, "`T`: inproc: one embedded server; nats: a server for every rank, successors over TCP")
	c.Complete("transport", bench.Inproc, bench.NATS)
	lane := c.String("lane", string(d.Lane), "`L`: auto: ranks of one process read each other's vectors in place; nats: every segment goes over NATS; direct: over TCP connections of its own (with --transport nats), in place in one process")
	c.Complete("lane", string(natsring.Auto), string(natsring.NATS), string(natsring.Direct))
	processes := c.Bool("processes", false, "one process a rank (with --transport nats)")
	iterations := c.Int("iterations", d.Iterations, "timed repetitions")
	asJSON := c.Bool("json", false, "print one JSON object")
	rank := c.Int("rank", -1, "with --rendezvous: the rank that this process is")
	rendezvous := c.String("rendezvous", "", "`URL` where the ranks meet; set by --processes itself")
	c.Run = func(args []string, out, errs io.Writer) error {
		o := bench.Options{World: *world, Bytes: *bytes, Wire: codec.Wire(*wire), Transport: *transport, Lane: natsring.Lane(*lane), Iterations: *iterations}
		if err := o.Validate(); err != nil {
			return cli.UsageError{Err: err}
		}
		ctx := context.Background()
		if *rendezvous != "" {
			return bench.RunRank(ctx, *rendezvous, *rank, o)
		}
		var r bench.Result
		var err error
		if *processes {
			if o.Transport != bench.NATS {
				return cli.Usagef("--processes needs --transport nats: %s is in one process by definition", o.Transport)
			}
			self, serr := os.Executable()
			if serr != nil {
				return fmt.Errorf("find this program to start it again: %w", serr)
			}
			r, err = bench.RunProcesses(ctx, o, func(ctx context.Context, url string, rank int) *exec.Cmd {
				cmd := exec.CommandContext(ctx, self, "bench", "allreduce", "--rendezvous", url, "--rank", strconv.Itoa(rank),
					"--world", strconv.Itoa(o.World), "--bytes", strconv.Itoa(o.Bytes), "--wire", string(o.Wire),
					"--transport", o.Transport, "--lane", string(o.Lane), "--iterations", strconv.Itoa(o.Iterations))
				cmd.Stderr = errs
				return cmd
			})
		} else {
			r, err = bench.Run(ctx, o)
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, "p50 %.2f ms, p99 %.2f ms, algorithm %.2f GB/s, bus %.2f GB/s (plain TCP ring %.2f), %.2f CPU-s/GB\n",
			r.P50MS, r.P99MS, r.AlgBW, r.BusBW, r.RawTCPBusBW, r.CPUSecondsPerGB)
		return nil
	}
	return c
}
