package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"mochi/coordinator/protocol/config"
	"mochi/model/exchange/npy"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// views writes the views of every step that a run has logged (--sample-log), for
// another program to train on: DIR/views-STEP.npy, [2·B, 3·S·S], the queries of the
// batch in order, then its keys.
func views(run, source, dir string) error {
	text, err := os.ReadFile(filepath.Join(run, "config.yaml"))
	if err != nil {
		return err
	}
	job, err := config.Recorded(text)
	if err != nil {
		return err
	}
	set, err := data.Open(source)
	if err != nil {
		return err
	}
	recipe, err := augment.New(job.Recipe, job.ImageSize)
	if err != nil {
		return err
	}
	log, err := os.Open(filepath.Join(run, "samples.jsonl"))
	if err != nil {
		return err
	}
	defer log.Close()
	worker, decoder := augment.NewWorker(recipe), data.NewDecoder()
	defer decoder.Close()
	scan := bufio.NewScanner(log)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var line struct {
			Step    int64
			Epoch   int
			Samples []int
		}
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("views-%d.npy", line.Step)))
		if err != nil {
			return err
		}
		w, err := npy.NewWriter(f, recipe.ViewLen())
		if err != nil {
			return err
		}
		view := make([]float32, recipe.ViewLen())
		for _, which := range []int{augment.QueryView, augment.KeyView} {
			for _, sample := range line.Samples {
				img, err := set.Train.Decode(sample, decoder)
				if err != nil {
					return err
				}
				worker.View(img, augment.Seed(job.Seed, line.Epoch, sample, which), view)
				if err := w.Add(view); err != nil {
					return err
				}
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return scan.Err()
}
