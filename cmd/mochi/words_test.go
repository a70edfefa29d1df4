package main

import (
	"slices"
	"testing"

	"mochi/allreduce/codec"
	"mochi/allreduce/natsring"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/optim"
	"mochi/replica/augment"
)

// The words of a setting are those that the part it is for knows. The
// configuration may not import these parts, so the lists stand twice.
func TestSettingsNameWhatThereIs(t *testing.T) {
	for name, want := range map[string][]string{
		"recipe":    {augment.MoCoV2, augment.CIFAR, augment.None, augment.Flip},
		"schedule":  {optim.Cosine, optim.Step},
		"precision": {string(engine.FP32), string(engine.TF32), string(engine.BF16)},
		"wire":      {string(codec.FP32), string(codec.BF16)},
		"ring-lane": {string(natsring.Auto), string(natsring.NATS), string(natsring.Direct)},

		"ring-security": {config.SecurityTLS, config.SecurityPlain},
	} {
		at := slices.IndexFunc(config.Settings(), func(s config.Setting) bool { return s.Name == name })
		if at < 0 || !slices.Equal(config.Settings()[at].Values, want) {
			t.Errorf("--%s may be %q, want %q", name, config.Settings()[at].Values, want)
		}
	}
	for _, word := range []string{augment.MoCoV2, augment.CIFAR, augment.None, augment.Flip} {
		if _, err := augment.New(word, 32); err != nil {
			t.Error(err)
		}
	}
}
