package jury

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// How much is written down: of those left out the newest, of the audits that
// were passed the latest. A case that is too long for a note is heard again.
const (
	mostBanned = 256
	mostSound  = 256
	mostCase   = 128 << 10 // bytes
)

// memory is what is known, as it is written down.
type memory struct {
	Done   int              `json:"done"`
	Failed int              `json:"failed"`
	Sound  map[string]int64 `json:"sound,omitempty"`
	Banned []banned         `json:"banned,omitempty"`
	Case   json.RawMessage  `json:"case,omitempty"` // an inquiry
}

// Changed says whether something was decided since it was last asked: a member
// was left out, or a case was opened, got on, or was closed.
func (j *Jury) Changed() bool {
	changed := j.changed
	j.changed = false
	return changed
}

// Memory is what must be known after a restart, in words for Remember: who is left
// out and why, the case in hand, and how the audits were passed.
func (j *Jury) Memory() string {
	m := memory{Done: j.done, Failed: j.failed, Sound: j.sound, Banned: j.banned}
	if latest := slices.SortedFunc(maps.Keys(j.sound), func(a, b string) int {
		return cmp.Or(cmp.Compare(j.sound[b], j.sound[a]), cmp.Compare(a, b))
	}); len(latest) > mostSound {
		m.Sound = map[string]int64{}
		for _, id := range latest[:mostSound] {
			m.Sound[id] = j.sound[id]
		}
	}
	if n := len(m.Banned); n > mostBanned {
		m.Banned = m.Banned[n-mostBanned:]
	}
	if j.caseOf != nil {
		if text := encode(j.caseOf.brief()); len(text) <= mostCase {
			m.Case = text
		}
	}
	return string(encode(m))
}

// Remember is a jury that knows what Memory said; after an error it knows nothing.
// It is patient again with a case that trials did not settle.
func Remember(text string) (*Jury, error) {
	j := New()
	if text == "" {
		return j, nil
	}
	var m memory
	err := json.Unmarshal([]byte(text), &m)
	if err == nil && len(m.Case) > 0 {
		err = json.Unmarshal(m.Case, &j.caseOf)
	}
	if err != nil {
		return New(), fmt.Errorf("what is known of wrong arithmetic cannot be read: %w", err)
	}
	j.done, j.failed, j.banned = m.Done, m.Failed, m.Banned
	maps.Copy(j.sound, m.Sound)
	return j, nil
}

// brief is the case with what was said of its groups only.
func (q *inquiry) brief() inquiry {
	b := *q
	b.Before = slices.Clone(q.Before)
	for i, s := range b.Before {
		s.Recounts, s.Expected = nil, nil
		for _, r := range q.Before[i].Recounts {
			if slices.Contains(q.Groups, r.Group) {
				s.Recounts = append(s.Recounts, r)
			}
		}
		for _, g := range q.Before[i].Expected {
			if slices.Contains(q.Groups, g) {
				s.Expected = append(s.Expected, g)
			}
		}
		b.Before[i] = s
	}
	return b
}

// encode is what cannot fail: plain values.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
