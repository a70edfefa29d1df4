package main

import (
	"path/filepath"
	"testing"
)

// Finetuning on a part of the labels learns to tell classes apart, the same each time;
// what it was trained on is in the result.
func TestFinetune(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 200, 40)
	args := []string{"eval", "finetune", "--checkpoint", "random:resnet8", "--image-size", "12", "--data", data,
		"--batch", "16", "--bn-group", "8", "--lr-backbone", "0.05", "--epochs", "12", "--json"}
	want := []string{"top1", "top5", "labels", "epochs", "lists", "labels_sha256", "train", "test", "lr_backbone", "lr_head", "checkpoint"}
	got := fields(t, want, append(args, "--labels", "40%")...)
	if got["train"] != 80. || got["test"] != 40. || got["labels"] != "40%" || got["epochs"] != 12. || got["top1"].(float64) < 0.6 {
		t.Errorf("%v", got)
	}
	again := fields(t, want, append(args, "--labels", "40%", "--threads", "1")...)
	if again["top1"] != got["top1"] || again["labels_sha256"] != got["labels_sha256"] {
		t.Errorf("%v, and again %v", got, again)
	}
	refused(t, 2, append(args, "--labels", "101%", "--batch", "12", "--lr-head", "0", "--lr-backbone", "-1"), "labels:", "batch: 12 is no multiple", "lr-head:", "lr-backbone:")
	refused(t, 2, args, "labels: missing")
	list := filepath.Join(t.TempDir(), "list")
	put(t, list, []byte("nobody.JPEG\n"))
	refused(t, 1, append(args, "--labels", list), `line 1: the training images have no "nobody.JPEG"`)
}
