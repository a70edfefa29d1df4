package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/cmd/mochi/engines"
	"mochi/replica/data"
	"mochi/replica/data/survey"
)

func dataInspectCommand() *cli.Command {
	c := cli.NewCommand("data inspect PATH", cli.Text{
		Short:   "show what a data set holds: counts, classes, sizes, corrupt and duplicate images",
		About:   "show what the data at PATH is: counts, classes, sizes, corrupt and duplicate images",
		Example: "mochi data inspect ~/images\nmochi data inspect 'shards/train-{000..146}.tar' --quick --json\nmochi data inspect ~/images --html data.html",
	})
	sources := cli.AddData(c, "`PATH` of the data instead of the argument")
	cache := cli.AddCache(c, engines.BuildIdentity)
	c.Instead("PATH", "data")
	quick := c.Bool("quick", false, "read headers only: damaged pixels and duplicates are not found")
	workers := c.Int("workers", runtime.NumCPU(), "goroutines")
	asJSON := c.Bool("json", false, "print one JSON object")
	html := c.String("html", "", "`FILE` to write too: one page with the verdict, class and image sizes and a contact sheet, which needs nothing else")
	limit := cli.LimitImages(c)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		f.AtLeast(1, "workers", *workers)
		set := cli.OpenAllData(&f, slices.DeleteFunc(append(*sources, args...), func(s string) bool { return s == "" }), errs, cache)
		limit(&f, set)
		if *html != "" { // said now, not after an hour of reading
			if info, err := os.Stat(filepath.Dir(*html)); err != nil || !info.IsDir() {
				f.Add("html", "there is no folder %s to write it to", filepath.Dir(*html))
			} else if info, err := os.Stat(*html); err == nil && !info.Mode().IsRegular() {
				f.Add("html", "%s is not a file: give the name of one, such as data.html", *html)
			}
		}
		if err := f.Err(); err != nil {
			return err
		}
		fmt.Fprintln(errs, set.Announce)
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		say := cli.Occasionally(errs)
		r, err := survey.Run(ctx, set, survey.Options{Workers: *workers, Quick: *quick, Progress: func(done, total int) {
			say(fmt.Sprintf("looked at %d of %s", done, cli.Count(total, "image")))
		}})
		if errors.Is(err, context.Canceled) {
			return cli.ErrInterrupted
		}
		if err != nil {
			return err
		}
		if *html != "" {
			if err := convert.WriteFile(*html, func(w *os.File) error { return r.Page(ctx, set, w) }); err != nil {
				if errors.Is(err, context.Canceled) {
					return cli.ErrInterrupted
				}
				return err
			}
		}
		if *asJSON {
			err = cli.PrintJSON(out, r)
		} else {
			printSurvey(out, r)
		}
		if n := r.Files.Unruled(); n > 0 && err == nil {
			err = fmt.Errorf("%s left out of a kind that docs/data.md has no rule for: look at what it is, and take it away if it does not matter", cli.Plural(n, "file was", "files were"))
		}
		return err
	}
	return c
}

// listed is how many lines of a kind people are shown; --json has them all.
const listed = 10

func printSurvey(out io.Writer, r *survey.Report) {
	split := func(name string, s survey.Split) {
		fmt.Fprintf(out, "%s: %s", name, cli.Count(s.Images, "image"))
		if s.Bytes > 0 {
			fmt.Fprintf(out, ", %s", data.Bytes(s.Bytes))
		}
		if s.Unlabeled > 0 && r.Classes > 0 {
			fmt.Fprintf(out, ", %d without a class", s.Unlabeled)
		}
		fmt.Fprintln(out)
	}
	split("training", r.Train)
	if r.Test != nil {
		split("test", *r.Test)
	}
	if r.Classes == 0 {
		fmt.Fprintln(out, "no classes")
	} else {
		least := slices.MinFunc(r.ByClass, func(a, b survey.Class) int { return a.Train - b.Train })
		most := slices.MaxFunc(r.ByClass, func(a, b survey.Class) int { return a.Train - b.Train })
		fmt.Fprintf(out, "%s of %d (%s) to %d (%s) training images\n", cli.Plural(r.Classes, "class", "classes"), least.Train, least.Name, most.Train, most.Name)
		for i, c := range r.ByClass {
			if more(out, i, len(r.ByClass), 2*listed) {
				break
			}
			fmt.Fprintf(out, "  %-24s %7d  %7d\n", c.Name, c.Train, c.Test)
		}
	}
	s := r.Sizes
	fmt.Fprintf(out, "sizes: %d×%d to %d×%d pixels, median %d×%d; the shorter side:\n", s.MinWidth, s.MinHeight, s.MaxWidth, s.MaxHeight, s.MedianWidth, s.MedianHeight)
	top := 1
	for _, b := range s.ShorterSide {
		top = max(top, b.Images)
	}
	for _, b := range s.ShorterSide {
		fmt.Fprintf(out, "  %11s %8d  %s\n", fmt.Sprintf("%d–%d", b.From, b.To), b.Images, strings.Repeat("▇", (b.Images*40+top-1)/top))
	}
	var kinds []string
	for _, m := range []map[string]int{r.Formats, r.Colours} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			kinds = append(kinds, fmt.Sprintf("%s %d", name, m[name]))
		}
	}
	if len(kinds) > 0 {
		fmt.Fprintln(out, "kinds: "+strings.Join(kinds, ", "))
	}
	if r.Turned > 0 {
		fmt.Fprintf(out, "%s turned upright by the EXIF orientation\n", cli.Count(r.Turned, "image"))
	}
	list := func(what string, faults []survey.Fault) {
		if len(faults) == 0 {
			return
		}
		fmt.Fprintf(out, "%s: %d\n", what, len(faults))
		for i, f := range faults {
			if more(out, i, len(faults), listed) {
				break
			}
			fmt.Fprintf(out, "  %s: %s\n", f.Path, f.Cause)
		}
	}
	list("cannot be read", r.Unreadable)
	list("corrupt images", r.Corrupt)
	if len(r.Duplicates) > 0 {
		fmt.Fprintf(out, "images that are there more than once: %d\n", len(r.Duplicates))
		for i, d := range r.Duplicates {
			if more(out, i, len(r.Duplicates), listed) {
				break
			}
			fmt.Fprintf(out, "  %s\n", strings.Join(d.Paths[:min(len(d.Paths), 4)], " = "))
		}
	}
	if r.Leaked > 0 {
		fmt.Fprintf(out, "%s among the training images too: accuracy on them says little\n", cli.Plural(r.Leaked, "test image is", "test images are"))
	}
	if len(r.Unreadable)+len(r.Corrupt)+len(r.Duplicates) == 0 {
		if r.Complete {
			fmt.Fprintln(out, "no corrupt image, no duplicate")
		} else {
			fmt.Fprintln(out, "no damaged header (--quick does not look further)")
		}
	}
	fmt.Fprintf(out, "digest %s (replicas of one job must have the same)\n", r.Digest)
	fmt.Fprintln(out, "verdict:")
	for _, line := range r.Verdict {
		fmt.Fprintln(out, "  "+line)
	}
}

// more ends a list after most lines, saying how many are left.
func more(out io.Writer, i, n, most int) bool {
	if i < most || n == most+1 {
		return false
	}
	fmt.Fprintf(out, "  … and %d more (--json lists all)\n", n-i)
	return true
}
