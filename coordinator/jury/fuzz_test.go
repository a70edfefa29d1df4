package jury

import "testing"

// FuzzRemember: a note of any text is taken or refused, and what is remembered of it
// can be noted again.
func FuzzRemember(f *testing.F) {
	f.Add(`{"done":3,"failed":1,"banned":[{"id":"a","name":"A"}],"sound":{"a":3}}`)
	f.Add(`{"case":{"groups":[1],"before":[{"recounts":[{"group":1}]}]},"sound":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		j, err := Remember(text)
		if err != nil {
			return
		}
		j.Counts()
		j.BannedNames()
		if note := j.Memory(); note != "" {
			if _, err := Remember(note); err != nil {
				t.Fatalf("%q: %v", note, err)
			}
		}
	})
}
