package allreduce

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"sync"
)

// Keyed is a Transport whose frames strangers can reach: a Group authenticates them by the
// round's key, and drops those of others, of other rounds and links, and those
// that come again. Without it frames have a checksum, which keeps out faults and nobody.
type Keyed interface {
	// Key is known to the ranks of this round alone, KeyLen bytes; nil: checksums. A
	// rank has one Group in a round that has a key: a second one would use the same
	// nonces again.
	Key() []byte
}

// KeyLen is the length of a round's key, bytes.
const KeyLen = 32

// A link's frames, one way, are sealed with a key of their own, which follows from the
// round's: so a frame of another round, link or direction is a stranger's. The seal is
// AES-GMAC, twice: of the payload, and then of the header with the result, so that the
// payload is read where it lies; an undisturbed core does 12 GB/s. Each frame has a number;
// the nonces are that number with a 0 and with a 1 before it, and no number is used twice.
type sealing struct {
	mu     sync.Mutex
	mac    cipher.AEAD
	number uint64 // of the last frame, of the end that sends
	seen   replays

	// Scratch, since what is handed to an interface would be allocated.
	nonce [12]byte
	text  [fieldsLen + numberLen + tagLen]byte
	inner [tagLen]byte
	tag   [tagLen]byte
}

// Lengths, bytes.
const (
	tagLen = 16
	macLen = 16 // of the key of AES
)

// newSealing is that of the link on which rank sends its segments, one way.
func newSealing(key []byte, id Identity, rank int, d Direction) (*sealing, error) {
	info := fmt.Sprintf("mochi ring frames\x00%s\x00%d\x00%d\x00%d\x00%d", id.Job, id.Round, id.World, rank, d)
	k, err := hkdf.Key(sha256.New, key, nil, info, macLen)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	s := &sealing{}
	s.mac, err = cipher.NewGCM(block)
	return s, err
}

// sum puts the tag of a frame into s.tag. It is under mu.
func (s *sealing) sum(number uint64, fields, payload []byte) {
	binary.LittleEndian.PutUint64(s.nonce[4:], number)
	s.nonce[0] = 0
	s.mac.Seal(s.inner[:0], s.nonce[:], nil, payload)
	copy(s.text[:], fields[:fieldsLen])
	binary.LittleEndian.PutUint64(s.text[fieldsLen:], number)
	copy(s.text[fieldsLen+numberLen:], s.inner[:])
	s.nonce[0] = 1
	s.mac.Seal(s.tag[:0], s.nonce[:], nil, s.text[:])
}

// seal gives a frame, whose header is in b, a number and a tag.
func (s *sealing) seal(b, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	s.sum(s.number, b, payload)
	binary.LittleEndian.PutUint64(b[fieldsLen:], s.number)
	copy(b[fieldsLen+numberLen:], s.tag[:])
}

// verdict is what the seal of a frame says.
type verdict int

const (
	whole    verdict = iota
	damaged          // or not of who has the key
	repeated         // a frame that was here before, or one of long ago
)

// open looks at the seal of a frame.
func (s *sealing) open(b, payload []byte) verdict {
	number := binary.LittleEndian.Uint64(b[fieldsLen:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum(number, b, payload)
	if subtle.ConstantTimeCompare(s.tag[:], b[fieldsLen+numberLen:]) != 1 {
		return damaged
	}
	if !s.seen.first(number) {
		return repeated
	}
	return whole
}

// replays knows which of the last numbers were here. Frames overtake each other a little:
// small ones wait to be written with others, in the client of NATS or in a link.
type replays struct {
	last uint64
	bits [replayWindow / 64]uint64 // number n is bit n modulo the window
}

const replayWindow = 8192

// first says whether a number is here for the first time. Number 0 never is, nor one older
// than the window.
func (r *replays) first(n uint64) bool {
	if n == 0 || n+replayWindow <= r.last {
		return false
	}
	if n > r.last {
		if n-r.last >= replayWindow {
			r.bits = [replayWindow / 64]uint64{}
		} else {
			for i := r.last + 1; i < n; i++ {
				r.bits[i%replayWindow/64] &^= 1 << (i % 64)
			}
		}
		r.last = n
	} else if r.bits[n%replayWindow/64]&(1<<(n%64)) != 0 {
		return false
	}
	r.bits[n%replayWindow/64] |= 1 << (n % 64)
	return true
}

// seals are those of a rank's two links, both ways; all nil where frames have checksums.
type seals struct {
	out  [2]*sealing // by direction of what is sent
	from [2]*sealing // by direction of what comes
}

func newSeals(t Transport, id Identity) (s seals, err error) {
	k, ok := t.(Keyed)
	if !ok || k.Key() == nil {
		return s, nil
	}
	key := k.Key()
	if len(key) != KeyLen {
		return s, fmt.Errorf("allreduce: the round's key has %d bytes, want %d", len(key), KeyLen)
	}
	for _, one := range []struct {
		s    **sealing
		rank int
		d    Direction
	}{
		{&s.out[Forward], id.Rank, Forward},
		{&s.out[Backward], id.Predecessor(), Backward},
		{&s.from[Forward], id.Predecessor(), Forward},
		{&s.from[Backward], id.Rank, Backward},
	} {
		if *one.s, err = newSealing(key, id, one.rank, one.d); err != nil {
			return s, fmt.Errorf("allreduce: the round's key: %w", err)
		}
	}
	return s, nil
}
