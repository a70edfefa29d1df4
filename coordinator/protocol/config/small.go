package config

import (
	"fmt"
	"strings"
)

// TooLargeFor says, in one sentence for people, that the queue or the batch is larger
// than a data set of so many training images, with settings that would fit; "" where
// neither is, or where the number is not known (0).
//
// A queue longer than the data holds every image several times, the query's own among
// the negatives; a batch longer than the data holds an image more than once.
func (c Job) TooLargeFor(images int) string {
	if images < 1 {
		return ""
	}
	var what []string
	if c.Queue > images && !c.Supervised {
		what = append(what, fmt.Sprintf("the queue of %d keys holds each of %d training images %.1f times, a query's own too, as negatives", c.Queue, images, float64(c.Queue)/float64(images)))
	}
	if c.Batch > images {
		what = append(what, fmt.Sprintf("a batch of %d has each of %d training images %.1f times", c.Batch, images, float64(c.Batch)/float64(images)))
	}
	if len(what) == 0 {
		return ""
	}
	advice := "more images are needed: the smallest batch of these settings does not fit"
	if flags := c.fitting(images); flags != "" {
		advice = "settings that would fit: " + flags
	}
	return strings.Join(what, ", and ") + "; " + advice + " (docs/loss-health.md#few-images)"
}

// fitting are the flags of a job that fits so many images: a batch of a quarter of them
// at most and a queue of half, where these are too large now; the learning rate in
// proportion to the batch, MoCHi's numbers to the queue. "" where there is none.
func (c Job) fitting(images int) string {
	unit := c.BNGroup * max(1, c.GroupsAtOnce)
	if unit < 1 {
		return ""
	}
	fit := c
	if c.Batch > images/4 {
		fit.Batch = max(1, images/4/unit) * unit
	}
	fit.LR = c.LR * float64(fit.Batch) / float64(c.Batch)
	if c.Queue > images/2 {
		fit.Queue = max(1, images/2/fit.Batch) * fit.Batch
	}
	if fit.Batch > images || fit.Queue > images && !c.Supervised {
		return ""
	}
	scaled := func(n int) int {
		if n == 0 {
			return 0
		}
		return max(1, int(int64(n)*int64(fit.Queue)/int64(c.Queue)))
	}
	fit.MoCHi = MoCHi{N: scaled(c.MoCHi.N), S: scaled(c.MoCHi.S), S2: scaled(c.MoCHi.S2)}
	var flags []string
	add := func(changed bool, name string, value any) {
		if changed {
			flags = append(flags, fmt.Sprintf("--%s %v", name, value))
		}
	}
	add(fit.Batch != c.Batch, "batch", fit.Batch)
	add(fit.Batch != c.Batch, "lr", fmt.Sprintf("%.3g", fit.LR))
	if !c.Supervised {
		add(fit.Queue != c.Queue, "queue", fit.Queue)
		add(fit.MoCHi != c.MoCHi, "mochi", fit.MoCHi)
		if fit.QueueShards > fit.Queue && fit.PairsInShard() {
			fit.QueueShards = fit.Queue
			add(true, "queue-shards", fit.QueueShards)
		}
	}
	if fit.Validate() != nil && c.Validate() == nil {
		return ""
	}
	return strings.Join(flags, " ")
}
