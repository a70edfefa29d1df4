package config

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// What a field's tag keeps may say (see Job).
const (
	keepsResult  = "result"
	keepsTensors = "tensors"
)

// effective is c with what auto stands for, and without what changes nothing.
func (c Job) effective() Job {
	c.QueueStorage = c.Storage()
	c.Pairs = c.Drawn()
	c.QueueShards = c.Shards()
	c.RingLane = c.Lane()
	c.RingSecurity = c.Security()
	if c.MaxImagePixels == MostImagePixels {
		c.MaxImagePixels = 0
	}
	if c.MaxImageBytes == MostImageBytes {
		c.MaxImageBytes = 0
	}
	return c
}

// Lane is how gradients go between neighbours, the word that RingLane is or stands for.
func (c Job) Lane() string {
	if c.RingLane == "" {
		return "auto"
	}
	return c.RingLane
}

// The words of RingSecurity.
const (
	SecurityTLS   = "tls"
	SecurityPlain = "plain"
)

// Security is how gradients are protected on the network, the word that RingSecurity is or
// stands for.
func (c Job) Security() string {
	if c.RingSecurity == "" {
		return SecurityTLS
	}
	return c.RingSecurity
}

// Digest identifies the mathematics of a job: 16 hexadecimal digits over every
// field that can change a result. Two configurations have the same digest if
// and only if Differences finds none (but for collisions of a 64-bit hash).
func (c Job) Digest() string {
	h := xxhash.New()
	c = c.effective()
	if c.Pairs == "shard" {
		c.Pairs = "" // what jobs did before there was the setting
	}
	for _, f := range fieldsOf(&c) {
		if f.keeps != keepsResult && !(f.later && f.value.IsZero()) {
			fmt.Fprintf(h, "%s: %v\n", f.name, f.value.Interface())
		}
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// ClassesDigest is the SHA-256 of a list of classes (Job.Classes), one a line; ""
// of "", all.
func ClassesDigest(list string) string {
	if list == "" {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.ReplaceAll(list, ",", "\n")+"\n")))
}

// Differences lists the fields of the mathematics in which a and b differ, as
// "batch: 128 ≠ 256" with a's value first.
func Differences(a, b Job) []string {
	return differences(a, b, func(f field) bool { return f.keeps != keepsResult })
}

// Change is a setting that has another value than before.
type Change struct{ Setting, Old, New string }

func (c Change) String() string { return fmt.Sprintf("%s: %s → %s", c.Setting, c.Old, c.New) }

// Changes are the fields of Differences, when a job goes from old to new settings.
func Changes(old, new Job) []Change {
	return changes(old, new, func(f field) bool { return f.keeps != keepsResult })
}

// AllDifferences lists all fields in which a and b differ, in the form of Differences.
func AllDifferences(a, b Job) []string {
	return differences(a, b, func(field) bool { return true })
}

// CompatibleResume lists, in the form of Differences, the fields that differ
// and may not when a run made with old is resumed with new: those that the
// checkpoint's tensors and the order of samples depend on. Everything else may
// change (length, learning rate, MoCHi's numbers, replica limits, …).
func CompatibleResume(old, new Job) []string {
	return differences(old, new, func(f field) bool { return f.keeps == keepsTensors })
}

func differences(a, b Job, compared func(f field) bool) []string {
	var list []string
	for _, c := range changes(a, b, compared) {
		list = append(list, fmt.Sprintf("%s: %s ≠ %s", c.Setting, c.Old, c.New))
	}
	return list
}

func changes(a, b Job, compared func(f field) bool) []Change {
	var list []Change
	a, b = a.effective(), b.effective()
	if a.Pairs != b.Pairs {
		b.QueueShards = a.QueueShards // follows from that
	}
	fb := fieldsOf(&b)
	for i, fa := range fieldsOf(&a) {
		va, vb := fa.value.Interface(), fb[i].value.Interface()
		if compared(fa) && va != vb {
			list = append(list, Change{fa.name, fmt.Sprint(va), fmt.Sprint(vb)})
		}
	}
	return list
}
