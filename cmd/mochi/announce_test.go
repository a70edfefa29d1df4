package main

import (
	"bytes"
	"strings"
	"testing"

	"mochi/cmd/mochi/run"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica/data"
)

// Before the start one line says that queue and batch are larger than the data.
func TestFewImagesAreAnnounced(t *testing.T) {
	cfg := config.Default()
	cfg.KNNEvery = 0
	for images, want := range map[int]int{240: 1, 1_300_000: 0} {
		var said bytes.Buffer
		set := &data.Set{Info: protocol.Data{Train: images}}
		announce(run.NewProgress(&said, cfg), set, cfg)
		if n := strings.Count(said.String(), "training images"); n < want || strings.Count(said.String(), "docs/loss-health.md") != want {
			t.Errorf("%d images:\n%s", images, said.String())
		}
	}
}

// More replicas than cores are told of, with how many would do.
func TestCrowdedReplicas(t *testing.T) {
	if text := crowded(2, 2); text != "" {
		t.Error(text)
	}
	if text := crowded(8, 2); !strings.Contains(text, "8 replicas share 2 cores") || !strings.Contains(text, "--replicas 2") {
		t.Error(text)
	}
}
