package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that is no configuration is told from one before it costs anything.
func TestParseHasLimits(t *testing.T) {
	for text, want := range map[string]string{
		"arch: " + strings.Repeat("x", maxFile):                                      "the limit is 1048576",
		"mochi: " + strings.Repeat("[", 9) + strings.Repeat("]", 9):                  "more than 8 deep",
		strings.Repeat("{a: ", 5000) + strings.Repeat("}", 5000):                     "more than 8 deep",
		"a: &a [x]\nb: &b [*a,*a]\nmochi: [" + strings.Repeat("*b,", 1000) + "*b]\n": "mochi",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q…: %.200v, want %q", text, err, want)
		}
	}
	if c, err := Parse([]byte("mochi: [1, 2, 3] #" + strings.Repeat("x", maxFile-100))); err != nil || c.MoCHi.S != 2 {
		t.Errorf("a long file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "long.yaml")
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is too long: %v", err)
	}
}

// The limits of images belong to the job; to say what holds anyway changes nothing.
func TestImageLimits(t *testing.T) {
	c := Default()
	said := c
	said.MaxImagePixels, said.MaxImageBytes = MostImagePixels, MostImageBytes
	other := c
	other.MaxImagePixels = 7
	if c.Digest() != said.Digest() || c.Digest() == other.Digest() || other.ImagePixels() != 7 || c.ImagePixels() != MostImagePixels || c.ImageBytes() != MostImageBytes {
		t.Errorf("digests %s, %s and %s", c.Digest(), said.Digest(), other.Digest())
	}
}
