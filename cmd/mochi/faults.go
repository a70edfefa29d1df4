package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"mochi/coordinator/protocol/config"
	"mochi/replica/data"
)

// faults collects all that is wrong with a command line, so that it can be
// said at once and before anything is started or written.
type faults struct{ list config.Faults }

func (f *faults) add(field, format string, args ...any) {
	f.list = append(f.list, config.Fault{Field: field, Problem: fmt.Sprintf(format, args...)})
}

// addErr adds the faults of a configuration, or err as a fault of field.
func (f *faults) addErr(field string, err error) {
	var more config.Faults
	if errors.As(err, &more) {
		f.list = append(f.list, more...)
	} else if err != nil {
		f.add(field, "%v", err)
	}
}

// err is nil without a fault, else a usage error.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	return usageError{f.list}
}

// openData opens --data; nil when that is a fault.
func (f *faults) openData(path string, errs io.Writer) *data.Set {
	if path == "" {
		f.add("data", "missing: the folder of the images, or %s", data.FashionMNIST)
		return nil
	}
	o := data.DefaultOptions()
	o.Progress = occasionally(errs)
	set, err := data.OpenWith(path, o)
	if err != nil {
		f.add("data", "%s", strings.TrimLeft(strings.TrimPrefix(err.Error(), "data"), ": "))
		return nil
	}
	return set
}

// workersFlag is what --workers says in help.
const workersFlag = "loader threads of each replica at most; 0 = one a core. No more of them load than keep the engine from waiting"

// occasionally shows every text that comes two seconds or more after the one
// before; what is done sooner shows nothing.
func occasionally(w io.Writer) func(text string) {
	var mu sync.Mutex
	last := time.Now()
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) >= 2*time.Second {
			last = time.Now()
			fmt.Fprintln(w, text)
		}
	}
}

// atLeast checks a number.
func (f *faults) atLeast(least int, field string, value int) {
	if value < least {
		f.add(field, "is %d, must be at least %d", value, least)
	}
}
