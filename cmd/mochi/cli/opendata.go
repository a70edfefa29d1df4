package cli

import (
	"io"
	"strings"

	"mochi/coordinator/protocol/config"
	"mochi/replica/data"
)

// ClassesFlag is what --classes says in help where it is no setting.
const ClassesFlag = "use these classes alone: a `FILE` with an id a line, or imagenet100, the list of CMC"

// Sources is the flag --data, which may be given more than once.
type Sources []string

// AddData adds --data.
func AddData(c *Command, help string) *Sources {
	s := &Sources{}
	c.Var(s, "data", help+"; given more than once, all of them together")
	c.Complete("data", data.FashionMNIST)
	return s
}

// String implements pflag.Value.
func (s *Sources) String() string { return strings.Join(*s, " ") }

// Type implements pflag.Value.
func (s *Sources) Type() string { return "PATH" }

// Set implements pflag.Value: it takes one more; "" is none.
func (s *Sources) Set(path string) error {
	if path != "" {
		*s = append(*s, path)
	}
	return nil
}

// OpenClasses is OpenData of some classes: those of classes, as data.ReadClasses
// takes them; "" is all.
func OpenClasses(f *Faults, paths []string, classes string, errs io.Writer, cache *Cache) *data.Set {
	set := OpenData(f, paths, errs, cache)
	if classes == "" {
		return set
	}
	list, err := data.ReadClasses(classes)
	if err == nil && set != nil {
		set, err = set.Select(list)
	}
	if err != nil {
		f.Add("classes", "%v", err)
		return nil
	}
	return set
}

// Learns checks that a job which learns from labels has some, and writes down of how
// many classes. set is nil where no data was given, or its fault is known.
func Learns(f *Faults, cfg *config.Job, set *data.Set, paths []string) {
	if set == nil {
		setting := "probe"
		if cfg.Supervised {
			setting = "supervised"
		}
		if len(paths) == 0 && cfg.Learns() && cfg.Labels == 0 {
			f.Add(setting, "must know how many classes there are: --data is missing, or --labels")
		}
		cfg.Learn(cfg.Labels)
		return
	}
	classes, said := set.Train.Classes(), cfg.Labels
	for _, s := range []struct {
		name string
		on   bool
	}{{"probe", cfg.Probe}, {"supervised", cfg.Supervised}} {
		if s.on && classes == 0 {
			f.Add(s.name, "needs labelled data; %s has no classes", shown(paths))
		}
	}
	if cfg.Learn(classes); said != 0 && cfg.Labels != 0 && said != cfg.Labels {
		f.Add("labels", "the configuration says %d classes, %s has %d", said, shown(paths), classes)
	}
}

// OpenData opens --data, several together as one; nil when that is a fault, which f is told.
// cache is where data of other machines are kept.
func OpenData(f *Faults, paths []string, errs io.Writer, cache *Cache) *data.Set {
	return openData(f, paths, errs, cache, data.DefaultOptions())
}

// OpenAllData is OpenData that counts all files, those in folders that are left out
// too.
func OpenAllData(f *Faults, paths []string, errs io.Writer, cache *Cache) *data.Set {
	o := data.DefaultOptions()
	o.CountAll = true
	return openData(f, paths, errs, cache, o)
}

func openData(f *Faults, paths []string, errs io.Writer, cache *Cache, o data.Options) *data.Set {
	if len(paths) == 0 {
		f.Add("data", "missing: the folder of the images, or %s", data.FashionMNIST)
		return nil
	}
	o.Progress = Occasionally(errs)
	cache.apply(&o)
	set, err := data.OpenAll(paths, o)
	if err != nil {
		f.Add("data", "%v", err)
		return nil
	}
	return set
}

// shown is data sets for people.
func shown(paths []string) string {
	var list []string
	for _, path := range paths {
		list = append(list, data.Shown(path))
	}
	return strings.Join(list, " with ")
}

// LimitImages adds the flags that say which images are too large, for commands
// that look at a data set without a job: its function makes them hold.
func LimitImages(c *Command) func(f *Faults, set *data.Set) {
	o := data.DefaultOptions()
	pixels := c.Int("max-image-pixels", o.MaxPixels, "largest image, `width × height`; a larger one counts as damaged, and those in memory at once take no more than one of that size (11 bytes a pixel)")
	bytes := c.Int("max-image-bytes", int(o.MaxBytes), "largest image file, `bytes`; a larger one counts as damaged")
	return func(f *Faults, set *data.Set) {
		f.AtLeast(1, "max-image-pixels", *pixels)
		f.AtLeast(1, "max-image-bytes", *bytes)
		if set != nil && *pixels > 0 && *bytes > 0 {
			set.Limit(*pixels, int64(*bytes))
		}
	}
}
