package main

import (
	"io"
	"strings"

	"mochi/replica/data"
)

// openData opens --data; nil when that is a fault, which f is told.
func openData(f *faults, path string, errs io.Writer) *data.Set {
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
