package allreduce

import (
	"strings"
	"testing"
)

func TestFrameRoundTrip(t *testing.T) {
	want := header{kind: kindData, op: opGather, sender: 3, world: 8, fence: 1 << 63, seq: 1<<40 + 7, step: 99, total: 1 << 33, bucket: 5, index: 77}
	payload := []byte("segment")
	b := make([]byte, HeaderLen)
	want.encode(b, payload)
	var got header
	if !got.decode(b, payload) || got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if got.decode(b[:HeaderLen-1], payload) || got.decode(nil, nil) {
		t.Error("a short header was accepted")
	}
}

// TestAnyFlippedBitIsNoticed: CRC32C finds every single-bit error, in header
// and payload.
func TestAnyFlippedBitIsNoticed(t *testing.T) {
	payload := []byte("the gradient of one segment")
	b := make([]byte, HeaderLen)
	h := header{kind: kindBeat, seq: 12}
	h.encode(b, payload)
	for _, part := range [][]byte{b, payload} {
		for bit := range 8 * len(part) {
			part[bit/8] ^= 1 << (bit % 8)
			if h.decode(b, payload) {
				t.Errorf("bit %d of %d bytes flipped unnoticed", bit, len(part))
			}
			part[bit/8] ^= 1 << (bit % 8)
		}
	}
	if !h.decode(b, payload) {
		t.Error("the undamaged frame was refused")
	}
}

func TestAbortNoticeRoundTrip(t *testing.T) {
	want := abortNotice{suspect: 300, origin: 2, cause: 3, text: "link down: it is gone"}
	got, ok := decodeAbort(want.encode())
	if !ok || got != want {
		t.Errorf("got %+v, %t, want %+v", got, ok, want)
	}
	for _, bad := range [][]byte{nil, {1, 2, 3, 4}, {0, 0, 0, 0, 200}} {
		if _, ok := decodeAbort(bad); ok {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestRoundsAndJobsHaveDifferentFences(t *testing.T) {
	seen := map[uint64]Identity{}
	for _, id := range []Identity{{Job: "a", Round: 1}, {Job: "a", Round: 2}, {Job: "b", Round: 1}, {Job: "a1", Round: 1}, {Job: "a", Round: 11}} {
		fence := fenceOf(id)
		if other, ok := seen[fence]; ok {
			t.Errorf("%+v and %+v have one fence", id, other)
		}
		seen[fence] = id
	}
}

func TestPeerErrorSaysWhatToDo(t *testing.T) {
	for _, cause := range []error{ErrTimeout, ErrLost, ErrDown, ErrMismatch, ErrAborted} {
		text := (&PeerError{Rank: 3, Round: 12, Op: describe(opSum, Tag{Step: 7, Bucket: 2}), Err: cause}).Error()
		for _, part := range []string{"rank 3", "round 12", "all-reduce sum step 7 bucket 2", cause.Error(), "("} {
			if !strings.Contains(text, part) {
				t.Errorf("%q does not contain %q", text, part)
			}
		}
	}
}
