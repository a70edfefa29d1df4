package cli

import (
	"io"

	"mochi/replica/data"
)

// OpenData opens --data; nil when that is a fault, which f is told.
func OpenData(f *Faults, path string, errs io.Writer) *data.Set {
	if path == "" {
		f.Add("data", "missing: the folder of the images, or %s", data.FashionMNIST)
		return nil
	}
	o := data.DefaultOptions()
	o.Progress = Occasionally(errs)
	set, err := data.OpenWith(path, o)
	if err != nil {
		f.Add("data", "%v", err)
		return nil
	}
	return set
}
