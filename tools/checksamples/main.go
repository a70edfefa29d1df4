// Command checksamples reads a samples.jsonl and checks mochi's promise about
// it: steps follow one another from 1, and the samples of all steps, put end
// to end, are one permutation of the data set after another, so that no sample
// is lost or repeated in an epoch whatever joined or died.
//
//	checksamples -samples 60000 runs/demo/samples.jsonl
//
// The segments of a long file (samples.000001.jsonl, …) are read before it. The file "-" is standard input. The last line may be cut short: a job that
// was killed while writing it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"mochi/tools/lines"
)

func main() {
	samples := flag.Int("samples", 60000, "size of the training split")
	flag.Parse()
	if err := run(flag.Args(), *samples, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "checksamples:", err)
		os.Exit(1)
	}
}

func run(args []string, samples int, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("which file? (- is standard input)")
	}
	var in io.Reader = os.Stdin
	if args[0] != "-" {
		f, err := lines.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	s, err := check(in, samples)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "steps 1 to %d, rounds %d to %d: %d samples of %d, none lost or repeated\n",
		s.steps, s.firstRound, s.lastRound, s.drawn, samples)
	return nil
}

// summary is what a correct file held.
type summary struct {
	steps, drawn          int64
	firstRound, lastRound int64
}

// check reads lines until the end. n is the size of the training split.
func check(in io.Reader, n int) (summary, error) {
	var s summary
	if n < 1 {
		return s, fmt.Errorf("-samples %d: must be at least 1", n)
	}
	lastSeen := make([]int64, n) // the step that drew a sample in the present epoch, 0 = none
	r := bufio.NewReader(in)
	for {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // what is left has no end of line: it was cut short
		}
		if err != nil {
			return s, err
		}
		var line struct {
			Step, Round int64
			Epoch       int64
			Samples     []int
		}
		if err := json.Unmarshal(text, &line); err != nil {
			return s, fmt.Errorf("after step %d: %w", s.steps, err)
		}
		switch {
		case line.Step != s.steps+1:
			return s, fmt.Errorf("step %d follows step %d", line.Step, s.steps)
		case line.Round < s.lastRound:
			return s, fmt.Errorf("step %d: round %d follows round %d", line.Step, line.Round, s.lastRound)
		case len(line.Samples) == 0:
			return s, fmt.Errorf("step %d has no samples", line.Step)
		case line.Epoch != s.drawn/int64(n):
			return s, fmt.Errorf("step %d: epoch %d, but %d samples were drawn before it", line.Step, line.Epoch, s.drawn)
		}
		for _, i := range line.Samples {
			if i < 0 || i >= n {
				return s, fmt.Errorf("step %d: sample %d of %d", line.Step, i, n)
			}
			if lastSeen[i] != 0 {
				return s, fmt.Errorf("step %d: sample %d was drawn in step %d of the same epoch", line.Step, i, lastSeen[i])
			}
			lastSeen[i] = line.Step
			if s.drawn++; s.drawn%int64(n) == 0 {
				clear(lastSeen)
			}
		}
		s.steps, s.lastRound = line.Step, line.Round
		if s.steps == 1 {
			s.firstRound = line.Round
		}
	}
	if s.steps == 0 {
		return s, errors.New("no complete line")
	}
	return s, nil
}
