package protocol_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"mochi/coordinator/protocol"
)

// What is encoded is decoded, whether it is packed or not; and what is short is JSON.
func TestPackedMessages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 100, 4000, 20000} {
		m := protocol.Message{Version: protocol.Version, From: "b", Ready: &protocol.Ready{Groups: make([]protocol.GroupReport, n)}}
		for i := range m.Ready.Groups {
			m.Ready.Groups[i].Group, m.Ready.Groups[i].Loss = i, r.NormFloat64()
		}
		data, err := protocol.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if packed := data[0] != '{'; packed != (n >= 4000) || packed && len(data) > 200*n {
			t.Errorf("%d groups: %d bytes, packed: %v", n, len(data), packed)
		}
		var back protocol.Message
		if err := protocol.Decode(data, &back); err != nil || !reflect.DeepEqual(m, back) {
			t.Errorf("%d groups: not the same message; %v", n, err)
		}
		for cut := range min(len(data), 50) {
			if err := protocol.Decode(data[:len(data)-1-cut*len(data)/50], &back); err == nil {
				t.Errorf("%d groups: a message without its last %d bytes is taken", n, 1+cut)
			}
		}
	}
}

// A few bytes that unpack to a gigabyte are refused, and it is not unpacked.
func TestPackedBomb(t *testing.T) {
	var bomb bytes.Buffer
	w, _ := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	zeros := bytes.Repeat([]byte{' '}, 1<<20)
	for range 1024 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := protocol.Decode(bomb.Bytes(), new(protocol.Message))
	runtime.ReadMemStats(&after)
	if !errors.Is(err, protocol.ErrTooLong) || after.TotalAlloc-before.TotalAlloc > 64<<20 {
		t.Errorf("a bomb of %d bytes: %v, %d MiB allocated", bomb.Len(), err, (after.TotalAlloc-before.TotalAlloc)>>20)
	}
	if _, err := protocol.Encode(string(make([]byte, protocol.MaxMessage))); !errors.Is(err, protocol.ErrTooLong) {
		t.Errorf("a message of more than the most is sent: %v", err)
	}
}
