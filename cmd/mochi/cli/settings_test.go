package cli

import (
	"slices"
	"strings"
	"testing"

	"mochi/coordinator/protocol/config"
)

// The settings of the help are exactly the keys of config.yaml.
func TestSettingsAreTheKeys(t *testing.T) {
	text, err := config.Default().YAML()
	if err != nil {
		t.Fatal(err)
	}
	var keys, names []string
	for line := range strings.Lines(string(text)) {
		key, _, _ := strings.Cut(line, ":")
		keys = append(keys, key)
	}
	for _, s := range settings() {
		names = append(names, s.name)
	}
	slices.Sort(keys)
	slices.Sort(names)
	if !slices.Equal(keys, names) {
		t.Errorf("config.yaml has %q\nflags are %q", keys, names)
	}
}
