package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/metrics"
	"time"
)

// vitalsVariable names a file to which a process appends what it has, for those
// who look for leaks.
const vitalsVariable = "MOCHI_VITALS"

// vitals is a line of that file.
type vitals struct {
	Time       time.Time `json:"time"`
	PID        int       `json:"pid"`
	Goroutines int       `json:"goroutines"`
	Heap       uint64    `json:"heap_bytes"` // that the garbage collector found in use
}

// watchVitals appends a line to a file every so often, until the function that it
// returns is called.
func watchVitals(path string, every time.Duration, errs io.Writer) (end func()) {
	if path == "" {
		return func() {}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintf(errs, "%s: %v; nothing is written there\n", vitalsVariable, err)
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer f.Close()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			line, err := json.Marshal(readVitals())
			if err == nil {
				_, err = f.Write(append(line, '\n'))
			}
			if err != nil {
				fmt.Fprintf(errs, "%s: %v; nothing more is written there\n", vitalsVariable, err)
				return
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

func readVitals() vitals {
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(heap)
	v := vitals{Time: time.Now().UTC(), PID: os.Getpid(), Goroutines: runtime.NumGoroutine()}
	if heap[0].Value.Kind() == metrics.KindUint64 {
		v.Heap = heap[0].Value.Uint64()
	}
	return v
}
