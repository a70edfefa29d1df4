package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"mochi/allreduce/bench"
	"mochi/allreduce/codec"
	"mochi/allreduce/natsring"
	"mochi/cmd/mochi/cli"
	"mochi/coordinator/identity"
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
	security := c.String("security", bench.None, "`W`: none: frames have checksums; plain: in the clear, each authenticated; tls: as between the replicas of a cluster; the two with --processes or --net")
	c.Complete("security", bench.None, bench.Plain, bench.TLS)
	iterations := c.Int("iterations", d.Iterations, "timed repetitions")
	limits := c.String("net", "", "`RATE[,DELAY]` of each link, such as 1gbit or 1gbit,5ms (one way): one process a rank, each in a network namespace of its own; needs root, a delay also a kernel with netem")
	asJSON := c.Bool("json", false, "print one JSON object")
	rank := c.Int("rank", -1, "with --rendezvous: the rank that this process is")
	rendezvous := c.String("rendezvous", "", "`URL` where the ranks meet; set by --processes itself")
	host := c.String("host", "", "`HOST` that this process listens on, for the others (default 127.0.0.1)")
	within := c.String("within", "", "`PREFIX` of the network that this process is in; set by --net itself")
	c.Run = func(args []string, out, errs io.Writer) error {
		o := bench.Options{World: *world, Bytes: *bytes, Wire: codec.Wire(*wire), Transport: *transport, Lane: natsring.Lane(*lane), Iterations: *iterations, Net: *limits, Host: *host, Security: *security}
		if err := o.Validate(); err != nil {
			return cli.UsageError{Err: err}
		}
		if (*processes || *limits != "") && o.Transport != bench.NATS {
			return cli.Usagef("--processes and --net need --transport nats: %s is in one process by definition", o.Transport)
		}
		switch {
		case *security != bench.None && !*processes && *limits == "" && *within == "" && *rendezvous == "":
			return cli.Usagef("--security %s needs --processes or --net: in one process nothing goes over a network", *security)
		case *security == bench.TLS:
			o.Known = func(name string) (string, natsring.Neighbours, error) {
				key := identity.NewKey()
				n, err := key.Neighbours()
				return key.ID(name), n, err
			}
		}
		ctx := context.Background()
		if *rendezvous != "" {
			return bench.RunRank(ctx, *rendezvous, *rank, o)
		}
		ranks, err := newRanks(o, errs)
		if err != nil {
			return err
		}
		var r bench.Result
		switch {
		case *within != "":
			r, err = ranks.inNetwork(ctx, bench.Within(*within, o.World))
		case *limits != "":
			return ranks.network(ctx, *asJSON, out)
		case *processes:
			r, err = bench.RunProcesses(ctx, o, ranks.command)
		default:
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

// ranks are processes of this program, one a rank of the bench.
type ranks struct {
	o    bench.Options
	self string // this program
	errs io.Writer
}

func newRanks(o bench.Options, errs io.Writer) (ranks, error) {
	self, err := os.Executable()
	if err != nil {
		return ranks{}, fmt.Errorf("find this program to start it again: %w", err)
	}
	return ranks{o, self, errs}, nil
}

// flags are those that all ranks and their parent have.
func (r ranks) flags() []string {
	o := r.o
	return []string{r.self, "bench", "allreduce", "--world", strconv.Itoa(o.World), "--bytes", strconv.Itoa(o.Bytes), "--wire", string(o.Wire),
		"--transport", o.Transport, "--lane", string(o.Lane), "--security", o.Security, "--iterations", strconv.Itoa(o.Iterations)}
}

func (r ranks) start(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = r.errs
	return cmd
}

// command starts a rank on this machine's loopback.
func (r ranks) command(ctx context.Context, url string, rank int) *exec.Cmd {
	return r.start(ctx, append(r.flags(), "--rendezvous", url, "--rank", strconv.Itoa(rank)))
}

// network makes one, and runs this program again in it.
func (r ranks) network(ctx context.Context, asJSON bool, out io.Writer) (err error) {
	limits, err := bench.ParseLimits(r.o.Net)
	if err != nil {
		return cli.Usagef("--net: %w", err)
	}
	n, err := bench.NewNetwork(r.o.World, limits)
	if err != nil {
		return fmt.Errorf("bench allreduce --net: %w", err)
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	argv := append(r.flags(), "--net", r.o.Net, "--host", n.HubHost(), "--within", n.Prefix())
	if asJSON {
		argv = append(argv, "--json")
	}
	cmd := r.start(ctx, n.In(-1, argv...))
	cmd.Stdout = out
	return cmd.Run()
}

// inNetwork is the parent of ranks in a network.
func (r ranks) inNetwork(ctx context.Context, n *bench.Network) (bench.Result, error) {
	return bench.RunProcesses(ctx, r.o, func(ctx context.Context, url string, rank int) *exec.Cmd {
		return r.start(ctx, n.In(rank, append(r.flags(), "--host", n.Host(rank), "--rendezvous", url, "--rank", strconv.Itoa(rank))...))
	})
}
