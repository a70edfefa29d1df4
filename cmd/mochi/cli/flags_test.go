package cli

import (
	"slices"
	"testing"

	"mochi/coordinator/protocol/config"
)

// The settings of the help are exactly those of a job.
func TestSettingsAreTheKeys(t *testing.T) {
	fs := NewFlags("train", "", "", nil)
	AddTraining(fs, func(string) bool { return true })
	var names []string
	for _, s := range config.Settings() {
		names = append(names, s.Name)
		if fs.Lookup(s.Name) == nil {
			t.Errorf("no flag --%s", s.Name)
		}
	}
	if !slices.Equal(fs.settings, names) {
		t.Errorf("settings are %q\nflags are %q", names, fs.settings)
	}
}
