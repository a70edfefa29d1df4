package config

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// What is proposed for few images is a job that is valid, fits, and of which nothing is
// said any more; and nothing is said exactly where queue and batch fit.
func TestTooLargeFor(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	proposed := 0
	for range 3000 {
		c := Default()
		c.BNGroup = 2 << random.IntN(6)
		c.GroupsAtOnce = 1 << random.IntN(3)
		c.Batch = c.BNGroup * c.GroupsAtOnce * (1 + random.IntN(16))
		c.Queue = c.Batch + random.IntN(5000)
		c.Supervised = random.IntN(5) == 0
		if random.IntN(3) == 0 {
			c.QueueCopies, c.Pairs = "2", "shard"
		}
		c.MoCHi = MoCHi{N: 1 + random.IntN(c.Queue), S: random.IntN(300), S2: random.IntN(50)}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		images := 1 + random.IntN(8000)
		text := c.TooLargeFor(images)
		if too := c.Batch > images || c.Queue > images && !c.Supervised; (text != "") != too {
			t.Fatalf("batch %d, queue %d, %d images: %q", c.Batch, c.Queue, images, text)
		}
		_, flags, any := strings.Cut(text, "would fit: ")
		if !any {
			continue
		}
		proposed++
		flags, _, _ = strings.Cut(flags, " (")
		fit := c
		words := strings.Fields(flags)
		for i := 0; i < len(words); i += 2 {
			var err error
			switch words[i] {
			case "--batch":
				_, err = fmt.Sscan(words[i+1], &fit.Batch)
			case "--lr":
				_, err = fmt.Sscan(words[i+1], &fit.LR)
			case "--queue":
				_, err = fmt.Sscan(words[i+1], &fit.Queue)
			case "--queue-shards":
				_, err = fmt.Sscan(words[i+1], &fit.QueueShards)
			case "--mochi":
				fit.MoCHi, err = ParseMoCHi(words[i+1])
			default:
				t.Fatalf("what is %s in %q?", words[i], flags)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := fit.Validate(); err != nil {
			t.Fatalf("%d images, %s: %v", images, flags, err)
		}
		if again := fit.TooLargeFor(images); again != "" {
			t.Fatalf("%d images, after %s: %s", images, flags, again)
		}
	}
	if proposed < 300 {
		t.Errorf("only %d of 3000 had a proposal", proposed)
	}
	c := Default()
	c.Batch, c.BNGroup, c.Queue, c.LR, c.MoCHi = 128, 32, 4096, 0.06, MoCHi{N: 256, S: 256, S2: 32}
	if text := c.TooLargeFor(240); !strings.Contains(text, "17.1 times") || !strings.Contains(text, "--batch 32 --lr 0.015 --queue 96 --mochi 6,6,1 ") {
		t.Error(text)
	}
	if text := c.TooLargeFor(20); !strings.Contains(text, "more images") {
		t.Error(text)
	}
	if text := c.TooLargeFor(0); text != "" {
		t.Errorf("the data are not known: %s", text)
	}
}
